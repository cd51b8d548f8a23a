//! What happens to queries and keys before attention: RMSNorm per head, rotary positions, a gain per head.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use rayon::prelude::*;

use super::buffer::{contiguous, dimensions, rows_per_task, tensor, update, values};
use super::norm::inverse_norm;
use super::simd::{dot, vectorised};

/// The preparation of queries or keys as one operation.
#[backend_extension(Autodiff, Flex)]
pub(in crate::network) trait PrepareHeads: Backend {
    /// As [`composed::prepare_heads`](crate::network::operations::composed::prepare_heads); `gain` has one
    /// value per head.
    fn prepare_heads(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        cosines: FloatTensor<Self>,
        sines: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl PrepareHeads for Flex {
    fn prepare_heads(
        x: FlexTensor,
        gain: FlexTensor,
        cosines: FlexTensor,
        sines: FlexTensor,
    ) -> FlexTensor {
        let inputs = Inputs::new(x, gain, cosines, sines);
        forward(&inputs).0
    }
}

/// Contiguous inputs of a call.
#[derive(Clone, Debug)]
struct Inputs {
    /// `[rows, tokens, heads, d]`.
    x: FlexTensor,
    /// `[heads]`.
    gain: FlexTensor,
    /// `[1, tokens, 1, d/2]`.
    cosines: FlexTensor,
    /// `[1, tokens, 1, d/2]`.
    sines: FlexTensor,
}

impl Inputs {
    fn new(x: FlexTensor, gain: FlexTensor, cosines: FlexTensor, sines: FlexTensor) -> Self {
        let [x, gain, cosines, sines] = [x, gain, cosines, sines].map(contiguous);
        Self { x, gain, cosines, sines }
    }

    fn turns(&self) -> Turns<'_> {
        Turns {
            gain: values(&self.gain),
            cosines: values(&self.cosines),
            sines: values(&self.sines),
        }
    }
}

/// The inputs, and per token and head the factor of the norm.
type State = (Inputs, Arc<Vec<f32>>);

#[derive(Debug)]
struct Step;

impl Backward<Flex, 2> for Step {
    type State = State;

    fn backward(self, ops: Ops<State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (inputs, factors) = &ops.state;
        let (x, gain) = backward(inputs, factors, gradient);
        for (node, gradient) in ops.parents.into_iter().zip([x, gain]) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

impl<C: CheckpointStrategy> PrepareHeads for Autodiff<Flex, C> {
    fn prepare_heads(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        cosines: FloatTensor<Self>,
        sines: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gain.node()];
        let inputs = Inputs::new(
            x.into_primitive(),
            gain.into_primitive(),
            cosines.into_primitive(),
            sines.into_primitive(),
        );
        let (output, factors) = forward(&inputs);
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish((inputs, factors.into()), output),
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }
}

fn forward(inputs: &Inputs) -> (FlexTensor, Vec<f32>) {
    let [_, _, heads, width] = dimensions(&inputs.x);
    let (x, turns) = (values(&inputs.x), inputs.turns());
    let tokens = rows_per_task(heads * width);
    let mut output = vec![0.0; x.len()];
    let mut factors = vec![0.0; x.len() / width];
    output
        .par_chunks_mut(tokens * heads * width)
        .zip(x.par_chunks(tokens * heads * width))
        .zip(factors.par_chunks_mut(tokens * heads))
        .enumerate()
        .for_each(|(task, ((output, x), factors))| {
            turn(x, turns, task * tokens, output, factors);
        });
    (tensor(output, inputs.x.shape()), factors)
}

/// Gradients of x and of the gain.
fn backward(inputs: &Inputs, factors: &[f32], gradient: FlexTensor) -> (FlexTensor, FlexTensor) {
    let [_, _, heads, width] = dimensions(&inputs.x);
    let (x, turns) = (values(&inputs.x), inputs.turns());
    let tokens = rows_per_task(heads * width);
    let tasks = factors.len().div_ceil(tokens * heads);
    // One row per task, added up in order.
    let mut gains = vec![0.0; tasks * heads];
    let gradient = update(gradient, |gradient| {
        gradient
            .par_chunks_mut(tokens * heads * width)
            .zip(x.par_chunks(tokens * heads * width))
            .zip(factors.par_chunks(tokens * heads))
            .zip(gains.par_chunks_exact_mut(heads))
            .enumerate()
            .for_each(|(task, (((gradient, x), factors), gains))| {
                turn_back(x, factors, turns, task * tokens, gradient, gains);
            });
    });
    let mut gain = vec![0.0; heads];
    for task in gains.chunks_exact(heads) {
        for (sum, part) in gain.iter_mut().zip(task) {
            *sum += part;
        }
    }
    (gradient, tensor(gain, [heads]))
}

/// Gains per head, and cosines and sines `[tokens, d/2]`.
#[derive(Clone, Copy)]
struct Turns<'a> {
    gain: &'a [f32],
    cosines: &'a [f32],
    sines: &'a [f32],
}

impl<'a> Turns<'a> {
    /// Gain, cosines and sines of the `index`-th head counted over all tokens and heads.
    #[inline(always)]
    fn of(self, index: usize, half: usize) -> (f32, &'a [f32], &'a [f32]) {
        let heads = self.gain.len();
        let at = index / heads * half % self.cosines.len();
        (self.gain[index % heads], &self.cosines[at..][..half], &self.sines[at..][..half])
    }
}

vectorised! {
    /// The heads of the tokens from `start` on: normalised, turned, scaled.
    fn turn(x: &[f32], turns: Turns, start: usize, output: &mut [f32], factors: &mut [f32]) = turn_kernel
}

#[inline(always)]
fn turn_kernel<const FMA: bool>(
    x: &[f32],
    turns: Turns<'_>,
    start: usize,
    output: &mut [f32],
    factors: &mut [f32],
) {
    let width = x.len() / factors.len();
    let half = width / 2;
    let first = start * turns.gain.len();
    let heads = x.chunks_exact(width).zip(output.chunks_exact_mut(width)).zip(factors);
    for (index, ((x, output), factor)) in heads.enumerate() {
        let (gain, cosines, sines) = turns.of(first + index, half);
        *factor = inverse_norm::<FMA>(x, f32::EPSILON);
        let scale = gain * *factor;
        let (x1, x2) = x.split_at(half);
        let (y1, y2) = output.split_at_mut(half);
        for i in 0..half {
            let (a, b) = (scale * x1[i], scale * x2[i]);
            y1[i] = a * cosines[i] + b * sines[i];
            y2[i] = b * cosines[i] - a * sines[i];
        }
    }
}

vectorised! {
    /// The gradient of the output to that of x, in place, and the sums for the gain.
    ///
    /// With y = f·x and u the gradient turned back: the gain gets Σ u·y, x gets f·(γu − y·mean(γu·y)).
    fn turn_back(x: &[f32], factors: &[f32], turns: Turns, start: usize, gradient: &mut [f32], gains: &mut [f32]) = turn_back_kernel
}

#[inline(always)]
fn turn_back_kernel<const FMA: bool>(
    x: &[f32],
    factors: &[f32],
    turns: Turns<'_>,
    start: usize,
    gradient: &mut [f32],
    gains: &mut [f32],
) {
    let width = x.len() / factors.len();
    let half = width / 2;
    let heads = turns.gain.len();
    let rows = x.chunks_exact(width).zip(gradient.chunks_exact_mut(width)).zip(factors);
    for (index, ((x, gradient), factor)) in rows.enumerate() {
        let (gain, cosines, sines) = turns.of(start * heads + index, half);
        let (g1, g2) = gradient.split_at_mut(half);
        for i in 0..half {
            let (a, b) = (g1[i], g2[i]);
            g1[i] = a * cosines[i] - b * sines[i];
            g2[i] = a * sines[i] + b * cosines[i];
        }
        let along = factor * dot::<FMA>(x, gradient);
        gains[index % heads] += along;
        let pull = gain * along * factor / width as f32;
        for (gradient, x) in gradient.iter_mut().zip(x) {
            *gradient = factor * (gain * *gradient - pull * x);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use crate::ModelConfig;
    use crate::network::fused::check::{assert_close, run, with_threads};
    use crate::network::operations::{composed, prepare_heads};
    use crate::network::rotary::Rotary;

    fn rotary(tokens: usize, heads: usize, head_width: usize) -> Rotary {
        let config = ModelConfig { width: heads * head_width, heads, ..ModelConfig::default() };
        Rotary::clockwise(&config, tokens, &Device::flex().autodiff())
    }

    #[test]
    fn values_and_gradients_are_those_of_the_definition() {
        for [rows, tokens, heads, width] in
            [[1, 1, 1, 2], [2, 5, 3, 6], [3, 70, 4, 48], [1, 129, 2, 64]]
        {
            let rotary = rotary(tokens, heads, width);
            let shape = [rows, tokens, heads, width];
            let results = [prepare_heads, composed::prepare_heads].map(|prepare| {
                let plain = run(&[shape], |mut x| prepare(x.remove(0), None, &rotary));
                let scaled = run(&[shape, [1, 1, 1, heads]], |mut x| {
                    let gain: Tensor<1> = x.remove(1).reshape([heads]);
                    prepare(x.remove(0), Some(gain), &rotary)
                });
                [plain, scaled].concat()
            });
            // The gradient of a gain is a sum over all tokens.
            assert_close(&results[0], &results[1], 4e-6, &format!("{shape:?}"));
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let rotary = rotary(200, 4, 32);
        let prepare = || {
            run(&[[2, 200, 4, 32], [1, 1, 1, 4]], |mut x| {
                let gain: Tensor<1> = x.remove(1).reshape([4]);
                prepare_heads(x.remove(0), Some(gain), &rotary)
            })
        };
        assert_eq!(with_threads(1, prepare), with_threads(2, prepare));
    }
}
