//! Text to calibrate on, and the loss on it.

use backslash_model::{ModelConfig, NamedWeights, Transformer, device};

use crate::CompressError;

/// Rows that go through the network together.
const ROWS: usize = 12;
/// The same for an encoder, which keeps the attention of every pair of tokens of a row for its gradients.
const ENCODER_ROWS: usize = 4;

/// Whole rows of tokens with their targets, as many as fit what was asked for.
///
/// For a causal network the target of each token is the one that follows. For an encoder the text is
/// [masked](backslash_model::Masking), the targets are the hidden tokens, and every "nats per token" of this
/// crate is one per masked token.
#[derive(Clone, Debug)]
pub struct CalibrationText {
    inputs: Vec<u16>,
    targets: Vec<u16>,
    row: usize,
    /// Targets in a row.
    targets_in_row: usize,
    /// Rows that go through the network together.
    rows: usize,
    /// Tokens of the text from which the rows were made.
    taken: usize,
}

impl CalibrationText {
    /// The first `count` tokens, cut into rows of the model's context; an incomplete last row is left out.
    ///
    /// # Errors
    /// [`CompressError::Classifier`] of a classifier, [`CompressError::ShortText`] if there is not one row with its targets, and [`CompressError::Token`] if a
    /// token is beyond the vocabulary.
    pub fn new(config: &ModelConfig, tokens: &[u16], count: usize) -> Result<Self, CompressError> {
        if config.is_classifier() {
            return Err(CompressError::Classifier);
        }
        let row = config.context;
        let masking = config.masking();
        // The last token of a causal row has a target beyond the row.
        let (step, beyond) = masking.map_or((row, 1), |masking| (masking.text_in_row(), 0));
        let rows = tokens.len().saturating_sub(beyond).min(count.max(step)) / step;
        if rows == 0 {
            return Err(CompressError::ShortText { found: tokens.len(), needed: step + beyond });
        }
        let vocabulary = config.vocabulary_size;
        let taken = rows * step;
        let used = &tokens[..taken + beyond];
        if let Some(position) = used.iter().position(|token| usize::from(*token) >= vocabulary) {
            return Err(CompressError::Token { token: used[position], position, vocabulary });
        }
        let (mut inputs, mut targets, mut together) = (Vec::new(), Vec::new(), ROWS);
        match masking {
            None => {
                inputs.extend_from_slice(&used[..taken]);
                targets.extend_from_slice(&used[1..]);
            }
            Some(masking) => {
                together = ENCODER_ROWS;
                for masked in masking.rows(used) {
                    inputs.extend(masked.inputs);
                    targets.extend(masked.targets);
                }
            }
        }
        let targets_in_row = targets.len() / rows;
        Ok(Self { inputs, targets, row, targets_in_row, rows: together, taken })
    }

    /// Number of tokens that are scored.
    pub fn tokens(&self) -> usize {
        self.targets.len()
    }

    /// Number of tokens of the text, from its beginning, that the rows were made of.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Number of tokens that are scored in each row.
    pub(crate) fn targets_in_row(&self) -> usize {
        self.targets_in_row
    }

    /// Groups of rows that go through the network together: inputs, targets, and the length of a row.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = (&[u16], &[u16], usize)> {
        let inputs = self.inputs.chunks(self.rows * self.row);
        let targets = self.targets.chunks(self.rows * self.targets_in_row);
        inputs.zip(targets).map(|(inputs, targets)| (inputs, targets, self.row))
    }

    /// All rows one after the other, and the length of a row.
    pub(crate) fn all(&self) -> (&[u16], usize) {
        (&self.inputs, self.row)
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

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_model::{Architecture, SpecialTokens};

    /// Rows of ten: eight tokens of text between start and end, one of them hidden.
    fn encoder() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Bert,
            vocabulary_size: 300,
            context: 10,
            kv_heads: 4,
            special_tokens: Some(SpecialTokens { start: 1, end: 2, mask: 3 }),
            ..ModelConfig::default()
        }
    }

    #[test]
    fn a_causal_row_has_a_target_per_token_and_an_encoder_has_them_at_mask_tokens() {
        let tokens: Vec<u16> = (10..210).collect();
        let causal = ModelConfig { architecture: Architecture::Decoder, ..encoder() };
        let text = CalibrationText::new(&causal, &tokens, 55).unwrap();
        assert_eq!((text.tokens(), text.taken()), (50, 50));
        let (inputs, targets, row) = text.batches().next().unwrap();
        assert_eq!((inputs, targets, row), (&tokens[..50], &tokens[1..51], 10));

        let text = CalibrationText::new(&encoder(), &tokens, 55).unwrap();
        assert_eq!((text.tokens(), text.taken()), (6, 48));
        assert_eq!(text.batches().len(), 2);
        for (inputs, targets, row) in text.batches() {
            let masks = inputs.iter().filter(|token| **token == 3).count();
            assert_eq!((inputs.len() / row, masks), (targets.len(), targets.len()));
        }
    }

    #[test]
    fn short_text_and_unknown_tokens_are_said() {
        let message = |config: &ModelConfig, tokens: &[u16]| {
            CalibrationText::new(config, tokens, 100).unwrap_err().to_string()
        };
        assert!(message(&encoder(), &[9; 7]).contains("7 tokens: at least 8 are needed"));
        assert!(CalibrationText::new(&encoder(), &[9; 8], 1).is_ok());
        assert!(message(&encoder(), &[9, 9, 9, 9, 9, 9, 9, 300]).contains("at position 7"));
        let labels = ["a", "b"].map(str::to_owned).to_vec();
        let classifier = ModelConfig { labels, ..encoder() };
        assert!(message(&classifier, &[9; 8]).contains("a classifier is compressed without text"));
    }
}
