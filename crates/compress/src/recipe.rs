//! From weights and κ to the content of a file.

use std::collections::{BTreeMap, BTreeSet};

use backslash_codec::{Artifact, QuantizedTensor, Tensor, round_scale};
use backslash_quant::{
    Covariance, Gain, LadderOptions, QuantError, Rung, Weights, is_coded, quantize_inputs_first,
    quantize_matrix, store_uncoded,
};
use backslash_rate::Moments;
use rayon::prelude::*;

use crate::allocation::{StepRule, relative_rules, step_rules};
use crate::{Allocation, Calibration, CompressError};

/// Share of the mean diagonal that is added to covariances where no step is known.
const RIDGE: f64 = 0.03;
/// The same share at a step Δ, by the relative noise Δ²/12E\[w²\] of a quantiser. Directions that inputs hardly take are
/// not as cheap as their moments say once the layers before have been quantised too, with about that noise.
const RIDGE_BY_NOISE: f64 = 0.25;
/// Least and largest such share.
const RIDGES: [f64; 2] = [1e-3, 0.1];

/// All that is decided about a file but how large it is.
#[derive(Clone, Debug)]
pub struct Recipe<'a> {
    /// The tensors.
    pub weights: Vec<Weights<'a>>,
    /// What goes along as it is.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// Tensors that do too: integers, for one.
    pub verbatim: BTreeMap<String, Tensor>,
    /// The quantiser.
    pub rung: Rung,
    /// What it is told.
    pub options: LadderOptions,
    /// Step of every coded tensor at κ = 1.
    pub rules: BTreeMap<String, StepRule>,
    /// The metric of every coded tensor, for the rungs that take one.
    pub metrics: BTreeMap<String, Covariance>,
    /// Matrices that are stored with one row per input.
    pub inputs_first: BTreeSet<String>,
}

impl<'a> Recipe<'a> {
    /// The recipe of weights of which nothing else is known: at κ the step of every tensor is κ times its root mean square.
    pub fn of_weights(weights: Vec<Weights<'a>>, rung: Rung, options: LadderOptions) -> Self {
        Self {
            rules: relative_rules(&weights),
            weights,
            metadata: BTreeMap::new(),
            verbatim: BTreeMap::new(),
            rung,
            options,
            metrics: BTreeMap::new(),
            inputs_first: BTreeSet::new(),
        }
    }

    /// The recipe of a model that has been run on text. A matrix that multiplies nothing, such as a table of
    /// positions, is read row by row: its metric is the identity.
    ///
    /// # Errors
    /// Those of [`step_rules`] and of [`Covariance::identity`].
    pub fn calibrated(
        weights: Vec<Weights<'a>>,
        metadata: BTreeMap<String, Vec<u8>>,
        calibration: Calibration,
        rung: Rung,
        allocation: Allocation,
    ) -> Result<Self, CompressError> {
        let options =
            LadderOptions { ridge: RIDGE, gain: Gain::Unbiased, ..LadderOptions::default() };
        let rules = step_rules(&weights, &calibration, rung, allocation, options.ridge)?;
        let (verbatim, mut metrics) = (BTreeMap::new(), calibration.covariances);
        for tensor in weights.iter().filter(|tensor| is_coded(tensor.shape)) {
            if !metrics.contains_key(tensor.name) {
                let columns = tensor.data.len() / tensor.shape[0];
                metrics.insert(tensor.name.to_owned(), Covariance::identity(columns)?);
            }
        }
        let inputs_first = calibration.inputs_first;
        Ok(Self { weights, metadata, verbatim, rung, options, rules, metrics, inputs_first })
    }
}

impl Recipe<'_> {
    /// Number of weights, coded or not.
    pub fn parameters(&self) -> usize {
        self.weights.iter().map(|tensor| tensor.data.len()).sum()
    }

    /// The content of the file at ln κ, decided tensor by tensor on all threads.
    ///
    /// # Errors
    /// Those of [`quantize_matrix`], and a coded tensor without a rule.
    pub fn artifact(&self, log_kappa: f64) -> Result<Artifact, CompressError> {
        // The largest first, so that no thread is left with one at the end.
        let mut order: Vec<&Weights<'_>> = self.weights.iter().collect();
        order.sort_by_key(|tensor| std::cmp::Reverse(tensor.data.len()));
        let coded = order
            .par_iter()
            .with_max_len(1)
            .map(|tensor| Ok((tensor.name.to_owned(), self.tensor(tensor, log_kappa)?)))
            .collect::<Result<Vec<_>, CompressError>>()?;
        let tensors = self.verbatim.clone().into_iter().chain(coded).collect();
        Ok(Artifact { metadata: self.metadata.clone(), tensors })
    }

    /// One tensor at ln κ.
    ///
    /// # Errors
    /// As [`Recipe::artifact`].
    pub fn tensor(&self, tensor: &Weights<'_>, log_kappa: f64) -> Result<Tensor, CompressError> {
        let Weights { name, shape, data } = *tensor;
        if !is_coded(shape) {
            return Ok(Tensor::Raw(store_uncoded(name, shape, data)?));
        }
        Ok(Tensor::Quantized(self.coded(tensor, self.rule(name)?, log_kappa)?))
    }

    /// The rule of a coded tensor.
    ///
    /// # Errors
    /// If it has none.
    pub fn rule(&self, name: &str) -> Result<&StepRule, CompressError> {
        Ok(self.rules.get(name).ok_or_else(|| QuantError::NoStep { name: name.to_owned() })?)
    }

    /// One coded tensor at ln κ by any rule.
    ///
    /// # Errors
    /// Those of [`quantize_matrix`].
    pub fn coded(
        &self,
        tensor: &Weights<'_>,
        rule: &StepRule,
        log_kappa: f64,
    ) -> Result<QuantizedTensor, CompressError> {
        coded_by(tensor, rule, log_kappa, |weights, step| self.matrix(weights, step))
    }

    fn matrix(&self, tensor: &Weights<'_>, step: f32) -> Result<QuantizedTensor, CompressError> {
        let metric = self.metrics.get(tensor.name);
        let quantize = match self.inputs_first.contains(tensor.name) {
            true => quantize_inputs_first,
            false => quantize_matrix,
        };
        Ok(quantize(self.rung, tensor, metric, step, &self.options_at(tensor, step))?)
    }

    /// What the quantiser of a matrix is told at a step.
    pub(crate) fn options_at(&self, tensor: &Weights<'_>, step: f32) -> LadderOptions {
        let noise = f64::from(step) / Moments::of(tensor.data).root_mean_square();
        let ridge = RIDGE_BY_NOISE * noise.powi(2) / 12.0;
        LadderOptions { ridge: ridge.clamp(RIDGES[0], RIDGES[1]), ..self.options }
    }

    /// The metric of a matrix in which rows are outputs.
    #[cfg(feature = "model")]
    pub(crate) fn metric_of_columns(&self, name: &str) -> Option<&Covariance> {
        self.metrics.get(name).filter(|_| !self.inputs_first.contains(name))
    }
}

/// One coded tensor at ln κ, by a rule and any quantiser of a matrix at one step.
pub(crate) fn coded_by(
    tensor: &Weights<'_>,
    rule: &StepRule,
    log_kappa: f64,
    quantize: impl FnOnce(&Weights<'_>, f32) -> Result<QuantizedTensor, CompressError>,
) -> Result<QuantizedTensor, CompressError> {
    let step = (rule.step * log_kappa.exp()) as f32;
    let Some(factors) = &rule.rows else { return quantize(tensor, step) };
    // Rows are quantised divided by their factors, at one step: each then has its own.
    let columns = tensor.data.len() / factors.len().max(1);
    let rows = tensor.data.chunks(columns.max(1)).zip(factors);
    let data: Vec<f32> =
        rows.flat_map(|(row, factor)| row.iter().map(move |weight| weight / factor)).collect();
    let mut quantized = quantize(&Weights { data: &data, ..*tensor }, step)?;
    quantized.row_scales = Some(match quantized.row_scales {
        None => factors.clone(),
        // Both are on the grid of scales, and so is their product but for its last bit.
        Some(fitted) => {
            let pairs = fitted.iter().zip(factors);
            pairs.map(|(scale, factor)| round_scale(scale * factor)).collect()
        }
    });
    Ok(quantized)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 0.25·Δ²/12E[w²], between 0.001 and 0.1.
    #[test]
    fn the_ridge_grows_with_the_noise_of_the_step() {
        let data = [0.5_f32, -0.5, 0.5, 0.5];
        let weights = Weights { name: "w", shape: &[2, 2], data: &data };
        let calibration = Calibration {
            covariances: BTreeMap::new(),
            sensitivities: BTreeMap::new(),
            inputs_first: BTreeSet::new(),
            tokens: 0,
        };
        let recipe = Recipe::calibrated(
            vec![weights],
            BTreeMap::new(),
            calibration,
            Rung::Watersic,
            Allocation::Relative,
        )
        .unwrap();
        let ridge = |weights, step| recipe.options_at(weights, step).ridge;
        assert!((ridge(&weights, 0.5) - 0.25 / 12.0).abs() < 1e-12);
        assert_eq!(ridge(&weights, 0.01), 1e-3);
        assert_eq!(ridge(&weights, 5.0), 0.1);
        let zeros = Weights { data: &[0.0; 4], ..weights };
        assert_eq!(ridge(&zeros, 0.5), 0.1);
    }
}
