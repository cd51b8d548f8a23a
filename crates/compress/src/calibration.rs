//! What a model's layers see, and how much the loss minds errors in them.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(feature = "model")]
use backslash_model::{ModelConfig, NamedWeights, Transformer, device};
use backslash_quant::Covariance;
#[cfg(feature = "model")]
use backslash_quant::QuantError;

#[cfg(feature = "model")]
use crate::{CalibrationText, CompressError, sensitivities};

/// Weight of the head's covariance against the plain squared error in the metric of a tied embedding.
pub(crate) const TIED_HEAD_WEIGHT: f64 = 1.0;
/// Fewest tokens per input of a layer for which its covariance is trusted.
const TOKENS_PER_INPUT: u64 = 10;

/// Everything that is learned about a model by running it on text.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// The metric of each matrix, by its name: moments of what it is multiplied with, which matrices that read the same
    /// input share. For the head's matrix that is also the embedding, whose rows are read as they are, the identity is
    /// added to them.
    pub covariances: BTreeMap<String, Covariance>,
    /// Sensitivity of each matrix.
    pub sensitivities: BTreeMap<String, Sensitivity>,
    /// Matrices that are stored with one row per input.
    pub inputs_first: BTreeSet<String>,
    /// Tokens of text that were seen.
    pub tokens: usize,
}

impl Calibration {
    /// Runs a model forwards for the moments and backwards for the sensitivities, over all of `text`.
    /// `progress` is called with the batches done and the batches to do, both passes counted.
    ///
    /// # Errors
    /// If the weights do not fit the configuration, or an activation is not a number.
    #[cfg(feature = "model")]
    pub fn of(
        config: &ModelConfig,
        weights: &NamedWeights,
        text: &CalibrationText,
        seed: u64,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, CompressError> {
        let batches = text.batches().len();
        let mut covariances =
            covariances(config, weights, text, |done| progress(done, 2 * batches))?;
        for (name, covariance) in &mut covariances {
            if config.ties(name) {
                *covariance = covariance.identity_plus(TIED_HEAD_WEIGHT)?;
            }
        }
        let sensitivities = sensitivities(config, weights, text, seed, |done| {
            progress(batches + done, 2 * batches);
        })?;
        let names = covariances.keys().filter(|name| config.has_inputs_first(name));
        let inputs_first = names.cloned().collect();
        Ok(Self { covariances, sensitivities, inputs_first, tokens: text.tokens_read() })
    }

    /// The widest layer that has seen fewer than ten tokens per input, with its number of inputs and how often they were seen.
    pub fn undersampled(&self) -> Option<(&str, usize, u64)> {
        let few = self.covariances.iter().filter(|(_, covariance)| {
            covariance.samples() < TOKENS_PER_INPUT * covariance.width() as u64
        });
        let figures =
            few.map(|(name, covariance)| (name.as_str(), covariance.width(), covariance.samples()));
        figures.max_by_key(|(_, width, _)| *width)
    }
}

/// Curvature of the loss in one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    /// Per row, the mean over its weights of the Fisher information F: an independent error of variance v in
    /// every weight of row r raises the loss by about ½·columns·F_r·v nats per token.
    pub rows: Vec<f64>,
    /// Weights in a row.
    pub columns: usize,
}

impl Sensitivity {
    /// Mean Fisher information of a weight.
    pub fn mean(&self) -> f64 {
        self.rows.iter().sum::<f64>() / self.rows.len().max(1) as f64
    }

    /// Expected rise of the loss, in nats per token, from an error of the given variance in every weight.
    pub fn loss_increase(&self, variance: f64) -> f64 {
        0.5 * self.rows.iter().sum::<f64>() * self.columns as f64 * variance
    }
}

/// Moments of the inputs of every matrix of a network that has been shown any but zeros.
///
/// # Errors
/// If the weights do not fit the configuration, or an activation is not a number.
#[cfg(feature = "model")]
pub fn covariances(
    config: &ModelConfig,
    weights: &NamedWeights,
    text: &CalibrationText,
    mut progress: impl FnMut(usize),
) -> Result<BTreeMap<String, Covariance>, CompressError> {
    let network = Transformer::from_weights(config, weights, &device())?;
    // One accumulation per input, under the first of the names that share it.
    let mut sums: BTreeMap<String, Covariance> = BTreeMap::new();
    let mut sharing: BTreeMap<String, String> = BTreeMap::new();
    let mut failure: Result<(), QuantError> = Ok(());
    for (index, batch) in text.batches().enumerate() {
        batch.observe_inputs(&network, &mut |names, values, width| {
            let mut add = || -> Result<(), QuantError> {
                if !sums.contains_key(names[0]) {
                    sums.insert(names[0].to_owned(), Covariance::new(width)?);
                    for name in names {
                        sharing.insert((*name).to_owned(), names[0].to_owned());
                    }
                }
                sums.get_mut(names[0]).expect("just inserted").accumulate(values)
            };
            if failure.is_ok() {
                failure = add();
            }
        });
        progress(index + 1);
    }
    failure?;
    let of = |(name, first): (String, String)| (name, sums[&first].clone());
    Ok(sharing.into_iter().map(of).filter(|(_, covariance)| covariance.has_moments()).collect())
}
