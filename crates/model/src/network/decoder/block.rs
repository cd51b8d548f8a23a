//! One block: attention and MLP around the residual stream.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::attention::Attention;
use super::experts::by_token;
use super::mlp::Mlp;
use crate::network::linear::parameter;
use crate::network::operations::rms_norm;
use crate::network::rotary::Rotary;
use crate::network::tap::Tap;
use crate::network::tokens::Tokens;
use crate::{Architecture, ModelConfig};

/// x ← x + Attention(rms(x)), then x ← x + MLP(rms(x)); with experts the branch is the sum of the MLP and of the
/// expert of the token.
///
/// With controls (golf): x ← m₀⊙x + m₁⊙x₀ first, and each branch is scaled per channel before it is
/// added, x₀ being the embedded input of the network.
#[derive(Module, Debug)]
pub(super) struct Block {
    attn: Attention,
    mlp: Mlp,
    experts: Vec<Mlp>,
    attn_scale: Option<Param<Tensor<1>>>,
    mlp_scale: Option<Param<Tensor<1>>>,
    resid_mix: Option<Param<Tensor<2>>>,
    /// Which block of the network it is.
    #[module(skip)]
    at: usize,
}

impl Block {
    pub(super) fn new(config: &ModelConfig, at: usize, device: &Device) -> Self {
        let golf = config.architecture == Architecture::Golf;
        let width = config.width;
        Self {
            attn: Attention::new(config, device),
            mlp: Mlp::new(config, device),
            experts: (0..config.experts).map(|_| Mlp::new(config, device)).collect(),
            attn_scale: golf.then(|| parameter([width], device)),
            mlp_scale: golf.then(|| parameter([width], device)),
            resid_mix: golf.then(|| parameter([2, width], device)),
            at,
        }
    }

    /// `x` and the network's embedded input `start` are `[rows · tokens, width]`.
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        start: Option<Tensor<2>>,
        rotary: &Rotary,
        tokens: &Tokens<'_>,
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
        let transformed = self.transformed(rms_norm(x.clone(), f32::EPSILON), tokens, tap);
        x + scaled(transformed, self.mlp_scale.as_ref())
    }

    fn transformed(&self, x: Tensor<2>, tokens: &Tokens<'_>, tap: &mut Tap<'_>) -> Tensor<2> {
        if self.experts.is_empty() {
            return self.mlp.forward(x, tap);
        }
        let by_token = by_token(&self.experts, self.at, &x, tokens, tap);
        self.mlp.forward(x, tap) + by_token
    }
}

fn scaled(branch: Tensor<2>, scale: Option<&Param<Tensor<1>>>) -> Tensor<2> {
    match scale {
        Some(scale) => branch * scale.val().unsqueeze::<2>(),
        None => branch,
    }
}
