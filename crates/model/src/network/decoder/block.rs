//! One block: attention and MLP around the residual stream.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::attention::Attention;
use super::mlp::Mlp;
use crate::network::linear::parameter;
use crate::network::operations::rms_norm;
use crate::network::rotary::Rotary;
use crate::network::tap::Tap;
use crate::{Architecture, ModelConfig};

/// x ← x + Attention(rms(x)), then x ← x + MLP(rms(x)).
///
/// With controls (golf): x ← m₀⊙x + m₁⊙x₀ first, and each branch is scaled per channel before it is
/// added, x₀ being the embedded input of the network.
#[derive(Module, Debug)]
pub(super) struct Block {
    attn: Attention,
    mlp: Mlp,
    attn_scale: Option<Param<Tensor<1>>>,
    mlp_scale: Option<Param<Tensor<1>>>,
    resid_mix: Option<Param<Tensor<2>>>,
}

impl Block {
    pub(super) fn new(config: &ModelConfig, device: &Device) -> Self {
        let golf = config.architecture == Architecture::Golf;
        let width = config.width;
        Self {
            attn: Attention::new(config, device),
            mlp: Mlp::new(config, device),
            attn_scale: golf.then(|| parameter([width], device)),
            mlp_scale: golf.then(|| parameter([width], device)),
            resid_mix: golf.then(|| parameter([2, width], device)),
        }
    }

    /// `x` and the network's embedded input `start` are `[rows · tokens, width]`.
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        start: Option<Tensor<2>>,
        rotary: &Rotary,
        tap: &mut Tap<'_>,
    ) -> Tensor<2> {
        let x = match (&self.resid_mix, start) {
            (Some(mix), Some(start)) => {
                let mix = mix.val();
                mix.clone().slice_dim(0, 0..1) * x + mix.slice_dim(0, 1..2) * start
            }
            _ => x,
        };
        let attended = self.attn.forward(rms_norm(x.clone(), f32::EPSILON), rotary, tap);
        let x = x + scaled(attended, self.attn_scale.as_ref());
        let transformed = self.mlp.forward(rms_norm(x.clone(), f32::EPSILON), tap);
        x + scaled(transformed, self.mlp_scale.as_ref())
    }
}

fn scaled(branch: Tensor<2>, scale: Option<&Param<Tensor<1>>>) -> Tensor<2> {
    match scale {
        Some(scale) => branch * scale.val().unsqueeze::<2>(),
        None => branch,
    }
}
