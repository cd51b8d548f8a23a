//! Products of matrices.

use gemm::{Parallelism, gemm};

use super::bf16;
use super::matrix::MatrixView;
use crate::Precision;

/// Where a product goes: row-major, with a stride.
pub(super) struct Place<'a> {
    values: &'a mut [f32],
    stride: usize,
}

impl<'a> Place<'a> {
    pub(super) fn new(values: &'a mut [f32], stride: usize) -> Self {
        Self { values, stride }
    }
}

/// A·B row-major, of operands in a precision and summed in `f32`; the same for any number of threads.
///
/// # Panics
/// If A has not as many columns as B has rows.
pub(super) fn product(
    precision: Precision,
    left: MatrixView<'_>,
    right: MatrixView<'_>,
) -> Vec<f32> {
    match precision {
        Precision::Fp32 => product_in_f32(left, right),
        Precision::Bf16 => bf16::product(left, right),
    }
}

fn product_in_f32(left: MatrixView<'_>, right: MatrixView<'_>) -> Vec<f32> {
    let (rows, columns) = (left.rows(), right.columns());
    let mut result = Vec::with_capacity(rows * columns);
    // SAFETY: there is room for all rows, and a product that is not added to anything is written to all of it.
    #[allow(unsafe_code)]
    unsafe {
        multiply(left, right, result.as_mut_ptr(), columns, false, Parallelism::Rayon(0));
        result.set_len(rows * columns);
    }
    result
}

/// C ← A·B, on this thread.
pub(super) fn set_product(left: MatrixView<'_>, right: MatrixView<'_>, place: Place<'_>) {
    multiply_here(left, right, place, false);
}

/// C ← C + A·B, on this thread.
pub(super) fn add_product(left: MatrixView<'_>, right: MatrixView<'_>, place: Place<'_>) {
    multiply_here(left, right, place, true);
}

/// # Panics
/// If the result does not fit.
fn multiply_here(left: MatrixView<'_>, right: MatrixView<'_>, place: Place<'_>, add: bool) {
    let Place { values, stride } = place;
    assert!(right.columns() <= stride && left.rows() * stride <= values.len(), "the result fits");
    // SAFETY: as asserted.
    #[allow(unsafe_code)]
    unsafe {
        multiply(left, right, values.as_mut_ptr(), stride, add, Parallelism::None);
    }
}

/// C ← A·B, or C ← C + A·B.
///
/// # Panics
/// If A has not as many columns as B has rows.
///
/// # Safety
/// There must be room for all rows of the result, `stride` apart, and values where they are added to.
#[allow(unsafe_code)]
unsafe fn multiply(
    left: MatrixView<'_>,
    right: MatrixView<'_>,
    result: *mut f32,
    stride: usize,
    add: bool,
    parallelism: Parallelism,
) {
    assert_eq!(left.columns(), right.rows(), "columns of A, rows of B");
    let (left_strides, right_strides) = (left.strides(), right.strides());
    // SAFETY: the operands' sizes and strides are those of their slices, and the result is the caller's.
    unsafe {
        gemm(
            left.rows(),
            right.columns(),
            left.columns(),
            result,
            1,
            stride.cast_signed(),
            add,
            left.values().as_ptr(),
            left_strides[1],
            left_strides[0],
            right.values().as_ptr(),
            right_strides[1],
            right_strides[0],
            if add { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::fused::check::{random, with_threads};

    fn expected(left: MatrixView<'_>, right: MatrixView<'_>, row: usize, column: usize) -> f64 {
        let terms = (0..left.columns())
            .map(|k| f64::from(left.at(row, k)) * f64::from(right.at(k, column)));
        terms.sum()
    }

    /// Both of two matrices and their transposes, of the same sizes.
    fn operands<'a>(
        [rows, inner, columns]: [usize; 3],
        a: &'a [f32],
        b: &'a [f32],
    ) -> impl Iterator<Item = (MatrixView<'a>, MatrixView<'a>)> {
        let (a, b) = (&a[..rows * inner], &b[..inner * columns]);
        let lefts = [MatrixView::new(a, inner), MatrixView::new(a, rows).transposed()];
        let rights = [MatrixView::new(b, columns), MatrixView::new(b, inner).transposed()];
        lefts.into_iter().flat_map(move |left| rights.into_iter().map(move |right| (left, right)))
    }

    #[test]
    fn products_are_set_and_added_within_their_place() {
        let (a, b) = (random(1200, 1), random(1200, 2));
        for sizes in [[1, 1, 1], [7, 20, 13], [40, 30, 30]] {
            for (left, right) in operands(sizes, &a, &b) {
                let mut out = vec![2.0; 40 * 35];
                set_product(left, right, Place::new(&mut out, 35));
                add_product(left, right, Place::new(&mut out, 35));
                for (at, found) in out.iter().enumerate() {
                    let (row, column) = (at / 35, at % 35);
                    match row < left.rows() && column < right.columns() {
                        true => {
                            let expected = 2.0 * expected(left, right, row, column);
                            assert!(
                                (f64::from(*found) - expected).abs() < 1e-4,
                                "{found} {expected}"
                            );
                        }
                        false => assert_eq!(*found, 2.0),
                    }
                }
            }
        }
    }

    #[test]
    fn first_columns_of_a_matrix_multiply() {
        let (a, b) = (random(5 * 9, 1), random(4 * 3, 2));
        let left = MatrixView::new(&a, 9).first_columns(4);
        let product = product(Precision::Fp32, left, MatrixView::new(&b, 3));
        for (at, found) in product.iter().enumerate() {
            let expected = expected(left, MatrixView::new(&b, 3), at / 3, at % 3);
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (a, b) = (random(300 * 700, 1), random(700 * 400, 2));
        for (left, right) in operands([300, 700, 400], &a, &b) {
            let multiply = || product(Precision::Fp32, left, right);
            let found = with_threads(1, multiply);
            assert_eq!(found, with_threads(2, multiply));
            for at in [0, 299 * 400 + 17, 300 * 400 - 1] {
                let expected = expected(left, right, at / 400, at % 400);
                assert!((f64::from(found[at]) - expected).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn empty_products_are_empty_or_zero() {
        let none = MatrixView::new(&[], 3);
        let some = [1.0; 6];
        assert_eq!(product(Precision::Fp32, none, MatrixView::new(&some, 2)), [0.0; 0]);
        let zero = product(Precision::Fp32, none.transposed(), MatrixView::new(&[], 2));
        assert_eq!(zero, [0.0; 6]);
    }
}
