//! Distillation: targets that are what another network predicts.
//!
//! With the hard target t of a prediction, the distribution p of a teacher and the own distribution q, the loss is
//! (1 − s)·(−ln q(t)) + s·(−Σ p·ln q). The second part has the gradient q − p, which unlike q − onehot(t) is small and
//! quiet where the network is near its teacher (Hinton, Vinyals and Dean, arXiv 1503.02531, at temperature 1).

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{Transformer, operations};

/// What a teacher predicts for a batch: its final hidden states, and the matrix that makes logits of them.
///
/// That is less than all its probabilities, which are made of them where they are needed.
#[derive(Clone, Debug)]
pub struct SoftTargets {
    /// `[predictions, width]`, row-major.
    pub(super) hidden: Arc<[f32]>,
    /// `[vocabulary, width]`, row-major.
    pub(super) head: Arc<[f32]>,
    pub(super) width: usize,
    /// s, the share of the loss that follows the teacher.
    pub(super) share: f32,
}

impl Transformer {
    /// What this network predicts, as targets for `share` of the loss of a network of the same vocabulary and soft cap.
    ///
    /// # Panics
    /// As [`Transformer::logits`].
    pub fn soft_targets(&self, tokens: &[u16], row: usize, share: f32) -> SoftTargets {
        let (hidden, head) = self.hidden_and_head(tokens, row);
        let [_, width] = head.dims();
        let [hidden, head] = [hidden, head].map(|tensor| {
            let values = tensor.into_data().try_into_vec::<f32>();
            Arc::from(values.expect("networks compute in f32"))
        });
        SoftTargets { hidden, head, width, share }
    }

    /// As [`Transformer::loss`], with `soft` targets beside the hard ones.
    ///
    /// ```
    /// use backslash_model::{ModelConfig, Transformer, device, initial_weights};
    ///
    /// let config = ModelConfig { vocabulary_size: 16, width: 8, layers: 1, heads: 2, ..ModelConfig::default() };
    /// let network = |seed| Transformer::from_weights(&config, &initial_weights(&config, seed)?, &device());
    /// let (student, teacher) = (network(1)?, network(2)?);
    /// let (tokens, targets) = ([1, 2, 3, 4], [2, 3, 4, 5]);
    /// let soft = teacher.soft_targets(&tokens, 2, 0.0);
    /// let loss: f32 = student.distillation_loss(&tokens, &targets, 2, &soft).into_scalar();
    /// assert_eq!(loss, student.loss(&tokens, &targets, 2).into_scalar::<f32>());
    /// # Ok::<(), backslash_model::ModelError>(())
    /// ```
    ///
    /// # Panics
    /// As [`Transformer::losses`], and if the soft targets are of another number of predictions or another vocabulary.
    pub fn distillation_loss(
        &self,
        tokens: &[u16],
        targets: &[u16],
        row: usize,
        soft: &SoftTargets,
    ) -> Tensor<1> {
        let (hidden, head) = self.before_losses(tokens, targets, row);
        assert_eq!(soft.hidden.len(), targets.len() * soft.width, "one prediction per target");
        assert_eq!(soft.head.len(), head.dims()[0] * soft.width, "the vocabulary of the teacher");
        let cap = self.config.cap();
        operations::mean_loss(hidden, head, targets, Some(soft), cap, self.precision)
    }
}
