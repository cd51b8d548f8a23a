//! As [`kernel`](super::kernel), with operands of all products rounded to bf16.
//!
//! Scores, weights and gradients of a block are `f32` as there; before each product they are packed into tiles. Products are
//! made of blocks of 32 × 32, so a block of queries sees keys up to a multiple of 32, those that it may not see with weight 0.

use super::super::bf16::{BLOCK as SIDE, Blocks, Multiplier, Tiles};
use super::super::matrix::MatrixView;
use super::super::simd::{dot, vectorised};
use super::block::{BLOCK, Block};
use super::kernel::{Head, Saved, Shape, Slices, Written, differentiate, pack, softmax};

/// Buffers of a thread, kept from unit to unit.
#[derive(Default)]
pub(super) struct Scratch {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    output_gradient: Vec<f32>,
    scores: Vec<f32>,
    score_gradients: Vec<f32>,
    block: Vec<f32>,
    key_gradient: Vec<f32>,
    value_gradient: Vec<f32>,
    /// Right operands that serve all blocks of a unit: K and V, and their transposes.
    all_keys: Tiles,
    keys_across: Tiles,
    all_values: Tiles,
    values_across: Tiles,
    /// Operands of one product.
    left: Tiles,
    right: Tiles,
}

/// For the queries and keys of a small block of scores, whether the mask leaves any.
fn sees(block: Block, query: usize, key: usize) -> bool {
    key < block.start + query + SIDE
}

/// S ← X·Yᵀ for the rows of one block and the keys that they may see.
fn scores(
    multiplier: Multiplier,
    left: &Tiles,
    across: &Tiles,
    out: &mut [f32],
    tokens: usize,
    block: Block,
) {
    let blocks = Blocks { rows: block.rows, columns: block.limit, stride: tokens };
    blocks.set(
        multiplier,
        left,
        across,
        out,
        |query, key| {
            if sees(block, query, key) { usize::MAX } else { 0 }
        },
    );
}

vectorised! {
    /// As that of [`kernel`](super::kernel), of queries, keys and values.
    pub(super) fn forward(
        inputs: [Head; 3],
        out: &mut Slices,
        log_sums: &mut [f32],
        shape: Shape,
        scratch: &mut Scratch,
        multiplier: Multiplier,
    ) = forward_kernel
}

#[inline(always)]
fn forward_kernel<const FMA: bool>(
    [queries, keys, values]: [Head<'_>; 3],
    out: &mut Slices<'_>,
    log_sums: &mut [f32],
    shape: Shape,
    scratch: &mut Scratch,
    multiplier: Multiplier,
) {
    let (width, tokens) = (shape.padded_width(), shape.padded_tokens());
    pack(&mut scratch.keys, keys, shape, 1.0);
    pack(&mut scratch.values, values, shape, 1.0);
    scratch.keys_across.hold_right(MatrixView::new(&scratch.keys, width).transposed());
    scratch.all_values.hold_right(MatrixView::new(&scratch.values, width));
    scratch.scores.resize(BLOCK * tokens, 0.0);
    scratch.block.resize(BLOCK * width, 0.0);
    for head in 0..shape.group {
        pack(&mut scratch.queries, queries.next(head, shape.width), shape, shape.scale());
        for block in Block::of(shape, SIDE) {
            scratch.left.hold_left(block.rows_of(&scratch.queries, width));
            let weights = &mut scratch.scores[..];
            scores(multiplier, &scratch.left, &scratch.keys_across, weights, tokens, block);
            let mut sums = [1.0; BLOCK];
            for (i, scores) in weights.chunks_exact_mut(tokens).take(block.rows).enumerate() {
                let query = block.start + i;
                let (seen, unseen) = scores[..block.limit].split_at_mut(query + 1);
                unseen.fill(0.0);
                if query < shape.tokens {
                    let log_sum = &mut log_sums[head * shape.tokens + query];
                    (sums[i], *log_sum) = softmax::<FMA>(seen);
                } else {
                    seen.fill(0.0);
                }
            }
            scratch.left.hold_left(block.seen(weights, tokens));
            let blocks = Blocks { rows: block.rows, columns: width, stride: width };
            let out_block = &mut scratch.block;
            blocks.set(multiplier, &scratch.left, &scratch.all_values, out_block, |query, _| {
                block.start + query + SIDE
            });
            let count = (shape.tokens - block.start).min(BLOCK);
            for (i, x) in scratch.block.chunks_exact(width).take(count).enumerate() {
                let factor = 1.0 / sums[i];
                let out = &mut out[(block.start + i) * shape.group + head];
                out.iter_mut().zip(x).for_each(|(out, x)| *out = factor * x);
            }
        }
    }
}

vectorised! {
    /// As that of [`kernel`](super::kernel).
    pub(super) fn backward(
        saved: Saved,
        written: &mut Written,
        shape: Shape,
        scratch: &mut Scratch,
        multiplier: Multiplier,
    ) = backward_kernel
}

#[inline(always)]
fn backward_kernel<const FMA: bool>(
    saved: Saved<'_>,
    written: &mut Written<'_>,
    shape: Shape,
    scratch: &mut Scratch,
    multiplier: Multiplier,
) {
    let (width, tokens) = (shape.padded_width(), shape.padded_tokens());
    pack(&mut scratch.keys, saved.keys, shape, 1.0);
    pack(&mut scratch.values, saved.values, shape, 1.0);
    let (keys, values) =
        (MatrixView::new(&scratch.keys, width), MatrixView::new(&scratch.values, width));
    scratch.all_keys.hold_right(keys);
    scratch.keys_across.hold_right(keys.transposed());
    scratch.values_across.hold_right(values.transposed());
    for gradient in [&mut scratch.key_gradient, &mut scratch.value_gradient] {
        gradient.clear();
        gradient.resize(tokens * width, 0.0);
    }
    scratch.scores.resize(BLOCK * tokens, 0.0);
    scratch.score_gradients.resize(BLOCK * tokens, 0.0);
    scratch.block.resize(BLOCK * width, 0.0);
    for head in 0..shape.group {
        let output = saved.output.next(head, shape.width);
        let output_gradient = saved.output_gradient.next(head, shape.width);
        pack(&mut scratch.queries, saved.queries.next(head, shape.width), shape, shape.scale());
        pack(&mut scratch.output_gradient, output_gradient, shape, 1.0);
        for block in Block::of(shape, SIDE) {
            let queries = block.rows_of(&scratch.queries, width);
            let gradients_of_output = block.rows_of(&scratch.output_gradient, width);
            let (weights, gradients) = (&mut scratch.scores[..], &mut scratch.score_gradients[..]);
            scratch.left.hold_left(queries);
            scores(multiplier, &scratch.left, &scratch.keys_across, weights, tokens, block);
            scratch.left.hold_left(gradients_of_output);
            scores(multiplier, &scratch.left, &scratch.values_across, gradients, tokens, block);
            let rows = weights.chunks_exact_mut(tokens).zip(gradients.chunks_exact_mut(tokens));
            for (i, (weights, gradients)) in rows.take(block.rows).enumerate() {
                let query = block.start + i;
                let seen = if query < shape.tokens { query + 1 } else { 0 };
                weights[seen..block.limit].fill(0.0);
                gradients[seen..block.limit].fill(0.0);
                if seen == 0 {
                    continue;
                }
                let log_sum = saved.log_sums[head * shape.tokens + query];
                let [output, gradient] =
                    [output, output_gradient].map(|head| head.token(query, shape.width));
                let along = dot::<FMA>(output, gradient);
                differentiate::<FMA>(&mut weights[..seen], &mut gradients[..seen], log_sum, along);
            }
            let (weights, gradients) = (block.seen(weights, tokens), block.seen(gradients, tokens));
            // Queries below a key's small block do not see it.
            let all = |_: usize, _: usize| usize::MAX;
            let blocks = Blocks { rows: block.limit, columns: width, stride: width };
            scratch.left.hold_left(weights.transposed());
            scratch.right.hold_right(gradients_of_output);
            let out = &mut scratch.value_gradient;
            blocks.add(multiplier, &scratch.left, &scratch.right, out, all);
            scratch.left.hold_left(gradients.transposed());
            scratch.right.hold_right(queries);
            let out = &mut scratch.key_gradient;
            blocks.add(multiplier, &scratch.left, &scratch.right, out, all);

            scratch.left.hold_left(gradients);
            let blocks = Blocks { rows: block.rows, columns: width, stride: width };
            let out = &mut scratch.block;
            blocks.set(multiplier, &scratch.left, &scratch.all_keys, out, |query, _| {
                block.start + query + SIDE
            });
            let count = (shape.tokens - block.start).min(BLOCK);
            for (i, x) in scratch.block.chunks_exact(width).take(count).enumerate() {
                let out = &mut written.queries[(block.start + i) * shape.group + head];
                out.iter_mut().zip(x).for_each(|(out, x)| *out = shape.scale() * x);
            }
        }
    }
    for (out, x) in written.keys.iter_mut().zip(scratch.key_gradient.chunks_exact(width)) {
        out.copy_from_slice(&x[..shape.width]);
    }
    for (out, x) in written.values.iter_mut().zip(scratch.value_gradient.chunks_exact(width)) {
        out.copy_from_slice(&x[..shape.width]);
    }
}
