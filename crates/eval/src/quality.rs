//! Bits per byte, the loss of masked tokens, or the accuracy of a classifier.

use backslash_data::{ByteTable, Error as DataError, Example, ExampleBatch, validation_windows};
use backslash_model::{ModelConfig, NamedWeights, Transformer, device};
use serde::Serialize;

use crate::EvalError;

/// Rows of tokens that go through the network together.
const ROWS: usize = 16;

/// Examples that go through the network together.
const EXAMPLES: usize = 32;

/// What models are scored on.
#[derive(Clone, Copy, Debug)]
pub enum TestSet<'a> {
    /// Text.
    Text {
        /// Its tokens.
        tokens: &'a [u16],
        /// The bytes that each token stands for.
        table: &'a ByteTable,
    },
    /// Labelled texts, for a classifier.
    Examples(&'a [Example]),
}

impl TestSet<'_> {
    /// How well weights do.
    ///
    /// # Errors
    /// If the weights do not fit the configuration, and as [`evaluate`] and [`evaluate_examples`].
    pub fn quality(
        &self,
        config: &ModelConfig,
        weights: &NamedWeights,
    ) -> Result<Quality, EvalError> {
        let network = Transformer::from_weights(config, weights, &device())?;
        match self {
            Self::Text { tokens, table } => evaluate(&network, tokens, table),
            Self::Examples(examples) => evaluate_examples(&network, examples),
        }
    }

    /// Number of tokens, or of examples.
    pub fn size(&self) -> usize {
        match self {
            Self::Text { tokens, .. } => tokens.len(),
            Self::Examples(examples) => examples.len(),
        }
    }
}

/// How well a model predicts a text, or the classes of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// Targets that were scored: of an encoder, the masked tokens; of a classifier, the examples.
    pub tokens: u64,
    /// Examples whose class is the most likely one; none but for a classifier.
    pub correct: Option<u64>,
    /// Bytes of text that the targets stand for; none for an encoder, whose targets are no text but a share of
    /// one, seen from both sides.
    pub bytes: Option<u64>,
    /// Sum of −ln P over the targets.
    pub nats: f64,
}

impl Quality {
    /// Mean loss in nats per token; for an encoder, per masked token; for a classifier, per example.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// Bits per byte of text: (nats / ln 2) / bytes, which does not depend on the tokenizer. An encoder has
    /// none.
    ///
    /// ```
    /// use backslash_eval::Quality;
    /// let nats = 10.0 * std::f64::consts::LN_2;
    /// let quality = Quality { tokens: 4, bytes: Some(10), nats, ..Quality::default() };
    /// assert_eq!(quality.bits_per_byte(), Some(1.0));
    /// ```
    pub fn bits_per_byte(&self) -> Option<f64> {
        Some(self.nats / std::f64::consts::LN_2 / self.bytes? as f64)
    }

    /// Share of the examples whose class was found, 0 to 1; of a classifier.
    ///
    /// ```
    /// use backslash_eval::Quality;
    /// let quality = Quality { tokens: 8, correct: Some(6), ..Quality::default() };
    /// assert_eq!(quality.accuracy(), Some(0.75));
    /// ```
    pub fn accuracy(&self) -> Option<f64> {
        Some(self.correct? as f64 / self.tokens as f64)
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
/// If there is no token to score, a token is beyond the model's vocabulary, or the network is a classifier.
pub fn evaluate(
    network: &Transformer,
    tokens: &[u16],
    table: &ByteTable,
) -> Result<Quality, EvalError> {
    let config = network.config();
    if config.is_classifier() {
        return Err(EvalError::Classifier);
    }
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

/// Scores the classes of examples. Sums are in double precision; of equal logits the first class counts.
///
/// # Errors
/// If there is no example, the network is no classifier, or does not know a class or a token.
pub fn evaluate_examples(
    network: &Transformer,
    examples: &[Example],
) -> Result<Quality, EvalError> {
    let config = network.config();
    if !config.is_classifier() {
        return Err(EvalError::NoClassifier);
    }
    let (vocabulary, classes) = (config.vocabulary_size, config.labels.len());
    for (position, example) in examples.iter().enumerate() {
        if usize::from(example.class) >= classes {
            return Err(EvalError::Class { class: example.class, position, classes });
        }
        if let Some(token) = example.tokens.iter().find(|token| usize::from(**token) >= vocabulary)
        {
            return Err(EvalError::Token { token: *token, position, vocabulary });
        }
    }
    if examples.is_empty() {
        return Err(DataError::Zero { what: "the number of examples" }.into());
    }
    // Those of about one length go together, with little padding.
    let mut sorted: Vec<&Example> = examples.iter().collect();
    sorted.sort_by_key(|example| example.tokens.len());
    let mut quality = Quality { correct: Some(0), ..Quality::default() };
    for group in sorted.chunks(EXAMPLES) {
        let batch = ExampleBatch::of(group.iter().copied());
        let logits = network.class_logits(&batch.tokens, &batch.lengths).into_data();
        let logits = logits.as_slice::<f32>().expect("logits are f32");
        for (logits, class) in logits.chunks(classes).zip(&batch.classes) {
            let (loss, is_correct) = score(logits, usize::from(*class));
            quality.nats += loss;
            quality.correct = quality.correct.map(|correct| correct + u64::from(is_correct));
        }
    }
    quality.tokens = examples.len() as u64;
    Ok(quality)
}

/// −ln softmax(logits)\[class\], and whether that class is the most likely one.
fn score(logits: &[f32], class: usize) -> (f64, bool) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    let best = logits.iter().position(|logit| *logit == largest);
    (sum.ln() - f64::from(logits[class] - largest), best == Some(class))
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
    use backslash_model::{Architecture, SpecialTokens, initial_weights};

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

    fn classifier() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Bert,
            kv_heads: 2,
            labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
            special_tokens: Some(SpecialTokens { start: 1, end: 2, mask: 3 }),
            ..config()
        }
    }

    #[test]
    fn a_classifier_is_scored_example_by_example() {
        let config = classifier();
        let mut weights = initial_weights(&config, 1).unwrap();
        // Embeddings large enough for texts to differ.
        weights
            .tensors_mut()
            .iter_mut()
            .flat_map(|tensor| &mut tensor.data)
            .for_each(|w| *w *= 3.0);
        let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
        let example = |index: usize| {
            let word = |at: usize| (10 + (index * 37 + at * 11) % 200) as u16;
            let tokens = (0..1 + index % 8).map(word).collect();
            Example { tokens, class: (index % 3) as u16 }
        };
        let examples: Vec<Example> = (0..70).map(example).collect();
        let quality = evaluate_examples(&network, &examples).unwrap();
        let (mut nats, mut correct) = (0.0, 0);
        for example in &examples {
            let logits = network.class_logits(&example.tokens, &[example.tokens.len()]).into_data();
            let logits: Vec<f32> = logits.try_into_vec().unwrap();
            let of_class = f64::from(logits[usize::from(example.class)]);
            nats += logits.iter().map(|z| f64::from(*z).exp()).sum::<f64>().ln() - of_class;
            correct += u64::from(logits.iter().all(|z| f64::from(*z) <= of_class));
        }
        assert_eq!((quality.tokens, quality.correct, quality.bytes), (70, Some(correct), None));
        assert!((quality.nats / nats - 1.0).abs() < 1e-5, "{} {nats}", quality.nats);
        assert!((1..69).contains(&correct), "{correct} of 70 say nothing");

        let table = Tokenizer::bytes().byte_table();
        let error = evaluate(&network, &[1, 2, 3], &table).unwrap_err().to_string();
        assert!(error.contains("labelled texts"), "{error}");
        let strange = [Example { tokens: vec![1, 2], class: 3 }];
        let error = evaluate_examples(&network, &strange).unwrap_err().to_string();
        assert!(error.contains("class 3"), "{error}");
        assert!(evaluate_examples(&network, &[]).is_err());
    }

    #[test]
    fn a_token_beyond_the_vocabulary_is_named() {
        let weights = initial_weights(&config(), 3).unwrap();
        let network = Transformer::from_weights(&config(), &weights, &device()).unwrap();
        let error = evaluate(&network, &[1, 2, 300], &Tokenizer::bytes().byte_table()).unwrap_err();
        assert!(error.to_string().contains("token 300 at position 2"), "{error}");
    }
}
