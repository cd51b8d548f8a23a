//! One group of query heads of one row: the arithmetic of attention, on packed copies.
//!
//! A unit is one row of tokens and one key head with the query heads that share it. Queries are taken in
//! blocks; the scores of a block against all keys that it may see are the only part of the score matrix
//! that exists at a time. The backward pass computes them again and needs, per query, only the logarithm
//! of the sum that normalised them.

use super::super::bf16::BLOCK as TILE;
use super::super::product::{Place, add_product, set_product};
use super::super::simd::{LANES, dot, exp, largest, total, vectorised};
use super::block::{BLOCK, Block};

/// The sizes of a unit.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Tokens of the row.
    pub(super) tokens: usize,
    /// Query heads that share the key head.
    pub(super) group: usize,
    /// Channels of a head.
    pub(super) width: usize,
}

impl Shape {
    pub(super) fn padded_width(self) -> usize {
        self.width.next_multiple_of(LANES)
    }

    pub(super) fn padded_tokens(self) -> usize {
        self.tokens.next_multiple_of(TILE)
    }

    pub(super) fn scale(self) -> f32 {
        (1.0 / (self.width as f64).sqrt()) as f32
    }
}

/// The channels of one head in a tensor `[tokens, heads, width]`.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    /// Starts at the first channel of the head of the first token.
    pub(super) data: &'a [f32],
    /// From one token to the next.
    pub(super) stride: usize,
}

impl<'a> Head<'a> {
    #[inline(always)]
    pub(super) fn token(self, token: usize, width: usize) -> &'a [f32] {
        &self.data[token * self.stride..][..width]
    }

    /// The `index`-th head after this one.
    #[inline(always)]
    pub(super) fn next(self, index: usize, width: usize) -> Self {
        Self { data: &self.data[index * width..], stride: self.stride }
    }
}

/// Where a unit writes: one slice of `width` channels per token and head, tokens outermost.
pub(super) type Slices<'a> = Vec<&'a mut [f32]>;

/// Buffers of a thread, kept from unit to unit.
#[derive(Default)]
pub(super) struct Scratch {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    block: Vec<f32>,
    output_gradient: Vec<f32>,
    score_gradients: Vec<f32>,
    key_gradient: Vec<f32>,
    value_gradient: Vec<f32>,
}

/// `[tokens, width]` scaled, with zeros up to the padded sizes.
#[inline(always)]
pub(super) fn pack(out: &mut Vec<f32>, head: Head<'_>, shape: Shape, scale: f32) {
    let width = shape.padded_width();
    out.clear();
    out.resize(shape.padded_tokens() * width, 0.0);
    for (token, out) in out.chunks_exact_mut(width).take(shape.tokens).enumerate() {
        for (out, x) in out.iter_mut().zip(head.token(token, shape.width)) {
            *out = scale * x;
        }
    }
}

#[inline(always)]
fn sized(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    buffer.resize(length, 0.0);
    buffer
}

vectorised! {
    /// O = softmax(Q·Kᵀ/√d)·V and, per query head and token, ln Σ exp of the scores.
    pub(super) fn forward(
        queries: Head,
        keys: Head,
        values: Head,
        out: &mut Slices,
        log_sums: &mut [f32],
        shape: Shape,
        scratch: &mut Scratch,
    ) = forward_kernel
}

#[inline(always)]
pub(super) fn forward_kernel<const FMA: bool>(
    queries: Head<'_>,
    keys: Head<'_>,
    values: Head<'_>,
    out: &mut Slices<'_>,
    log_sums: &mut [f32],
    shape: Shape,
    scratch: &mut Scratch,
) {
    let (width, tokens) = (shape.padded_width(), shape.padded_tokens());
    pack(&mut scratch.keys, keys, shape, 1.0);
    pack(&mut scratch.values, values, shape, 1.0);
    let block_scores = sized(&mut scratch.scores, BLOCK * tokens);
    let block_out = sized(&mut scratch.block, BLOCK * width);
    for head in 0..shape.group {
        let queries = queries.next(head, shape.width);
        pack(&mut scratch.queries, queries, shape, shape.scale());
        for block in Block::of(shape, 1) {
            let queries = block.rows_of(&scratch.queries, width);
            let keys = block.keys_of(&scratch.keys, width);
            set_product(queries, keys.transposed(), Place::new(block_scores, tokens));
            let mut sums = [1.0; BLOCK];
            for (i, scores) in block_scores.chunks_exact_mut(tokens).take(block.rows).enumerate() {
                let query = block.start + i;
                let (seen, unseen) = scores[..block.limit].split_at_mut(query + 1);
                unseen.fill(0.0);
                let log_sum = &mut log_sums[head * shape.tokens + query];
                (sums[i], *log_sum) = softmax::<FMA>(seen);
            }
            let weights = block.seen(block_scores, tokens);
            let values = block.keys_of(&scratch.values, width);
            set_product(weights, values, Place::new(block_out, width));
            for (i, x) in block_out.chunks_exact(width).take(block.rows).enumerate() {
                let factor = 1.0 / sums[i];
                let out = &mut out[(block.start + i) * shape.group + head];
                for (out, x) in out.iter_mut().zip(x) {
                    *out = factor * x;
                }
            }
        }
    }
}

/// x ← exp(x − max x); the sum, and ln Σ exp of what was there.
#[inline(always)]
pub(super) fn softmax<const FMA: bool>(x: &mut [f32]) -> (f32, f32) {
    let top = largest(x);
    let sum = exponentials::<FMA>(x, top);
    (sum, top + sum.ln())
}

/// x ← exp(x − top); the sum.
#[inline(always)]
fn exponentials<const FMA: bool>(x: &mut [f32], top: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp::<FMA>(chunk[i] - top);
            lanes[i] += chunk[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *x = exp::<FMA>(*x - top);
        *lane += *x;
    }
    total(lanes)
}

/// Scores of a query to its weights, and gradients by the weights to those by the scores: p ← exp(p − `log_sum`),
/// g ← p·(g − `along`), with `along` the product of output and its gradient.
#[inline(always)]
pub(super) fn differentiate<const FMA: bool>(
    weights: &mut [f32],
    gradients: &mut [f32],
    log_sum: f32,
    along: f32,
) {
    for (weight, gradient) in weights.iter_mut().zip(gradients) {
        *weight = exp::<FMA>(*weight - log_sum);
        *gradient = *weight * (*gradient - along);
    }
}

/// What the backward pass of a unit reads.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) queries: Head<'a>,
    pub(super) keys: Head<'a>,
    pub(super) values: Head<'a>,
    pub(super) output: Head<'a>,
    pub(super) output_gradient: Head<'a>,
    /// `[group, tokens]`.
    pub(super) log_sums: &'a [f32],
}

/// What the backward pass of a unit writes.
pub(super) struct Written<'a> {
    pub(super) queries: Slices<'a>,
    pub(super) keys: Slices<'a>,
    pub(super) values: Slices<'a>,
}

vectorised! {
    /// Gradients of queries, keys and values.
    ///
    /// With P the weights and G the gradient of the output: dV = Pᵀ·G, dS = P⊙(G·Vᵀ − rowsum(G⊙O)),
    /// dQ = dS·K/√d, dK = dSᵀ·Q/√d.
    pub(super) fn backward(saved: Saved, written: &mut Written, shape: Shape, scratch: &mut Scratch) = backward_kernel
}

#[inline(always)]
pub(super) fn backward_kernel<const FMA: bool>(
    saved: Saved<'_>,
    written: &mut Written<'_>,
    shape: Shape,
    scratch: &mut Scratch,
) {
    let (width, tokens) = (shape.padded_width(), shape.padded_tokens());
    pack(&mut scratch.keys, saved.keys, shape, 1.0);
    pack(&mut scratch.values, saved.values, shape, 1.0);
    let key_gradient = sized(&mut scratch.key_gradient, tokens * width);
    let value_gradient = sized(&mut scratch.value_gradient, tokens * width);
    key_gradient.fill(0.0);
    value_gradient.fill(0.0);
    let weights = sized(&mut scratch.scores, BLOCK * tokens);
    let score_gradients = sized(&mut scratch.score_gradients, BLOCK * tokens);
    let block_gradient = sized(&mut scratch.block, BLOCK * width);
    for head in 0..shape.group {
        let output = saved.output.next(head, shape.width);
        let output_gradient = saved.output_gradient.next(head, shape.width);
        pack(&mut scratch.queries, saved.queries.next(head, shape.width), shape, shape.scale());
        pack(&mut scratch.output_gradient, output_gradient, shape, 1.0);
        for block in Block::of(shape, 1) {
            let queries = block.rows_of(&scratch.queries, width);
            let gradients_of_output = block.rows_of(&scratch.output_gradient, width);
            let keys = block.keys_of(&scratch.keys, width);
            let values = block.keys_of(&scratch.values, width);
            set_product(queries, keys.transposed(), Place::new(weights, tokens));
            set_product(
                gradients_of_output,
                values.transposed(),
                Place::new(score_gradients, tokens),
            );
            let rows =
                weights.chunks_exact_mut(tokens).zip(score_gradients.chunks_exact_mut(tokens));
            for (i, (weights, gradients)) in rows.take(block.rows).enumerate() {
                let query = block.start + i;
                weights[query + 1..block.limit].fill(0.0);
                gradients[query + 1..block.limit].fill(0.0);
                let log_sum = saved.log_sums[head * shape.tokens + query];
                let [output, gradient] =
                    [output, output_gradient].map(|head| head.token(query, shape.width));
                let along = dot::<FMA>(output, gradient);
                differentiate::<FMA>(
                    &mut weights[..=query],
                    &mut gradients[..=query],
                    log_sum,
                    along,
                );
            }
            let (weights, gradients) =
                (block.seen(weights, tokens), block.seen(score_gradients, tokens));
            let place = Place::new(value_gradient, width);
            add_product(weights.transposed(), gradients_of_output, place);
            add_product(gradients.transposed(), queries, Place::new(key_gradient, width));
            set_product(gradients, keys, Place::new(block_gradient, width));
            for (i, x) in block_gradient.chunks_exact(width).take(block.rows).enumerate() {
                let out = &mut written.queries[(block.start + i) * shape.group + head];
                for (out, x) in out.iter_mut().zip(x) {
                    *out = shape.scale() * x;
                }
            }
        }
    }
    for (out, x) in written.keys.iter_mut().zip(key_gradient.chunks_exact(width)) {
        out.copy_from_slice(&x[..shape.width]);
    }
    for (out, x) in written.values.iter_mut().zip(value_gradient.chunks_exact(width)) {
        out.copy_from_slice(&x[..shape.width]);
    }
}
