//! One tensor in another way.

use backslash_codec::{Artifact, Effort, QuantizedTensor, Tensor, encoded_size_with};
use backslash_quant::{
    LadderOptions, Rung, ScaleFit, Weights, column_errors, low_rank_correction, quantize_matrix,
    quantize_protected,
};

use super::{ExceptionPath, OperatingPoint};
use crate::CompressError;
use crate::allocation::{StepRule, row_factors};
use crate::recipe::coded_by;

/// One column in so many is protected.
const PROTECTED_SHARE: usize = 32;
/// How much finer the step of a protected column is.
const PROTECTED_FINER: f32 = 4.0;

/// A tensor as it would be decoded, and its bytes in the file.
pub(super) struct Variation {
    pub decoded: Vec<f32>,
    pub bytes: u64,
}

impl Variation {
    pub fn of(name: &str, tensor: QuantizedTensor) -> Result<Self, CompressError> {
        Ok(Self { decoded: tensor.dequantize(), bytes: coded_bytes(name, tensor)? })
    }
}

/// Bytes that a tensor takes in the smallest file, its line in the directory included.
pub(super) fn coded_bytes(name: &str, tensor: QuantizedTensor) -> Result<u64, CompressError> {
    let mut artifact = Artifact::default();
    let empty = encoded_size_with(&artifact, Effort::Smallest)?.total();
    artifact.tensors.insert(name.to_owned(), Tensor::Quantized(tensor));
    Ok(encoded_size_with(&artifact, Effort::Smallest)?.total() - empty)
}

impl OperatingPoint<'_> {
    /// A tensor with one thing changed.
    pub(super) fn variation(
        &self,
        tensor: &Weights<'_>,
        path: ExceptionPath,
    ) -> Result<Variation, CompressError> {
        let Weights { name, data, .. } = *tensor;
        let rule = self.recipe.rule(name)?;
        let at_step = |factor: f64| {
            let rule = StepRule { step: rule.step * factor, rows: rule.rows.clone() };
            self.recipe.coded(tensor, &rule, self.log_kappa)
        };
        let tensor = match path {
            ExceptionPath::Alone => self.coded(name).tensor.clone(),
            ExceptionPath::Finer => at_step(std::f64::consts::FRAC_1_SQRT_2)?,
            ExceptionPath::Coarser => at_step(std::f64::consts::SQRT_2)?,
            ExceptionPath::FinerEmbedding => at_step(0.5)?,
            ExceptionPath::ProtectedColumns => self.protected(tensor, rule)?,
            ExceptionPath::RowFactors => {
                let rows = match rule.rows {
                    Some(_) => None,
                    None => self.sensitivities.get(name).map(row_factors),
                };
                self.recipe.coded(tensor, &StepRule { step: rule.step, rows }, self.log_kappa)?
            }
            ExceptionPath::RowScales => self.toggled_row_scales(tensor, rule)?,
            ExceptionPath::LowRank(rank) => {
                let coded = self.coded(name);
                let metric = self.recipe.metric_of_columns(name);
                let mut decoded = coded.tensor.dequantize();
                let ridge = self.recipe.options.ridge;
                let correction = low_rank_correction(tensor, &decoded, metric, rank, ridge)?;
                correction.add_to(&mut decoded);
                let factors =
                    coded_bytes(name, correction.left)? + coded_bytes(name, correction.right)?;
                return Ok(Variation { decoded, bytes: coded.bytes + factors });
            }
        };
        debug_assert_eq!(tensor.codes.len(), data.len(), "one code per weight");
        Variation::of(name, tensor)
    }

    fn protected(
        &self,
        tensor: &Weights<'_>,
        rule: &StepRule,
    ) -> Result<QuantizedTensor, CompressError> {
        let whole = &self.coded(tensor.name).tensor;
        let metric = self.recipe.metric_of_columns(tensor.name);
        let columns = whole.columns();
        let errors = column_errors(tensor.data, &whole.dequantize(), columns, metric);
        let mut order: Vec<usize> = (0..columns).collect();
        order.sort_by(|a, b| errors[*b].total_cmp(&errors[*a]));
        order.truncate(columns.div_ceil(PROTECTED_SHARE).min(columns - 1));
        order.sort_unstable();
        coded_by(tensor, rule, self.log_kappa, |weights, step| {
            let (rung, options) = (self.recipe.rung, self.recipe.options_at(weights, step));
            let finer = PROTECTED_FINER;
            Ok(quantize_protected(rung, weights, metric, step, &options, whole, &order, finer)?)
        })
    }

    fn toggled_row_scales(
        &self,
        tensor: &Weights<'_>,
        rule: &StepRule,
    ) -> Result<QuantizedTensor, CompressError> {
        let scale_fit = match self.recipe.options.scale_fit {
            ScaleFit::RowsAndColumns => ScaleFit::Columns,
            ScaleFit::Columns | ScaleFit::Recursion => ScaleFit::RowsAndColumns,
        };
        let metric = self.recipe.metric_of_columns(tensor.name);
        coded_by(tensor, rule, self.log_kappa, |weights, step| {
            let options = LadderOptions { scale_fit, ..self.recipe.options_at(weights, step) };
            Ok(quantize_matrix(self.recipe.rung, weights, metric, step, &options)?)
        })
    }
}

/// Whether a rung fits row scales to its codes.
pub(super) fn fits_row_scales(rung: Rung) -> bool {
    matches!(rung, Rung::Watersic | Rung::WatersicRate)
}

/// Whether columns can be protected: codes on a trellis would leave it, and then cost a bit each.
pub(super) fn protects_columns(rung: Rung) -> bool {
    !matches!(rung, Rung::Trellis | Rung::WatersicRate)
}
