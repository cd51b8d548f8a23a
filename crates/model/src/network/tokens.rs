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

fn indices(values: impl Iterator<Item = i32>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
