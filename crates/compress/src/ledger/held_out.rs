//! Text to measure on, and the float model's predictions for it.

use backslash_model::{ModelConfig, NamedWeights, Transformer, device};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{CalibrationText, CompressError};

/// Text with what the float model predicts for it: four bytes for each token that is scored and each entry of the
/// vocabulary; of a classifier, for each example and each class.
#[derive(Clone, Debug)]
pub struct HeldOut {
    text: CalibrationText,
    /// For each target, the probability of every token or class that could stand in its place.
    probabilities: Vec<f32>,
    /// Σ p·ln p for each target.
    negative_entropies: Vec<f64>,
    /// What the float model itself loses.
    float: Losses,
}

/// Losses of a model, one figure for each row of text, in nats per token.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// Kullback–Leibler divergence from the float model, Σ p·ln(p/q).
    pub divergence: Vec<f64>,
    /// Cross-entropy of the text.
    pub cross_entropy: Vec<f64>,
}

/// A paired difference on the same tokens, in nats per token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Mean difference.
    pub mean: f64,
    /// Standard error of the mean, from the differences between rows of text: tokens of one row are not independent.
    pub error: f64,
}

impl Change {
    /// After minus before, of figures that belong to the same rows.
    ///
    /// ```
    /// use backslash_compress::ledger::Change;
    ///
    /// let change = Change::between(&[1.0, 2.0, 3.0], &[1.5, 2.0, 4.0]);
    /// assert_eq!(change, Change { mean: 0.5, error: (0.25_f64 / 3.0).sqrt() });
    /// ```
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn between(before: &[f64], after: &[f64]) -> Self {
        assert_eq!(before.len(), after.len(), "rows before and after");
        let count = before.len().max(1) as f64;
        let differences = || before.iter().zip(after).map(|(before, after)| after - before);
        let mean = differences().sum::<f64>() / count;
        let squares = differences().map(|difference| (difference - mean).powi(2)).sum::<f64>();
        Self { mean, error: (squares / (count - 1.0).max(1.0) / count).sqrt() }
    }
}

impl Losses {
    /// Mean divergence.
    pub fn mean_divergence(&self) -> f64 {
        self.divergence.iter().sum::<f64>() / self.divergence.len().max(1) as f64
    }

    /// Mean cross-entropy.
    pub fn mean_cross_entropy(&self) -> f64 {
        self.cross_entropy.iter().sum::<f64>() / self.cross_entropy.len().max(1) as f64
    }
}

impl HeldOut {
    /// Runs the float model on the text.
    ///
    /// # Errors
    /// If the weights do not fit the configuration.
    pub fn new(
        config: &ModelConfig,
        weights: &NamedWeights,
        text: CalibrationText,
    ) -> Result<Self, CompressError> {
        let network = Transformer::from_weights(config, weights, &device())?;
        let (mut probabilities, mut negative_entropies) = (Vec::new(), Vec::new());
        for batch in text.batches() {
            let logits = batch.logits(&network);
            let outcomes = logits.len() / batch.targets().len();
            let start = probabilities.len();
            probabilities.resize(start + logits.len(), 0.0);
            let entropies: Vec<f64> = probabilities[start..]
                .par_chunks_mut(outcomes)
                .zip(logits.par_chunks(outcomes))
                .map(|(probabilities, logits)| {
                    let (largest, log_sum) = log_sum_exp(logits);
                    let mut entropy = 0.0;
                    for (probability, logit) in probabilities.iter_mut().zip(logits) {
                        let log = f64::from(logit - largest) - log_sum;
                        *probability = log.exp() as f32;
                        entropy += f64::from(*probability) * log;
                    }
                    entropy
                })
                .collect();
            negative_entropies.extend(entropies);
        }
        let float = Losses { divergence: Vec::new(), cross_entropy: Vec::new() };
        let mut held_out = Self { text, probabilities, negative_entropies, float };
        held_out.float = held_out.losses_of(&network);
        Ok(held_out)
    }

    /// Number of tokens that are scored.
    pub fn tokens(&self) -> usize {
        self.text.tokens()
    }

    /// Losses of the float model; its divergence from itself is a rounding error.
    pub fn float(&self) -> &Losses {
        &self.float
    }

    /// Losses of other weights of the same network.
    ///
    /// # Errors
    /// If the weights do not fit the configuration.
    pub fn losses(
        &self,
        config: &ModelConfig,
        weights: &NamedWeights,
    ) -> Result<Losses, CompressError> {
        Ok(self.losses_of(&Transformer::from_weights(config, weights, &device())?))
    }

    fn losses_of(&self, network: &Transformer) -> Losses {
        let mut losses = Losses { divergence: Vec::new(), cross_entropy: Vec::new() };
        let mut token = 0;
        for batch in self.text.batches() {
            let (logits, targets) = (batch.logits(network), batch.targets());
            let outcomes = logits.len() / targets.len();
            let probabilities = &self.probabilities[token * outcomes..];
            let tokens: Vec<(f64, f64)> = logits
                .par_chunks(outcomes)
                .zip(probabilities.par_chunks(outcomes))
                .zip(targets)
                .zip(&self.negative_entropies[token..token + targets.len()])
                .map(|(((logits, probabilities), target), negative_entropy)| {
                    let (largest, log_sum) = log_sum_exp(logits);
                    let log = |logit: f32| f64::from(logit - largest) - log_sum;
                    let pairs = probabilities.iter().zip(logits);
                    let cross: f64 = pairs.map(|(p, logit)| f64::from(*p) * log(*logit)).sum();
                    (negative_entropy - cross, -log(logits[usize::from(*target)]))
                })
                .collect();
            for tokens in tokens.chunks(self.text.targets_in_row()) {
                let count = tokens.len() as f64;
                losses.divergence.push(tokens.iter().map(|token| token.0).sum::<f64>() / count);
                losses.cross_entropy.push(tokens.iter().map(|token| token.1).sum::<f64>() / count);
            }
            token += targets.len();
        }
        losses
    }
}

/// The largest logit m and ln Σ exp(z − m).
fn log_sum_exp(logits: &[f32]) -> (f32, f64) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
    (largest, sum.ln())
}
