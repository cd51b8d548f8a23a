//! Classes of texts: what BERT's classifier reads, and the loss of its logits.
//!
//! logits = W·tanh(P·h + p) + b with h the hidden state of the first token, as in `BertForSequenceClassification` of
//! Hugging Face, without its dropout.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::bert::EncoderInput;
use super::linear::Affine;
use super::operations::composed;
use super::tap::Tap;
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
        let Family::Bert(encoder) = &self.family else { panic!("a classifier") };
        let types = vec![0; tokens.len()];
        let input = EncoderInput { tokens, types: &types, lengths };
        encoder.class_logits_through(input, &mut Tap::closed(self.precision))
    }

    /// Mean of −ln P(class) over the rows, in nats per row: the training loss of a classifier.
    ///
    /// # Panics
    /// As [`Transformer::class_logits`]; and if there is not one class per row, or one is none of the network's.
    pub fn class_loss(&self, tokens: &[u16], lengths: &[usize], classes: &[u16]) -> Tensor<1> {
        assert_eq!(classes.len(), lengths.len(), "one class per row");
        let known = self.config.labels.len();
        assert!(classes.iter().all(|class| usize::from(*class) < known), "known classes");
        composed::losses(self.class_logits(tokens, lengths), classes, None).mean()
    }
}
