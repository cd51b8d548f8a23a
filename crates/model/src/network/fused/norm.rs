//! RMSNorm: forward one pass, backward one pass, with one number per row saved beside the output.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use rayon::prelude::*;

use super::buffer::{contiguous, last_dimension, rows_per_task, tensor, update, values};
use super::simd::{dot, vectorised};

/// RMSNorm as one operation.
#[backend_extension(Autodiff, Flex)]
pub(in crate::network) trait RmsNorm: Backend {
    /// As [`composed::rms_norm`](crate::network::operations::composed::rms_norm).
    fn rms_norm(x: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;
}

impl RmsNorm for Flex {
    fn rms_norm(x: FlexTensor, epsilon: f32) -> FlexTensor {
        forward(&contiguous(x), epsilon).0
    }
}

/// The output, and per row the factor that made it from the input.
type State = (FlexTensor, Arc<Vec<f32>>);

#[derive(Debug)]
struct Step;

impl Backward<Flex, 1> for Step {
    type State = State;

    fn backward(self, ops: Ops<State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [Some(node)] = ops.parents else { return };
        let (output, factors) = &ops.state;
        gradients.register::<Flex>(node.id, backward(output, factors, gradient));
    }
}

impl<C: CheckpointStrategy> RmsNorm for Autodiff<Flex, C> {
    fn rms_norm(x: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        let node = x.node();
        let (output, factors) = forward(&contiguous(x.into_primitive()), epsilon);
        match Step.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(preparation) => {
                preparation.finish((output.clone(), factors.into()), output)
            }
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }
}

fn forward(x: &FlexTensor, epsilon: f32) -> (FlexTensor, Vec<f32>) {
    let width = last_dimension(x);
    let x_values = values(x);
    let rows = rows_per_task(width);
    let mut output = vec![0.0; x_values.len()];
    let mut factors = vec![0.0; x_values.len() / width];
    output
        .par_chunks_mut(rows * width)
        .zip(x_values.par_chunks(rows * width))
        .zip(factors.par_chunks_mut(rows))
        .for_each(|((output, x), factors)| normalise(x, output, factors, epsilon));
    (tensor(output, x.shape()), factors)
}

fn backward(output: &FlexTensor, factors: &[f32], gradient: FlexTensor) -> FlexTensor {
    let width = last_dimension(output);
    let rows = rows_per_task(width);
    update(gradient, |gradient| {
        gradient
            .par_chunks_mut(rows * width)
            .zip(values(output).par_chunks(rows * width))
            .zip(factors.par_chunks(rows))
            .for_each(|((gradient, output), factors)| differentiate(output, factors, gradient));
    })
}

vectorised! {
    /// Rows of x to rows of y = x·f with f = 1 / √(mean(x²) + ε).
    fn normalise(x: &[f32], output: &mut [f32], factors: &mut [f32], epsilon: f32) = normalise_kernel
}

#[inline(always)]
fn normalise_kernel<const FMA: bool>(
    x: &[f32],
    output: &mut [f32],
    factors: &mut [f32],
    epsilon: f32,
) {
    let width = x.len() / factors.len();
    let rows = x.chunks_exact(width).zip(output.chunks_exact_mut(width));
    for ((x, output), factor) in rows.zip(factors) {
        *factor = inverse_norm::<FMA>(x, epsilon);
        for (output, x) in output.iter_mut().zip(x) {
            *output = *factor * x;
        }
    }
}

/// 1 / √(mean(x²) + ε).
#[inline(always)]
pub(super) fn inverse_norm<const FMA: bool>(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot::<FMA>(x, x) / x.len() as f32 + epsilon).sqrt()
}

vectorised! {
    /// Rows of the gradient of y to that of x: g ← f·(g − y·mean(g·y)).
    fn differentiate(output: &[f32], factors: &[f32], gradient: &mut [f32]) = differentiate_kernel
}

#[inline(always)]
fn differentiate_kernel<const FMA: bool>(output: &[f32], factors: &[f32], gradient: &mut [f32]) {
    let width = output.len() / factors.len();
    let rows = output.chunks_exact(width).zip(gradient.chunks_exact_mut(width));
    for ((output, gradient), factor) in rows.zip(factors) {
        let along = dot::<FMA>(output, gradient) / width as f32;
        for (gradient, y) in gradient.iter_mut().zip(output) {
            *gradient = factor * (*gradient - along * y);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::network::fused::check::{assert_close, run, with_threads};
    use crate::network::operations::{composed, rms_norm};

    #[test]
    fn values_and_gradients_are_those_of_the_definition() {
        for shape in [[1, 1, 1], [3, 5, 7], [1, 2, 192], [4, 33, 50]] {
            for epsilon in [f32::EPSILON, 0.5] {
                let fused = run(&[shape], |mut x| rms_norm(x.remove(0), epsilon));
                let expected = run(&[shape], |mut x| composed::rms_norm(x.remove(0), epsilon));
                assert_close(&fused, &expected, 1e-6, &format!("{shape:?} {epsilon}"));
            }
        }
    }

    #[test]
    fn a_row_of_zeros_stays_zero_and_passes_its_gradient() {
        let zero = |x: burn::tensor::Tensor<2>| x * 0.0;
        let fused = run(&[[2, 8]], |mut x| rms_norm(zero(x.remove(0)), 1e-5));
        assert!(fused.iter().flatten().all(|x| *x == 0.0));
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let norm = || run(&[[900, 70]], |mut x| rms_norm(x.remove(0), 1e-5));
        assert_eq!(with_threads(1, norm), with_threads(2, norm));
    }
}
