//! Scalar encoder and the safe reference decoder of one segment: symbols under one table.

use super::table::{EncoderTable, SlotTable};
use super::{LANES, LOWER_BOUND, PRECISION};

/// Encodes symbols backwards, continuing from `states`; words come out last first.
pub(super) fn encode(
    symbols: &[u8],
    table: &EncoderTable,
    states: &mut [u32; LANES],
    words: &mut Vec<u16>,
) {
    if table.is_constant() {
        return;
    }
    let start = words.len();
    words.resize(start + symbols.len(), 0);
    let mut position = start;
    for group in symbols.chunks(LANES).rev() {
        for (state, &symbol) in states[..group.len()].iter_mut().zip(group).rev() {
            let entry = &table.entries[usize::from(symbol)];
            // Written always, kept only when the state is too large.
            words[position] = *state as u16;
            let overflows = *state >= entry.limit;
            position += usize::from(overflows);
            let reduced = if overflows { *state >> 16 } else { *state };
            let quotient = ((u64::from(reduced) * entry.reciprocal) >> 32) as u32 >> entry.shift;
            *state = reduced
                .wrapping_add(entry.bias)
                .wrapping_add(quotient.wrapping_mul(entry.complement));
        }
    }
    words.truncate(position);
}

/// Decodes symbols into `low + symbol`; returns the number of words used, or `None` when they run out.
pub(super) fn decode(
    words: &[u16],
    table: &SlotTable,
    states: &mut [u32; LANES],
    codes: &mut [i32],
) -> Option<usize> {
    let mut position = 0;
    for group in codes.chunks_mut(LANES) {
        for (state, code) in states.iter_mut().zip(group) {
            let entry = table.entries[(*state % (1 << PRECISION)) as usize];
            *code = table.low.wrapping_add((entry & 0xff) as i32);
            let next = (entry >> 8 & 0xfff) * (*state >> PRECISION) + (entry >> 20);
            *state = next;
            if next < LOWER_BOUND {
                *state = next << 16 | u32::from(*words.get(position)?);
                position += 1;
            }
        }
    }
    Some(position)
}
