//! Steps per row without data.

use backslash_codec::QuantizedTensor;
use rayon::prelude::*;

use super::levels::LevelProducts;
use super::rung::tensor_of;
use super::scale::round_scale;
use crate::Weights;

/// Quarter octaves around one that are tried first, to each side.
const COARSE: i32 = 8;
/// Sixteenths of an octave around the best of these that are tried next, to each side.
const FINE: i32 = 3;

/// Chooses the step Δ_r = Δ·t_r of every row r that minimises Σ|w − q·Δ_r| + μ·Σ|q|, the objective of EntQuant
/// (arXiv 2601.22787) with the tensor's step in place of its multiplier.
///
/// Where weights are spread evenly over a cell the mean |w − q·Δ_r| is Δ_r/4 and the mean |q| is the row's mean
/// |w| over Δ_r. So μ = Δ²/(4·mean|w|), with the tensor's mean, gives a row of average magnitude the step Δ, and
/// others one that grows with the square root of their magnitude.
pub(super) fn quantize(weights: &Weights<'_>, columns: usize, step: f32) -> QuantizedTensor {
    let mean = weights.data.iter().map(|weight| f64::from(weight.abs())).sum::<f64>()
        / weights.data.len() as f64;
    let multiplier = if mean > 0.0 { f64::from(step).powi(2) / (4.0 * mean) } else { 0.0 };
    let rows: Vec<(f32, Vec<i32>, LevelProducts)> = weights
        .data
        .par_chunks(columns)
        .map(|row| {
            let scale = best_scale(row, step, multiplier as f32);
            let codes_per_unit = 1.0 / (step * scale);
            let code = |weight: &f32| (weight * codes_per_unit).round_ties_even() as i32;
            let codes: Vec<i32> = row.iter().map(code).collect();
            let mut products = LevelProducts::default();
            for (weight, code) in row.iter().zip(&codes) {
                // In units of the row's scale, weighted by its square.
                let scale = f64::from(scale);
                products.add(scale * scale, f64::from(*weight) / scale, *code);
            }
            (scale, codes, products)
        })
        .collect();
    let sums = rows.iter().fold(LevelProducts::default(), |sum, row| sum.merged(row.2));
    let (step, reconstruction) = sums.fit(step);
    let row_scales: Vec<f32> = rows.iter().map(|row| row.0).collect();
    let codes = rows.into_iter().flat_map(|row| row.1).collect();
    let row_scales = row_scales.iter().any(|scale| *scale != 1.0).then_some(row_scales);
    QuantizedTensor { row_scales, reconstruction, ..tensor_of(weights, codes, step) }
}

fn best_scale(row: &[f32], step: f32, multiplier: f32) -> f32 {
    let cheapest = |sixteenths: &mut dyn Iterator<Item = i32>| {
        let cost = |sixteenths: i32| cost(row, step * scale_of(sixteenths), multiplier);
        // Of equal costs, as for a row of zeros, that of the scale nearest to one.
        let rank = |&sixteenths: &i32| (cost(sixteenths), sixteenths.abs());
        let candidates = sixteenths.map(|candidate| (rank(&candidate), candidate));
        let best = candidates.min_by(|a, b| a.0.0.total_cmp(&b.0.0).then(a.0.1.cmp(&b.0.1)));
        best.map_or(0, |best| best.1)
    };
    let coarse = cheapest(&mut (-COARSE..=COARSE).map(|quarters| 4 * quarters));
    scale_of(cheapest(&mut (coarse - FINE..=coarse + FINE)))
}

fn scale_of(sixteenths: i32) -> f32 {
    round_scale((f64::from(sixteenths) / 16.0).exp2()) as f32
}

fn cost(row: &[f32], step: f32, multiplier: f32) -> f32 {
    let codes_per_unit = 1.0 / step;
    let mut sums = [0.0_f32; 16];
    for weights in row.chunks(16) {
        for (sum, weight) in sums.iter_mut().zip(weights) {
            let code = (weight * codes_per_unit).round_ties_even();
            *sum += (weight - code * step).abs() + multiplier * code.abs();
        }
    }
    sums.iter().sum()
}
