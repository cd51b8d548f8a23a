//! Matrices in slices.

/// A matrix of `f32`, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a> {
    values: &'a [f32],
    /// From one row of the values to the next.
    stride: usize,
    /// Of the values as they lie.
    width: usize,
    transposed: bool,
}

impl<'a> MatrixView<'a> {
    /// Row-major values with so many columns.
    ///
    /// # Panics
    /// If they are not whole rows.
    pub fn new(values: &'a [f32], columns: usize) -> Self {
        assert!(columns > 0 && values.len().is_multiple_of(columns), "whole rows");
        Self { values, stride: columns, width: columns, transposed: false }
    }

    /// The transpose.
    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// The first columns of a matrix that is not transposed.
    pub(super) fn first_columns(self, count: usize) -> Self {
        assert!(count <= self.width && !self.transposed, "columns of the values");
        Self { width: count, ..self }
    }

    #[inline(always)]
    fn height(&self) -> usize {
        self.values.len() / self.stride
    }

    pub(super) fn rows(&self) -> usize {
        if self.transposed { self.width } else { self.height() }
    }

    pub(super) fn columns(&self) -> usize {
        if self.transposed { self.height() } else { self.width }
    }

    /// The values as they lie in memory.
    pub(super) fn values(&self) -> &'a [f32] {
        self.values
    }

    /// From one row to the next in the values, and from one column to the next.
    pub(super) fn strides(&self) -> [isize; 2] {
        let along = self.stride.cast_signed();
        if self.transposed { [1, along] } else { [along, 1] }
    }

    /// Whether it is the transpose of what lies in memory.
    pub(super) fn is_transposed(&self) -> bool {
        self.transposed
    }

    #[cfg(test)]
    pub(super) fn at(&self, row: usize, column: usize) -> f32 {
        let (y, x) = if self.transposed { (column, row) } else { (row, column) };
        self.values[y * self.stride + x]
    }

    /// The matrix as it lies in memory: of row `y` the values from `x` on, `N` of them, zero where there are none.
    #[inline(always)]
    pub(super) fn run<const N: usize>(&self, y: usize, x: usize) -> [f32; N] {
        let mut run = [0.0; N];
        if y < self.height() && x < self.width {
            let row = &self.values[y * self.stride..][..self.width];
            match row[x..].first_chunk::<N>() {
                Some(whole) => return *whole,
                None => run[..row.len() - x].copy_from_slice(&row[x..]),
            }
        }
        run
    }
}
