//! How the codes of a tensor are cut into rows and independent blocks. Part of the file format.

use crate::shape::{element_count, matrix_shape};

/// Codes of a block, unless a single row is longer.
const BLOCK_CODES: usize = 1 << 20;
/// Longest row that is taken as it is; longer ones, and vectors, are folded.
const MAX_COLUMNS: usize = 1 << 16;
/// Row length of folded tensors.
const FOLDED_COLUMNS: usize = 1024;

/// The matrix that the coders see: the last row may be incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) count: usize,
    pub(crate) columns: usize,
}

impl Layout {
    pub(crate) fn new(shape: &[usize]) -> Self {
        let count = element_count(shape).expect("checked before");
        let (rows, columns) = matrix_shape(shape);
        let folded = rows < 2 || columns > MAX_COLUMNS;
        Self { count, columns: if folded { FOLDED_COLUMNS } else { columns }.min(count).max(1) }
    }

    pub(crate) fn rows(self) -> usize {
        self.count.div_ceil(self.columns)
    }

    /// Codes of every block but the last: whole rows.
    pub(crate) fn block_codes(self) -> usize {
        self.rows_per_block() * self.columns
    }

    pub(crate) fn rows_per_block(self) -> usize {
        (BLOCK_CODES / self.columns).max(1)
    }

    pub(crate) fn blocks(self) -> usize {
        self.count.div_ceil(self.block_codes())
    }
}
