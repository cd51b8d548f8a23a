//! The kernel in plain Rust.

use super::super::simd::{multiply_add, vectorised};
use super::packed::{DEPTH, SIDE, Strip, Tile};
use super::{BLOCK, Block};

/// Rows whose sums are in registers at the same time, those of one tile of columns: as many as hide the latency of a product
/// with AVX2.
const ROWS: usize = 4;

/// The values of two tiles of the left operand, by row.
#[repr(align(64))]
struct Rows([[f32; DEPTH]; BLOCK]);

/// The values of a tile of the right operand, by inner position.
#[repr(align(64))]
struct Columns([[f32; SIDE]; DEPTH]);

vectorised! {
    /// The product of a block.
    pub(super) fn multiply(rows: &[[Tile; 2]], columns: &[[Tile; 2]], block: &mut Block) = multiply_here
}

/// Tiles become `f32` once and are read from the nearest cache from then on.
#[inline(always)]
fn multiply_here<const FMA: bool>(rows: Strip<'_>, columns: Strip<'_>, block: &mut Block) {
    block.0.fill(0.0);
    let mut left = Rows([[0.0; DEPTH]; BLOCK]);
    let mut right = Columns([[0.0; SIDE]; DEPTH]);
    for (rows, columns) in rows.iter().zip(columns) {
        left.set(rows);
        for (side, columns) in columns.iter().enumerate() {
            right.set(columns);
            let groups = left.0.as_chunks::<ROWS>().0.iter();
            for (rows, lines) in groups.zip(block.0.chunks_exact_mut(ROWS * BLOCK)) {
                add_product::<FMA>(rows, &right.0, &mut lines[side * SIDE..]);
            }
        }
    }
}

/// Adds the product of a few rows and a tile of columns to lines of a block.
#[inline(always)]
fn add_product<const FMA: bool>(
    rows: &[[f32; DEPTH]; ROWS],
    columns: &[[f32; SIDE]; DEPTH],
    lines: &mut [f32],
) {
    let mut sums = [[0.0; SIDE]; ROWS];
    for (at, columns) in columns.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(rows) {
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = multiply_add::<FMA>(row[at], *column, *sum);
            }
        }
    }
    for (line, sums) in lines.chunks_mut(BLOCK).zip(&sums) {
        line.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
    }
}

impl Rows {
    #[inline(always)]
    fn set(&mut self, tiles: &[Tile; 2]) {
        let pairs = tiles.iter().flat_map(|tile| &tile.0);
        for (values, pairs) in self.0.iter_mut().zip(pairs) {
            for (values, pair) in values.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                *values = [low(*pair), high(*pair)];
            }
        }
    }
}

impl Columns {
    #[inline(always)]
    fn set(&mut self, tile: &Tile) {
        for ([lows, highs], pairs) in self.0.as_chunks_mut::<2>().0.iter_mut().zip(&tile.0) {
            for ((to_low, to_high), pair) in lows.iter_mut().zip(highs).zip(pairs) {
                (*to_low, *to_high) = (low(*pair), high(*pair));
            }
        }
    }
}

#[inline(always)]
fn low(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

#[inline(always)]
fn high(pair: u32) -> f32 {
    f32::from_bits(pair & 0xFFFF_0000)
}
