//! Bits per byte, or the loss of masked tokens.

use backslash_data::{ByteTable, Error as DataError, validation_windows};
use backslash_model::Transformer;
use serde::Serialize;

use crate::EvalError;

/// Rows of tokens that go through the network together.
const ROWS: usize = 16;

/// How well a model predicts a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Targets that were scored: of an encoder, the masked tokens.
    pub tokens: u64,
    /// Bytes of text that the targets stand for; none for an encoder, whose targets are no text but a share of
    /// one, seen from both sides.
    pub bytes: Option<u64>,
    /// Sum of −ln P over the targets.
    pub nats: f64,
}

impl Quality {
    /// Mean loss in nats per token; for an encoder, per masked token.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// Bits per byte of text: (nats / ln 2) / bytes, which does not depend on the tokenizer. An encoder has
    /// none.
    ///
    /// ```
    /// use backslash_eval::Quality;
    /// let quality = Quality { tokens: 4, bytes: Some(10), nats: 10.0 * std::f64::consts::LN_2 };
    /// assert_eq!(quality.bits_per_byte(), Some(1.0));
    /// ```
    pub fn bits_per_byte(&self) -> Option<f64> {
        Some(self.nats / std::f64::consts::LN_2 / self.bytes? as f64)
    }
}

/// Scores a text in non-overlapping rows of the model's context. Sums are in double precision.
///
/// A causal network is scored on every token but the first. This is the evaluation of the Parameter Golf
/// baseline: the last token of a row predicts the first of the next, each target counts once, and `table` gives
/// the bytes that it stands for after its predecessor. An encoder is scored on the tokens that
/// [`Masking`](backslash_model::Masking) hides.
///
/// # Errors
/// If there is no token to score, or a token is beyond the model's vocabulary.
pub fn evaluate(
    network: &Transformer,
    tokens: &[u16],
    table: &ByteTable,
) -> Result<Quality, EvalError> {
    let config = network.config();
    let vocabulary = config.vocabulary_size;
    if let Some(position) = tokens.iter().position(|token| usize::from(*token) >= vocabulary) {
        return Err(EvalError::Token { token: tokens[position], position, vocabulary });
    }
    let mut scores = Scores { network, quality: Quality::default(), group: Group::default() };
    match config.masking() {
        None => {
            scores.quality.bytes = Some(table.count(tokens));
            for window in validation_windows(tokens, config.context)? {
                scores.add(window.inputs, window.targets);
            }
        }
        Some(masking) => {
            if tokens.is_empty() {
                return Err(DataError::TooFewTokens { found: 0, needed: 1 }.into());
            }
            for row in masking.rows(tokens) {
                scores.add(&row.inputs, &row.targets);
            }
        }
    }
    Ok(scores.finish())
}

/// Whole rows that wait for others to go through the network together.
#[derive(Default)]
struct Group {
    inputs: Vec<u16>,
    targets: Vec<u16>,
}

/// The sums of an evaluation.
struct Scores<'a> {
    network: &'a Transformer,
    quality: Quality,
    group: Group,
}

impl Scores<'_> {
    /// A row and its targets; a short one is scored by itself.
    fn add(&mut self, inputs: &[u16], targets: &[u16]) {
        let context = self.network.config().context;
        if inputs.len() < context {
            return self.score(inputs, targets, inputs.len());
        }
        self.group.inputs.extend_from_slice(inputs);
        self.group.targets.extend_from_slice(targets);
        if self.group.inputs.len() == ROWS * context {
            self.score_group();
        }
    }

    fn finish(mut self) -> Quality {
        self.score_group();
        self.quality
    }

    fn score_group(&mut self) {
        let Group { inputs, targets } = std::mem::take(&mut self.group);
        if !inputs.is_empty() {
            self.score(&inputs, &targets, self.network.config().context);
        }
    }

    fn score(&mut self, inputs: &[u16], targets: &[u16], row: usize) {
        let losses = self.network.losses(inputs, targets, row).into_data();
        let losses = losses.as_slice::<f32>().expect("losses are f32");
        self.quality.nats += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
        self.quality.tokens += losses.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_data::Tokenizer;
    use backslash_model::{Architecture, ModelConfig, SpecialTokens, device, initial_weights};

    fn config() -> ModelConfig {
        ModelConfig {
            vocabulary_size: 256,
            width: 16,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            context: 8,
            ..ModelConfig::default()
        }
    }

    #[test]
    fn a_model_that_knows_nothing_spends_eight_bits_on_a_byte() {
        let mut weights = initial_weights(&config(), 1).unwrap();
        for tensor in weights.tensors_mut() {
            tensor.data.fill(0.0);
        }
        let network = Transformer::from_weights(&config(), &weights, &device()).unwrap();
        let tokens: Vec<u16> = (0..500).map(|i| (i * 7 % 256) as u16).collect();
        let quality = evaluate(&network, &tokens, &Tokenizer::bytes().byte_table()).unwrap();
        assert_eq!((quality.tokens, quality.bytes), (499, Some(499)));
        let bits = quality.bits_per_byte().unwrap();
        assert!((bits - 8.0).abs() < 1e-5, "{bits}");
    }

    #[test]
    fn grouping_rows_changes_nothing() {
        let weights = initial_weights(&config(), 3).unwrap();
        let network = Transformer::from_weights(&config(), &weights, &device()).unwrap();
        let tokens: Vec<u16> = (0..1 + 8 * 21 + 5).map(|i| (i * 37 % 251) as u16).collect();
        let quality = evaluate(&network, &tokens, &Tokenizer::bytes().byte_table()).unwrap();
        let mut nats = 0.0;
        for window in validation_windows(&tokens, 8).unwrap() {
            let losses = network.losses(window.inputs, window.targets, window.targets.len());
            let losses: Vec<f32> = losses.into_data().try_into_vec().unwrap();
            nats += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
        }
        assert_eq!(quality.tokens as usize, tokens.len() - 1);
        assert!((quality.nats / nats - 1.0).abs() < 1e-6, "{} {nats}", quality.nats);
    }

    #[test]
    fn an_encoder_is_scored_at_its_mask_tokens() {
        let config = ModelConfig {
            architecture: Architecture::Bert,
            kv_heads: 2,
            special_tokens: Some(SpecialTokens { start: 1, end: 2, mask: 3 }),
            ..config()
        };
        let weights = initial_weights(&config, 1).unwrap();
        let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
        // Rows of six tokens of text, one of them hidden, and a short one.
        let tokens: Vec<u16> = (0..6 * 20 + 2).map(|i| (4 + i * 37 % 251) as u16).collect();
        let quality = evaluate(&network, &tokens, &Tokenizer::bytes().byte_table()).unwrap();
        assert_eq!((quality.tokens, quality.bytes), (21, None));
        assert_eq!(quality.bits_per_byte(), None);
        // Embeddings of 0.02 know next to nothing: ln 256 nats.
        assert!((quality.nats_per_token() - 256.0_f64.ln()).abs() < 0.2, "{quality:?}");
        assert!(evaluate(&network, &[], &Tokenizer::bytes().byte_table()).is_err());
    }

    #[test]
    fn a_token_beyond_the_vocabulary_is_named() {
        let weights = initial_weights(&config(), 3).unwrap();
        let network = Transformer::from_weights(&config(), &weights, &device()).unwrap();
        let error = evaluate(&network, &[1, 2, 300], &Tokenizer::bytes().byte_table()).unwrap_err();
        assert!(error.to_string().contains("token 300 at position 2"), "{error}");
    }
}
