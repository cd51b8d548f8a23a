//! The model of bytes: metadata, floats and other things that are not codes.

use super::model::{Counter, INPUTS, Mixer, Rates};
use super::range::{BitCoder, Decoder, Encoder};
use super::tables::TABLES;
use crate::error::CodecError;

/// Slots of one hashed context.
const SLOTS: usize = 1 << 18;
const RATES: Rates = Rates { counter_limit: 255, mixer_shift: 6, common_shift: 0 };

/// Compresses bytes; `width` is the number of bytes of an element, 1 for text.
pub(crate) fn encode_bytes(bytes: &[u8], width: usize) -> Vec<u8> {
    let mut coder = Encoder::new();
    let mut buffer = bytes.to_vec();
    run(&mut coder, &mut buffer, width);
    coder.finish()
}

/// Exactly `length` bytes.
///
/// # Errors
///
/// [`CodecError::Corrupt`] when the stream does not end with its bytes.
pub(crate) fn decode_bytes(
    coded: &[u8],
    length: usize,
    width: usize,
    place: &str,
) -> Result<Vec<u8>, CodecError> {
    let mut coder = Decoder::new(coded);
    let mut bytes = vec![0; length];
    run(&mut coder, &mut bytes, width);
    if coder.ended() {
        Ok(bytes)
    } else {
        Err(CodecError::corrupt(place, "the stream does not end with its bytes"))
    }
}

/// Spells each byte in eight decisions, high bit first, under contexts of the bytes before it.
fn run<C: BitCoder>(coder: &mut C, bytes: &mut [u8], width: usize) {
    let tables = &**TABLES;
    let mut counters = vec![Counter::new(32768, 0); SLOTS].into_boxed_slice();
    let counters: &mut [Counter; SLOTS] = (&mut *counters).try_into().expect("the length is SLOTS");
    let mut mixer = Mixer::new(width * 8);
    for position in 0..bytes.len() {
        let plane = position % width;
        let back = |distance: usize| {
            if distance <= position { u32::from(bytes[position - distance]) } else { 0 }
        };
        let (one, two, three) = (back(1), back(2), back(3));
        let keys = if width == 1 {
            [
                0,
                one + 1,
                one | two << 8,
                one | two << 8 | three << 16,
                one | two << 8 | three << 16 | back(4) << 24,
                back(4) << 8 | two,
            ]
        } else {
            let element = back(width);
            [
                0,
                one + 1,
                element + 257,
                element | one << 8,
                one | two << 8,
                element | back(2 * width) << 8,
            ]
        };
        let bases: [u32; INPUTS] = std::array::from_fn(|input| {
            (keys[input] ^ (plane as u32) << 29)
                .wrapping_mul(0x9e37_79b1)
                .wrapping_add(keys[input] >> 15)
        });
        let mut node = 1;
        for shift in (0..8).rev() {
            let contexts = std::array::from_fn(|input| {
                let hash = bases[input].wrapping_add(node << 24 | node).wrapping_mul(0x85eb_ca6b);
                (hash.wrapping_add((input as u32).wrapping_mul(0x9e37_79b1)) >> 13) as usize % SLOTS
            });
            let bit = u32::from(bytes[position]) >> shift & 1;
            let bit = mixer.code(coder, tables, RATES, plane * 8 + shift, counters, &contexts, bit);
            node = node << 1 | bit;
        }
        bytes[position] = node as u8;
    }
}
