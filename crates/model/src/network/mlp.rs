//! The feed-forward branch of a block.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::linear::Linear;
use super::operations;
use super::tap::Tap;
use crate::ModelConfig;

/// width → mlp_width, ReLU squared, mlp_width → width.
#[derive(Module, Debug)]
pub(super) struct Mlp {
    fc: Linear,
    proj: Linear,
}

impl Mlp {
    pub(super) fn new(config: &ModelConfig, device: &Device) -> Self {
        Self {
            fc: Linear::new(config.width, config.mlp_width(), device),
            proj: Linear::new(config.mlp_width(), config.width, device),
        }
    }

    pub(super) fn forward(&self, x: Tensor<2>, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.fc.weight], &x);
        let hidden = operations::relu_squared(self.fc.forward(x));
        tap.show(&[&self.proj.weight], &hidden);
        self.proj.forward(hidden)
    }
}
