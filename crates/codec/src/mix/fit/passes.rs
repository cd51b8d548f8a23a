//! The passes over all codes, compiled once per instruction set. Sums run in lanes of a fixed number and products are rounded
//! before they are added, so that the result is the same on every machine.

use multiversion::multiversion;

use super::{FLOOR, Residual};

/// Sums that run side by side.
const LANES: usize = 8;

/// The product of every row of the codes with weights of the columns.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(super) fn times_columns(codes: &[i32], weights: &[f64], products: &mut [f64]) {
    for (product, codes) in products.iter_mut().zip(codes.chunks_exact(weights.len())) {
        *product = sum_over(codes, weights, |code, weight| f64::from(code) * weight);
    }
}

/// The sum of the rows of the codes, each times its weight.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(super) fn times_rows(codes: &[i32], weights: &[f64], products: &mut [f64]) {
    for (weight, codes) in weights.iter().zip(codes.chunks_exact(products.len())) {
        for (product, &code) in products.iter_mut().zip(codes) {
            *product += weight * f64::from(code);
        }
    }
}

/// Scales of the rows, the root of their mean square with a weight for each column; what the columns have of the energies of
/// rows so scaled is added to `sums`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(super) fn add_energies(
    residual: &Residual,
    weights: &[f64],
    scales: &mut [f64],
    sums: &mut [f64],
) {
    let columns = weights.len();
    let mut squares = vec![0.0; columns];
    for (row, (scale, codes)) in
        scales.iter_mut().zip(residual.codes.chunks_exact(columns)).enumerate()
    {
        squares.iter_mut().zip(codes).for_each(|(value, &code)| *value = f64::from(code));
        for component in &residual.components {
            let share = component.unit() * f64::from(component.rows[row]);
            for (value, &column) in squares.iter_mut().zip(&component.columns) {
                *value -= share * f64::from(column);
            }
        }
        squares.iter_mut().for_each(|value| *value *= *value);
        let energy = sum_over(&squares, weights, |square, weight| square * weight);
        let mean_square = energy / columns as f64 + FLOOR;
        *scale = mean_square.sqrt();
        let inverse = 1.0 / mean_square;
        sums.iter_mut().zip(&squares).for_each(|(sum, square)| *sum += square * inverse);
    }
}

#[inline(always)]
fn sum_over<T: Copy>(values: &[T], weights: &[f64], weigh: impl Fn(T, f64) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (values, rest) = values.as_chunks::<LANES>();
    let (weights, rest_of_weights) = weights.as_chunks::<LANES>();
    for (values, weights) in values.iter().zip(weights) {
        for lane in 0..LANES {
            lanes[lane] += weigh(values[lane], weights[lane]);
        }
    }
    for (lane, (&value, &weight)) in lanes.iter_mut().zip(rest.iter().zip(rest_of_weights)) {
        *lane += weigh(value, weight);
    }
    lanes.iter().sum()
}
