//! GPT-2: LayerNorm before each branch, learned positions, GELU, matrices stored `[inputs, outputs]`.
//!
//! Fields have the names of Hugging Face checkpoints, without the leading `transformer.` that some have.
//! Source: Radford et al., "Language Models are Unsupervised Multitask Learners", section 2.3.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, activation};

use super::LanguageModel;
use super::linear::{Linear, TransposedAffine};
use super::norm::LayerNorm;
use super::operations;
use super::tap::Tap;
use super::tokens::Tokens;
use crate::ModelConfig;

/// The embedding is tied: it is the first and the last matrix.
#[derive(Module, Debug)]
pub(super) struct Gpt2 {
    wte: Linear,
    wpe: Linear,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

impl Gpt2 {
    pub(super) fn new(config: &ModelConfig, device: &Device) -> Self {
        Self {
            wte: Linear::new(config.width, config.vocabulary_size, device),
            wpe: Linear::new(config.width, config.context, device),
            h: (0..config.layers).map(|_| Block::new(config, device)).collect(),
            ln_f: LayerNorm::new(config.width, config.norm_epsilon, device),
        }
    }
}

impl LanguageModel for Gpt2 {
    fn hidden(&self, tokens: &Tokens<'_>, tap: &mut Tap<'_>) -> Tensor<2> {
        let start =
            tokens.embedded(self.wte.weight.val()) + tokens.positions(self.wpe.weight.val());
        let hidden = self.h.iter().fold(start, |x, block| block.forward(x, tokens.row, tap));
        self.ln_f.forward(hidden)
    }

    fn head(&self) -> &Param<Tensor<2>> {
        &self.wte.weight
    }
}

/// x ← x + Attention(norm(x)), then x ← x + MLP(norm(x)).
#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        let norm = || LayerNorm::new(config.width, config.norm_epsilon, device);
        Self {
            ln_1: norm(),
            attn: Attention::new(config, device),
            ln_2: norm(),
            mlp: Mlp::new(config, device),
        }
    }

    fn forward(&self, x: Tensor<2>, row: usize, tap: &mut Tap<'_>) -> Tensor<2> {
        let x = x.clone() + self.attn.forward(self.ln_1.forward(x), row, tap);
        x.clone() + self.mlp.forward(self.ln_2.forward(x), tap)
    }
}

/// Causal softmax attention with scores divided by √d; one matrix makes queries, keys and values.
#[derive(Module, Debug)]
struct Attention {
    c_attn: TransposedAffine,
    c_proj: TransposedAffine,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        let width = config.width;
        Self {
            c_attn: TransposedAffine::new(width, 3 * width, device),
            c_proj: TransposedAffine::new(width, width, device),
            heads: config.heads,
        }
    }

    fn forward(&self, x: Tensor<2>, row: usize, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.c_attn.weight], &x);
        let [positions, width] = x.dims();
        let all = self.c_attn.forward(x, tap);
        let [queries, keys, values] = [0, 1, 2].map(|part| {
            let part = all.clone().slice_dim(1, part * width..(part + 1) * width);
            part.reshape([positions / row, row, self.heads, width / self.heads])
        });
        let attended = operations::causal_attention(queries, keys, values, tap.precision());
        let attended = attended.reshape([positions, width]);
        tap.show(&[&self.c_proj.weight], &attended);
        self.c_proj.forward(attended, tap)
    }
}

/// width → mlp_width, GELU by its tanh formula, mlp_width → width.
#[derive(Module, Debug)]
struct Mlp {
    c_fc: TransposedAffine,
    c_proj: TransposedAffine,
}

impl Mlp {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        Self {
            c_fc: TransposedAffine::new(config.width, config.mlp_width(), device),
            c_proj: TransposedAffine::new(config.mlp_width(), config.width, device),
        }
    }

    fn forward(&self, x: Tensor<2>, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.c_fc.weight], &x);
        let hidden = activation::gelu_approximate(self.c_fc.forward(x, tap));
        tap.show(&[&self.c_proj.weight], &hidden);
        self.c_proj.forward(hidden, tap)
    }
}
