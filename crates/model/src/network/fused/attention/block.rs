//! The part of a unit whose scores exist at the same time.

use super::super::matrix::MatrixView;
use super::kernel::Shape;

/// Queries of a block.
pub(super) const BLOCK: usize = 64;

/// Queries that are treated together, and how many keys the last of them may see.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) limit: usize,
}

impl Block {
    /// All of a unit, of the last one as many rows as make a multiple of `side`.
    pub(super) fn of(shape: Shape, side: usize) -> impl Iterator<Item = Self> {
        (0..shape.tokens).step_by(BLOCK).map(move |start| {
            let rows = (shape.tokens - start).min(BLOCK).next_multiple_of(side);
            Self { start, rows, limit: start + rows }
        })
    }

    /// Its rows of a matrix with so many columns.
    pub(super) fn rows_of(self, x: &[f32], columns: usize) -> MatrixView<'_> {
        MatrixView::new(&x[self.start * columns..][..self.rows * columns], columns)
    }

    /// The rows of all keys that it may see, of a matrix with so many columns.
    pub(super) fn keys_of(self, x: &[f32], columns: usize) -> MatrixView<'_> {
        MatrixView::new(&x[..self.limit * columns], columns)
    }

    /// Its part of a matrix of scores.
    pub(super) fn seen(self, scores: &[f32], tokens: usize) -> MatrixView<'_> {
        MatrixView::new(&scores[..self.rows * tokens], tokens).first_columns(self.limit)
    }
}
