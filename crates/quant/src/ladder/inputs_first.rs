//! Matrices that are stored with one row per input.

use backslash_codec::QuantizedTensor;

use super::rung::matrix_shape;
use super::{Covariance, LadderOptions, Rung, quantize_matrix};
use crate::{QuantError, Weights};

/// As [`quantize_matrix`] for a matrix of inputs × outputs, such as those of GPT-2: it is quantised with its inputs as
/// columns and turned back.
///
/// A trellis would then run along the rows, where the codec does not look for it, so `watersic-rate` gives what
/// `watersic` does. Quantisers that look at no covariance take the matrix as it is.
///
/// # Errors
/// Those of [`quantize_matrix`].
pub fn quantize_inputs_first(
    rung: Rung,
    weights: &Weights<'_>,
    metric: Option<&Covariance>,
    step: f32,
    options: &LadderOptions,
) -> Result<QuantizedTensor, QuantError> {
    let rung = match rung {
        Rung::Rtn | Rung::EntQuant | Rung::Trellis => {
            return quantize_matrix(rung, weights, None, step, options);
        }
        Rung::WatersicRate => Rung::Watersic,
        Rung::Rdoq | Rung::Gptq | Rung::Watersic => rung,
    };
    let (inputs, outputs) = matrix_shape(weights)?;
    let data = transposed(weights.data, outputs);
    let turned = Weights { name: weights.name, shape: &[outputs, inputs], data: &data };
    let tensor = quantize_matrix(rung, &turned, metric, step, options)?;
    Ok(QuantizedTensor {
        shape: weights.shape.to_vec(),
        codes: transposed(&tensor.codes, inputs),
        row_scales: tensor.column_scales,
        column_scales: tensor.row_scales,
        ..tensor
    })
}

/// A row-major matrix of that many columns, turned.
pub(super) fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    let column = |at: usize| values.iter().skip(at).step_by(columns.max(1)).copied();
    (0..columns).flat_map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::testing::{correlated, gaussian};

    /// What comes back is what the turned matrix decodes to, turned.
    #[test]
    fn a_turned_matrix_decodes_to_the_same_values() {
        let (outputs, inputs) = (96, 24);
        let straight = gaussian(outputs * inputs, 3);
        let turned = transposed(&straight, inputs);
        let metric = correlated(inputs, 0.4, 5);
        let options = LadderOptions { rate_strength: Some(0.0), ..LadderOptions::default() };
        for rung in [Rung::Rtn, Rung::Rdoq, Rung::Gptq, Rung::Watersic] {
            let weights = Weights { name: "w", shape: &[outputs, inputs], data: &straight };
            let metric = (rung != Rung::Rtn).then_some(&metric);
            let expected = quantize_matrix(rung, &weights, metric, 0.8, &options).unwrap();
            let weights = Weights { name: "w", shape: &[inputs, outputs], data: &turned };
            let found = quantize_inputs_first(rung, &weights, metric, 0.8, &options).unwrap();
            assert_eq!(found.shape, [inputs, outputs]);
            assert_eq!(transposed(&found.dequantize(), outputs), expected.dequantize(), "{rung}");
        }
    }
}
