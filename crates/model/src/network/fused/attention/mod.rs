//! Causal attention without the score matrix, on `[rows, tokens, heads, d]` as the projections leave it.
//!
//! After "FlashAttention-2" (Dao, arXiv 2307.08691), for a processor: the blocks are sized for the caches,
//! and because a block of queries sees all its keys at once, no running maximum is needed.

mod block;
mod kernel;
mod kernel_bf16;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use rayon::prelude::*;

use self::kernel::{Head, Saved, Scratch, Shape, Slices, Written};
use super::bf16::with_multiplier;
use super::buffer::{contiguous, dimensions, tensor, values};
use crate::Precision;

/// Attention as one operation.
#[backend_extension(Autodiff, Flex)]
pub(in crate::network) trait CausalAttention: Backend {
    /// As [`composed::causal_attention`](crate::network::operations::composed::causal_attention).
    fn causal_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;
}

impl CausalAttention for Flex {
    fn causal_attention(
        queries: FlexTensor,
        keys: FlexTensor,
        values: FlexTensor,
        precision: Precision,
    ) -> FlexTensor {
        forward(&contiguous(queries), &contiguous(keys), &contiguous(values), precision).0
    }
}

/// What the backward pass reads; the logarithms of the sums are `[rows, heads, tokens]`.
#[derive(Clone, Debug)]
struct State {
    queries: FlexTensor,
    keys: FlexTensor,
    values: FlexTensor,
    output: FlexTensor,
    log_sums: std::sync::Arc<Vec<f32>>,
    precision: Precision,
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 3> for Step {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let output_gradient = contiguous(gradients.consume::<Flex>(&ops.node));
        let found = backward(&ops.state, &output_gradient);
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

impl<C: CheckpointStrategy> CausalAttention for Autodiff<Flex, C> {
    fn causal_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [queries.node(), keys.node(), values.node()];
        let queries = contiguous(queries.into_primitive());
        let keys = contiguous(keys.into_primitive());
        let values = contiguous(values.into_primitive());
        let (output, log_sums) = forward(&queries, &keys, &values, precision);
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(preparation) => {
                let state = State {
                    queries,
                    keys,
                    values,
                    output: output.clone(),
                    log_sums: log_sums.into(),
                    precision,
                };
                preparation.finish(state, output)
            }
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static BF16_SCRATCH: RefCell<kernel_bf16::Scratch> = RefCell::default();
}

/// The sizes of a call: rows, key heads, and what each unit has.
#[derive(Clone, Copy)]
struct Call {
    rows: usize,
    kv_heads: usize,
    shape: Shape,
}

impl Call {
    fn new(queries: &FlexTensor, keys: &FlexTensor) -> Self {
        let [rows, tokens, heads, width] = dimensions(queries);
        let [_, _, kv_heads, _] = dimensions(keys);
        let group = heads / kv_heads;
        Self { rows, kv_heads, shape: Shape { tokens, group, width } }
    }

    /// The first of the `group` heads that belong to a unit.
    fn head<'a>(self, data: &'a [f32], unit: usize, group: usize) -> Head<'a> {
        let (row, kv_head) = (unit / self.kv_heads, unit % self.kv_heads);
        let Shape { tokens, width, .. } = self.shape;
        let stride = self.kv_heads * group * width;
        Head { data: &data[row * tokens * stride + kv_head * group * width..], stride }
    }

    /// Shares a tensor out among the units that write it.
    fn slices<'a>(self, data: &'a mut [f32], group: usize) -> Vec<Slices<'a>> {
        let Shape { tokens, width, .. } = self.shape;
        let unit = || Vec::with_capacity(tokens * group);
        let mut units: Vec<Slices<'a>> = (0..self.rows * self.kv_heads).map(|_| unit()).collect();
        for (position, group_of_heads) in data.chunks_exact_mut(group * width).enumerate() {
            let (row, kv_head) = (position / (tokens * self.kv_heads), position % self.kv_heads);
            units[row * self.kv_heads + kv_head].extend(group_of_heads.chunks_exact_mut(width));
        }
        units
    }
}

fn forward(
    queries: &FlexTensor,
    keys: &FlexTensor,
    values_of: &FlexTensor,
    precision: Precision,
) -> (FlexTensor, Vec<f32>) {
    let call = Call::new(queries, keys);
    let Shape { tokens, group, .. } = call.shape;
    let (q, k, v) = (values(queries), values(keys), values(values_of));
    let mut output = vec![0.0; q.len()];
    let mut log_sums = vec![0.0; call.rows * call.kv_heads * group * tokens];
    call.slices(&mut output, group)
        .into_par_iter()
        .zip(log_sums.par_chunks_exact_mut(group * tokens))
        .enumerate()
        .for_each(|(unit, (mut out, log_sums))| {
            let (q, k, v) =
                (call.head(q, unit, group), call.head(k, unit, 1), call.head(v, unit, 1));
            match precision {
                Precision::Fp32 => SCRATCH.with_borrow_mut(|scratch| {
                    kernel::forward(q, k, v, &mut out, log_sums, call.shape, scratch);
                }),
                Precision::Bf16 => BF16_SCRATCH.with_borrow_mut(|scratch| {
                    with_multiplier(|multiplier| {
                        let inputs = [q, k, v];
                        let (out, shape) = (&mut out, call.shape);
                        kernel_bf16::forward(inputs, out, log_sums, shape, scratch, multiplier);
                    });
                }),
            }
        });
    (tensor(output, dimensions::<4>(queries)), log_sums)
}

/// Gradients of queries, keys and values.
fn backward(state: &State, output_gradient: &FlexTensor) -> [FlexTensor; 3] {
    let call = Call::new(&state.queries, &state.keys);
    let Shape { tokens, group, .. } = call.shape;
    let (q, k, v) = (values(&state.queries), values(&state.keys), values(&state.values));
    let (o, g) = (values(&state.output), values(output_gradient));
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.len()]);
    call.slices(&mut dq, group)
        .into_par_iter()
        .zip(call.slices(&mut dk, 1))
        .zip(call.slices(&mut dv, 1))
        .enumerate()
        .for_each(|(unit, ((queries, keys), values))| {
            let saved = Saved {
                queries: call.head(q, unit, group),
                keys: call.head(k, unit, 1),
                values: call.head(v, unit, 1),
                output: call.head(o, unit, group),
                output_gradient: call.head(g, unit, group),
                log_sums: &state.log_sums[unit * group * tokens..][..group * tokens],
            };
            let mut written = Written { queries, keys, values };
            match state.precision {
                Precision::Fp32 => SCRATCH.with_borrow_mut(|scratch| {
                    kernel::backward(saved, &mut written, call.shape, scratch);
                }),
                Precision::Bf16 => BF16_SCRATCH.with_borrow_mut(|scratch| {
                    with_multiplier(|multiplier| {
                        kernel_bf16::backward(saved, &mut written, call.shape, scratch, multiplier);
                    });
                }),
            }
        });
    let shape = dimensions::<4>(&state.queries);
    let kv_shape = dimensions::<4>(&state.keys);
    [tensor(dq, shape), tensor(dk, kv_shape), tensor(dv, kv_shape)]
}
