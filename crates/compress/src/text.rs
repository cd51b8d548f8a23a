//! What a model is calibrated on, text or labelled examples, and the loss on it.

use backslash_data::{Example, ExampleBatch};
use backslash_model::{ModelConfig, NamedWeights, Transformer, device};

use crate::{CalibrationBatch, CompressError};

/// Rows that go through the network together.
const ROWS: usize = 12;
/// The same for an encoder, which keeps the attention of every pair of tokens of a row for its gradients.
const ENCODER_ROWS: usize = 4;
/// The same for a classifier, whose rows are those of short texts.
const EXAMPLES: usize = 16;

/// Whole rows of tokens with their targets, as many as fit what was asked for.
///
/// For a causal network the target of each token is the one that follows. For an encoder the text is
/// [masked](backslash_model::Masking), the targets are the hidden tokens, and every "nats per token" of this
/// crate is one per masked token. For a classifier the rows are labelled examples, the targets their classes, and every
/// "nats per token" is one per example.
#[derive(Clone, Debug)]
pub struct CalibrationText {
    rows: Rows,
    /// Tokens of text, or examples, from which the rows were made.
    taken: usize,
}

#[derive(Clone, Debug)]
enum Rows {
    OfTokens {
        inputs: Vec<u16>,
        targets: Vec<u16>,
        row: usize,
        /// Targets in a row.
        targets_in_row: usize,
        /// Rows that go through the network together.
        together: usize,
    },
    OfExamples(Vec<ExampleBatch>),
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
        let rows = Rows::OfTokens { inputs, targets, row, targets_in_row, together };
        Ok(Self { rows, taken })
    }

    /// The first examples that have `count` tokens between them, at least one, those of about one length together.
    ///
    /// # Errors
    /// [`CompressError::NoClassifier`] of a network without classes, [`CompressError::NoExamples`] if there are none,
    /// [`CompressError::Token`] and [`CompressError::Class`] if a token or a class is none of the network's, and
    /// [`CompressError::ExampleLength`] if one is empty or longer than its context.
    pub fn of_examples(
        config: &ModelConfig,
        examples: &[Example],
        count: usize,
    ) -> Result<Self, CompressError> {
        if !config.is_classifier() {
            return Err(CompressError::NoClassifier);
        }
        let mut tokens = 0;
        let enough = |example: &&Example| {
            let is_wanted = tokens < count.max(1);
            tokens += example.tokens.len();
            is_wanted
        };
        let mut used: Vec<&Example> = examples.iter().take_while(enough).collect();
        let taken = used.len();
        if taken == 0 {
            return Err(CompressError::NoExamples);
        }
        for (position, example) in used.iter().enumerate() {
            check_example(config, example, position)?;
        }
        used.sort_by_key(|example| example.tokens.len());
        let batches = used.chunks(EXAMPLES).map(|group| ExampleBatch::of(group.iter().copied()));
        Ok(Self { rows: Rows::OfExamples(batches.collect()), taken })
    }

    /// The same rows, all of which go through the network together.
    pub(crate) fn whole(&self) -> Self {
        let rows = match &self.rows {
            Rows::OfTokens { inputs, targets, row, targets_in_row, .. } => Rows::OfTokens {
                inputs: inputs.clone(),
                targets: targets.clone(),
                row: *row,
                targets_in_row: *targets_in_row,
                together: inputs.len() / row,
            },
            Rows::OfExamples(batches) => {
                let examples: Vec<Example> = batches.iter().flat_map(rows_of).collect();
                Rows::OfExamples(vec![ExampleBatch::of(&examples)])
            }
        };
        Self { rows, taken: self.taken }
    }

    /// Number of tokens that are scored; of a classifier, of examples.
    pub fn tokens(&self) -> usize {
        self.batches().map(|batch| batch.targets().len()).sum()
    }

    /// Number of tokens of the text, from its beginning, that the rows were made of; of a classifier, of examples.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Tokens of text that the network reads.
    pub fn tokens_read(&self) -> usize {
        match &self.rows {
            Rows::OfTokens { .. } => self.taken,
            Rows::OfExamples(batches) => batches.iter().map(ExampleBatch::text_tokens).sum(),
        }
    }

    /// Number of targets that are scored in each row.
    pub(crate) fn targets_in_row(&self) -> usize {
        match &self.rows {
            Rows::OfTokens { targets_in_row, .. } => *targets_in_row,
            Rows::OfExamples(_) => 1,
        }
    }

    /// Groups of rows that go through the network together.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = CalibrationBatch<'_>> {
        let batches: Vec<CalibrationBatch<'_>> = match &self.rows {
            Rows::OfTokens { inputs, targets, row, targets_in_row, together } => {
                let inputs = inputs.chunks(together * row);
                let pairs = inputs.zip(targets.chunks(together * targets_in_row));
                let batch =
                    |(inputs, targets)| CalibrationBatch::Tokens { inputs, targets, row: *row };
                pairs.map(batch).collect()
            }
            Rows::OfExamples(batches) => batches.iter().map(CalibrationBatch::Examples).collect(),
        };
        batches.into_iter()
    }

    /// Mean loss of a network in nats per token.
    pub fn loss(&self, network: &Transformer) -> f64 {
        let nats: f64 = self.batches().map(|batch| batch.nats(network)).sum();
        nats / self.tokens() as f64
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

/// Whether the network can read an example.
fn check_example(
    config: &ModelConfig,
    example: &Example,
    position: usize,
) -> Result<(), CompressError> {
    let ModelConfig { vocabulary_size: vocabulary, context, labels, .. } = config;
    if let Some(token) = example.tokens.iter().find(|token| usize::from(**token) >= *vocabulary) {
        return Err(CompressError::Token { token: *token, position, vocabulary: *vocabulary });
    }
    if usize::from(example.class) >= labels.len() {
        return Err(CompressError::Class { class: example.class, position, classes: labels.len() });
    }
    match example.tokens.len() {
        length if (1..=*context).contains(&length) => Ok(()),
        length => Err(CompressError::ExampleLength { length, position, context: *context }),
    }
}

/// The examples of a batch.
fn rows_of(batch: &ExampleBatch) -> impl Iterator<Item = Example> + '_ {
    let row = batch.tokens.len() / batch.lengths.len().max(1);
    let rows = batch.tokens.chunks(row).zip(&batch.lengths).zip(&batch.classes);
    rows.map(|((tokens, length), class)| Example {
        tokens: tokens[..*length].to_vec(),
        class: *class,
    })
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
        let batch = text.batches().next().unwrap();
        assert_eq!((batch.inputs(), batch.targets()), (&tokens[..50], &tokens[1..51]));

        let text = CalibrationText::new(&encoder(), &tokens, 55).unwrap();
        assert_eq!((text.tokens(), text.taken()), (6, 48));
        assert_eq!(text.batches().len(), 2);
        for batch in text.batches() {
            let masks = batch.inputs().iter().filter(|token| **token == 3).count();
            assert_eq!(batch.inputs().len() / 10, batch.targets().len());
            assert_eq!(masks, batch.targets().len());
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
        assert!(message(&classifier(), &[9; 8]).contains("labelled"));
    }

    fn classifier() -> ModelConfig {
        ModelConfig { labels: ["a", "b"].map(str::to_owned).to_vec(), ..encoder() }
    }

    fn example(length: usize, class: u16) -> Example {
        let words = (0..length).map(|at| 10 + (at * 37 + length) as u16 % 290);
        Example { tokens: words.collect(), class }
    }

    #[test]
    fn the_first_examples_are_taken_and_their_classes_are_the_targets() {
        let examples: Vec<Example> =
            (0..40).map(|at| example(1 + at % 10, at as u16 % 2)).collect();
        let text = CalibrationText::of_examples(&classifier(), &examples, 100).unwrap();
        // Rows of 1 to 10 tokens come to 55; the 100th token is in the nineteenth.
        assert_eq!((text.taken(), text.tokens(), text.tokens_read()), (19, 19, 100));
        assert_eq!((text.batches().len(), text.targets_in_row()), (2, 1));
        let CalibrationText { rows: Rows::OfExamples(batches), .. } = &text else { panic!() };
        let mut found: Vec<Example> = batches.iter().flat_map(rows_of).collect();
        let mut expected = examples[..19].to_vec();
        let whole = text.whole();
        assert_eq!((whole.batches().len(), whole.tokens()), (1, 19));
        let CalibrationText { rows: Rows::OfExamples(batches), .. } = &whole else { panic!() };
        assert_eq!(batches.iter().flat_map(rows_of).collect::<Vec<_>>(), found);
        for examples in [&mut found, &mut expected] {
            examples.sort_by(|a, b| (&a.tokens, a.class).cmp(&(&b.tokens, b.class)));
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn examples_that_do_not_fit_are_said() {
        let message = |examples: &[Example]| {
            CalibrationText::of_examples(&classifier(), examples, 9).unwrap_err().to_string()
        };
        assert!(message(&[]).contains("no examples"));
        assert!(message(&[example(3, 0), example(3, 2)]).contains("class 2 at position 1"));
        assert!(message(&[example(11, 0)]).contains("11 tokens"));
        assert!(message(&[example(0, 0)]).contains("0 tokens"));
        let strange = Example { tokens: vec![300], class: 0 };
        assert!(message(&[strange]).contains("token 300 at position 0"));
        let error = CalibrationText::of_examples(&encoder(), &[example(3, 0)], 9).unwrap_err();
        assert!(error.to_string().contains("no classifier"), "{error}");
    }

    #[test]
    fn the_loss_of_examples_is_the_mean_over_them_however_they_are_batched() {
        let config = classifier();
        let weights = backslash_model::initial_weights(&config, 3).unwrap();
        let examples: Vec<Example> = (0..37).map(|at| example(2 + at % 9, at as u16 % 2)).collect();
        let text = CalibrationText::of_examples(&config, &examples, usize::MAX).unwrap();
        let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
        let alone = examples.iter().map(|example| {
            let loss =
                network.class_loss(&example.tokens, &[example.tokens.len()], &[example.class]);
            f64::from(loss.into_scalar::<f32>())
        });
        let expected = alone.sum::<f64>() / 37.0;
        for text in [text.whole(), text] {
            let loss = text.loss_of(&config, &weights).unwrap();
            assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
        }
    }
}
