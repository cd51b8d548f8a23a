//! Operands as tiles of bf16.

use multiversion::multiversion;
use rayon::prelude::*;

use super::super::matrix::MatrixView;

/// Rows of a tile of the left operand, columns of one of the right, and pairs of inner positions in both.
pub(super) const SIDE: usize = 16;
/// Inner positions of a tile.
pub(super) const DEPTH: usize = 2 * SIDE;

/// 16 × 16 pairs of bf16 that follow each other in the inner dimension, the first in the lower half: of a left operand a
/// row of pairs per row, of a right one a row of pairs per pair of inner positions.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Tile(pub(super) [[u32; SIDE]; SIDE]);

/// Pairs of tiles that are worth a task.
const TASK: usize = 8;

/// Two lines of tiles side by side, which are rows of a left operand or columns of a right one, along the inner dimension.
pub(super) type Strip<'a> = &'a [[Tile; 2]];

/// An operand, strip by strip; lines are padded to whole strips.
#[derive(Default)]
pub(in crate::network::fused) struct Tiles {
    tiles: Vec<[Tile; 2]>,
    /// Inner positions of tiles.
    depth: usize,
}

impl Tiles {
    pub(super) fn of_left(matrix: MatrixView<'_>) -> Self {
        Self::of(matrix, matrix.rows(), matrix.columns(), left_order(matrix))
    }

    pub(super) fn of_right(matrix: MatrixView<'_>) -> Self {
        Self::of(matrix, matrix.columns(), matrix.rows(), right_order(matrix))
    }

    fn of(matrix: MatrixView<'_>, lines: usize, inner: usize, order: Order) -> Self {
        let depth = inner.div_ceil(DEPTH);
        let count = depth * lines.div_ceil(2 * SIDE);
        let pair = |at: usize| pair_at(&matrix, at, depth, order);
        Self { tiles: (0..count).into_par_iter().with_min_len(TASK).map(pair).collect(), depth }
    }

    /// Becomes those of another left operand, on this thread.
    pub(in crate::network::fused) fn hold_left(&mut self, matrix: MatrixView<'_>) {
        self.hold(matrix, matrix.rows(), matrix.columns(), left_order(matrix));
    }

    /// Becomes those of another right operand, on this thread.
    pub(in crate::network::fused) fn hold_right(&mut self, matrix: MatrixView<'_>) {
        self.hold(matrix, matrix.columns(), matrix.rows(), right_order(matrix));
    }

    fn hold(&mut self, matrix: MatrixView<'_>, lines: usize, inner: usize, order: Order) {
        let depth = inner.div_ceil(DEPTH);
        let count = depth * lines.div_ceil(2 * SIDE);
        self.depth = depth;
        self.tiles.clear();
        self.tiles.extend((0..count).map(|at| pair_at(&matrix, at, depth, order)));
    }

    /// Inner positions of tiles.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// The strip of a number.
    pub(super) fn strip(&self, at: usize) -> Strip<'_> {
        &self.tiles[at * self.depth..][..self.depth]
    }
}

/// What lies side by side in memory, and how that stands in a tile.
#[derive(Clone, Copy)]
enum Order {
    /// The pairs of a row of the left operand.
    AlongPairs,
    /// The rows of the transpose of a left operand.
    AlongRows,
    /// The columns of a right operand.
    AcrossColumns,
    /// The pairs of a column of the transpose of a right operand.
    AcrossPairs,
}

fn left_order(matrix: MatrixView<'_>) -> Order {
    if matrix.is_transposed() { Order::AlongRows } else { Order::AlongPairs }
}

fn right_order(matrix: MatrixView<'_>) -> Order {
    if matrix.is_transposed() { Order::AcrossPairs } else { Order::AcrossColumns }
}

/// The tiles of a number, those of a strip one after the other.
fn pair_at(matrix: &MatrixView<'_>, at: usize, depth: usize, order: Order) -> [Tile; 2] {
    let (strip, inner) = (at / depth, at % depth * DEPTH);
    [0, 1].map(|side| tile(matrix, (2 * strip + side) * SIDE, inner, order))
}

/// The tile at a line and an inner position.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn tile(matrix: &MatrixView, line: usize, inner: usize, order: Order) -> Tile {
    let mut tile = Tile([[0; SIDE]; SIDE]);
    for (at, pairs) in tile.0.iter_mut().enumerate() {
        *pairs = match order {
            Order::AlongPairs | Order::AcrossPairs => pairs_of_line(matrix, line + at, inner),
            Order::AlongRows | Order::AcrossColumns => pairs_of_lines(matrix, line, inner + 2 * at),
        };
    }
    match order {
        Order::AlongPairs | Order::AcrossColumns => tile,
        Order::AlongRows | Order::AcrossPairs => transposed(&tile),
    }
}

/// Not inlined, for the rounding to stay in vectors.
#[inline(never)]
fn transposed(tile: &Tile) -> Tile {
    let mut transposed = Tile([[0; SIDE]; SIDE]);
    for (at, pairs) in tile.0.iter().enumerate() {
        for (row, pair) in transposed.0.iter_mut().zip(pairs) {
            row[at] = *pair;
        }
    }
    transposed
}

/// Of a line that lies side by side the pairs from an inner position on.
#[inline(always)]
fn pairs_of_line(matrix: &MatrixView<'_>, line: usize, inner: usize) -> [u32; SIDE] {
    let run: [f32; DEPTH] = matrix.run(line, inner);
    let mut pairs = [0; SIDE];
    for at in 0..SIDE {
        pairs[at] = pair_of(run[2 * at], run[2 * at + 1]);
    }
    pairs
}

/// Of 16 lines that lie side by side the values at an inner position and at the next.
#[inline(always)]
fn pairs_of_lines(matrix: &MatrixView<'_>, line: usize, inner: usize) -> [u32; SIDE] {
    let low: [f32; SIDE] = matrix.run(inner, line);
    let high: [f32; SIDE] = matrix.run(inner + 1, line);
    let mut pairs = [0; SIDE];
    for at in 0..SIDE {
        pairs[at] = pair_of(low[at], high[at]);
    }
    pairs
}

#[inline(always)]
fn pair_of(low: f32, high: f32) -> u32 {
    round(low) >> 16 | round(high) & 0xFFFF_0000
}

/// The bits of `x` rounded to bf16, ties to even, in the upper half. Of a NaN, which has a bit of its upper half set wherever
/// arithmetic has made it, a NaN.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    bits.wrapping_add(0x7FFF + (bits >> 16 & 1))
}
