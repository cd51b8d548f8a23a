//! Rate-aware choice of codes without error feedback.

use backslash_codec::{QuantizedTensor, Reconstruction};
use rayon::prelude::*;

use super::Covariance;
use super::levels::LevelProducts;
use super::rate_table::{RateTable, cheapest_code};
use super::rung::{Gain, THEORETICAL_SLOPE, tensor_of};
use crate::Weights;

/// Rounds after which codes that still change are taken as they are.
const MAX_ROUNDS: u32 = 12;
/// Share of the cost of the round before at which there is no use in another.
const SETTLED: f64 = 0.9998;
/// Weights whose products are summed at a time, about.
const CHUNK: usize = 1 << 16;

/// Minimises Σ d_j·(w/Δ − r(q))² + λ·bits(q) over codes near w/Δ, the table of code lengths and the values r of
/// the codes, in turn, until the cost settles; with an unbiased gain r(q) = q. λ is `strength`·(ln 2)/6.
///
/// d_j is the power of the input of column j over its mean, if it is known: codes of inputs that are nearly silent
/// are the ones to save on. Without it the best thresholds are hardly better than the nearest code, read back at
/// the mean of its cell.
pub(super) fn quantize(
    weights: &Weights<'_>,
    columns: usize,
    metric: Option<&Covariance>,
    step: f32,
    strength: f64,
    gain: Gain,
) -> QuantizedTensor {
    let powers = metric.map_or_else(|| vec![1.0; columns], relative_powers);
    let codes_per_unit = 1.0 / step;
    let mut codes: Vec<i32> = weights
        .data
        .par_iter()
        .map(|weight| (weight * codes_per_unit).round_ties_even() as i32)
        .collect();
    let chunk = columns * (CHUNK / columns).max(1);
    let levels_of = |codes: &[i32]| match gain {
        Gain::LeastSquares => fit(weights.data, codes, &powers, chunk, step),
        Gain::Unbiased => (step, Reconstruction::Uniform),
    };
    let mut levels = levels_of(&codes);
    let mut last = f64::INFINITY;
    for _ in 0..MAX_ROUNDS {
        let table = RateTable::of(codes.iter().copied());
        let (gain, reconstruction) = (levels.0 / step, levels.1);
        let value = |code: i32| f64::from(gain * reconstruction.value(code));
        let costs: Vec<f64> = codes
            .par_chunks_mut(columns)
            .zip(weights.data.par_chunks(columns))
            .map(|(codes, weights)| {
                let mut total = 0.0;
                for ((code, weight), power) in codes.iter_mut().zip(weights).zip(&powers) {
                    let target = f64::from(weight * codes_per_unit);
                    let slope = strength * THEORETICAL_SLOPE / power;
                    let cost;
                    (*code, cost) = cheapest_code(target, value, |code| slope * table.bits(code));
                    total += power * cost;
                }
                total
            })
            .collect();
        levels = levels_of(&codes);
        // In the order of the rows: the sum must not depend on the number of threads.
        let cost: f64 = costs.iter().sum();
        if cost >= SETTLED * last {
            break;
        }
        last = cost;
    }
    let (step, reconstruction) = levels;
    QuantizedTensor { reconstruction, ..tensor_of(weights, codes, step) }
}

/// Least power of an input, over the mean.
const LEAST_POWER: f64 = 1e-3;

/// Diagonal of the covariance over its mean.
fn relative_powers(metric: &Covariance) -> Vec<f64> {
    let powers = metric.diagonal();
    let mean = powers.iter().sum::<f64>() / powers.len().max(1) as f64;
    let relative = |power: &f64| if mean > 0.0 { (power / mean).max(LEAST_POWER) } else { 1.0 };
    powers.iter().map(relative).collect()
}

fn fit(
    weights: &[f32],
    codes: &[i32],
    powers: &[f64],
    chunk: usize,
    step: f32,
) -> (f32, Reconstruction) {
    let chunks: Vec<LevelProducts> = weights
        .par_chunks(chunk)
        .zip(codes.par_chunks(chunk))
        .map(|(weights, codes)| {
            let mut products = LevelProducts::default();
            // A chunk holds whole rows.
            for ((weight, code), power) in weights.iter().zip(codes).zip(powers.iter().cycle()) {
                products.add(*power, f64::from(*weight), *code);
            }
            products
        })
        .collect();
    // In the order of the weights: the sum must not depend on the number of threads.
    chunks.into_iter().fold(LevelProducts::default(), LevelProducts::merged).fit(step)
}
