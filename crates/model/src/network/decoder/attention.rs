//! Causal grouped-query attention.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::network::linear::{Linear, parameter};
use crate::network::operations;
use crate::network::rotary::Rotary;
use crate::network::tap::Tap;
use crate::{Architecture, ModelConfig};

/// Queries and keys are RMS-normalised per head, turned by their position, and (golf) the queries scaled by
/// a gain per head; then causal softmax attention with scores divided by √d.
#[derive(Module, Debug)]
pub(super) struct Attention {
    c_q: Linear,
    c_k: Linear,
    c_v: Linear,
    proj: Linear,
    q_gain: Option<Param<Tensor<1>>>,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    kv_heads: usize,
}

impl Attention {
    pub(super) fn new(config: &ModelConfig, device: &Device) -> Self {
        let width = config.width;
        let kv_width = config.kv_heads * config.head_width();
        Self {
            c_q: Linear::new(width, width, device),
            c_k: Linear::new(width, kv_width, device),
            c_v: Linear::new(width, kv_width, device),
            proj: Linear::new(width, width, device),
            q_gain: (config.architecture == Architecture::Golf)
                .then(|| parameter([config.heads], device)),
            heads: config.heads,
            kv_heads: config.kv_heads,
        }
    }

    /// `[rows · tokens, width]` to the same.
    pub(super) fn forward(&self, x: Tensor<2>, rotary: &Rotary, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.c_q.weight, &self.c_k.weight, &self.c_v.weight], &x);
        let [positions, width] = x.dims();
        let rows = positions / rotary.tokens;
        let split = |y: Tensor<2>, heads: usize| {
            y.reshape([rows, rotary.tokens, heads, width / self.heads])
        };
        let queries = split(self.c_q.forward(x.clone(), tap), self.heads);
        let keys = split(self.c_k.forward(x.clone(), tap), self.kv_heads);
        let values = split(self.c_v.forward(x, tap), self.kv_heads);

        let gain = self.q_gain.as_ref().map(Param::val);
        let queries = operations::prepare_heads(queries, gain, rotary);
        let keys = operations::prepare_heads(keys, None, rotary);
        let attended = operations::causal_attention(queries, keys, values, tap.precision());
        let attended = attended.reshape([positions, width]);
        tap.show(&[&self.proj.weight], &attended);
        self.proj.forward(attended, tap)
    }
}
