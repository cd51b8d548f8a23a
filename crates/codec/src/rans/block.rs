//! One independent block: lines gathered class by class, coded, and put back in their places.

use super::classes::{Axis, Classes};
use super::segments::{Instructions, SegmentDecoder, SegmentEncoder};
use crate::cursor::Cursor;
use crate::error::CodecError;
use crate::layout::Layout;

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

/// Encodes a block: one segment per class.
pub(crate) fn encode(
    codes: &[i32],
    columns: usize,
    first_row: usize,
    classes: &Classes,
) -> Vec<u8> {
    let mut encoder = SegmentEncoder::new(classes.order);
    let mut gathered = Vec::new();
    for (class, table) in classes.tables.iter().enumerate() {
        gathered.clear();
        let lines = lines(classes, class, codes.len(), columns, first_row);
        gather(codes, &lines, classes.axis, columns, &mut gathered);
        encoder.segment(table, &gathered);
    }
    let mut out = Vec::new();
    encoder.finish(&mut out);
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
    let mut decoder = SegmentDecoder::new(Cursor::new(bytes, place), classes.order, instructions)?;
    for (class, table) in classes.tables.iter().enumerate() {
        if classes.tables.len() == 1 && classes.axis == Axis::Rows {
            decoder.segment(table, codes)?;
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
        decoder.segment(table, &mut gathered)?;
        scatter(codes, &lines, classes.axis, columns, &gathered);
    }
    decoder.finish()
}

#[cfg(test)]
mod tests {
    use super::super::LANES;
    use super::*;
    use crate::cursor::write_varint;
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
