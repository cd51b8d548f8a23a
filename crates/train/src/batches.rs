//! What a run learns from: text, of which every token is predicted, or examples of classes.

use backslash_data::{Batch as Windows, Example, ExampleBatch, ExampleSampler, Sampler};
use backslash_model::{Loss, Transformer};
use xxhash_rust::xxh3::xxh3_128;

use crate::teacher::Teacher;
use crate::{RunConfig, TrainError};

/// What a run learns from.
#[derive(Clone, Copy, Debug)]
pub enum TrainingSet<'a> {
    /// Text, for a network that predicts the next token.
    Tokens(&'a [u16]),
    /// Labelled texts, for a classifier.
    Examples(&'a [Example]),
}

impl TrainingSet<'_> {
    /// A hash by which other data is noticed.
    pub(crate) fn hash(&self) -> String {
        let bytes: Vec<u8> = match self {
            Self::Tokens(tokens) => tokens.iter().flat_map(|token| token.to_le_bytes()).collect(),
            Self::Examples(examples) => {
                let words = |example: &Example| {
                    let length = example.tokens.len() as u16;
                    [&[example.class, length][..], &example.tokens].concat()
                };
                examples.iter().flat_map(words).flat_map(u16::to_le_bytes).collect()
            }
        };
        format!("{:032x}", xxh3_128(&bytes))
    }
}

/// The batches of a training set, in an order of its own.
#[derive(Clone, Debug)]
pub(crate) enum Batches {
    Windows(Sampler),
    Examples(ExampleSampler),
}

/// Rows that go through the network together.
pub(crate) enum Batch {
    Windows(Windows),
    Examples(ExampleBatch),
}

impl Batches {
    /// The batches of a run, from the beginning.
    ///
    /// # Errors
    /// If the network does not learn from such data, or there is not enough of it.
    pub(crate) fn new(config: &RunConfig, data: TrainingSet<'_>) -> Result<Self, TrainError> {
        let (rows, seed) = (config.train.batch_size, config.train.seed);
        let wrong = |expected| {
            let value = format!("{:?}", config.model.labels);
            Err(TrainError::ConfigValue { key: "model.labels", value, expected })
        };
        match (data, config.model.is_classifier()) {
            (TrainingSet::Tokens(tokens), false) => {
                Ok(Self::Windows(Sampler::new(tokens.len(), config.model.context, rows, seed)?))
            }
            (TrainingSet::Examples(examples), true) => {
                let known = config.model.labels.len();
                match examples.iter().all(|example| usize::from(example.class) < known) {
                    true => {
                        let mut sampler = ExampleSampler::new(examples.len(), rows, seed)?;
                        if let Some(special) = config.model.special_tokens {
                            sampler = sampler.hiding(config.train.token_dropout, special.mask);
                        }
                        Ok(Self::Examples(sampler))
                    }
                    false => wrong("must have a label for every class of the examples"),
                }
            }
            (TrainingSet::Tokens(_), true) => wrong("a classifier learns from labelled texts"),
            (TrainingSet::Examples(_), false) => wrong("must name the classes of the examples"),
        }
    }

    /// The next batch.
    ///
    /// # Panics
    /// If the data are not those that the batches were made for.
    pub(crate) fn next(&mut self, data: TrainingSet<'_>) -> Batch {
        match (self, data) {
            (Self::Windows(sampler), TrainingSet::Tokens(tokens)) => {
                Batch::Windows(sampler.next(tokens))
            }
            (Self::Examples(sampler), TrainingSet::Examples(examples)) => {
                Batch::Examples(sampler.next(examples))
            }
            _ => panic!("the data that the batches were made for"),
        }
    }

    /// Where they stand, as JSON.
    pub(crate) fn state(&self) -> String {
        let state = match self {
            Self::Windows(sampler) => serde_json::to_string(&sampler.state()),
            Self::Examples(sampler) => serde_json::to_string(&sampler.state()),
        };
        state.expect("a position is plain data")
    }

    /// Goes on from a saved position; `Ok(false)` where that is no position.
    ///
    /// # Errors
    /// If the position is one of other data.
    pub(crate) fn restore(&mut self, state: &str) -> Result<bool, TrainError> {
        match self {
            Self::Windows(sampler) => match serde_json::from_str(state) {
                Ok(state) => sampler.restore(state)?,
                Err(_) => return Ok(false),
            },
            Self::Examples(sampler) => match serde_json::from_str(state) {
                Ok(state) => sampler.restore(state)?,
                Err(_) => return Ok(false),
            },
        }
        Ok(true)
    }
}

impl Batch {
    /// The loss of the network, in nats per prediction: per token, or per example.
    pub(crate) fn loss(&self, network: &Transformer) -> Loss {
        match self {
            Self::Windows(batch) => {
                network.loss(&batch.inputs, &batch.targets, batch.sequence_length)
            }
            Self::Examples(batch) => {
                network.class_loss(&batch.tokens, &batch.lengths, &batch.classes)
            }
        }
    }

    /// The same, of which a share follows what a teacher predicts.
    pub(crate) fn distillation_loss(&self, network: &Transformer, teacher: &Teacher) -> Loss {
        let Teacher { network: teacher, share, .. } = teacher;
        match self {
            Self::Windows(batch) => {
                let row = batch.sequence_length;
                let soft = teacher.soft_targets(&batch.inputs, row, *share);
                network.distillation_loss(&batch.inputs, &batch.targets, row, &soft)
            }
            Self::Examples(ExampleBatch { tokens, lengths, classes }) => {
                let logits = teacher.class_logits(tokens, lengths).into_data();
                let logits = logits.try_into_vec::<f32>().expect("networks compute in f32");
                network.class_distillation_loss(tokens, lengths, classes, &logits, *share)
            }
        }
    }

    /// Tokens that are no padding.
    pub(crate) fn tokens(&self) -> usize {
        match self {
            Self::Windows(batch) => batch.inputs.len(),
            Self::Examples(batch) => batch.text_tokens(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_model::{Architecture, ModelConfig};

    fn config(labels: &[&str]) -> RunConfig {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let architecture = match labels.is_empty() {
            true => Architecture::Decoder,
            false => Architecture::Bert,
        };
        let model = ModelConfig { architecture, labels, context: 4, ..ModelConfig::default() };
        RunConfig { model, ..RunConfig::default() }
    }

    fn examples(class: u16) -> Vec<Example> {
        vec![Example { tokens: vec![1, 7, 2], class }; 3]
    }

    #[test]
    fn a_network_learns_from_what_it_predicts() {
        fn message(labels: &[&str], data: TrainingSet<'_>) -> Result<(), String> {
            Batches::new(&config(labels), data).map(|_| ()).map_err(|error| error.to_string())
        }
        let tokens = [1; 20];
        assert_eq!(message(&[], TrainingSet::Tokens(&tokens)), Ok(()));
        assert_eq!(message(&["a", "b"], TrainingSet::Examples(&examples(1))), Ok(()));
        for (labels, data, expected) in [
            (&["a", "b"][..], TrainingSet::Tokens(&tokens), "learns from labelled texts"),
            (&[], TrainingSet::Examples(&examples(0)), "must name the classes"),
            (&["a", "b"], TrainingSet::Examples(&examples(2)), "a label for every class"),
        ] {
            let error = message(labels, data).unwrap_err();
            assert!(error.starts_with("model.labels = ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_position_of_another_kind_is_none_and_classes_change_the_hash() {
        let tokens = [1; 20];
        let windows = Batches::new(&config(&[]), TrainingSet::Tokens(&tokens)).unwrap();
        let mut batches =
            Batches::new(&config(&["a", "b"]), TrainingSet::Examples(&examples(1))).unwrap();
        assert!(!batches.restore(&windows.state()).unwrap());
        let state = batches.state();
        let Batch::Examples(first) = batches.next(TrainingSet::Examples(&examples(1))) else {
            panic!("examples")
        };
        assert!(batches.restore(&state).unwrap());
        let Batch::Examples(again) = batches.next(TrainingSet::Examples(&examples(1))) else {
            panic!("examples")
        };
        assert_eq!(first, again);
        let hash = |class| TrainingSet::Examples(&examples(class)).hash();
        assert_ne!(hash(0), hash(1));
    }
}
