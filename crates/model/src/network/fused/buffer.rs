//! Between tensors of the `flex` backend and slices.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::TensorData;

/// The tensor with its values row-major and without gaps, copied only if they are not.
pub(super) fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() {
        x
    } else {
        x.to_contiguous()
    }
}

/// The values of a contiguous tensor of `f32`.
pub(super) fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("activations are f32 and contiguous")
}

/// A tensor that takes over the values.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// The shape.
pub(super) fn dimensions<const D: usize>(x: &FlexTensor) -> [usize; D] {
    x.shape().dims()
}
