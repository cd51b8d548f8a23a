//! The stream of a block: segments of values, each under one table, that share lanes, words and escaped values.

use super::bits::{BitReader, BitWriter};
use super::table::{EncoderTable, FrequencyTable, SlotTable};
use super::{LANES, LOWER_BOUND, scalar};
use crate::cursor::{Cursor, write_varint};
use crate::error::CodecError;

/// The instructions a segment is decoded with; all give the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// All that the processor has, the fastest last.
    pub(super) fn available() -> Vec<Self> {
        let mut available = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            available.extend(super::avx2::is_available().then_some(Self::Avx2));
            available.extend(super::avx512::is_available().then_some(Self::Avx512));
        }
        available
    }

    pub(super) fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }
}

/// Takes segments in file order; their symbols wait for the end, because rANS encodes backwards.
pub(super) struct SegmentEncoder {
    segments: Vec<(Vec<u8>, EncoderTable)>,
    escapes: BitWriter,
    /// Order of the exponential Golomb code of escaped values.
    order: u32,
}

impl SegmentEncoder {
    pub(super) fn new(order: u32) -> Self {
        Self { segments: Vec::new(), escapes: BitWriter::default(), order }
    }

    pub(super) fn segment(&mut self, table: &FrequencyTable, codes: &[i32]) {
        let symbols: Vec<u8> = codes.iter().map(|&code| table.symbol(code)).collect();
        if table.frequencies[table.escape()] > 0 {
            for (&code, _) in
                codes.iter().zip(&symbols).filter(|pair| usize::from(*pair.1) == table.escape())
            {
                let (below, distance) = table.distance(code);
                self.escapes.bit(below);
                self.escapes.golomb(distance, self.order);
            }
        }
        self.segments.push((symbols, EncoderTable::new(table)));
    }

    /// Appends number of 16-bit words, 32 lane states, words, then the escaped values.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        let mut states = [LOWER_BOUND; LANES];
        let mut words = Vec::new();
        for (symbols, table) in self.segments.iter().rev() {
            scalar::encode(symbols, table, &mut states, &mut words);
        }
        out.reserve(words.len() * 2 + LANES * 4 + 8);
        write_varint(out, words.len() as u64);
        out.extend(states.iter().flat_map(|state| state.to_le_bytes()));
        out.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
        out.extend(self.escapes.finish());
    }
}

/// Gives segments in file order.
pub(super) struct SegmentDecoder<'a> {
    instructions: Instructions,
    words: Vec<u16>,
    /// Words used so far.
    position: usize,
    states: [u32; LANES],
    escapes: BitReader<'a>,
    order: u32,
    /// At the end of the bytes, for what errors name.
    cursor: Cursor<'a>,
}

impl<'a> SegmentDecoder<'a> {
    /// Reads all that is left of `cursor`.
    pub(super) fn new(
        mut cursor: Cursor<'a>,
        order: u32,
        instructions: Instructions,
    ) -> Result<Self, CodecError> {
        let count = cursor.length()?;
        let mut states = [0_u32; LANES];
        for state in &mut states {
            *state = cursor.u32()?;
            if *state < LOWER_BOUND {
                return Err(cursor.corrupt("a lane state lies below 2^16"));
            }
        }
        let word_bytes =
            count.checked_mul(2).ok_or_else(|| cursor.corrupt("the number of words overflows"))?;
        let words = cursor.take(word_bytes)?.as_chunks::<2>().0.iter();
        let words = words.map(|&word| u16::from_le_bytes(word)).collect();
        let escapes = BitReader::new(cursor.take(cursor.remaining())?);
        Ok(Self { instructions, words, position: 0, states, escapes, order, cursor })
    }

    /// Fills `codes` with the next segment.
    pub(super) fn segment(
        &mut self,
        table: &FrequencyTable,
        codes: &mut [i32],
    ) -> Result<(), CodecError> {
        let slots = SlotTable::new(table);
        let words = &self.words[self.position..];
        let used = decode_symbols(self.instructions, words, &slots, &mut self.states, codes);
        self.position +=
            used.ok_or_else(|| self.cursor.corrupt("the words end before the codes do"))?;
        if table.frequencies[table.escape()] > 0 {
            for code in codes.iter_mut().filter(|code| **code == slots.escape) {
                let below = self.escapes.bit(&self.cursor)?;
                let distance = self.escapes.golomb(self.order, &self.cursor)?;
                *code = table
                    .beyond(below, distance)
                    .ok_or_else(|| self.cursor.corrupt("an escaped value exceeds 32 bits"))?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<(), CodecError> {
        if self.position < self.words.len() || self.states != [LOWER_BOUND; LANES] {
            return Err(self.cursor.corrupt("the coder does not end in its start state"));
        }
        self.escapes.finish(&self.cursor)
    }
}

/// Whole groups with vector instructions, the rest with the reference.
fn decode_symbols(
    instructions: Instructions,
    words: &[u16],
    slots: &SlotTable,
    states: &mut [u32; LANES],
    codes: &mut [i32],
) -> Option<usize> {
    if let Some(constant) = slots.constant {
        codes.fill(constant);
        return Some(0);
    }
    #[allow(unsafe_code)]
    let (groups, used) = match instructions {
        Instructions::Scalar => (0, 0),
        // SAFETY: chosen only where the processor has these instructions.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { super::avx2::decode(words, slots, states, codes) },
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => unsafe { super::avx512::decode(words, slots, states, codes) },
    };
    Some(used + scalar::decode(&words[used..], slots, states, &mut codes[groups * LANES..])?)
}
