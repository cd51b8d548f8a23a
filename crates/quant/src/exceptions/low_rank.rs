//! A low-rank correction of what quantisation has lost.

use backslash_codec::QuantizedTensor;
use backslash_rate::Moments;
use faer::Mat;

use crate::plan::relative_step;
use crate::{Covariance, QuantError, Weights, quantize_to_centroids};

/// Step of the factors in units of their root mean square: about three bits for each of their entries.
const FACTOR_STEP: f32 = 0.5;

/// The factors of a correction A·B, quantised.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// A, of outputs × rank.
    pub left: QuantizedTensor,
    /// B, of rank × inputs.
    pub right: QuantizedTensor,
}

impl LowRank {
    /// Adds the correction to a decoded matrix of outputs × inputs, row-major.
    ///
    /// # Panics
    /// If the matrix is of another shape than the correction.
    pub fn add_to(&self, decoded: &mut [f32]) {
        let (left, right) = (self.left.dequantize(), self.right.dequantize());
        let (rank, columns) = (self.right.rows(), self.right.columns());
        assert_eq!(decoded.len(), self.left.rows() * columns, "decoded weights");
        for (row, factors) in decoded.chunks_mut(columns).zip(left.chunks(rank)) {
            for (factor, basis) in factors.iter().zip(right.chunks(columns)) {
                row.iter_mut().zip(basis).for_each(|(weight, basis)| *weight += factor * basis);
            }
        }
    }
}

/// The factors of rank `rank` that make tr((E−A·B)·Σ·(E−A·B)ᵀ) least, E being the error W − Ŵ and Σ the moments of the
/// inputs, quantised to nearest codes of half a root mean square (LQER, arXiv 2402.02446).
///
/// With L·Lᵀ = Σ + ρ·I and U·S·Vᵀ the singular value decomposition of E·L, A = U·√S and B = √S·Vᵀ·L⁻¹, of each the
/// first `rank` columns or rows. Without a metric Σ is the identity.
///
/// # Errors
/// If `decoded` is of another length than the weights, the metric of another width or without a Cholesky factor, or
/// the decomposition does not converge.
pub fn low_rank_correction(
    weights: &Weights<'_>,
    decoded: &[f32],
    metric: Option<&Covariance>,
    rank: usize,
    ridge: f64,
) -> Result<LowRank, QuantError> {
    let Weights { name, shape, data } = *weights;
    let rows = shape.first().copied().unwrap_or(1).max(1);
    let columns = data.len() / rows;
    if decoded.len() != data.len() || rows * columns != data.len() || data.is_empty() {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        return Err(QuantError::Shape { name, shape, count: decoded.len() });
    }
    let identity;
    let metric = match metric {
        Some(metric) => metric,
        None => {
            identity = Covariance::identity(columns)?;
            &identity
        }
    };
    if metric.width() != columns {
        let (name, width) = (name.to_owned(), metric.width());
        return Err(QuantError::CovarianceWidth { name, columns, width });
    }
    let factor = metric.damped(ridge)?.factor;
    let error = Mat::from_fn(rows, columns, |row, column| {
        let index = row * columns + column;
        f64::from(data[index]) - f64::from(decoded[index])
    });
    let decomposition = (&error * &factor)
        .thin_svd()
        .map_err(|_| QuantError::NoDecomposition { name: name.to_owned() })?;
    let (left, values, right) =
        (decomposition.U(), decomposition.S().column_vector(), decomposition.V());
    let rank = rank.min(rows).min(columns);
    let root = |component: usize| values[component].max(0.0).sqrt();
    let outputs = (0..rows).flat_map(|row| {
        (0..rank).map(move |component| (left[(row, component)] * root(component)) as f32)
    });
    let outputs: Vec<f32> = outputs.collect();
    let mut inputs = Vec::with_capacity(rank * columns);
    for component in 0..rank {
        let vector: Vec<f64> = (0..columns).map(|input| right[(input, component)]).collect();
        let solved = solve_transposed(&factor, vector);
        inputs.extend(solved.into_iter().map(|value| (value * root(component)) as f32));
    }
    let quantized = |shape: [usize; 2], values: &[f32]| {
        let step = relative_step(&Moments::of(values), FACTOR_STEP);
        quantize_to_centroids(name, &shape, values, step)
    };
    Ok(LowRank {
        left: quantized([rows, rank], &outputs)?,
        right: quantized([rank, columns], &inputs)?,
    })
}

/// x with Lᵀ·x = b for lower triangular L.
fn solve_transposed(factor: &Mat<f64>, mut solution: Vec<f64>) -> Vec<f64> {
    for index in (0..solution.len()).rev() {
        let later = index + 1..solution.len();
        let known: f64 = later.map(|later| factor[(later, index)] * solution[later]).sum();
        solution[index] = (solution[index] - known) / factor[(index, index)];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exceptions::testing::{correlated, gaussian};
    use crate::weighted_error;

    const ROWS: usize = 40;
    const COLUMNS: usize = 24;

    fn corrected(data: &[f32], metric: Option<&Covariance>, rank: usize) -> Vec<f32> {
        let weights = Weights { name: "w", shape: &[ROWS, COLUMNS], data };
        let mut decoded = vec![0.0; data.len()];
        let correction = low_rank_correction(&weights, &decoded, metric, rank, 1e-6).unwrap();
        assert_eq!(correction.left.shape, [ROWS, rank]);
        assert_eq!(correction.right.shape, [rank, COLUMNS]);
        correction.add_to(&mut decoded);
        decoded
    }

    /// An error of rank one is found whatever the metric; what is left is that of the factors' codes.
    #[test]
    fn an_error_of_rank_one_is_made_up_for() {
        let (left, right) = (gaussian(ROWS, 1), gaussian(COLUMNS, 2));
        let data: Vec<f32> =
            left.iter().flat_map(|left| right.iter().map(move |right| left * right)).collect();
        let metric = correlated(COLUMNS, 3);
        let before = weighted_error(&data, &vec![0.0; data.len()], &metric).unwrap();
        for metric_given in [None, Some(&metric)] {
            let after = weighted_error(&data, &corrected(&data, metric_given, 1), &metric).unwrap();
            // Codes at half a root mean square: an error of about 1/48 in each of two factors.
            assert!(after < 0.1 * before, "{after} of {before}");
        }
    }

    /// The correction is best in its own metric, and a higher rank is better.
    #[test]
    fn the_metric_decides_what_is_corrected() {
        let data = gaussian(ROWS * COLUMNS, 4);
        let mut metric = correlated(COLUMNS, 5);
        // A few inputs that count far more than the others.
        let mut moments = vec![0.0; COLUMNS * COLUMNS];
        for i in 0..COLUMNS {
            for j in 0..COLUMNS {
                let scale = |input: usize| if input < 4 { 6.0 } else { 1.0 };
                moments[i * COLUMNS + j] = metric.moment(i, j) * scale(i) * scale(j);
            }
        }
        metric = Covariance::from_moments(COLUMNS, 1000, &moments).unwrap();
        let error = |decoded: &[f32]| weighted_error(&data, decoded, &metric).unwrap();
        let plain = error(&corrected(&data, None, 4));
        let weighted = error(&corrected(&data, Some(&metric), 4));
        let further = error(&corrected(&data, Some(&metric), 8));
        assert!(weighted < 0.5 * plain && further < weighted, "{plain} {weighted} {further}");
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let data = gaussian(ROWS * COLUMNS, 6);
        let weights = Weights { name: "w", shape: &[ROWS, COLUMNS], data: &data };
        let short = low_rank_correction(&weights, &data[1..], None, 2, 0.0);
        assert!(matches!(short, Err(QuantError::Shape { .. })));
        let other = low_rank_correction(&weights, &data, Some(&correlated(5, 1)), 2, 0.0);
        assert!(matches!(other, Err(QuantError::CovarianceWidth { columns: 24, width: 5, .. })));
    }
}
