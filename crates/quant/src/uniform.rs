//! The uniform quantiser with nearest codes.

use backslash_codec::{QuantizedTensor, Reconstruction};

use rayon::prelude::*;

use crate::QuantError;

/// Weights that one task rounds at the least.
const CHUNK: usize = 1 << 16;

/// Largest magnitude of a code: every code is exact in `f32`.
pub(crate) const MAX_CODE: f32 = 16_777_216.0;

/// Codes q = round(w/Δ), ties to even, read back as q·Δ: the quantiser that training with rounding has seen.
///
/// ```
/// let tensor = backslash_quant::quantize("w", &[2, 2], &[0.9, -2.2, 0.1, 1.1], 1.0)?;
/// assert_eq!(tensor.codes, [1, -2, 0, 1]);
/// # Ok::<(), backslash_quant::QuantError>(())
/// ```
///
/// # Errors
/// If a weight is not finite, or the step is not positive or too fine for the largest weight.
pub fn quantize(
    name: &str,
    shape: &[usize],
    weights: &[f32],
    step: f32,
) -> Result<QuantizedTensor, QuantError> {
    quantize_by(name, shape, weights, step, |scaled| scaled.round_ties_even())
}

/// Codes q = sign(w)·⌊|w|/Δ + ½ − z⌋, read back as q·Δ: as [`quantize`] with thresholds a share z of a step further from zero.
/// For weights that the end of their training has stopped on the way to zero.
///
/// ```
/// let tensor = backslash_quant::quantize_with_dead_zone("w", &[2, 2], &[0.52, -0.7, 1.52, -0.2], 1.0, 0.05)?;
/// assert_eq!(tensor.codes, [0, -1, 1, 0]);
/// # Ok::<(), backslash_quant::QuantError>(())
/// ```
///
/// # Errors
/// As [`quantize`].
pub fn quantize_with_dead_zone(
    name: &str,
    shape: &[usize],
    weights: &[f32],
    step: f32,
    zone: f32,
) -> Result<QuantizedTensor, QuantError> {
    let code = |scaled: f32| (scaled.abs() + 0.5 - zone).floor().copysign(scaled);
    quantize_by(name, shape, weights, step, code)
}

/// The codes that `code` makes of w/Δ.
fn quantize_by(
    name: &str,
    shape: &[usize],
    weights: &[f32],
    step: f32,
    code: impl Fn(f32) -> f32 + Sync,
) -> Result<QuantizedTensor, QuantError> {
    check(name, weights, step)?;
    let codes_per_unit = 1.0 / step;
    let code = |weight: &f32| code(weight * codes_per_unit) as i32;
    let codes = weights.par_iter().with_min_len(CHUNK).map(code).collect();
    Ok(QuantizedTensor {
        shape: shape.to_vec(),
        reconstruction: Reconstruction::Uniform,
        codes,
        step,
        row_scales: None,
        column_scales: None,
        origin: None,
    })
}

/// The same codes as [`quantize`], with the reconstruction that loses least: for weights that were trained
/// without knowing of the quantiser.
///
/// A non-zero code is read back as sign(q)·(|q| − θ)·Δ. θ is the mean of |q| − |w|/Δ over the weights whose code
/// is not zero, which minimises the squared error; it is positive where the density falls within a cell.
/// It costs one byte per tensor and nothing at decoding.
///
/// # Errors
/// As [`quantize`].
pub fn quantize_to_centroids(
    name: &str,
    shape: &[usize],
    weights: &[f32],
    step: f32,
) -> Result<QuantizedTensor, QuantError> {
    let mut tensor = quantize(name, shape, weights, step)?;
    let mut excess = Excess::default();
    excess.extend(&tensor.codes, weights, 1.0 / step);
    tensor.reconstruction = excess.best_shrink();
    Ok(tensor)
}

pub(crate) fn check(name: &str, weights: &[f32], step: f32) -> Result<(), QuantError> {
    let name = || name.to_owned();
    if let Some(index) = weights.iter().position(|weight| !weight.is_finite()) {
        return Err(QuantError::NotFinite { name: name(), index, value: weights[index] });
    }
    if !(step.is_finite() && step > 0.0) {
        return Err(QuantError::Step { name: name(), step });
    }
    let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
    if largest * (1.0 / step) >= MAX_CODE {
        let least = 2.0 * largest / MAX_CODE;
        return Err(QuantError::StepTooFine { name: name(), step, weight: largest, least });
    }
    Ok(())
}

/// By how much codes exceed their weights: what the best shrink is found from.
#[derive(Debug, Default)]
pub(crate) struct Excess {
    /// Σ(|q| − |w|/Δ) over the codes that are not zero, and their number.
    sum: f64,
    count: u64,
}

impl Excess {
    /// Adds codes and their weights; in pieces or at once, the sum is the same to the last bit.
    pub(crate) fn extend(&mut self, codes: &[i32], weights: &[f32], codes_per_unit: f32) {
        for (code, weight) in codes.iter().zip(weights) {
            if *code != 0 {
                let magnitude = f64::from((weight * codes_per_unit).abs());
                self.sum += f64::from(code.unsigned_abs()) - magnitude;
                self.count += 1;
            }
        }
    }

    /// The shrink of least squared error, in 256ths of a step.
    pub(crate) fn best_shrink(&self) -> Reconstruction {
        match (256.0 * self.sum / self.count.max(1) as f64).round() as u8 {
            0 => Reconstruction::Uniform,
            shrink => Reconstruction::Shrink(shrink),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    fn gaussian(count: usize) -> Vec<f32> {
        let mut random = rand_pcg::Pcg64::seed_from_u64(9);
        StandardNormal.sample_iter(&mut random).take(count).collect()
    }

    fn mean_square_error(weights: &[f32], tensor: &QuantizedTensor) -> f64 {
        let decoded = tensor.dequantize();
        let square = |(w, d): (&f32, &f32)| f64::from(w - d).powi(2);
        weights.iter().zip(&decoded).map(square).sum::<f64>() / weights.len() as f64
    }

    /// Signal-to-noise ratios and rates of entropy-coded uniform quantisation of a Gaussian with centroid
    /// reconstruction, as published tables give them.
    #[test]
    fn rate_and_distortion_of_a_gaussian_are_the_known_ones() {
        let weights = gaussian(400_000);
        for (step, bits, decibels) in [(2.42, 1.0, 4.6), (1.08, 2.0, 10.5), (0.52, 3.0, 16.5)] {
            let tensor = quantize_to_centroids("w", &[weights.len()], &weights, step).unwrap();
            let rate = backslash_rate::entropy_bits(&tensor.codes);
            let ratio = -10.0 * mean_square_error(&weights, &tensor).log10();
            assert!((rate - bits).abs() < 0.02, "{step}: {rate}");
            assert!((ratio - decibels).abs() < 0.1, "{step}: {ratio}");
        }
    }

    #[test]
    fn no_other_shrink_loses_less() {
        let weights = gaussian(50_000);
        let best = quantize_to_centroids("w", &[weights.len()], &weights, 1.7).unwrap();
        let Reconstruction::Shrink(chosen) = best.reconstruction else { panic!("no shrink") };
        for other in [chosen - 3, chosen + 3] {
            let mut tensor = best.clone();
            tensor.reconstruction = Reconstruction::Shrink(other);
            assert!(mean_square_error(&weights, &tensor) > mean_square_error(&weights, &best));
        }
    }

    #[test]
    fn weights_on_the_grid_come_back_exactly() {
        let weights: Vec<f32> = (-20..20).map(|code| code as f32 * 0.25).collect();
        let tensor = quantize_to_centroids("w", &[40], &weights, 0.25).unwrap();
        assert_eq!(tensor.reconstruction, Reconstruction::Uniform);
        assert_eq!(tensor.dequantize(), weights);
    }

    #[test]
    fn what_cannot_be_quantised_is_named() {
        let message = |weights: &[f32], step: f32| {
            quantize("blocks.0.w", &[weights.len()], weights, step).unwrap_err().to_string()
        };
        assert!(message(&[1.0, f32::NAN], 0.1).contains("`blocks.0.w` holds NaN at index 1"));
        assert!(message(&[1.0, f32::NEG_INFINITY], 0.1).contains("index 1"));
        for step in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(message(&[1.0], step).contains("must be a positive"));
        }
        assert!(message(&[1e30], 1e-3).contains("use a step of at least"));
        assert!(message(&[1.0], 1e-45).contains("use a step of at least"));
    }

    #[test]
    fn empty_and_zero_tensors_are_fine() {
        assert!(quantize("w", &[0, 4], &[], 0.1).unwrap().codes.is_empty());
        let zero = quantize("w", &[3], &[0.0, -0.0, 0.0], 0.1).unwrap();
        assert_eq!(zero.dequantize(), [0.0, 0.0, 0.0]);
    }
}
