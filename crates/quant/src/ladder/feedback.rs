//! The recursion that passes the error of quantised columns on to the columns that are still open.

use faer::{Accum, Mat, MatMut, MatRef, Par, linalg::matmul::matmul};

/// Columns whose feedback from all later ones is computed in one matrix product.
const BLOCK: usize = 32;
/// Rows below which a product is not split between threads.
const LEAST_ROWS: usize = 128;

/// Quantises columns from the last to the first under the metric L·Lᵀ.
///
/// With E = W − Ŵ the weighted error is ‖E·L‖², and column i of E·L has only errors of columns j ≥ i in it.
/// So once the later columns are fixed, the best column i would be
///
///   u_i = w_i + Σ_{j>i} e_j·L_ji/L_ii,
///
/// and missing it by ε costs L_ii²·ε². `quantize_column(i, u_i, ŵ_i)` sets ŵ_i. This is GPTQ (arXiv 2210.17323,
/// algorithm 1) with the columns in reverse, which needs no inverse: its rows of the Cholesky factor of the
/// inverse are those of L⁻¹.
pub(super) fn feed_back(
    weights: MatRef<'_, f64>,
    factor: MatRef<'_, f64>,
    mut quantize_column: impl FnMut(usize, &[f64], &mut [f64]),
) {
    let (rows, columns) = weights.shape();
    let mut errors = Mat::<f64>::zeros(rows, columns);
    let mut feedback = Mat::<f64>::zeros(rows, BLOCK.min(columns));
    let mut quantized = vec![0.0; rows];
    let mut end = columns;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let done = columns - end;
        multiply(
            feedback.subcols_mut(0, end - start),
            errors.subcols(end, done),
            factor.submatrix(end, start, done, end - start),
        );
        for column in (start..end).rev() {
            let target = feedback.col_as_slice_mut(column - start);
            for later in column + 1..end {
                let coefficient = factor[(later, column)];
                let errors = errors.col_as_slice(later);
                target.iter_mut().zip(errors).for_each(|(sum, error)| *sum += coefficient * error);
            }
            let pivot = 1.0 / factor[(column, column)];
            let weights = weights.col(column);
            for (value, weight) in target.iter_mut().zip(weights.iter()) {
                *value = weight + *value * pivot;
            }
            quantize_column(column, target, &mut quantized);
            let errors = errors.col_as_slice_mut(column).iter_mut();
            for (error, (weight, quantized)) in errors.zip(weights.iter().zip(&quantized)) {
                *error = weight - quantized;
            }
        }
        end = start;
    }
}

/// The product of two matrices, its rows divided between threads.
pub(super) fn multiply(
    mut product: MatMut<'_, f64>,
    left: MatRef<'_, f64>,
    right: MatRef<'_, f64>,
) {
    let rows = product.nrows();
    if left.ncols() == 0 {
        product.fill(0.0);
    } else if rows < 2 * LEAST_ROWS {
        matmul(product, Accum::Replace, left, right, 1.0, Par::Seq);
    } else {
        let (upper, lower) = product.split_at_row_mut(rows / 2);
        let (left_upper, left_lower) = left.split_at_row(rows / 2);
        rayon::join(|| multiply(upper, left_upper, right), || multiply(lower, left_lower, right));
    }
}

/// A new matrix for [`multiply`].
pub(super) fn product(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(left.nrows(), right.ncols());
    multiply(product.as_mut(), left, right);
    product
}

/// Sum of the products of equal entries.
pub(super) fn inner(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> f64 {
    let columns = left.col_iter().zip(right.col_iter());
    columns
        .map(|(left, right)| left.iter().zip(right.iter()).map(|(a, b)| a * b).sum::<f64>())
        .sum()
}
