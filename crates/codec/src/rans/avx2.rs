//! AVX2 decoder: eight lanes per register; a permutation table places the refill words.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::table::SlotTable;
use super::{LANES, LOWER_BOUND, PRECISION};

pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt")
}

/// For each set of lanes that refill: which fresh word each lane takes.
static PLACES: [[u8; 8]; 256] = places();

const fn places() -> [[u8; 8]; 256] {
    let mut places = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut word) = (0, 0);
        while lane < 8 {
            places[mask][lane] = word;
            if mask >> lane & 1 == 1 {
                word += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    places
}

/// Decodes whole groups of 32 symbols while at least 32 words are left; returns groups and words used.
///
/// # Safety
///
/// The processor must have the features that [`is_available`] tests.
#[target_feature(enable = "avx2,popcnt")]
pub(super) unsafe fn decode(
    words: &[u16],
    table: &SlotTable,
    states: &mut [u32; LANES],
    codes: &mut [i32],
) -> (usize, usize) {
    let slots: &[u32; 1 << PRECISION] = &table.entries;
    let low = _mm256_set1_epi32(table.low);
    let slot_mask = _mm256_set1_epi32((1 << PRECISION) - 1);
    let byte_mask = _mm256_set1_epi32(0xff);
    let frequency_mask = _mm256_set1_epi32(0xfff);
    let bound = _mm256_set1_epi32(LOWER_BOUND as i32 - 1);
    let mut lanes = [_mm256_setzero_si256(); 4];
    for (lane, states) in lanes.iter_mut().zip(states.chunks_exact(8)) {
        // SAFETY: the chunk has eight elements.
        *lane = unsafe { _mm256_loadu_si256(states.as_ptr().cast()) };
    }
    let (mut groups, mut position) = (0, 0);
    let (chunks, _) = codes.as_chunks_mut::<LANES>();
    for chunk in chunks {
        if words.len() - position < LANES {
            break;
        }
        for (lane, codes) in lanes.iter_mut().zip(chunk.chunks_exact_mut(8)) {
            // SAFETY: slots has 4096 entries and every index is below 4096; 32 words were left and each
            // of the four steps uses at most eight; the chunk has eight elements.
            unsafe {
                let entry = _mm256_i32gather_epi32::<4>(
                    slots.as_ptr().cast(),
                    _mm256_and_si256(*lane, slot_mask),
                );
                let code = _mm256_add_epi32(_mm256_and_si256(entry, byte_mask), low);
                _mm256_storeu_si256(codes.as_mut_ptr().cast(), code);
                let frequency = _mm256_and_si256(_mm256_srli_epi32::<8>(entry), frequency_mask);
                let product =
                    _mm256_mullo_epi32(frequency, _mm256_srli_epi32::<{ PRECISION as i32 }>(*lane));
                let state = _mm256_add_epi32(product, _mm256_srli_epi32::<20>(entry));
                // Unsigned state ≤ bound, by way of the minimum.
                let refill = _mm256_cmpeq_epi32(_mm256_min_epu32(state, bound), state);
                let mask = _mm256_movemask_ps(_mm256_castsi256_ps(refill)) as usize;
                let fresh =
                    _mm256_cvtepu16_epi32(_mm_loadu_si128(words.as_ptr().add(position).cast()));
                let places = _mm256_cvtepu8_epi32(_mm_loadl_epi64(PLACES[mask].as_ptr().cast()));
                let fresh = _mm256_permutevar8x32_epi32(fresh, places);
                let refilled = _mm256_or_si256(_mm256_slli_epi32::<16>(state), fresh);
                *lane = _mm256_blendv_epi8(state, refilled, refill);
                position += mask.count_ones() as usize;
            }
        }
        groups += 1;
    }
    for (lane, states) in lanes.iter().zip(states.chunks_exact_mut(8)) {
        // SAFETY: the chunk has eight elements.
        unsafe { _mm256_storeu_si256(states.as_mut_ptr().cast(), *lane) };
    }
    (groups, position)
}
