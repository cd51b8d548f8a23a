//! The decoder-only transformer, from token ids to logits and loss.
//!
//! Activations are `[rows · tokens, channels]` throughout; only attention looks at them as
//! `[rows, heads, tokens, channels]`. The plain decoder and the Parameter Golf baseline are one network:
//! the baseline adds learned controls (residual mix, branch scales, query gains) and U-net skips.

mod attention;
mod block;
mod fused;
mod linear;
mod mlp;
mod operations;
mod rotary;
mod tap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use self::block::Block;
use self::linear::{Linear, parameter};
pub use self::operations::use_composed_operations;
use self::rotary::Rotary;
pub use self::tap::InputObserver;
use self::tap::Tap;
use crate::{Architecture, ModelConfig};

/// A network whose weights are bound to a device.
///
/// Made by [`Transformer::from_weights`]. The embedding is tied: it is the first and the last matrix.
#[derive(Module, Debug)]
pub struct Transformer {
    tok_emb: Linear,
    blocks: Vec<Block>,
    skip_weights: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: ModelConfig,
}

impl Transformer {
    /// The network with all weights at zero, none of them allocated yet.
    pub(crate) fn skeleton(config: &ModelConfig, device: &Device) -> Self {
        let skip_weights = (config.architecture == Architecture::Golf)
            .then(|| parameter([config.skips(), config.width], device));
        Self {
            tok_emb: Linear::new(config.width, config.vocabulary_size, device),
            blocks: (0..config.layers).map(|_| Block::new(config, device)).collect(),
            skip_weights,
            config: config.clone(),
        }
    }

    /// Names and shapes of all weights, in the order of the network.
    pub fn layout(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
        let mut layout = Layout::default();
        Self::skeleton(config, &crate::device()).visit(&mut layout);
        layout.found
    }

    /// The configuration the network was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Soft-capped logits, `[tokens.len(), vocabulary]`, for `tokens.len() / row` rows of `row` tokens.
    ///
    /// # Panics
    /// If `tokens` is not a whole number of rows, or holds an id outside the vocabulary.
    pub fn logits(&self, tokens: &[u16], row: usize) -> Tensor<2> {
        let hidden = self.hidden(tokens, row);
        operations::soft_cap(self.tok_emb.forward(hidden), self.config.logit_cap)
    }

    /// Cross-entropy of each target, in nats, `[targets.len()]`.
    ///
    /// # Panics
    /// As [`Transformer::logits`]; and if there is not one target per token.
    pub fn losses(&self, tokens: &[u16], targets: &[u16], row: usize) -> Tensor<1> {
        let (hidden, embedding) = self.before_losses(tokens, targets, row);
        operations::tied_losses(hidden, embedding, targets, self.config.logit_cap)
    }

    /// Mean cross-entropy in nats per token: the training loss.
    ///
    /// # Panics
    /// As [`Transformer::losses`].
    pub fn loss(&self, tokens: &[u16], targets: &[u16], row: usize) -> Tensor<1> {
        let (hidden, embedding) = self.before_losses(tokens, targets, row);
        operations::tied_loss(hidden, embedding, targets, self.config.logit_cap)
    }

    /// The final hidden states and the matrix that makes logits of them, once the targets are checked.
    fn before_losses(&self, tokens: &[u16], targets: &[u16], row: usize) -> (Tensor<2>, Tensor<2>) {
        assert_eq!(tokens.len(), targets.len(), "one target per token");
        self.assert_known(targets);
        (self.hidden(tokens, row), self.tok_emb.weight.val())
    }

    /// The final hidden states after their norm, `[tokens.len(), width]`: the input of the output matrix.
    ///
    /// # Panics
    /// As [`Transformer::logits`].
    pub fn hidden(&self, tokens: &[u16], row: usize) -> Tensor<2> {
        self.hidden_through(tokens, row, &mut Tap::closed())
    }

    /// Runs the network forward and shows the input of every linear layer to an observer.
    ///
    /// The observer is called with the names of the matrices that read an input (several where layers
    /// share it, such as queries, keys and values), the input `[tokens.len(), inputs]` row-major, and
    /// `inputs`. The final hidden states come under the name of the matrix that makes logits of them.
    ///
    /// ```
    /// use backslash_model::{ModelConfig, Transformer, device, initial_weights};
    ///
    /// let config = ModelConfig { vocabulary_size: 16, width: 8, layers: 1, heads: 2, ..ModelConfig::default() };
    /// let network = Transformer::from_weights(&config, &initial_weights(&config, 1)?, &device())?;
    /// let mut groups = Vec::new();
    /// network.observe_inputs(&[1, 2, 3, 4], 2, &mut |names, values, inputs| {
    ///     assert_eq!(values.len(), 4 * inputs);
    ///     groups.push(names.join(" "));
    /// });
    /// assert_eq!(groups[1..], ["blocks.0.attn.proj.weight", "blocks.0.mlp.fc.weight", "blocks.0.mlp.proj.weight", "tok_emb.weight"]);
    /// # Ok::<(), backslash_model::ModelError>(())
    /// ```
    ///
    /// # Panics
    /// As [`Transformer::logits`].
    pub fn observe_inputs(&self, tokens: &[u16], row: usize, observer: &mut InputObserver<'_>) {
        let mut tap = Tap::open(self, observer);
        let hidden = self.hidden_through(tokens, row, &mut tap);
        tap.show(&[&self.tok_emb.weight], &hidden);
    }

    fn hidden_through(&self, tokens: &[u16], row: usize, tap: &mut Tap<'_>) -> Tensor<2> {
        assert!(row > 0 && tokens.len().is_multiple_of(row), "whole rows of tokens");
        let device = self.tok_emb.weight.device();
        let rotary = Rotary::new(&self.config, row, &device);
        let embedded = self.tok_emb.weight.val().select(0, self.indices(tokens));
        let start = operations::rms_norm(embedded);
        let hidden = match &self.skip_weights {
            None => self.blocks.iter().fold(start, |x, block| block.forward(x, None, &rotary, tap)),
            Some(weights) => self.skipping(start, weights.val(), &rotary, tap),
        };
        operations::rms_norm(hidden)
    }

    /// The golf network: the first half of the blocks stores its outputs, the second half adds them,
    /// last in first out, each times its own skip weights.
    fn skipping(
        &self,
        start: Tensor<2>,
        weights: Tensor<2>,
        rotary: &Rotary,
        tap: &mut Tap<'_>,
    ) -> Tensor<2> {
        let mut x = start.clone();
        let mut stored = Vec::new();
        let skips = self.config.skips();
        for (index, block) in self.blocks.iter().enumerate() {
            if index >= skips
                && let Some(output) = stored.pop()
            {
                let at = index - skips;
                x = x + weights.clone().slice_dim(0, at..at + 1) * output;
            }
            x = block.forward(x, Some(start.clone()), rotary, tap);
            if index < skips {
                stored.push(x.clone());
            }
        }
        x
    }

    fn indices(&self, tokens: &[u16]) -> Tensor<1, Int> {
        self.assert_known(tokens);
        let values: Vec<i32> = tokens.iter().map(|token| i32::from(*token)).collect();
        let device = self.tok_emb.weight.device();
        Tensor::from_data(TensorData::new(values, [tokens.len()]), &device)
    }

    fn assert_known(&self, tokens: &[u16]) {
        let largest = tokens.iter().copied().max().unwrap_or(0);
        assert!(usize::from(largest) < self.config.vocabulary_size, "token {largest} is outside");
    }
}

/// Collects names and shapes without allocating any weight.
#[derive(Default)]
struct Layout {
    path: Vec<String>,
    found: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Layout {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.lazy_shape();
        self.found.push((self.path.join("."), shape.iter().copied().collect()));
    }
}
