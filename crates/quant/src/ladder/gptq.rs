//! Error feedback with one step for all columns.

use backslash_codec::{QuantizedTensor, Reconstruction};
use faer::{Mat, MatRef};

use super::covariance::Metric;
use super::feedback::{feed_back, inner, product};
use super::levels::LevelProducts;
use super::rung::{Gain, tensor_of};
use crate::Weights;
use crate::uniform::MAX_CODE;

/// Codes with the reconstruction Δ·(|q| − θ), θ being estimated in a first pass in which it is 0: a recursion
/// that knows where codes will be read back passes on the errors that will really be made. In the end step and
/// shrink are fitted under the metric. With an unbiased gain codes are read back at multiples of the step.
pub(super) fn quantize(
    weights: &Weights<'_>,
    matrix: &Mat<f64>,
    metric: &Metric,
    step: f32,
    gain: Gain,
) -> QuantizedTensor {
    let factor = metric.factor.as_ref();
    let (mut codes, shrink) =
        recurse(matrix.as_ref(), factor, f64::from(step), Reconstruction::Uniform);
    if gain == Gain::Unbiased {
        return tensor_of(weights, row_major(&codes), step);
    }
    if shrink != Reconstruction::Uniform {
        codes = recurse(matrix.as_ref(), factor, f64::from(step), shrink).0;
    }
    let (step, reconstruction) = fit(matrix, &codes, metric, step);
    QuantizedTensor { reconstruction, ..tensor_of(weights, row_major(&codes), step) }
}

/// Codes of nearest multiples of `step`, read back by `reconstruction` while errors are passed on; and the shrink
/// that suits the targets they were chosen for, columns weighted by what their errors cost.
pub(super) fn recurse(
    weights: MatRef<'_, f64>,
    factor: MatRef<'_, f64>,
    step: f64,
    reconstruction: Reconstruction,
) -> (Mat<f64>, Reconstruction) {
    let mut codes = Mat::zeros(weights.nrows(), weights.ncols());
    let (mut excess, mut count) = (0.0, 0.0);
    let limit = f64::from(MAX_CODE) - 1.0;
    let theta = match reconstruction {
        Reconstruction::Uniform => 0.0,
        Reconstruction::Shrink(shrink) => f64::from(shrink) / 256.0,
    };
    feed_back(weights, factor, |column, targets, quantized| {
        let importance = factor[(column, column)].powi(2);
        let codes = codes.col_as_slice_mut(column);
        for ((target, code), quantized) in targets.iter().zip(codes).zip(quantized) {
            *code = (target / step).round_ties_even().clamp(-limit, limit);
            *quantized = 0.0;
            if *code != 0.0 {
                *quantized = step * (*code - theta * code.signum());
                excess += importance * (code.abs() - (target / step).abs());
                count += importance;
            }
        }
    });
    let shrink = match (256.0 * excess / count).round() as u8 {
        0 => Reconstruction::Uniform,
        shrink => Reconstruction::Shrink(shrink),
    };
    (codes, shrink)
}

fn fit(weights: &Mat<f64>, codes: &Mat<f64>, metric: &Metric, step: f32) -> (f32, Reconstruction) {
    let sign = |code: f64| if code == 0.0 { 0.0 } else { code.signum() };
    let signs =
        Mat::from_fn(codes.nrows(), codes.ncols(), |row, column| sign(codes[(row, column)]));
    let weighted_codes = product(codes.as_ref(), metric.matrix.as_ref());
    let weighted_signs = product(signs.as_ref(), metric.matrix.as_ref());
    LevelProducts {
        codes_codes: inner(weighted_codes.as_ref(), codes.as_ref()),
        codes_signs: inner(weighted_codes.as_ref(), signs.as_ref()),
        signs_signs: inner(weighted_signs.as_ref(), signs.as_ref()),
        weights_codes: inner(weighted_codes.as_ref(), weights.as_ref()),
        weights_signs: inner(weighted_signs.as_ref(), weights.as_ref()),
    }
    .fit(step)
}

/// Codes in the order of the tensor.
pub(super) fn row_major(codes: &Mat<f64>) -> Vec<i32> {
    let row = |row: usize| (0..codes.ncols()).map(move |column| codes[(row, column)] as i32);
    (0..codes.nrows()).flat_map(row).collect()
}
