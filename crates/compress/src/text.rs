//! Text to calibrate on, and the loss on it.

use backslash_model::{ModelConfig, NamedWeights, Transformer, device};

use crate::CompressError;

/// Rows that go through the network together.
const ROWS: usize = 12;

/// Whole rows of tokens with their targets, as many as fit what was asked for.
#[derive(Clone, Debug)]
pub struct CalibrationText {
    inputs: Vec<u16>,
    targets: Vec<u16>,
    row: usize,
}

impl CalibrationText {
    /// The first `tokens` tokens, cut into rows of the model's context; an incomplete last row is left out.
    ///
    /// # Errors
    /// [`CompressError::ShortText`] if there is not one row and its last target, and
    /// [`CompressError::Token`] if a token is beyond the vocabulary.
    pub fn new(config: &ModelConfig, tokens: &[u16], count: usize) -> Result<Self, CompressError> {
        let row = config.context;
        let rows = tokens.len().saturating_sub(1).min(count.max(row)) / row;
        if rows == 0 {
            return Err(CompressError::ShortText { found: tokens.len(), needed: row + 1 });
        }
        let vocabulary = config.vocabulary_size;
        let used = &tokens[..rows * row + 1];
        if let Some(position) = used.iter().position(|token| usize::from(*token) >= vocabulary) {
            return Err(CompressError::Token { token: used[position], position, vocabulary });
        }
        Ok(Self { inputs: used[..rows * row].to_vec(), targets: used[1..].to_vec(), row })
    }

    /// Number of tokens that are scored.
    pub fn tokens(&self) -> usize {
        self.targets.len()
    }

    /// Groups of rows that go through the network together: inputs, targets, and the length of a row.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = (&[u16], &[u16], usize)> {
        let size = ROWS * self.row;
        let pairs = self.inputs.chunks(size).zip(self.targets.chunks(size));
        pairs.map(|(inputs, targets)| (inputs, targets, self.row))
    }

    /// Mean loss of a network in nats per token.
    pub fn loss(&self, network: &Transformer) -> f64 {
        let sums = self.batches().map(|(inputs, targets, row)| {
            let losses = network.losses(inputs, targets, row).into_data();
            let losses = losses.as_slice::<f32>().expect("losses are f32");
            losses.iter().map(|loss| f64::from(*loss)).sum::<f64>()
        });
        sums.sum::<f64>() / self.tokens() as f64
    }

    /// Mean loss of weights in nats per token.
    ///
    /// # Errors
    /// If the weights do not fit the configuration.
    pub fn loss_of(
        &self,
        config: &ModelConfig,
        weights: &NamedWeights,
    ) -> Result<f64, CompressError> {
        Ok(self.loss(&Transformer::from_weights(config, weights, &device())?))
    }
}
