//! Between tensors of the `flex` backend and slices.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Shape, TensorData};

/// Values that a task of a parallel pass works on, about.
const TASK: usize = 16 * 1024;

/// Rows of a width that make one task: a fixed number, so that sums per task are the same on any number of
/// threads.
pub(super) fn rows_per_task(width: usize) -> usize {
    (TASK / width).max(1)
}

/// The tensor with its values row-major and without gaps, copied only if they are not.
pub(super) fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// The values of a contiguous tensor of `f32`.
pub(super) fn values(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("activations are f32 and contiguous")
}

/// The tensor with its values changed: in place if nothing else holds them, otherwise in a copy.
pub(super) fn update(x: FlexTensor, change: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut x = contiguous(x);
    if let Some((start, end)) = x.layout().contiguous_offsets()
        && let Some(values) = x.try_storage_mut::<f32>()
    {
        change(&mut values[start..end]);
        return x;
    }
    let mut copy = values(&x).to_vec();
    change(&mut copy);
    tensor(copy, x.shape())
}

/// A tensor that takes over the values.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// The shape.
pub(super) fn dimensions<const D: usize>(x: &FlexTensor) -> [usize; D] {
    x.shape().dims()
}

/// The number of channels.
pub(super) fn last_dimension(x: &FlexTensor) -> usize {
    *x.shape().as_slice().last().expect("at least one dimension")
}
