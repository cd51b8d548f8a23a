//! Rate-aware choice of codes without error feedback.

use backslash_codec::{QuantizedTensor, Reconstruction};
use rayon::prelude::*;

use super::levels::LevelProducts;
use super::rate_table::{RateTable, cheapest_code};
use super::rung::{THEORETICAL_SLOPE, tensor_of};
use crate::Weights;

/// Rounds after which codes that still change are taken as they are.
const MAX_ROUNDS: u32 = 12;
/// Weights that one thread takes at a time, at least.
const CHUNK: usize = 1 << 16;

/// How much the squared error of each column counts: its diagonal entry over their mean.
pub(super) fn importance(diagonal: &[f64]) -> Vec<f64> {
    let mean = diagonal.iter().sum::<f64>() / diagonal.len().max(1) as f64;
    diagonal.iter().map(|square| if mean > 0.0 { square / mean } else { 1.0 }).collect()
}

/// Minimises Σ h_i·(w/Δ − r(q))² + λ·bits(q) over codes near w/Δ, the table of code lengths and the values r of
/// the codes, in turn, until no code changes. λ is `strength`·(ln 2)/6.
pub(super) fn quantize(
    weights: &Weights<'_>,
    columns: usize,
    importance: Option<&[f64]>,
    step: f32,
    strength: f64,
) -> QuantizedTensor {
    let codes_per_unit = 1.0 / step;
    let mut codes: Vec<i32> = weights
        .data
        .par_iter()
        .map(|weight| (weight * codes_per_unit).round_ties_even() as i32)
        .collect();
    let line = columns * (CHUNK / columns).max(1);
    let weight_of = |index: usize| importance.map_or(1.0, |importance| importance[index % columns]);
    let mut levels = fit(weights.data, &codes, line, &weight_of, step);
    for _ in 0..MAX_ROUNDS {
        let table = RateTable::of(codes.iter().copied());
        let price = |code: i32| strength * THEORETICAL_SLOPE * table.bits(code);
        let (fitted, reconstruction) = levels;
        let value = |code: i32| f64::from(fitted / step * reconstruction.value(code));
        let changed: usize = codes
            .par_chunks_mut(line)
            .zip(weights.data.par_chunks(line))
            .map(|(codes, weights)| {
                let mut changed = 0;
                for (index, (code, weight)) in codes.iter_mut().zip(weights).enumerate() {
                    let target = f64::from(weight * codes_per_unit);
                    let chosen = cheapest_code(target, value, weight_of(index), price);
                    changed += usize::from(chosen != *code);
                    *code = chosen;
                }
                changed
            })
            .sum();
        if changed == 0 {
            break;
        }
        levels = fit(weights.data, &codes, line, &weight_of, step);
    }
    let (step, reconstruction) = levels;
    QuantizedTensor { reconstruction, ..tensor_of(weights, codes, step) }
}

fn fit(
    weights: &[f32],
    codes: &[i32],
    line: usize,
    importance: &(impl Fn(usize) -> f64 + Sync),
    step: f32,
) -> (f32, Reconstruction) {
    let chunks: Vec<LevelProducts> = weights
        .par_chunks(line)
        .zip(codes.par_chunks(line))
        .map(|(weights, codes)| {
            let mut products = LevelProducts::default();
            for (index, (weight, code)) in weights.iter().zip(codes).enumerate() {
                products.add(importance(index), f64::from(*weight), *code);
            }
            products
        })
        .collect();
    // In the order of the weights: the sum must not depend on the number of threads.
    chunks.into_iter().fold(LevelProducts::default(), LevelProducts::merged).fit(step)
}
