//! Classes of texts: what BERT's classifier reads, and the loss of its logits.
//!
//! logits = W·tanh(P·h + p) + b with h the hidden state of the first token, as in `BertForSequenceClassification` of
//! Hugging Face, without its dropout.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use super::bert::EncoderInput;
use super::linear::Affine;
use super::operations::composed;
use super::path::Names;
use super::tap::{InputObserver, MatrixReplacer, Tap};
use super::{Family, Transformer};

/// tanh(P·h + p).
#[derive(Module, Debug)]
pub(super) struct Pooler {
    dense: Affine,
}

impl Pooler {
    pub(super) fn new(width: usize, device: &Device) -> Self {
        Self { dense: Affine::new(width, width, device) }
    }

    pub(super) fn forward(&self, x: Tensor<2>, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.dense.weight], &x);
        self.dense.forward(x, tap).tanh()
    }
}

impl Transformer {
    /// Logits of the classes, `[rows, classes]`, of rows of one length whose first `lengths` tokens are text. All tokens are of
    /// type 0.
    ///
    /// # Panics
    /// If the network is no [classifier](crate::ModelConfig::is_classifier), or the rows do not fit as those of
    /// [`Encoder::hidden`](crate::Encoder::hidden).
    pub fn class_logits(&self, tokens: &[u16], lengths: &[usize]) -> Tensor<2> {
        self.class_logits_through(tokens, lengths, &mut Tap::closed(self.precision))
    }

    /// −ln P(class) of each row, in nats.
    ///
    /// # Panics
    /// As [`Transformer::class_logits`]; and if there is not one class per row, or one is none of the network's.
    pub fn class_losses(&self, tokens: &[u16], lengths: &[usize], classes: &[u16]) -> Tensor<1> {
        assert_eq!(classes.len(), lengths.len(), "one class per row");
        let known = self.config.labels.len();
        assert!(classes.iter().all(|class| usize::from(*class) < known), "known classes");
        composed::losses(self.class_logits(tokens, lengths), classes, None)
    }

    /// Mean of −ln P(class) over the rows, in nats per row: the training loss of a classifier.
    ///
    /// # Panics
    /// As [`Transformer::class_losses`].
    pub fn class_loss(&self, tokens: &[u16], lengths: &[usize], classes: &[u16]) -> Tensor<1> {
        self.class_losses(tokens, lengths, classes).mean()
    }

    /// As [`Transformer::class_loss`], with the classes that a teacher predicts, by its logits, as targets for `share` of it
    /// ([`SoftTargets`](super::SoftTargets) has the formula).
    ///
    /// # Panics
    /// As [`Transformer::class_losses`], and if there are not as many logits.
    pub fn class_distillation_loss(
        &self,
        tokens: &[u16],
        lengths: &[usize],
        classes: &[u16],
        teacher: &[f32],
        share: f32,
    ) -> Tensor<1> {
        let logits = self.class_logits(tokens, lengths);
        let teacher = TensorData::new(teacher.to_vec(), logits.dims());
        let teacher = Tensor::from_data(teacher, &logits.device());
        composed::distillation_losses(logits, teacher, classes, share, None).mean()
    }

    /// As [`Transformer::observe_inputs`], on the way to the classes of rows: what is shown has a position for each token that
    /// is text, and in the pooler and the classifier for each row.
    ///
    /// # Panics
    /// As [`Transformer::class_logits`].
    pub fn observe_class_inputs(
        &self,
        tokens: &[u16],
        lengths: &[usize],
        observer: &mut InputObserver<'_>,
    ) {
        self.replace_class_matrices(tokens, lengths, &mut |names, values, inputs| {
            observer(names, values, inputs);
            Vec::new()
        });
    }

    /// As [`Transformer::replace_matrices`], with positions as in [`Transformer::observe_class_inputs`].
    ///
    /// # Panics
    /// As [`Transformer::class_logits`] and [`Transformer::replace_matrices`].
    pub fn replace_class_matrices(
        &self,
        tokens: &[u16],
        lengths: &[usize],
        replacer: &mut MatrixReplacer<'_>,
    ) {
        let mut names = Names::default();
        self.visit(&mut names);
        let row = tokens.len() / lengths.len().max(1);
        let mut without_padding = |names: &[&str], values: &[f32], inputs: usize| {
            // The pooler and the classifier have one position for a row.
            if values.len() < tokens.len() * inputs {
                return replacer(names, values, inputs);
            }
            let rows = values.chunks(row * inputs).zip(lengths);
            let text: Vec<&[f32]> = rows.map(|(row, length)| &row[..length * inputs]).collect();
            replacer(names, &text.concat(), inputs)
        };
        self.class_logits_through(
            tokens,
            lengths,
            &mut Tap::open(names.found, &mut without_padding),
        );
    }

    fn class_logits_through(
        &self,
        tokens: &[u16],
        lengths: &[usize],
        tap: &mut Tap<'_>,
    ) -> Tensor<2> {
        let Family::Bert(encoder) = &self.family else { panic!("a classifier") };
        let types = vec![0; tokens.len()];
        encoder.class_logits_through(EncoderInput { tokens, types: &types, lengths }, tap)
    }
}
