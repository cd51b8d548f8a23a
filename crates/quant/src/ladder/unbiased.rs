//! The gain at which errors are uncorrelated with the weights.

use backslash_codec::QuantizedTensor;
use faer::{Mat, MatRef};

use super::feedback::inner;

/// Largest factor on a step: what is left of a tensor that is nearly all zeros would be blown up beyond use.
const MOST: f64 = 1.5;

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
    let factor = inner(seen, weights) / inner(seen, decoded.as_ref());
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
