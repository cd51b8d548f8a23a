//! The kernel in plain Rust.

use super::packed::{SIDE, Strip};
use super::{BLOCK, Block};

/// The product of a block, pair by pair.
pub(super) fn multiply(rows: Strip<'_>, columns: Strip<'_>, block: &mut Block) {
    block.0.fill(0.0);
    for (rows, columns) in rows.iter().zip(columns) {
        for (side, left) in rows.iter().enumerate() {
            for (at, right) in columns.iter().enumerate() {
                for (row, pairs) in left.0.iter().enumerate() {
                    let first = (side * SIDE + row) * BLOCK + at * SIDE;
                    let sums = &mut block.0[first..first + SIDE];
                    for (pair, pairs_of_columns) in pairs.iter().zip(&right.0) {
                        for (sum, other) in sums.iter_mut().zip(pairs_of_columns) {
                            *sum += low(*pair) * low(*other) + high(*pair) * high(*other);
                        }
                    }
                }
            }
        }
    }
}

fn low(pair: u32) -> f32 {
    f32::from_bits(pair << 16)
}

fn high(pair: u32) -> f32 {
    f32::from_bits(pair & 0xFFFF_0000)
}
