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
        self.hashed(table, |at| pair_hash(self.before(at, 1), self.ids[at]))
    }

    /// The row of the table for each token and the two before it in its row, `[tokens, channels]`.
    pub(super) fn trigrams(&self, table: Tensor<2>) -> Tensor<2> {
        self.hashed(table, |at| trigram_hash(self.before(at, 2), self.before(at, 1), self.ids[at]))
    }

    /// Positions of the tokens of each expert of a block: that of a token is ⌊experts · h / 2^32⌋, where h is the hash of
    /// the pair of block + 1 and id. Ids that follow one another are spread evenly by it (Knuth, The Art of Computer Programming 3,
    /// section 6.4, theorem S).
    pub(super) fn positions_by_expert(&self, experts: usize, block: usize) -> Vec<Vec<i32>> {
        let mut positions = vec![Vec::new(); experts];
        for (at, id) in (0..).zip(self.ids) {
            positions[place(pair_hash(block as u64 + 1, *id), experts)].push(at);
        }
        positions
    }

    /// One more than the token that stands so many before another in its row, 0 where there is none.
    fn before(&self, at: usize, distance: usize) -> u64 {
        match at % self.row >= distance {
            true => u64::from(self.ids[at - distance]) + 1,
            false => 0,
        }
    }

    /// For each token the row ⌊rows · h / 2^32⌋ of the table, where h is the hash of its position.
    fn hashed(&self, table: Tensor<2>, hash: impl Fn(usize) -> u64) -> Tensor<2> {
        let [rows, _] = table.dims();
        let chosen = (0..self.ids.len()).map(|at| place(hash(at), rows) as i32);
        let chosen = indices(chosen, &table.device());
        table.select(0, chosen)
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

/// 2^64 over the golden ratio.
const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// The hash of a number and a token: the upper 32 bits of (2^16 · number + token) · φ mod 2^64, φ being [`GOLDEN_RATIO`].
///
/// Source: Knuth, The Art of Computer Programming 3, section 6.4, multiplicative hashing by the golden ratio.
fn pair_hash(number: u64, token: u16) -> u64 {
    (number << 16 | u64::from(token)).wrapping_mul(GOLDEN_RATIO) >> 32
}

/// ⌊count · hash / 2^32⌋: which of so many a hash of 32 bits chooses.
fn place(hash: u64, count: usize) -> usize {
    ((hash * count as u64) >> 32) as usize
}

/// The hash of a triple of tokens: the upper 32 bits of (z ⊕ ⌊z / 2^29⌋) · 0xBF58476D1CE4E5B9 mod 2^64, where z is
/// (2^40 · second before + 2^20 · before + token) · φ mod 2^64, φ being [`GOLDEN_RATIO`]. A product alone would choose rows by
/// a sum of one number for each of the three, and the triples of a row would differ by few amounts.
///
/// Source: the finaliser of Steele, Lea and Flood, Fast splittable pseudorandom number generators (2014), with one round.
fn trigram_hash(second_before: u64, before: u64, token: u16) -> u64 {
    let key = second_before << 40 | before << 20 | u64::from(token);
    let mixed = key.wrapping_mul(GOLDEN_RATIO);
    (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32
}

/// Numbers of rows, for a selection of them.
pub(super) fn indices(values: impl Iterator<Item = i32>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = values.collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
