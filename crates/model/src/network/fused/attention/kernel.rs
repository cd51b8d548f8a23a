//! One group of query heads of one row: the arithmetic of attention, on packed copies.
//!
//! A unit is one row of tokens and one key head with the query heads that share it. Queries are taken in
//! blocks; the scores of a block against all keys that it may see are the only part of the score matrix
//! that exists at a time. The backward pass computes them again and needs, per query, only the logarithm
//! of the sum that normalised them.

use super::super::simd::{LANES, Left, TILE, dot, exp, largest, multiply, total, vectorised};

/// Queries whose scores exist at the same time.
pub(super) const BLOCK: usize = 64;

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
    keys_across: Vec<f32>,
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

/// The transpose, `[width, tokens]`, with zeros up to the padded sizes.
#[inline(always)]
fn pack_across(out: &mut Vec<f32>, head: Head<'_>, shape: Shape) {
    let tokens = shape.padded_tokens();
    out.clear();
    out.resize(shape.padded_width() * tokens, 0.0);
    // Whole groups of tokens fill whole cache lines of the transpose.
    let whole = shape.tokens - shape.tokens % LANES;
    for start in (0..whole).step_by(LANES) {
        let group: [&[f32]; LANES] = std::array::from_fn(|i| head.token(start + i, shape.width));
        for (channel, out) in out.chunks_exact_mut(tokens).take(shape.width).enumerate() {
            let out = &mut out[start..start + LANES];
            for i in 0..LANES {
                out[i] = group[i][channel];
            }
        }
    }
    for token in whole..shape.tokens {
        for (channel, x) in head.token(token, shape.width).iter().enumerate() {
            out[channel * tokens + token] = *x;
        }
    }
}

#[inline(always)]
fn sized(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    buffer.resize(length, 0.0);
    buffer
}

/// S ← Q·Kᵀ for the queries `start..` of one block, up to the tile that holds the last key each may see.
#[inline(always)]
fn scores<const FMA: bool, const M: usize, const N: usize>(
    queries: &[f32],
    keys_across: &[f32],
    out: &mut [f32],
    shape: Shape,
    (start, rows): (usize, usize),
) {
    let (width, tokens) = (shape.padded_width(), shape.padded_tokens());
    multiply::<FMA, M, N, false>(
        Left::Rows(&queries[start * width..], width),
        (keys_across, tokens),
        (out, tokens),
        (rows, tokens),
        |i, j| 0..if j < start + i + M { width } else { 0 },
    );
}

/// O ← P·V for the queries `start..` of one block; P is zero from the query to the end of its tile.
#[inline(always)]
fn weighted<const FMA: bool, const M: usize, const N: usize>(
    weights: &[f32],
    values: &[f32],
    out: &mut [f32],
    shape: Shape,
    (start, rows): (usize, usize),
) {
    let (width, tokens) = (shape.padded_width(), shape.padded_tokens());
    multiply::<FMA, M, N, false>(
        Left::Rows(weights, tokens),
        (values, width),
        (out, width),
        (rows, width),
        |i, _| 0..start + i + M,
    );
}

/// G ← G + Pᵀ·X for the keys that the queries `start..` of one block may see.
#[inline(always)]
fn accumulate<const FMA: bool, const M: usize, const N: usize>(
    weights: &[f32],
    x: &[f32],
    out: &mut [f32],
    shape: Shape,
    (start, rows): (usize, usize),
) {
    let (width, tokens) = (shape.padded_width(), shape.padded_tokens());
    multiply::<FMA, M, N, true>(
        Left::Columns(weights, tokens),
        (&x[start * width..], width),
        (out, width),
        (start + rows, width),
        |key, _| key.saturating_sub(start)..rows,
    );
}

/// Queries of the block that starts at `start`, up to a whole tile.
#[inline(always)]
fn block_rows<const M: usize>(start: usize, shape: Shape) -> usize {
    (shape.tokens - start).min(BLOCK).next_multiple_of(M)
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
pub(super) fn forward_kernel<const FMA: bool, const M: usize, const N: usize>(
    queries: Head<'_>,
    keys: Head<'_>,
    values: Head<'_>,
    out: &mut Slices<'_>,
    log_sums: &mut [f32],
    shape: Shape,
    scratch: &mut Scratch,
) {
    let (width, tokens) = (shape.padded_width(), shape.padded_tokens());
    pack_across(&mut scratch.keys_across, keys, shape);
    pack(&mut scratch.values, values, shape, 1.0);
    let block_scores = sized(&mut scratch.scores, BLOCK * tokens);
    let block_out = sized(&mut scratch.block, BLOCK * width);
    for head in 0..shape.group {
        let queries = queries.next(head, shape.width);
        pack(&mut scratch.queries, queries, shape, shape.scale());
        for start in (0..shape.tokens).step_by(BLOCK) {
            let block = (start, block_rows::<M>(start, shape));
            scores::<FMA, M, N>(&scratch.queries, &scratch.keys_across, block_scores, shape, block);
            let mut sums = [1.0; BLOCK];
            for (i, scores) in block_scores.chunks_exact_mut(tokens).take(block.1).enumerate() {
                let query = start + i;
                let (seen, unseen) =
                    scores[..(query + 1).next_multiple_of(M)].split_at_mut(query + 1);
                unseen.fill(0.0);
                if query < shape.tokens {
                    let log_sum = &mut log_sums[head * shape.tokens + query];
                    (sums[i], *log_sum) = softmax::<FMA>(seen);
                } else {
                    seen.fill(0.0);
                }
            }
            weighted::<FMA, M, N>(block_scores, &scratch.values, block_out, shape, block);
            for (i, x) in
                block_out.chunks_exact(width).take((shape.tokens - start).min(BLOCK)).enumerate()
            {
                let factor = 1.0 / sums[i];
                let out = &mut out[(start + i) * shape.group + head];
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
pub(super) fn backward_kernel<const FMA: bool, const M: usize, const N: usize>(
    saved: Saved<'_>,
    written: &mut Written<'_>,
    shape: Shape,
    scratch: &mut Scratch,
) {
    let (width, tokens) = (shape.padded_width(), shape.padded_tokens());
    pack(&mut scratch.keys, saved.keys, shape, 1.0);
    pack_across(&mut scratch.keys_across, saved.keys, shape);
    // Only the transpose of the values is needed here.
    pack_across(&mut scratch.values, saved.values, shape);
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
        for start in (0..shape.tokens).step_by(BLOCK) {
            let block = (start, block_rows::<M>(start, shape));
            scores::<FMA, M, N>(&scratch.queries, &scratch.keys_across, weights, shape, block);
            scores::<FMA, M, N>(
                &scratch.output_gradient,
                &scratch.values,
                score_gradients,
                shape,
                block,
            );
            let rows =
                weights.chunks_exact_mut(tokens).zip(score_gradients.chunks_exact_mut(tokens));
            for (i, (weights, gradients)) in rows.take(block.1).enumerate() {
                let query = start + i;
                let end = (query + 1).next_multiple_of(M);
                if query >= shape.tokens {
                    weights[..end].fill(0.0);
                    gradients[..end].fill(0.0);
                    continue;
                }
                weights[query + 1..end].fill(0.0);
                gradients[query + 1..end].fill(0.0);
                let log_sum = saved.log_sums[head * shape.tokens + query];
                let along = dot::<FMA>(
                    output.token(query, shape.width),
                    output_gradient.token(query, shape.width),
                );
                for (weight, gradient) in weights[..=query].iter_mut().zip(&mut gradients[..=query])
                {
                    *weight = exp::<FMA>(*weight - log_sum);
                    *gradient = *weight * (*gradient - along);
                }
            }
            accumulate::<FMA, M, N>(
                weights,
                &scratch.output_gradient,
                value_gradient,
                shape,
                block,
            );
            accumulate::<FMA, M, N>(score_gradients, &scratch.queries, key_gradient, shape, block);
            weighted::<FMA, M, N>(score_gradients, &scratch.keys, block_gradient, shape, block);
            for (i, x) in block_gradient
                .chunks_exact(width)
                .take((shape.tokens - start).min(BLOCK))
                .enumerate()
            {
                let out = &mut written.queries[(start + i) * shape.group + head];
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
