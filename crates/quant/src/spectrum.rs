//! How many directions a matrix has.

use faer::MatRef;

use crate::ladder::matrix_shape;
use crate::{QuantError, Weights};

/// Effective rank of a matrix as a share of its full rank: e^H over the smaller side, with H = −Σ p_i·ln p_i the entropy of
/// the singular values' shares p_i = σ_i/Σ σ. Source: Roy and Vetterli 2007, "The effective rank", definition 1.
///
/// A matrix of zeros has none.
///
/// ```
/// use backslash_quant::{Weights, effective_rank};
///
/// let diagonal: Vec<f32> = (0..64).map(|i| if i % 9 == 0 && i < 32 { 2.0 } else { 0.0 }).collect();
/// let weights = Weights { name: "w", shape: &[8, 8], data: &diagonal };
/// assert!((effective_rank(&weights)? - 0.5).abs() < 1e-5); // four of eight, all alike
/// # Ok::<(), backslash_quant::QuantError>(())
/// ```
///
/// # Errors
/// If there are not as many values as the shape says, or the decomposition does not converge.
pub fn effective_rank(weights: &Weights<'_>) -> Result<f64, QuantError> {
    let Weights { name, shape, data } = *weights;
    let (rows, columns) = matrix_shape(weights)?;
    if data.is_empty() {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        return Err(QuantError::Shape { name, shape, count: 0 });
    }
    let values = MatRef::from_row_major_slice(data, rows, columns)
        .singular_values()
        .map_err(|_| QuantError::NoDecomposition { name: name.to_owned() })?;
    let total: f64 = values.iter().map(|value| f64::from(*value)).sum();
    if total == 0.0 {
        return Ok(0.0);
    }
    let shares = values.iter().map(|value| f64::from(*value) / total).filter(|share| *share > 0.0);
    let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
    Ok(entropy.exp() / rows.min(columns) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank_of(data: &[f32], shape: &[usize]) -> f64 {
        effective_rank(&Weights { name: "w", shape, data }).unwrap()
    }

    #[test]
    fn it_is_that_of_the_definition_whatever_the_scale_and_the_side() {
        // Singular values 3 and 1: p = ¾ and ¼.
        let entropy = -(0.75_f64.ln() * 0.75 + 0.25_f64.ln() * 0.25);
        for scale in [1.0, 1e-4, 50.0] {
            let data = [3.0 * scale, 0.0, 0.0, 0.0, -scale, 0.0];
            assert!((rank_of(&data, &[2, 3]) - entropy.exp() / 2.0).abs() < 1e-5);
            let turned = [3.0 * scale, 0.0, 0.0, -scale, 0.0, 0.0];
            assert!((rank_of(&turned, &[3, 2]) - entropy.exp() / 2.0).abs() < 1e-5);
        }
        assert_eq!(rank_of(&[0.0; 6], &[2, 3]), 0.0);
        let outer: Vec<f32> = (0..12).map(|i| ((i / 4 + 1) * (i % 4 + 2)) as f32).collect();
        assert!((rank_of(&outer, &[3, 4]) - 1.0 / 3.0).abs() < 1e-3);
    }

    #[test]
    fn a_shape_that_does_not_fit_is_refused() {
        let error = effective_rank(&Weights { name: "w", shape: &[2, 2], data: &[1.0; 3] });
        assert!(matches!(error, Err(QuantError::Shape { .. })));
    }
}
