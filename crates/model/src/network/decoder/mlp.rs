//! The feed-forward branch of a block.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::ModelConfig;
use crate::network::linear::Linear;
use crate::network::operations;
use crate::network::tap::Tap;

/// width → mlp_width, a power of ReLU, mlp_width → width.
#[derive(Module, Debug)]
pub(super) struct Mlp {
    fc: Linear,
    proj: Linear,
    #[module(skip)]
    power: u32,
}

impl Mlp {
    pub(super) fn new(config: &ModelConfig, device: &Device) -> Self {
        Self {
            fc: Linear::new(config.width, config.mlp_width(), device),
            proj: Linear::new(config.mlp_width(), config.width, device),
            power: config.activation_power,
        }
    }

    pub(super) fn forward(&self, x: Tensor<2>, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.fc.weight], &x);
        let hidden = operations::relu_power(self.fc.forward(x, tap), self.power);
        tap.show(&[&self.proj.weight], &hidden);
        self.proj.forward(hidden, tap)
    }
}
