//! Bits per byte.

use backslash_data::{ByteTable, validation_windows};
use backslash_model::Transformer;
use serde::Serialize;

use crate::EvalError;

/// Rows of tokens that go through the network together.
const ROWS: usize = 16;

/// How well a model predicts a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Targets that were scored.
    pub tokens: u64,
    /// Bytes of text that the targets stand for.
    pub bytes: u64,
    /// Sum of −ln P over the targets.
    pub nats: f64,
}

impl Quality {
    /// Mean loss in nats per token.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// Bits per byte of text: (nats / ln 2) / bytes, which does not depend on the tokenizer.
    ///
    /// ```
    /// use backslash_eval::Quality;
    /// let quality = Quality { tokens: 4, bytes: 10, nats: 10.0 * std::f64::consts::LN_2 };
    /// assert_eq!(quality.bits_per_byte(), 1.0);
    /// ```
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes as f64
    }
}

/// Scores every token but the first, in non-overlapping rows of the model's context.
///
/// This is the evaluation of the Parameter Golf baseline: the last token of a row predicts the first of
/// the next, each target counts once, and `table` gives the bytes that it stands for after its
/// predecessor. Sums are in double precision.
///
/// # Errors
/// If there are fewer than two tokens, or a token is beyond the model's vocabulary.
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
    let mut quality = Quality { bytes: table.count(tokens), ..Quality::default() };
    let mut score = |inputs: &[u16], targets: &[u16], row: usize| {
        let losses = network.losses(inputs, targets, row).into_data();
        let losses = losses.as_slice::<f32>().expect("losses are f32");
        quality.nats += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
        quality.tokens += losses.len() as u64;
    };
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    for window in validation_windows(tokens, config.context)? {
        if window.targets.len() < config.context {
            score(window.inputs, window.targets, window.targets.len());
            continue;
        }
        inputs.extend_from_slice(window.inputs);
        targets.extend_from_slice(window.targets);
        if targets.len() == ROWS * config.context {
            score(&inputs, &targets, config.context);
            inputs.clear();
            targets.clear();
        }
    }
    if !targets.is_empty() {
        score(&inputs, &targets, config.context);
    }
    Ok(quality)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_data::Tokenizer;
    use backslash_model::{ModelConfig, device, initial_weights};

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
        assert_eq!((quality.tokens, quality.bytes), (499, 499));
        assert!((quality.bits_per_byte() - 8.0).abs() < 1e-5, "{}", quality.bits_per_byte());
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
    fn a_token_beyond_the_vocabulary_is_named() {
        let weights = initial_weights(&config(), 3).unwrap();
        let network = Transformer::from_weights(&config(), &weights, &device()).unwrap();
        let error = evaluate(&network, &[1, 2, 300], &Tokenizer::bytes().byte_table()).unwrap_err();
        assert!(error.to_string().contains("token 300 at position 2"), "{error}");
    }
}
