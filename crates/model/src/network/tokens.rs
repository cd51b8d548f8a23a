//! Token ids on their way into a network.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Whole rows of token ids that the network knows.
pub(super) struct Tokens<'a> {
    pub(super) ids: &'a [u16],
    /// Tokens of a row.
    pub(super) row: usize,
}

impl<'a> Tokens<'a> {
    /// # Panics
    /// If there are no whole rows, or an id is outside the vocabulary.
    pub(super) fn new(ids: &'a [u16], row: usize, vocabulary_size: usize) -> Self {
        assert!(row > 0 && ids.len().is_multiple_of(row), "whole rows of tokens");
        assert_known(ids, vocabulary_size);
        Self { ids, row }
    }

    /// The row of the table for each token, `[tokens, channels]`.
    pub(super) fn embedded(&self, table: Tensor<2>) -> Tensor<2> {
        let ids = indices(self.ids.iter().map(|id| i32::from(*id)), &table.device());
        table.select(0, ids)
    }

    /// The row of the table for each token and the one before it in its row, `[tokens, channels]`.
    pub(super) fn bigrams(&self, table: Tensor<2>) -> Tensor<2> {
        let [rows, _] = table.dims();
        let before = |at: usize| (!at.is_multiple_of(self.row)).then(|| self.ids[at - 1]);
        let hashes = self.ids.iter().enumerate().map(|(at, id)| bigram_row(before(at), *id, rows));
        let hashes = indices(hashes, &table.device());
        table.select(0, hashes)
    }

    /// The rows of `x`, one per token, that belong to tokens of this id.
    pub(super) fn select(&self, id: u16, x: Tensor<2>) -> Tensor<2> {
        let found = (0..self.ids.len()).filter(|at| self.ids[*at] == id).map(|at| at as i32);
        let found = indices(found, &x.device());
        x.select(0, found)
    }

    /// The row of the table for each token's position in its row, `[tokens, channels]`.
    ///
    /// # Panics
    /// If a row is longer than the table.
    pub(super) fn positions(&self, table: Tensor<2>) -> Tensor<2> {
        let [known, _] = table.dims();
        assert!(self.row <= known, "rows of {} tokens, positions for {known}", self.row);
        let positions = (0..self.ids.len()).map(|at| (at % self.row) as i32);
        let positions = indices(positions, &table.device());
        table.select(0, positions)
    }
}

/// # Panics
/// If an id is outside the vocabulary.
pub(super) fn assert_known(ids: &[u16], vocabulary_size: usize) {
    let largest = ids.iter().copied().max().unwrap_or(0);
    assert!(usize::from(largest) < vocabulary_size, "token {largest} is outside");
}

/// The row of a pair of tokens in a table of so many: ⌊rows · h / 2^32⌋, where h are the upper 32 bits of
/// (2^16 · (before + 1) + token) · 0x9E3779B97F4A7C15 mod 2^64, and before + 1 is 0 where none is before.
///
/// Source: Knuth, The Art of Computer Programming 3, section 6.4, multiplicative hashing by the golden ratio.
fn bigram_row(before: Option<u16>, token: u16, rows: usize) -> i32 {
    const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;
    let before = before.map_or(0, |id| u64::from(id) + 1);
    let hash = (before << 16 | u64::from(token)).wrapping_mul(GOLDEN_RATIO) >> 32;
    ((hash * rows as u64) >> 32) as i32
}

fn indices(values: impl Iterator<Item = i32>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
