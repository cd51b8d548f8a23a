//! One independent block: lines gathered class by class, coded, and put back in their places.

use super::bits::{BitReader, BitWriter};
use super::classes::{Axis, Classes};
use super::scalar;
use super::table::{EncoderTable, SlotTable};
use super::{LANES, LOWER_BOUND};
use crate::cursor::{Cursor, write_varint};
use crate::error::CodecError;
use crate::layout::Layout;

/// The instructions a segment is decoded with; all give the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Instructions {
    /// All that the processor has, the fastest last.
    fn available() -> Vec<Self> {
        let mut available = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            available.extend(super::avx2::is_available().then_some(Self::Avx2));
            available.extend(super::avx512::is_available().then_some(Self::Avx512));
        }
        available
    }

    fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Scalar)
    }
}

/// Lines of a block with one class, in order: start of each line, and the distance of its codes.
fn lines(
    classes: &Classes,
    class: usize,
    count: usize,
    columns: usize,
    first_row: usize,
) -> Vec<usize> {
    let (lines, offset) = match classes.axis {
        Axis::Rows => (count.div_ceil(columns), first_row),
        Axis::Columns => (columns.min(count), 0),
    };
    (0..lines).filter(|line| classes.of(line + offset) == class).collect()
}

/// Calls `visit` with each code of the lines, in file order.
fn gather(codes: &[i32], lines: &[usize], axis: Axis, columns: usize, out: &mut Vec<i32>) {
    for &line in lines {
        match axis {
            Axis::Rows => {
                out.extend_from_slice(&codes[line * columns..codes.len().min((line + 1) * columns)])
            }
            Axis::Columns => out.extend(codes[line..].iter().step_by(columns)),
        }
    }
}

/// Inverse of [`gather`].
fn scatter(codes: &mut [i32], lines: &[usize], axis: Axis, columns: usize, gathered: &[i32]) {
    let mut rest = gathered;
    let rows = codes.len() / columns;
    let end = codes.len();
    match axis {
        Axis::Rows => {
            for &line in lines {
                let target = &mut codes[line * columns..end.min((line + 1) * columns)];
                let (source, after) = rest.split_at(target.len());
                target.copy_from_slice(source);
                rest = after;
            }
        }
        // Row by row of the target, so that each cache line is written once.
        Axis::Columns => {
            for (row, target) in codes.chunks_exact_mut(columns).enumerate() {
                for (index, &line) in lines.iter().enumerate() {
                    target[line] = rest[index * rows + row];
                }
            }
        }
    }
}

/// Encodes a block as: number of 16-bit words, 32 lane states, words, then the escaped values.
pub(crate) fn encode(
    codes: &[i32],
    columns: usize,
    first_row: usize,
    classes: &Classes,
) -> Vec<u8> {
    let mut segments = Vec::new();
    let mut escapes = BitWriter::default();
    let mut gathered = Vec::new();
    for (class, table) in classes.tables.iter().enumerate() {
        gathered.clear();
        let lines = lines(classes, class, codes.len(), columns, first_row);
        gather(codes, &lines, classes.axis, columns, &mut gathered);
        let symbols: Vec<u8> = gathered.iter().map(|&code| table.symbol(code)).collect();
        if table.frequencies[table.escape()] > 0 {
            for (&code, _) in
                gathered.iter().zip(&symbols).filter(|pair| usize::from(*pair.1) == table.escape())
            {
                let (below, distance) = table.distance(code);
                escapes.bit(below);
                escapes.golomb(distance, classes.order);
            }
        }
        segments.push((symbols, EncoderTable::new(table)));
    }
    let mut states = [LOWER_BOUND; LANES];
    let mut words = Vec::new();
    for (symbols, table) in segments.iter().rev() {
        scalar::encode(symbols, table, &mut states, &mut words);
    }
    let mut out = Vec::with_capacity(words.len() * 2 + LANES * 4 + 8);
    write_varint(&mut out, words.len() as u64);
    out.extend(states.iter().flat_map(|state| state.to_le_bytes()));
    out.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
    out.extend(escapes.finish());
    out
}

/// Decodes exactly `codes.len()` codes.
///
/// # Errors
///
/// Corrupt or truncated bytes: missing words, a wrong final state, bytes left over.
pub(crate) fn decode(
    bytes: &[u8],
    codes: &mut [i32],
    columns: usize,
    first_row: usize,
    classes: &Classes,
    place: &str,
) -> Result<(), CodecError> {
    decode_with(Instructions::best(), bytes, codes, columns, first_row, classes, place)
}

/// Decodes with every instruction set that the processor has, which must agree; for fuzzing.
pub(crate) fn decode_every_way(bytes: &[u8], layout: Layout, classes: &Classes) {
    let decoded = |instructions| {
        let mut codes = vec![0; layout.count];
        let result =
            decode_with(instructions, bytes, &mut codes, layout.columns, 0, classes, "fuzz");
        result.map(|()| codes).map_err(|error| error.to_string())
    };
    let reference = decoded(Instructions::Scalar);
    for instructions in Instructions::available() {
        assert_eq!(decoded(instructions), reference, "{instructions:?}");
    }
}

/// [`decode`] without vector instructions.
#[cfg(feature = "comparison")]
pub(crate) fn decode_by_reference(
    bytes: &[u8],
    codes: &mut [i32],
    columns: usize,
    first_row: usize,
    classes: &Classes,
    place: &str,
) -> Result<(), CodecError> {
    decode_with(Instructions::Scalar, bytes, codes, columns, first_row, classes, place)
}

fn decode_with(
    instructions: Instructions,
    bytes: &[u8],
    codes: &mut [i32],
    columns: usize,
    first_row: usize,
    classes: &Classes,
    place: &str,
) -> Result<(), CodecError> {
    let mut cursor = Cursor::new(bytes, place);
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
    let words: Vec<u16> = cursor
        .take(word_bytes)?
        .as_chunks::<2>()
        .0
        .iter()
        .map(|&word| u16::from_le_bytes(word))
        .collect();
    let mut words = &words[..];
    let rest = cursor.take(cursor.remaining())?;
    let mut escapes = BitReader::new(rest);
    for (class, table) in classes.tables.iter().enumerate() {
        let slots = SlotTable::new(table);
        let mut segment = |codes: &mut [i32]| -> Result<(), CodecError> {
            let used = decode_segment(instructions, words, &slots, &mut states, codes);
            let used = used.ok_or_else(|| cursor.corrupt("the words end before the codes do"))?;
            words = &words[used..];
            if table.frequencies[table.escape()] > 0 {
                for code in codes.iter_mut().filter(|code| **code == slots.escape) {
                    let below = escapes.bit(&cursor)?;
                    let distance = escapes.golomb(classes.order, &cursor)?;
                    *code = table
                        .beyond(below, distance)
                        .ok_or_else(|| cursor.corrupt("an escaped value exceeds 32 bits"))?;
                }
            }
            Ok(())
        };
        if classes.tables.len() == 1 && classes.axis == Axis::Rows {
            segment(codes)?;
            continue;
        }
        let lines = lines(classes, class, codes.len(), columns, first_row);
        let length = match classes.axis {
            Axis::Rows => lines
                .iter()
                .map(|line| codes.len().min((line + 1) * columns) - line * columns)
                .sum(),
            Axis::Columns => lines.len() * (codes.len() / columns),
        };
        let mut gathered = vec![0; length];
        segment(&mut gathered)?;
        scatter(codes, &lines, classes.axis, columns, &gathered);
    }
    if !words.is_empty() || states != [LOWER_BOUND; LANES] {
        return Err(cursor.corrupt("the coder does not end in its start state"));
    }
    escapes.finish(&cursor)
}

/// Decodes one segment: whole groups with vector instructions, the rest with the reference.
fn decode_segment(
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(codes: &[i32], columns: usize, classes: &Classes) -> usize {
        let mut tables = Vec::new();
        classes.write(&mut tables);
        let layout = Layout { count: codes.len(), columns };
        assert_eq!(&Classes::read(&mut Cursor::new(&tables, "t"), layout).unwrap(), classes);
        let bytes = encode(codes, columns, 0, classes);
        for instructions in Instructions::available() {
            let mut decoded = vec![0; codes.len()];
            decode_with(instructions, &bytes, &mut decoded, columns, 0, classes, "t").unwrap();
            assert_eq!(decoded, codes, "{instructions:?}");
        }
        bytes.len()
    }

    #[test]
    fn extremes_round_trip() {
        for codes in [vec![], vec![i32::MIN, i32::MAX, 0], vec![i32::MAX; 3], vec![i32::MIN; 40]] {
            round_trip(&codes, 2, &Classes::single(&codes));
        }
        // One value with the full frequency costs nothing but the lane states.
        let constant = [7; 100_000];
        assert!(round_trip(&constant, 100, &Classes::single(&constant)) <= LANES * 4 + 1);
    }

    #[test]
    fn lines_of_different_scale_get_classes() {
        let mut state = 1_u64;
        let mut noise = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as i32
        };
        for transposed in [false, true] {
            let codes: Vec<i32> = (0..256 * 200)
                .map(|index| {
                    noise()
                        % if (if transposed { index % 256 } else { index / 256 }) % 3 == 0 {
                            9
                        } else {
                            2
                        }
                })
                .collect();
            let (_, classes) = Classes::choose(&codes, Layout { count: codes.len(), columns: 256 });
            assert!(classes.tables.len() > 1);
            assert_eq!(classes.axis == Axis::Columns, transposed);
            assert!(
                round_trip(&codes, 256, &classes)
                    < encode(&codes, 256, 0, &Classes::single(&codes)).len()
            );
        }
    }

    proptest! {
        #[test]
        fn any_codes_round_trip(
            codes in prop::collection::vec(prop_oneof![9 => -3..4_i32, 1 => -300..300_i32, 1 => any::<i32>()], 1..3000),
            columns in 1..90_usize,
        ) {
            round_trip(&codes, columns, &Classes::single(&codes));
            let layout = Layout { count: codes.len(), columns };
            round_trip(&codes, columns, &Classes::choose(&codes, layout).1);
        }

        #[test]
        fn any_bytes_are_refused_or_decoded_alike(
            bytes in prop::collection::vec(any::<u8>(), 0..900),
            count in 0..600_usize,
            words in 0..300_usize,
        ) {
            let classes = Classes::single(&[0, 0, 0, 1, -1, 2]);
            // A plausible start: word count, and lane states of at least 2^16.
            let mut stream = Vec::new();
            write_varint(&mut stream, words as u64);
            stream.extend((0..LANES).flat_map(|lane| [bytes.get(lane).copied().unwrap_or(0), 9, 1 + lane as u8, 0]));
            stream.extend(&bytes);
            let decoded = |instructions| {
                let mut codes = vec![0; count];
                decode_with(instructions, &stream, &mut codes, 7, 0, &classes, "t").map(|()| codes).map_err(|error| error.to_string())
            };
            for instructions in Instructions::available() {
                prop_assert_eq!(decoded(instructions), decoded(Instructions::Scalar));
            }
        }
    }
}
