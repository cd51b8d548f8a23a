//! Error feedback with steps per column.

use backslash_codec::QuantizedTensor;
use faer::{Mat, MatRef};

use super::covariance::Metric;
use super::feedback::feed_back;
use super::gptq::row_major;
use super::rung::{Gain, LadderOptions, ScaleFit, tensor_of};
use super::scale::round_scale;
use super::scale_fit::{Fit, fit_scales};
use crate::uniform::MAX_CODE;
use crate::{QuantError, Weights};

/// Steps α_i = c/L_ii, at which a rounding error costs c²/12 in every column, with c such that their geometric
/// mean is `step`: the distortion is step²/12·GM(L_ii²), where equal steps have step²/12·AM(L_ii²).
///
/// Steps are on the grid of stored scales already here, so that the recursion knows the real ones. Dead inputs
/// do not count and have the step itself.
pub(super) fn column_steps(
    weights: &Weights<'_>,
    metric: &Metric,
    step: f32,
) -> Result<Vec<f64>, QuantError> {
    let live = || (0..metric.dead.len()).filter(|column| !metric.dead[*column]);
    let pivot = |column: usize| metric.factor[(column, column)];
    let mean_log = live().map(|column| pivot(column).ln()).sum::<f64>() / live().count() as f64;
    let mut steps = vec![f64::from(step); metric.dead.len()];
    for column in live() {
        steps[column] *= round_scale(mean_log.exp() / pivot(column));
    }
    let finest = steps.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = weights.data.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
    let codes = f64::from(largest) / finest;
    if codes >= f64::from(MAX_CODE) {
        let least = step * (2.0 * codes / f64::from(MAX_CODE)) as f32;
        let name = weights.name.to_owned();
        return Err(QuantError::StepTooFine { name, step, weight: largest, least });
    }
    Ok(steps)
}

/// Codes, one column per input, and the step at which each column is read back.
pub(super) struct Columns {
    pub codes: Mat<f64>,
    pub steps: Vec<f64>,
}

/// Runs the recursion: `choose(column, targets, codes)` sets the codes of a column for targets in units of its step, and
/// the column is read back at the step γ_i·α_i of least squared error, on the grid of scales; with an unbiased gain at
/// α_i itself.
pub(super) fn recurse(
    weights: MatRef<'_, f64>,
    factor: MatRef<'_, f64>,
    dead: &[bool],
    steps: &[f64],
    step: f32,
    gain: Gain,
    mut choose: impl FnMut(usize, &[f64], &mut [f64]),
) -> Columns {
    let mut codes = Mat::zeros(weights.nrows(), weights.ncols());
    let mut read_back = match gain {
        Gain::LeastSquares => vec![f64::from(step); steps.len()],
        Gain::Unbiased => steps.to_vec(),
    };
    let limit = f64::from(MAX_CODE) - 2.0;
    let mut scaled = Vec::with_capacity(weights.nrows());
    feed_back(weights, factor, |column, targets, quantized| {
        let codes = codes.col_as_slice_mut(column);
        let (mut product, mut square) = (0.0, 0.0);
        if !dead[column] {
            let within = |target: &f64| (target / steps[column]).clamp(-limit, limit);
            scaled.clear();
            scaled.extend(targets.iter().map(within));
            choose(column, &scaled, codes);
            for (target, code) in targets.iter().zip(codes.iter()) {
                product += *code * target;
                square += *code * *code;
            }
        }
        if square > 0.0 && gain == Gain::LeastSquares {
            let gain = (product / square / steps[column]).clamp(Fit::LEAST_GAIN, Fit::MOST_GAIN);
            read_back[column] = on_grid(gain * steps[column], step);
        }
        let step = read_back[column];
        quantized.iter_mut().zip(codes).for_each(|(value, code)| *value = *code * step);
    });
    Columns { codes, steps: read_back }
}

/// The nearest of the steps that a column can be read back at.
pub(super) fn on_grid(column_step: f64, step: f32) -> f64 {
    f64::from(step) * round_scale(column_step / f64::from(step))
}

pub(super) fn quantize(
    weights: &Weights<'_>,
    matrix: &Mat<f64>,
    metric: &Metric,
    step: f32,
    options: &LadderOptions,
) -> Result<QuantizedTensor, QuantError> {
    let steps = column_steps(weights, metric, step)?;
    let round = |_: usize, targets: &[f64], codes: &mut [f64]| {
        codes.iter_mut().zip(targets).for_each(|(code, target)| *code = target.round_ties_even());
    };
    let factor = metric.factor.as_ref();
    let columns = recurse(matrix.as_ref(), factor, &metric.dead, &steps, step, options.gain, round);
    Ok(finish(weights, matrix, metric, columns, step, options))
}

/// Fits the scales, unless codes are to be read back where they are, and makes the tensor.
pub(super) fn finish(
    weights: &Weights<'_>,
    matrix: &Mat<f64>,
    metric: &Metric,
    columns: Columns,
    step: f32,
    options: &LadderOptions,
) -> QuantizedTensor {
    let codes = row_major(&columns.codes);
    let scale_fit = match options.gain {
        Gain::LeastSquares => options.scale_fit,
        Gain::Unbiased => ScaleFit::Recursion,
    };
    let fit = fit_scales(matrix, columns, metric, step, scale_fit);
    let single = |scales: Vec<f64>| scales.into_iter().map(|scale| scale as f32).collect();
    QuantizedTensor {
        row_scales: fit.row_scales.map(single),
        column_scales: Some(single(
            fit.steps.iter().map(|column| column / f64::from(step)).collect(),
        )),
        ..tensor_of(weights, codes, step)
    }
}
