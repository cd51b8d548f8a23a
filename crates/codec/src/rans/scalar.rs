//! Scalar encoder and the safe reference decoder.

use super::{FrequencyTable, LANES, LOWER_BOUND, PRECISION};
use crate::cursor::{Cursor, unzigzag, write_varint, zigzag};
use crate::error::CodecError;

const SLOTS: usize = 1 << PRECISION;

/// Encodes codes as: number of 16-bit words, 32 lane states, words, then the escaped values.
pub(crate) fn encode(codes: &[i32], table: &FrequencyTable) -> Vec<u8> {
    let starts: Vec<u32> = table
        .frequencies
        .iter()
        .scan(0, |sum, &frequency| {
            let start = *sum;
            *sum += u32::from(frequency);
            Some(start)
        })
        .collect();
    let mut states = [LOWER_BOUND; LANES];
    let mut words = Vec::new();
    for (index, &code) in codes.iter().enumerate().rev() {
        let symbol = table.symbol(code);
        let (frequency, start) = (u32::from(table.frequencies[symbol]), starts[symbol]);
        let state = &mut states[index % LANES];
        // Wide, because frequency 2^12 would overflow 32 bits.
        if u64::from(*state) >= u64::from(frequency) << (32 - PRECISION) {
            words.push(*state as u16);
            *state >>= 16;
        }
        *state = ((*state / frequency) << PRECISION) + *state % frequency + start;
    }
    let mut out = Vec::with_capacity(words.len() * 2 + LANES * 4 + 8);
    write_varint(&mut out, words.len() as u64);
    for state in states {
        out.extend_from_slice(&state.to_le_bytes());
    }
    for word in words.iter().rev() {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for &code in codes.iter().filter(|&&code| table.symbol(code) == table.escape()) {
        write_varint(&mut out, u64::from(zigzag(code)));
    }
    out
}

/// Decodes exactly `codes.len()` codes.
///
/// # Errors
///
/// Corrupt or truncated bytes: missing words, a wrong final state, bytes left over.
pub(crate) fn decode(
    bytes: &[u8],
    table: &FrequencyTable,
    codes: &mut [i32],
    place: &str,
) -> Result<(), CodecError> {
    let mut cursor = Cursor::new(bytes, place);
    let words = cursor.length()?;
    let mut states = [0_u32; LANES];
    for state in &mut states {
        *state = cursor.u32()?;
        if *state < LOWER_BOUND {
            return Err(cursor.corrupt("a lane state lies below 2^16"));
        }
    }
    let word_bytes =
        words.checked_mul(2).ok_or_else(|| cursor.corrupt("the number of words overflows"))?;
    let mut words = cursor.take(word_bytes)?.chunks_exact(2);
    let slots = slots(table);
    let escape = table.escape();
    for (index, code) in codes.iter_mut().enumerate() {
        let state = &mut states[index % LANES];
        let (symbol, frequency, offset) = slots[*state as usize % SLOTS];
        *state = u32::from(frequency) * (*state >> PRECISION) + u32::from(offset);
        if *state < LOWER_BOUND {
            let word =
                words.next().ok_or_else(|| cursor.corrupt("the words end before the codes do"))?;
            *state = *state << 16 | u32::from(u16::from_le_bytes([word[0], word[1]]));
        }
        *code = if usize::from(symbol) == escape {
            let value = u32::try_from(cursor.varint()?)
                .map_err(|_| cursor.corrupt("an escaped value exceeds 32 bits"))?;
            unzigzag(value)
        } else {
            table.low + i32::from(symbol)
        };
    }
    if words.next().is_some() || states != [LOWER_BOUND; LANES] {
        return Err(cursor.corrupt("the coder does not end in its start state"));
    }
    cursor.finish()
}

/// For each value of the low 12 bits of a state: symbol, its frequency, and offset within the symbol.
fn slots(table: &FrequencyTable) -> Vec<(u8, u16, u16)> {
    let mut slots = Vec::with_capacity(SLOTS);
    for (symbol, &frequency) in table.frequencies.iter().enumerate() {
        slots.extend((0..frequency).map(|offset| (symbol as u8, frequency, offset)));
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(codes: &[i32]) -> usize {
        let table = FrequencyTable::from_codes(codes);
        let bytes = encode(codes, &table);
        let mut decoded = vec![0; codes.len()];
        decode(&bytes, &table, &mut decoded, "t").unwrap();
        assert_eq!(decoded, codes);
        bytes.len()
    }

    #[test]
    fn extremes_round_trip() {
        round_trip(&[]);
        round_trip(&[i32::MIN, i32::MAX, 0]);
        round_trip(&[i32::MAX; 3]);
        // One value with the full frequency costs nothing but the lane states.
        assert!(round_trip(&[7; 100_000]) <= LANES * 4 + 1);
    }

    proptest! {
        #[test]
        fn any_codes_round_trip(codes in prop::collection::vec(prop_oneof![9 => -3..4_i32, 1 => any::<i32>()], 0..2000)) {
            round_trip(&codes);
        }

        #[test]
        fn any_bytes_are_refused_or_decoded(bytes in prop::collection::vec(any::<u8>(), 0..400), count in 0..300_usize) {
            let table = FrequencyTable::from_codes(&[0, 0, 0, 1, -1, 2]);
            let _ = decode(&bytes, &table, &mut vec![0; count], "t");
        }
    }
}
