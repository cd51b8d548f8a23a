//! The fast coder for codes on a trellis: the indices of each class of lines and quantiser make a segment with a table
//! of its own, and are dealt out again along the trellis when all are decoded.

use super::classes::{Axis, Classes, bits_of};
use super::segments::{Instructions, SegmentDecoder, SegmentEncoder};
use super::table::FrequencyTable;
use crate::cursor::{Cursor, write_varint};
use crate::error::CodecError;
use crate::layout::Layout;
use crate::trellis::{Indices, next_state, quantiser, value};

/// Quantisers, of each of which every class has a table.
const QUANTISERS: usize = 2;

/// Classes of lines; the tables of class c are those at 2c, for quantiser 0, and at 2c + 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrellisClasses(Classes);

impl TrellisClasses {
    /// The classes with the fewest bytes of few candidates, and the estimate of their bits.
    pub(crate) fn choose(indices: &Indices, layout: Layout) -> (f64, Self) {
        // A line's scale shows in its indices whatever their quantisers, so that these need not tell lines apart.
        let (_, lines) = Classes::choose(&indices.values, layout);
        let single = Self::of_lines(Axis::Rows, Vec::new(), 1, indices, layout);
        if lines.tables.len() == 1 {
            return single;
        }
        let Classes { axis, assignment, tables, .. } = lines;
        let several = Self::of_lines(axis, assignment, tables.len(), indices, layout);
        if several.0 < single.0 { several } else { single }
    }

    fn of_lines(
        axis: Axis,
        assignment: Vec<u8>,
        count: usize,
        indices: &Indices,
        layout: Layout,
    ) -> (f64, Self) {
        let assignment_bits = assignment.len() * count.ilog2() as usize;
        let mut classes = Classes::with_tables(axis, assignment, Vec::new());
        let segments = deal(&classes, count, &indices.values, &indices.quantisers, layout, 0);
        let tables: Vec<_> =
            segments.iter().map(|codes| FrequencyTable::from_codes(codes)).collect();
        let bits = segments.iter().zip(&tables).map(|(codes, table)| bits_of(codes, table));
        let bits = bits.sum::<f64>() + assignment_bits as f64;
        classes = Classes::with_tables(axis, classes.assignment, tables);
        (bits, Self(classes))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.0.write_several(QUANTISERS, out);
    }

    pub(crate) fn read(cursor: &mut Cursor, layout: Layout) -> Result<Self, CodecError> {
        Classes::read_several(QUANTISERS, cursor, layout).map(Self)
    }

    fn count(&self) -> usize {
        self.0.tables.len() / QUANTISERS
    }

    /// Encodes whole rows as: per class the number of indices of quantiser 0, then the segments.
    pub(crate) fn encode(
        &self,
        indices: &[i32],
        quantisers: &[u8],
        layout: Layout,
        first_row: usize,
    ) -> Vec<u8> {
        let segments = deal(&self.0, self.count(), indices, quantisers, layout, first_row);
        let mut encoder = SegmentEncoder::new(self.0.order);
        let mut out = Vec::new();
        for (table, (segment, codes)) in self.0.tables.iter().zip(segments.iter().enumerate()) {
            encoder.segment(table, codes);
            if segment % QUANTISERS == 0 {
                write_varint(&mut out, codes.len() as u64);
            }
        }
        encoder.finish(&mut out);
        out
    }

    /// Decodes exactly `codes.len()` codes, whole rows.
    ///
    /// # Errors
    ///
    /// Corrupt or truncated bytes: those of the fast coder, and numbers of indices that the trellis does not ask for.
    pub(crate) fn decode(
        &self,
        bytes: &[u8],
        codes: &mut [i32],
        layout: Layout,
        first_row: usize,
        place: &str,
    ) -> Result<(), CodecError> {
        self.decode_with(Instructions::best(), bytes, codes, layout, first_row, place)
    }

    /// Decodes with every instruction set that the processor has, which must agree; for fuzzing.
    pub(crate) fn decode_every_way(&self, bytes: &[u8], layout: Layout) {
        let decoded = |instructions| {
            let mut codes = vec![0; layout.count];
            let result = self.decode_with(instructions, bytes, &mut codes, layout, 0, "fuzz");
            result.map(|()| codes).map_err(|error| error.to_string())
        };
        let reference = decoded(Instructions::Scalar);
        for instructions in Instructions::available() {
            assert_eq!(decoded(instructions), reference, "{instructions:?}");
        }
    }

    fn decode_with(
        &self,
        instructions: Instructions,
        bytes: &[u8],
        codes: &mut [i32],
        layout: Layout,
        first_row: usize,
        place: &str,
    ) -> Result<(), CodecError> {
        let mut cursor = Cursor::new(bytes, place);
        let mut counts = Vec::new();
        for size in self.class_sizes(codes.len(), layout, first_row) {
            let first = cursor.length()?;
            let second = size
                .checked_sub(first)
                .ok_or_else(|| cursor.corrupt("a quantiser has more indices than its class"))?;
            counts.extend([first, second]);
        }
        let mut decoder = SegmentDecoder::new(cursor, self.0.order, instructions)?;
        let mut indices = vec![0; codes.len()];
        let mut rest = &mut indices[..];
        let mut segments = Vec::new();
        for (table, count) in self.0.tables.iter().zip(counts) {
            let (segment, after) = rest.split_at_mut(count);
            decoder.segment(table, segment)?;
            segments.push(&*segment);
            rest = after;
        }
        decoder.finish()?;
        self.gather(codes, &mut segments, layout, first_row)
            .ok_or_else(|| CodecError::corrupt(place, "the indices do not fit the trellis"))
    }

    /// Number of codes of each class in a block of `count` codes.
    fn class_sizes(&self, count: usize, layout: Layout, first_row: usize) -> Vec<usize> {
        let rows = count / layout.columns;
        let (lines, first, length) = match self.0.axis {
            Axis::Rows => (rows, first_row, layout.columns),
            Axis::Columns => (layout.columns, 0, rows),
        };
        let mut sizes = vec![0; self.count()];
        (first..first + lines).for_each(|line| sizes[self.0.of(line)] += length);
        sizes
    }

    /// Fills a block from its segments by following the state of each column; none if a segment has too few indices,
    /// which is when another has too many, or a code is out of range.
    fn gather(
        &self,
        codes: &mut [i32],
        segments: &mut [&[i32]],
        layout: Layout,
        first_row: usize,
    ) -> Option<()> {
        let mut states = vec![0; layout.columns];
        let mut classes = vec![0; layout.columns];
        for (row, codes) in (first_row..).zip(codes.chunks_mut(layout.columns)) {
            self.0.fill_row(row, &mut classes);
            for ((code, state), class) in codes.iter_mut().zip(&mut states).zip(&classes) {
                let quantiser = quantiser(*state);
                let segment = &mut segments[usize::from(*class) * QUANTISERS + quantiser];
                let (&index, rest) = segment.split_first()?;
                *segment = rest;
                *code = value(index, quantiser)?;
                *state = next_state(*state, index);
            }
        }
        Some(())
    }
}

/// The indices of each class and quantiser, in row-major order.
fn deal(
    classes: &Classes,
    count: usize,
    indices: &[i32],
    quantisers: &[u8],
    layout: Layout,
    first_row: usize,
) -> Vec<Vec<i32>> {
    let mut segments = vec![Vec::new(); count * QUANTISERS];
    let mut row_classes = vec![0; layout.columns];
    let rows = indices.chunks(layout.columns).zip(quantisers.chunks(layout.columns));
    for (row, (indices, quantisers)) in (first_row..).zip(rows) {
        classes.fill_row(row, &mut row_classes);
        for ((&index, quantiser), class) in indices.iter().zip(quantisers).zip(&row_classes) {
            segments[usize::from(*class) * QUANTISERS + usize::from(*quantiser)].push(index);
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trellis::indices_to_codes;

    /// 60 rows of 20 indices, of different scale by row, with their classes.
    fn example() -> (Vec<i32>, Vec<i32>, Indices, Layout, TrellisClasses) {
        let layout = Layout::new(&[60, 20]);
        let index = |at: i32| at * at % 13 % (2 + at / 20 % 3 * 5) - 2;
        let indices: Vec<i32> = (0..1200).map(index).collect();
        let mut codes = indices.clone();
        indices_to_codes(&mut codes, 20).unwrap();
        let found = Indices::of(&codes, &[60, 20]).unwrap();
        let (_, classes) = TrellisClasses::choose(&found, layout);
        (indices, codes, found, layout, classes)
    }

    #[test]
    fn classes_of_lines_and_their_tables_come_back() {
        let (_, codes, found, layout, classes) = example();
        assert!(classes.count() > 1);
        let mut tables = Vec::new();
        classes.write(&mut tables);
        assert_eq!(TrellisClasses::read(&mut Cursor::new(&tables, "t"), layout).unwrap(), classes);
        let block = classes.encode(&found.values, &found.quantisers, layout, 0);
        classes.decode_every_way(&block, layout);
        let mut decoded = vec![0; codes.len()];
        classes.decode(&block, &mut decoded, layout, 0, "t").unwrap();
        assert_eq!(decoded, codes);
    }

    #[test]
    fn every_truncation_and_every_bit_flip_is_refused_or_gives_other_codes() {
        let (_, codes, found, layout, classes) = example();
        let block = classes.encode(&found.values, &found.quantisers, layout, 0);
        let mut decoded = vec![0; codes.len()];
        for length in 0..block.len() {
            let cut = classes.decode(&block[..length], &mut decoded, layout, 0, "t");
            assert!(cut.is_err(), "cut to {length}");
        }
        for bit in 0..block.len() * 8 {
            let mut damaged = block.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let found = classes.decode(&damaged, &mut decoded, layout, 0, "t");
            assert!(found.is_err() || decoded != codes, "bit {bit}");
        }
    }

    #[test]
    fn wrong_numbers_of_indices_and_codes_beyond_32_bits_are_refused() {
        let (indices, codes, found, layout, classes) = example();
        let mut decoded = vec![0; codes.len()];
        let mut refusal = |values: &[i32], quantisers: &[u8]| {
            let (values, quantisers) = (values.to_vec(), quantisers.to_vec());
            let indices = Indices { values, quantisers };
            let (_, classes) = TrellisClasses::choose(&indices, layout);
            let block = classes.encode(&indices.values, &indices.quantisers, layout, 0);
            let refused = classes.decode(&block, &mut decoded, layout, 0, "t");
            refused.unwrap_err().to_string()
        };
        // The last index counts as one of the other quantiser.
        let mut quantisers = found.quantisers.clone();
        *quantisers.last_mut().unwrap() ^= 1;
        assert!(refusal(&indices, &quantisers).contains("do not fit"));
        let mut wide = indices.clone();
        wide[0] = i32::MAX;
        assert!(refusal(&wide, &found.quantisers).contains("do not fit"));
        // More of the first class's indices in quantiser 0 than it has.
        let mut block = vec![0xff, 0xff, 0x03];
        block.extend(classes.encode(&indices, &found.quantisers, layout, 0));
        let refused = classes.decode(&block, &mut decoded, layout, 0, "t").unwrap_err();
        assert!(refused.to_string().contains("more indices than its class"), "{refused}");
    }
}
