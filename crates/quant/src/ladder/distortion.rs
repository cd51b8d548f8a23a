//! What quantisation loses.

use faer::MatRef;

use super::Covariance;
use super::feedback::{inner, product};
use crate::QuantError;

/// Σ (w − ŵ)².
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn squared_error(weights: &[f32], decoded: &[f32]) -> f64 {
    assert_eq!(weights.len(), decoded.len(), "weights and decoded weights");
    weights.iter().zip(decoded).map(|(w, d)| (f64::from(*w) - f64::from(*d)).powi(2)).sum()
}

/// tr((W−Ŵ)·Σ·(W−Ŵ)ᵀ): the expected squared error of a layer's outputs for inputs of second moments Σ. Both
/// matrices are row-major, a row holding one weight per input.
///
/// ```
/// use backslash_quant::{Covariance, weighted_error};
///
/// let inputs = Covariance::from_moments(2, 1, &[4.0, 1.0, 1.0, 3.0])?;
/// assert_eq!(weighted_error(&[1.0, 2.0], &[0.0, 4.0], &inputs)?, 4.0 + 12.0 - 2.0 * 2.0);
/// # Ok::<(), backslash_quant::QuantError>(())
/// ```
///
/// # Errors
/// If the weights are not whole rows of the covariance's width.
///
/// # Panics
/// If the lengths differ.
pub fn weighted_error(
    weights: &[f32],
    decoded: &[f32],
    covariance: &Covariance,
) -> Result<f64, QuantError> {
    assert_eq!(weights.len(), decoded.len(), "weights and decoded weights");
    let width = covariance.width();
    if weights.is_empty() {
        return Ok(0.0);
    }
    if width == 0 || !weights.len().is_multiple_of(width) {
        return Err(QuantError::InputLength { length: weights.len(), width });
    }
    let errors: Vec<f64> =
        weights.iter().zip(decoded).map(|(w, d)| f64::from(*w) - f64::from(*d)).collect();
    let errors = MatRef::from_row_major_slice(&errors, weights.len() / width, width);
    Ok(inner(product(errors, covariance.matrix().as_ref()).as_ref(), errors))
}
