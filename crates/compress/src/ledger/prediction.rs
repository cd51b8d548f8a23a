//! What the sensitivities say that an error costs.

use backslash_quant::{Covariance, squared_error, weighted_error};

use crate::{CompressError, Sensitivity};

/// Predicted rise of the loss in nats per token when a matrix W is decoded as Ŵ:
///
///   ½·Σ_r F_r/mean(Σ_ii)·(e_r·Σ·e_rᵀ),  e = W − Ŵ,
///
/// with F_r the mean Fisher information of the weights of row r and Σ the moments of the inputs. An output's Fisher
/// information is that of its weights over the mean square of its inputs, so this is the error of every output, as the
/// quantiser has really made it, times the curvature of the loss in that output. Without a metric Σ is the identity,
/// and it is [`Sensitivity::loss_increase`] row by row: right for errors that are independent of each other, but
/// too much for those of error feedback, which are large and cancel in the outputs.
///
/// # Errors
/// If the metric is of another width than the matrix.
///
/// # Panics
/// If the weights are not the rows of the sensitivity.
pub fn predicted_loss(
    sensitivity: &Sensitivity,
    weights: &[f32],
    decoded: &[f32],
    metric: Option<&Covariance>,
) -> Result<f64, CompressError> {
    let Sensitivity { rows, columns } = sensitivity;
    assert_eq!(weights.len(), rows.len() * columns, "weights of the sensitivity");
    if weights.is_empty() {
        return Ok(0.0);
    }
    // Rows times √F_r: then the sum over rows is that of one matrix.
    let scaled = |values: &[f32]| -> Vec<f32> {
        let rows = values.chunks(*columns).zip(rows);
        rows.flat_map(|(values, fisher)| {
            let root = fisher.max(0.0).sqrt();
            values.iter().map(move |value| (f64::from(*value) * root) as f32)
        })
        .collect()
    };
    let (weights, decoded) = (scaled(weights), scaled(decoded));
    let Some(metric) = metric else {
        return Ok(0.5 * squared_error(&weights, &decoded));
    };
    let mean = metric.diagonal().iter().sum::<f64>() / metric.width().max(1) as f64;
    Ok(if mean > 0.0 { 0.5 * weighted_error(&weights, &decoded, metric)? / mean } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_costs_by_its_row_and_by_the_moments_of_its_inputs() {
        let sensitivity = Sensitivity { rows: vec![4.0, 1.0], columns: 2 };
        let weights = [0.0; 4];
        let decoded = [1.0, 0.0, 1.0, -1.0];
        let plain = predicted_loss(&sensitivity, &weights, &decoded, None).unwrap();
        assert_eq!(plain, 0.5 * (4.0 + 1.0 * 2.0));
        // The second row's errors cancel in its output up to 2 + 2 − 2·1.5 = 1; the mean moment is 2.
        let metric = Covariance::from_moments(2, 1, &[2.0, 1.5, 1.5, 2.0]).unwrap();
        let weighted = predicted_loss(&sensitivity, &weights, &decoded, Some(&metric)).unwrap();
        assert_eq!(weighted, 0.5 * (4.0 * 2.0 + 1.0) / 2.0);
        // Equal sensitivities and independent errors: the formula of the sensitivity.
        let even = Sensitivity { rows: vec![4.0, 4.0], columns: 2 };
        let same = predicted_loss(&even, &weights, &[0.5, -0.5, 0.5, 0.5], None).unwrap();
        assert_eq!(same, even.loss_increase(0.25));
    }
}
