//! Rate-aware choice of codes without error feedback.

use backslash_codec::{QuantizedTensor, Reconstruction};
use rayon::prelude::*;

use super::levels::LevelProducts;
use super::rate_table::{RateTable, cheapest_code};
use super::rung::{Gain, THEORETICAL_SLOPE, tensor_of};
use crate::Weights;

/// Rounds after which codes that still change are taken as they are.
const MAX_ROUNDS: u32 = 12;
/// Share of the cost of the round before at which there is no use in another.
const SETTLED: f64 = 0.99999;
/// Weights whose products are summed at a time, about.
const CHUNK: usize = 1 << 16;

/// Minimises Σ (w/Δ − r(q))² + λ·bits(q) over codes near w/Δ, the table of code lengths and the values r of
/// the codes, in turn, until the cost settles; with an unbiased gain r(q) = q. λ is `strength`·(ln 2)/6.
pub(super) fn quantize(
    weights: &Weights<'_>,
    columns: usize,
    step: f32,
    strength: f64,
    gain: Gain,
) -> QuantizedTensor {
    let codes_per_unit = 1.0 / step;
    let mut codes: Vec<i32> = weights
        .data
        .par_iter()
        .map(|weight| (weight * codes_per_unit).round_ties_even() as i32)
        .collect();
    let chunk = columns * (CHUNK / columns).max(1);
    let levels_of = |codes: &[i32]| match gain {
        Gain::LeastSquares => fit(weights.data, codes, chunk, step),
        Gain::Unbiased => (step, Reconstruction::Uniform),
    };
    let mut levels = levels_of(&codes);
    let mut last = f64::INFINITY;
    for _ in 0..MAX_ROUNDS {
        let table = RateTable::of(codes.iter().copied());
        let price = |code: i32| strength * THEORETICAL_SLOPE * table.bits(code);
        let (gain, reconstruction) = (levels.0 / step, levels.1);
        let value = |code: i32| f64::from(gain * reconstruction.value(code));
        let costs: Vec<f64> = codes
            .par_chunks_mut(columns)
            .zip(weights.data.par_chunks(columns))
            .map(|(codes, weights)| {
                let mut total = 0.0;
                for (code, weight) in codes.iter_mut().zip(weights) {
                    let target = f64::from(weight * codes_per_unit);
                    let cost;
                    (*code, cost) = cheapest_code(target, value, price);
                    total += cost;
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

fn fit(weights: &[f32], codes: &[i32], chunk: usize, step: f32) -> (f32, Reconstruction) {
    let chunks: Vec<LevelProducts> = weights
        .par_chunks(chunk)
        .zip(codes.par_chunks(chunk))
        .map(|(weights, codes)| {
            let mut products = LevelProducts::default();
            for (weight, code) in weights.iter().zip(codes) {
                products.add(1.0, f64::from(*weight), *code);
            }
            products
        })
        .collect();
    // In the order of the weights: the sum must not depend on the number of threads.
    chunks.into_iter().fold(LevelProducts::default(), LevelProducts::merged).fit(step)
}
