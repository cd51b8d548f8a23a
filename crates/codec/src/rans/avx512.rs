//! AVX-512 decoder: sixteen lanes per register, the sixteen slots fetched by one gather.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::table::SlotTable;
use super::{LANES, LOWER_BOUND, PRECISION};

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("popcnt")
}

/// Decodes whole groups of 32 symbols while at least 32 words are left; returns groups and words used.
///
/// # Safety
///
/// The processor must have the features that [`is_available`] tests.
#[target_feature(enable = "avx512f,avx512bw,popcnt")]
pub(super) unsafe fn decode(
    words: &[u16],
    table: &SlotTable,
    states: &mut [u32; LANES],
    codes: &mut [i32],
) -> (usize, usize) {
    let slots: &[u32; 1 << PRECISION] = &table.entries;
    let low = _mm512_set1_epi32(table.low);
    let slot_mask = _mm512_set1_epi32((1 << PRECISION) - 1);
    let byte_mask = _mm512_set1_epi32(0xff);
    let frequency_mask = _mm512_set1_epi32(0xfff);
    let bound = _mm512_set1_epi32(LOWER_BOUND as i32);
    // SAFETY: states has 32 elements.
    let (mut first, mut second) = unsafe {
        (
            _mm512_loadu_si512(states.as_ptr().cast()),
            _mm512_loadu_si512(states[16..].as_ptr().cast()),
        )
    };
    let (mut groups, mut position) = (0, 0);
    let (chunks, _) = codes.as_chunks_mut::<LANES>();
    for chunk in chunks {
        if words.len() - position < LANES {
            break;
        }
        // SAFETY: slots has 4096 entries and every index is below 4096; 32 words are left and the first
        // half uses at most 16 of them; a chunk has 32 elements.
        unsafe {
            let base = slots.as_ptr().cast::<i32>();
            let entry_first = _mm512_i32gather_epi32::<4>(_mm512_and_si512(first, slot_mask), base);
            let entry_second =
                _mm512_i32gather_epi32::<4>(_mm512_and_si512(second, slot_mask), base);
            let code_first = _mm512_add_epi32(_mm512_and_si512(entry_first, byte_mask), low);
            let code_second = _mm512_add_epi32(_mm512_and_si512(entry_second, byte_mask), low);
            _mm512_storeu_si512(chunk.as_mut_ptr().cast(), code_first);
            _mm512_storeu_si512(chunk[16..].as_mut_ptr().cast(), code_second);
            let frequency_first =
                _mm512_and_si512(_mm512_srli_epi32::<8>(entry_first), frequency_mask);
            let frequency_second =
                _mm512_and_si512(_mm512_srli_epi32::<8>(entry_second), frequency_mask);
            first = _mm512_add_epi32(
                _mm512_mullo_epi32(frequency_first, _mm512_srli_epi32::<PRECISION>(first)),
                _mm512_srli_epi32::<20>(entry_first),
            );
            second = _mm512_add_epi32(
                _mm512_mullo_epi32(frequency_second, _mm512_srli_epi32::<PRECISION>(second)),
                _mm512_srli_epi32::<20>(entry_second),
            );
            let refill_first = _mm512_cmplt_epu32_mask(first, bound);
            let refill_second = _mm512_cmplt_epu32_mask(second, bound);
            let used_first = refill_first.count_ones() as usize;
            let source = words.as_ptr().add(position);
            let fresh_first = _mm512_cvtepu16_epi32(_mm256_loadu_si256(source.cast()));
            let fresh_second =
                _mm512_cvtepu16_epi32(_mm256_loadu_si256(source.add(used_first).cast()));
            let shifted_first = _mm512_mask_slli_epi32::<16>(first, refill_first, first);
            let shifted_second = _mm512_mask_slli_epi32::<16>(second, refill_second, second);
            first = _mm512_or_si512(
                shifted_first,
                _mm512_maskz_expand_epi32(refill_first, fresh_first),
            );
            second = _mm512_or_si512(
                shifted_second,
                _mm512_maskz_expand_epi32(refill_second, fresh_second),
            );
            position += used_first + refill_second.count_ones() as usize;
        }
        groups += 1;
    }
    // SAFETY: states has 32 elements.
    unsafe {
        _mm512_storeu_si512(states.as_mut_ptr().cast(), first);
        _mm512_storeu_si512(states[16..].as_mut_ptr().cast(), second);
    }
    (groups, position)
}
