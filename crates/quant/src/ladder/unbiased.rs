//! The gain at which errors are uncorrelated with the weights.

use backslash_codec::{QuantizedTensor, Reconstruction};
use faer::{Mat, MatRef};

use rayon::prelude::*;

use super::feedback::inner;

/// Largest factor on a step: what is left of a tensor that is nearly all zeros would be blown up beyond use.
const MOST: f64 = 1.5;
/// Weights whose products are summed at a time.
const CHUNK: usize = 1 << 16;

/// Multiplies the step so that ⟨Ŵ, W⟩ = ⟨W, W⟩ in the metric Σ, given `seen` = W·Σ: the error is then uncorrelated
/// with the weights.
///
/// Codes that are read back where the squared error is least make weights smaller by their distortion over their power. In
/// one layer that is right; but the layers of a network then all scale their outputs down together, which costs more than
/// the error that is saved.
pub(super) fn make_unbiased(
    tensor: &mut QuantizedTensor,
    weights: MatRef<'_, f64>,
    seen: MatRef<'_, f64>,
) {
    let decoded = tensor.dequantize();
    let decoded = Mat::from_fn(weights.nrows(), weights.ncols(), |row, column| {
        f64::from(decoded[row * weights.ncols() + column])
    });
    scale(tensor, inner(seen, weights) / inner(seen, decoded.as_ref()));
}

/// [`make_unbiased`] in the metric of the plain squared error.
pub(super) fn make_plainly_unbiased(tensor: &mut QuantizedTensor, weights: &[f32]) {
    let plain = tensor.row_scales.is_none()
        && tensor.column_scales.is_none()
        && tensor.reconstruction == Reconstruction::Uniform;
    let factor = if plain {
        let step = f64::from(tensor.step);
        let (power, product) = products(weights, &tensor.codes, |code| f64::from(code) * step);
        power / product
    } else {
        let (power, product) = products(weights, &tensor.dequantize(), f64::from);
        power / product
    };
    scale(tensor, factor);
}

/// ⟨W, W⟩ and ⟨W, Ŵ⟩, in one pass.
fn products<T: Copy + Sync>(
    weights: &[f32],
    decoded: &[T],
    value: impl Fn(T) -> f64 + Sync,
) -> (f64, f64) {
    let of_chunk = |(weights, decoded): (&[f32], &[T])| {
        let pairs = weights.iter().zip(decoded);
        pairs.fold((0.0, 0.0), |(power, product), (weight, decoded)| {
            let weight = f64::from(*weight);
            (power + weight * weight, product + weight * value(*decoded))
        })
    };
    let chunks = weights.par_chunks(CHUNK).zip(decoded.par_chunks(CHUNK));
    let parts: Vec<(f64, f64)> = chunks.map(of_chunk).collect();
    // In the order of the weights: the sums must not depend on the number of threads.
    parts.into_iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
}

fn scale(tensor: &mut QuantizedTensor, factor: f64) {
    if factor.is_finite() {
        tensor.step *= factor.clamp(1.0 / MOST, MOST) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::feedback::product;
    use crate::ladder::testing::{correlated, gaussian};
    use crate::{Gain, LadderOptions, Rung, Weights, quantize_matrix};

    #[test]
    fn errors_are_uncorrelated_with_the_weights() {
        let data = gaussian(300 * 40, 1);
        let metric = correlated(40, 0.4, 2);
        let weights = Weights { name: "w", shape: &[300, 40], data: &data };
        let correlation = |rung: Rung, gain: Gain| {
            let options = LadderOptions { gain, ..LadderOptions::default() };
            let metric = rung.needs_covariance().then_some(&metric);
            let tensor = quantize_matrix(rung, &weights, metric, 1.5, &options).unwrap();
            let matrix = Mat::from_fn(300, 40, |row, column| f64::from(data[row * 40 + column]));
            let decoded = tensor.dequantize();
            let errors = Mat::from_fn(300, 40, |row, column| {
                f64::from(data[row * 40 + column] - decoded[row * 40 + column])
            });
            let seen = match metric {
                Some(metric) => product(matrix.as_ref(), metric.matrix().as_ref()),
                None => matrix.clone(),
            };
            inner(seen.as_ref(), errors.as_ref()) / inner(seen.as_ref(), matrix.as_ref())
        };
        for rung in Rung::ALL {
            assert!(correlation(rung, Gain::LeastSquares) > 0.02, "{rung}");
            assert!(correlation(rung, Gain::Unbiased).abs() < 1e-4, "{rung}");
        }
    }
}
