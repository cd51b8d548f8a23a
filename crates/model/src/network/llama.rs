//! The Llama family: RMSNorm with gains, rotary positions, grouped-query attention, SwiGLU.
//!
//! Fields have the names of Hugging Face checkpoints. Source: LLaMA, arXiv 2302.13971, section 2.2.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, activation};

use super::LanguageModel;
use super::linear::Linear;
use super::norm::GainNorm;
use super::operations;
use super::rotary::Rotary;
use super::tap::Tap;
use super::tokens::Tokens;
use crate::ModelConfig;

/// The network with its output matrix, which is the embedding where there is no other.
#[derive(Module, Debug)]
pub(super) struct Llama {
    model: Model,
    lm_head: Option<Linear>,
    #[module(skip)]
    config: ModelConfig,
}

#[derive(Module, Debug)]
struct Model {
    embed_tokens: Linear,
    layers: Vec<Layer>,
    norm: GainNorm,
}

impl Llama {
    pub(super) fn new(config: &ModelConfig, device: &Device) -> Self {
        let table = || Linear::new(config.width, config.vocabulary_size, device);
        let model = Model {
            embed_tokens: table(),
            layers: (0..config.layers).map(|_| Layer::new(config, device)).collect(),
            norm: GainNorm::new(config.width, config.norm_epsilon, device),
        };
        Self { model, lm_head: (!config.tied_head).then(table), config: config.clone() }
    }
}

impl LanguageModel for Llama {
    fn hidden(&self, tokens: &Tokens<'_>, tap: &mut Tap<'_>) -> Tensor<2> {
        let table = self.model.embed_tokens.weight.val();
        let rotary = Rotary::counterclockwise(&self.config, tokens.row, &table.device());
        let start = tokens.embedded(table);
        let hidden =
            self.model.layers.iter().fold(start, |x, layer| layer.forward(x, &rotary, tap));
        self.model.norm.forward(hidden)
    }

    fn head(&self) -> &Param<Tensor<2>> {
        &self.lm_head.as_ref().unwrap_or(&self.model.embed_tokens).weight
    }
}

/// x ← x + Attention(norm(x)), then x ← x + MLP(norm(x)).
#[derive(Module, Debug)]
struct Layer {
    input_layernorm: GainNorm,
    self_attn: Attention,
    post_attention_layernorm: GainNorm,
    mlp: Mlp,
}

impl Layer {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        let norm = || GainNorm::new(config.width, config.norm_epsilon, device);
        Self {
            input_layernorm: norm(),
            self_attn: Attention::new(config, device),
            post_attention_layernorm: norm(),
            mlp: Mlp::new(config, device),
        }
    }

    fn forward(&self, x: Tensor<2>, rotary: &Rotary, tap: &mut Tap<'_>) -> Tensor<2> {
        let normed = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(normed, rotary, tap);
        let normed = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(normed, tap)
    }
}

/// Queries and keys turned by their position, then causal softmax attention with scores divided by √d.
#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    kv_heads: usize,
}

impl Attention {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        let (width, kv_width) = (config.width, config.kv_heads * config.head_width());
        Self {
            q_proj: Linear::new(width, width, device),
            k_proj: Linear::new(width, kv_width, device),
            v_proj: Linear::new(width, kv_width, device),
            o_proj: Linear::new(width, width, device),
            heads: config.heads,
            kv_heads: config.kv_heads,
        }
    }

    fn forward(&self, x: Tensor<2>, rotary: &Rotary, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.q_proj.weight, &self.k_proj.weight, &self.v_proj.weight], &x);
        let [positions, width] = x.dims();
        let rows = positions / rotary.tokens;
        let split = |y: Tensor<2>, heads: usize| {
            y.reshape([rows, rotary.tokens, heads, width / self.heads])
        };
        let queries = rotary.turn(split(self.q_proj.forward(x.clone(), tap), self.heads));
        let keys = rotary.turn(split(self.k_proj.forward(x.clone(), tap), self.kv_heads));
        let values = split(self.v_proj.forward(x, tap), self.kv_heads);
        let attended = operations::causal_attention(queries, keys, values, tap.precision());
        let attended = attended.reshape([positions, width]);
        tap.show(&[&self.o_proj.weight], &attended);
        self.o_proj.forward(attended, tap)
    }
}

/// SwiGLU: W_down·(silu(W_gate·x) ⊙ W_up·x). Source: arXiv 2002.05202, equation 6.
#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        let (width, hidden) = (config.width, config.mlp_width());
        Self {
            gate_proj: Linear::new(width, hidden, device),
            up_proj: Linear::new(width, hidden, device),
            down_proj: Linear::new(hidden, width, device),
        }
    }

    fn forward(&self, x: Tensor<2>, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.gate_proj.weight, &self.up_proj.weight], &x);
        let gate = activation::silu(self.gate_proj.forward(x.clone(), tap));
        let hidden = gate * self.up_proj.forward(x, tap);
        tap.show(&[&self.down_proj.weight], &hidden);
        self.down_proj.forward(hidden, tap)
    }
}
