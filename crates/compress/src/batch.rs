//! Rows of tokens or examples, run forwards and backwards.

use backslash_data::ExampleBatch;
use backslash_model::{InputObserver, Loss, MatrixReplacer, Transformer};

/// Rows that go through the network together, with what it is to predict.
#[derive(Clone, Copy, Debug)]
pub enum CalibrationBatch<'a> {
    /// Text.
    Tokens {
        /// Rows of tokens, one after the other.
        inputs: &'a [u16],
        /// A token for each prediction.
        targets: &'a [u16],
        /// Tokens in a row.
        row: usize,
    },
    /// Examples, whose classes are the targets.
    Examples(&'a ExampleBatch),
}

impl CalibrationBatch<'_> {
    /// Tokens of the rows, padding included.
    pub fn inputs(&self) -> &[u16] {
        match self {
            Self::Tokens { inputs, .. } => inputs,
            Self::Examples(batch) => &batch.tokens,
        }
    }

    /// What is to be predicted.
    pub fn targets(&self) -> &[u16] {
        match self {
            Self::Tokens { targets, .. } => targets,
            Self::Examples(batch) => &batch.classes,
        }
    }

    /// Logits, a row of them for each target.
    pub(crate) fn logits(&self, network: &Transformer) -> Vec<f32> {
        let logits = match self {
            Self::Tokens { inputs, row, .. } => network.logits(inputs, *row),
            Self::Examples(batch) => network.class_logits(&batch.tokens, &batch.lengths),
        };
        logits.into_data().try_into_vec().expect("logits are f32")
    }

    /// Mean loss of other targets in the place of these, in nats per target.
    pub(crate) fn loss(&self, network: &Transformer, targets: &[u16]) -> Loss {
        match self {
            Self::Tokens { inputs, row, .. } => network.loss(inputs, targets, *row),
            Self::Examples(batch) => network.class_loss(&batch.tokens, &batch.lengths, targets),
        }
    }

    /// Sum of the losses in nats.
    pub(crate) fn nats(&self, network: &Transformer) -> f64 {
        let losses = match self {
            Self::Tokens { inputs, targets, row } => network.losses(inputs, targets, *row),
            Self::Examples(ExampleBatch { tokens, lengths, classes }) => {
                network.class_losses(tokens, lengths, classes)
            }
        };
        let losses = losses.into_data();
        let losses = losses.as_slice::<f32>().expect("losses are f32");
        losses.iter().map(|loss| f64::from(*loss)).sum()
    }

    /// As [`Transformer::observe_inputs`], without padding.
    pub(crate) fn observe_inputs(&self, network: &Transformer, observer: &mut InputObserver<'_>) {
        match self {
            Self::Tokens { inputs, row, .. } => network.observe_inputs(inputs, *row, observer),
            Self::Examples(batch) => {
                network.observe_class_inputs(&batch.tokens, &batch.lengths, observer);
            }
        }
    }

    /// As [`Transformer::replace_matrices`], without padding.
    pub(crate) fn replace_matrices(
        &self,
        network: &Transformer,
        replacer: &mut MatrixReplacer<'_>,
    ) {
        match self {
            Self::Tokens { inputs, row, .. } => network.replace_matrices(inputs, *row, replacer),
            Self::Examples(batch) => {
                network.replace_class_matrices(&batch.tokens, &batch.lengths, replacer);
            }
        }
    }
}
