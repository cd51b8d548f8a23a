//! Steps per row without data.

use backslash_codec::{QuantizedTensor, Reconstruction};
use rayon::prelude::*;

use super::levels::LevelProducts;
use super::rung::{Gain, tensor_of};
use super::scale::round_scale;
use crate::Weights;

/// Row scales per octave: fewer than there could be, so that rows which differ by chance share one.
const PER_OCTAVE: f64 = 8.0;

/// Nearest codes with a step Δ_r for every row r that minimises Σ|w − q·Δ_r| + μ·Σ|q|, the objective of EntQuant
/// (arXiv 2601.22787), in closed form.
///
/// Where weights are spread evenly over a cell the mean |w − q·Δ_r| is Δ_r/4, and the mean |q| is m_r/Δ_r, m_r
/// being the row's mean |w|. So Δ_r² = 4·μ·m_r, and the multiplier that gives a row of the tensor's mean
/// magnitude m the tensor's step Δ makes Δ_r = Δ·√(m_r/m). A search over the objective itself, as in the paper,
/// follows the chance of its flat minimum and puts whole rows to zero at low rates.
pub(super) fn quantize(
    weights: &Weights<'_>,
    columns: usize,
    step: f32,
    gain: Gain,
) -> QuantizedTensor {
    let magnitude = |row: &[f32]| row.iter().map(|weight| f64::from(weight.abs())).sum::<f64>();
    let magnitudes: Vec<f64> = weights.data.par_chunks(columns).map(magnitude).collect();
    let mean = magnitudes.iter().sum::<f64>() / magnitudes.len() as f64;
    let rows: Vec<(f32, Vec<i32>, LevelProducts)> = weights
        .data
        .par_chunks(columns)
        .zip(&magnitudes)
        .map(|(row, magnitude)| {
            let scale = row_scale(magnitude / mean);
            let codes_per_unit = 1.0 / (step * scale as f32);
            let code = |weight: &f32| (weight * codes_per_unit).round_ties_even() as i32;
            let codes: Vec<i32> = row.iter().map(code).collect();
            let mut products = LevelProducts::default();
            for (weight, code) in row.iter().zip(&codes) {
                // In units of the row's scale, weighted by its square.
                products.add(scale * scale, f64::from(*weight) / scale, *code);
            }
            (scale as f32, codes, products)
        })
        .collect();
    let sums = rows.iter().fold(LevelProducts::default(), |sum, row| sum.merged(row.2));
    let (step, reconstruction) = match gain {
        Gain::LeastSquares => sums.fit(step),
        Gain::Unbiased => (step, Reconstruction::Uniform),
    };
    let row_scales: Vec<f32> = rows.iter().map(|row| row.0).collect();
    let codes = rows.into_iter().flat_map(|row| row.1).collect();
    let row_scales = row_scales.iter().any(|scale| *scale != 1.0).then_some(row_scales);
    QuantizedTensor { row_scales, reconstruction, ..tensor_of(weights, codes, step) }
}

/// √(m_r/m) on the grid; 1 for a row of zeros.
fn row_scale(ratio: f64) -> f64 {
    if !(ratio.is_finite() && ratio > 0.0) {
        return 1.0;
    }
    round_scale(((0.5 * ratio.log2() * PER_OCTAVE).round() / PER_OCTAVE).exp2())
}
