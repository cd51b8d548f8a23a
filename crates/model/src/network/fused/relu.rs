//! ReLU²: forward in the memory of its input, backward in the memory of the gradient.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use rayon::prelude::*;

use super::buffer::{rows_per_task, update, values};
use super::simd::vectorised;

/// ReLU² as one operation.
#[backend_extension(Autodiff, Flex)]
pub(in crate::network) trait ReluSquared: Backend {
    /// As [`composed::relu_squared`](crate::network::operations::composed::relu_squared).
    fn relu_squared(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl ReluSquared for Flex {
    fn relu_squared(x: FlexTensor) -> FlexTensor {
        update(x, |x| {
            x.par_chunks_mut(rows_per_task(1)).for_each(square);
        })
    }
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 1> for Step {
    /// The output, from which the input follows where it matters.
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [Some(node)] = ops.parents else { return };
        let output = values(&ops.state);
        let gradient = update(gradient, |gradient| {
            gradient
                .par_chunks_mut(rows_per_task(1))
                .zip(output.par_chunks(rows_per_task(1)))
                .for_each(|(gradient, output)| differentiate(output, gradient));
        });
        gradients.register::<Flex>(node.id, gradient);
    }
}

impl<C: CheckpointStrategy> ReluSquared for Autodiff<Flex, C> {
    fn relu_squared(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = x.node();
        let output = Flex::relu_squared(x.into_primitive());
        match Step.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish(output.clone(), output),
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }
}

vectorised! {
    /// x ← max(x, 0)².
    fn square(x: &mut [f32]) = square_kernel
}

#[inline(always)]
fn square_kernel<const FMA: bool>(x: &mut [f32]) {
    for x in x {
        let positive = if *x < 0.0 { 0.0 } else { *x };
        *x = positive * positive;
    }
}

vectorised! {
    /// g ← 2·max(x, 0)·g, with max(x, 0) = √y.
    fn differentiate(output: &[f32], gradient: &mut [f32]) = differentiate_kernel
}

#[inline(always)]
fn differentiate_kernel<const FMA: bool>(output: &[f32], gradient: &mut [f32]) {
    for (gradient, y) in gradient.iter_mut().zip(output) {
        *gradient *= 2.0 * y.sqrt();
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use crate::network::fused::check::{assert_close, run, with_threads};
    use crate::network::operations::{composed, relu_squared};

    #[test]
    fn values_and_gradients_are_those_of_the_definition() {
        for shape in [[1, 1], [5, 7], [40, 999]] {
            let fused = run(&[shape], |mut x| relu_squared(x.remove(0)));
            let expected = run(&[shape], |mut x| composed::relu_squared(x.remove(0)));
            assert_close(&fused, &expected, 1e-6, &format!("{shape:?}"));
        }
    }

    #[test]
    fn an_input_that_is_used_again_is_left_alone() {
        let x = Tensor::<2>::from_floats([[-1.0, 3.0]], &Device::flex());
        let y = relu_squared(x.clone());
        assert_eq!(x.into_data().try_into_vec::<f32>().unwrap(), [-1.0, 3.0]);
        assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [0.0, 9.0]);
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let apply = || run(&[[300, 200]], |mut x| relu_squared(x.remove(0)));
        assert_eq!(with_threads(1, apply), with_threads(2, apply));
    }
}
