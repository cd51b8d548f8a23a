//! Normalisation with learned gains.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::linear::parameter;
use super::operations;

/// g ⊙ x / √(mean(x²) + ε) over the channels.
#[derive(Module, Debug)]
pub(super) struct GainNorm {
    weight: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f32,
}

impl GainNorm {
    pub(super) fn new(channels: usize, epsilon: f32, device: &Device) -> Self {
        Self { weight: parameter([channels], device), epsilon }
    }

    /// `[n, channels]` to the same.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        operations::rms_norm(x, self.epsilon) * self.weight.val().unsqueeze::<2>()
    }
}

/// g ⊙ (x − mean(x)) / √(var(x) + ε) + b over the channels.
#[derive(Module, Debug)]
pub(super) struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f32,
}

impl LayerNorm {
    pub(super) fn new(channels: usize, epsilon: f32, device: &Device) -> Self {
        let [weight, bias] = [(); 2].map(|()| parameter([channels], device));
        Self { weight, bias, epsilon }
    }

    /// `[n, channels]` to the same.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        // With the mean gone, the variance is the mean square.
        let mean = x.clone().mean_dim(1);
        let normed = operations::rms_norm(x - mean, self.epsilon);
        normed * self.weight.val().unsqueeze::<2>() + self.bias.val().unsqueeze::<2>()
    }
}
