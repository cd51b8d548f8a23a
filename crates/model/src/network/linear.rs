//! Matrices, with and without bias, and how parameters start out.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Shape, Tensor};

use super::operations;
use super::tap::Tap;

/// y = x·Wᵀ with W of shape `[outputs, inputs]`, as checkpoints store it.
#[derive(Module, Debug)]
pub(super) struct Linear {
    pub(super) weight: Param<Tensor<2>>,
}

impl Linear {
    pub(super) fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: parameter([outputs, inputs], device) }
    }

    /// `[n, inputs]` to `[n, outputs]`.
    pub(super) fn forward(&self, x: Tensor<2>, tap: &Tap<'_>) -> Tensor<2> {
        operations::linear(x, tap.matrix(&self.weight), tap.precision())
    }
}

/// y = x·Wᵀ + b with W of shape `[outputs, inputs]`.
#[derive(Module, Debug)]
pub(super) struct Affine {
    pub(super) weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Affine {
    pub(super) fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: parameter([outputs, inputs], device), bias: parameter([outputs], device) }
    }

    /// `[n, inputs]` to `[n, outputs]`.
    pub(super) fn forward(&self, x: Tensor<2>, tap: &Tap<'_>) -> Tensor<2> {
        let y = operations::linear(x, tap.matrix(&self.weight), tap.precision());
        y + self.bias.val().unsqueeze::<2>()
    }
}

/// y = x·W + b with W of shape `[inputs, outputs]`, as GPT-2 stores it.
#[derive(Module, Debug)]
pub(super) struct TransposedAffine {
    pub(super) weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl TransposedAffine {
    pub(super) fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: parameter([inputs, outputs], device), bias: parameter([outputs], device) }
    }

    /// `[n, inputs]` to `[n, outputs]`.
    pub(super) fn forward(&self, x: Tensor<2>, tap: &Tap<'_>) -> Tensor<2> {
        let weight = tap.matrix(&self.weight).transpose();
        operations::linear(x, weight, tap.precision()) + self.bias.val().unsqueeze::<2>()
    }
}

/// A parameter that is zero until weights are bound to it, and takes no memory until then.
pub(super) fn parameter<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, requires_gradient| {
            Tensor::zeros(shape, device).set_require_grad(requires_gradient)
        },
        device.clone(),
        true,
        Shape::from(shape),
    )
}
