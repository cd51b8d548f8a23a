//! The kernel with AVX512-BF16, which adds two products of bf16 per lane.
#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512, __m512bh, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use super::packed::{SIDE, Strip};
use super::{BLOCK, Block};

/// Rows whose sums are in registers at the same time, those of both tiles of columns.
const ROWS: usize = 8;

pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")
}

/// The product of a block.
///
/// # Panics
/// On a processor without the instructions.
pub(super) fn multiply(rows: Strip<'_>, columns: Strip<'_>, block: &mut Block) {
    assert!(is_here());
    // SAFETY: the processor has the instructions.
    unsafe { multiply_here(rows, columns, block) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_here(rows: Strip<'_>, columns: Strip<'_>, block: &mut Block) {
    for side in 0..2 {
        for first in (0..SIDE).step_by(ROWS) {
            let sums = some_rows(rows, side, first, columns);
            for (row, sums) in sums.iter().enumerate() {
                let start = (side * SIDE + first + row) * BLOCK;
                for (to, sums) in block.0[start..].as_chunks_mut::<SIDE>().0.iter_mut().zip(sums) {
                    // SAFETY: `to` has room for 16 values.
                    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), *sums) }
                }
            }
        }
    }
}

/// The sums of rows from `first` on of one of the two rows of tiles.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn some_rows(
    rows: Strip<'_>,
    side: usize,
    first: usize,
    columns: Strip<'_>,
) -> [[__m512; 2]; ROWS] {
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (rows, [one, other]) in rows.iter().zip(columns) {
        let left = &rows[side];
        for pair in 0..SIDE {
            let right = [pairs(&one.0[pair]), pairs(&other.0[pair])];
            for (row, sums) in sums.iter_mut().enumerate() {
                let left = everywhere(left.0[first + row][pair]);
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = _mm512_dpbf16_ps(*sum, left, right);
                }
            }
        }
    }
    sums
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn pairs(pairs: &[u32; SIDE]) -> __m512bh {
    // SAFETY: 64 bytes are read, which is what `pairs` has, and any bits are a vector of bf16.
    unsafe { std::mem::transmute(_mm512_loadu_si512(pairs.as_ptr().cast())) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
fn everywhere(pair: u32) -> __m512bh {
    // SAFETY: any bits are a vector of bf16.
    unsafe { std::mem::transmute(_mm512_set1_epi32(pair.cast_signed())) }
}
