//! Products of parts of matrices, on this thread.

use gemm::{Parallelism, gemm};

/// A matrix, or its transpose, in a slice.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// Where a product goes: row-major, with a stride.
pub(super) struct Place<'a> {
    values: &'a mut [f32],
    stride: usize,
}

impl<'a> Operand<'a> {
    /// All whole rows of a row-major matrix of a stride.
    pub(super) fn new(values: &'a [f32], stride: usize) -> Self {
        let rows = values.len() / stride;
        Self { values, rows, columns: stride, row_stride: stride, column_stride: 1 }
    }

    /// Its first rows and columns.
    ///
    /// # Panics
    /// If it has not so many.
    pub(super) fn sized(self, rows: usize, columns: usize) -> Self {
        assert!(rows <= self.rows && columns <= self.columns, "parts of the matrix");
        Self { rows, columns, ..self }
    }

    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> Place<'a> {
    pub(super) fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self { values, stride }
    }
}

/// C ← A·B.
pub(super) fn set_product(left: Operand<'_>, right: Operand<'_>, place: Place<'_>) {
    multiply(left, right, place, None);
}

/// C ← C + A·B.
pub(super) fn add_product(left: Operand<'_>, right: Operand<'_>, place: Place<'_>) {
    multiply(left, right, place, Some(1.0));
}

/// C ← `keep`·C + A·B.
///
/// # Panics
/// If A has not as many columns as B has rows, or the result does not fit.
fn multiply(left: Operand<'_>, right: Operand<'_>, place: Place<'_>, keep: Option<f32>) {
    let (rows, inner, columns) = (left.rows, left.columns, right.columns);
    assert_eq!(inner, right.rows, "columns of A, rows of B");
    let Place { values, stride } = place;
    assert!(columns <= stride && rows * stride <= values.len(), "the result fits");
    // SAFETY: operands are parts of their slices, as `Operand` checks, and so is the result, which is asserted.
    #[allow(unsafe_code)]
    unsafe {
        gemm(
            rows,
            columns,
            inner,
            values.as_mut_ptr(),
            1,
            stride.cast_signed(),
            keep.is_some(),
            left.values.as_ptr(),
            left.column_stride.cast_signed(),
            left.row_stride.cast_signed(),
            right.values.as_ptr(),
            right.column_stride.cast_signed(),
            right.row_stride.cast_signed(),
            keep.unwrap_or(0.0),
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::fused::check::random;

    #[test]
    fn parts_and_transposes_multiply() {
        let (a, b) = (random(40 * 30, 1), random(40 * 30, 2));
        for [rows, inner, columns] in [[1, 1, 1], [7, 20, 13], [40, 30, 30]] {
            let left = Operand::new(&a, 30).sized(rows, inner);
            for right in [
                Operand::new(&b, 40).sized(inner, columns),
                Operand::new(&b, 40).sized(columns.min(30), inner).transposed(),
            ] {
                let at = |x: Operand<'_>, row: usize, column: usize| {
                    f64::from(x.values[row * x.row_stride + column * x.column_stride])
                };
                let mut out = vec![2.0; 40 * 35];
                set_product(left, right, Place::new(&mut out, 35));
                add_product(left, right, Place::new(&mut out, 35));
                for row in 0..rows {
                    for column in 0..right.columns {
                        let terms = (0..inner).map(|k| at(left, row, k) * at(right, k, column));
                        let expected = 2.0 * terms.sum::<f64>();
                        let found = f64::from(out[row * 35 + column]);
                        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
                    }
                    // Nothing beyond the result is touched.
                    assert!(
                        out[row * 35 + right.columns..(row + 1) * 35].iter().all(|x| *x == 2.0)
                    );
                }
            }
        }
    }
}
