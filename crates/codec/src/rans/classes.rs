//! Classes of lines: rows (or columns) of similar scale share a frequency table.

use std::collections::BTreeMap;

use super::bits::{BitReader, BitWriter};
use super::table::{FrequencyTable, counts_of};
use crate::cursor::{Cursor, write_varint};
use crate::error::CodecError;
use crate::layout::Layout;

/// Most classes of a tensor.
const MAX_CLASSES: usize = 16;
/// Rounds of reassigning lines to the class that codes them best.
const ROUNDS: usize = 4;
/// Lines × symbols beyond which the histograms would take too much memory.
const MAX_HISTOGRAM: usize = 1 << 26;

/// Which lines of the matrix have classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Rows,
    Columns,
}

/// Tables of a tensor and which line uses which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Classes {
    pub(crate) axis: Axis,
    /// Class of each line; empty when there is one class only.
    pub(crate) assignment: Vec<u8>,
    pub(crate) tables: Vec<FrequencyTable>,
    /// Order of the exponential Golomb code of escaped values.
    pub(crate) order: u32,
}

impl Classes {
    /// One table for all codes.
    pub(crate) fn single(codes: &[i32]) -> Self {
        Self::with_tables(Axis::Rows, Vec::new(), vec![FrequencyTable::from_codes(codes)])
    }

    pub(super) fn with_tables(
        axis: Axis,
        assignment: Vec<u8>,
        tables: Vec<FrequencyTable>,
    ) -> Self {
        // Escaped values lie beyond the table: their distance is about as large as the table.
        let widest = tables.iter().map(FrequencyTable::escape).max().unwrap_or(0).max(1);
        Self { axis, assignment, tables, order: widest.ilog2().saturating_sub(2) }
    }

    /// The number of classes and the axis with the fewest bytes, tables and assignment counted, and the
    /// estimate of their bits.
    pub(crate) fn choose(codes: &[i32], layout: Layout) -> (f64, Self) {
        let single = Self::single(codes);
        let table = single.tables[0].clone();
        let mut best = (bits(&[total(codes, &table)], 0), single);
        let whole = codes.len() == layout.rows() * layout.columns;
        for axis in [Axis::Rows, Axis::Columns] {
            if axis == Axis::Columns && !whole {
                continue;
            }
            let lines = line_counts(codes, layout, axis, &table);
            let order = by_scale(&lines, codes, layout, axis);
            if lines.len() < 4 {
                continue;
            }
            let mut before = best.0;
            for exponent in 1..=MAX_CLASSES.ilog2() {
                let (size, assignment) = cluster(&lines, &order, 1 << exponent);
                if size < best.0 {
                    let tables = tables_of(codes, layout, axis, &assignment, 1 << exponent);
                    best = (size, Self::with_tables(axis, assignment, tables));
                }
                if size > before {
                    break;
                }
                before = size;
            }
        }
        best
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.write_several(1, out);
    }

    /// [`Classes::write`] where each class has several tables, next to each other.
    pub(super) fn write_several(&self, tables_per_class: usize, out: &mut Vec<u8>) {
        let count = self.tables.len() / tables_per_class;
        out.push(count as u8 | u8::from(self.axis == Axis::Columns) << 5);
        out.push(self.order as u8);
        let mut writer = BitWriter::default();
        let width = count.next_power_of_two().ilog2();
        for &class in &self.assignment {
            (0..width).for_each(|position| writer.bit(class >> position & 1 == 1));
        }
        for table in &self.tables {
            table.write(&mut writer);
        }
        let packed = writer.finish();
        write_varint(out, packed.len() as u64);
        out.extend(packed);
    }

    pub(crate) fn read(cursor: &mut Cursor, layout: Layout) -> Result<Self, CodecError> {
        Self::read_several(1, cursor, layout)
    }

    /// Reads what [`Classes::write_several`] wrote.
    pub(super) fn read_several(
        tables_per_class: usize,
        cursor: &mut Cursor,
        layout: Layout,
    ) -> Result<Self, CodecError> {
        let first = cursor.u8()?;
        let (count, axis) =
            (usize::from(first & 31), if first & 32 == 0 { Axis::Rows } else { Axis::Columns });
        let order = u32::from(cursor.u8()?);
        if count == 0 || count > MAX_CLASSES || first > 63 || order > 31 {
            return Err(cursor.corrupt("the classes of the fast coder are out of range"));
        }
        let lines = match axis {
            Axis::Rows => layout.rows(),
            Axis::Columns if layout.count == layout.rows() * layout.columns => layout.columns,
            Axis::Columns => {
                return Err(cursor.corrupt("columns of an incomplete matrix have classes"));
            }
        };
        let length = cursor.length()?;
        let mut reader = BitReader::new(cursor.take(length)?);
        let width = count.next_power_of_two().ilog2();
        let mut assignment = Vec::new();
        if count > 1 {
            for _ in 0..lines {
                let mut class = 0;
                for position in 0..width {
                    class |= u8::from(reader.bit(cursor)?) << position;
                }
                if usize::from(class) >= count {
                    return Err(cursor.corrupt("a line belongs to a class that does not exist"));
                }
                assignment.push(class);
            }
        }
        let tables = (0..count * tables_per_class)
            .map(|_| FrequencyTable::read(&mut reader, cursor))
            .collect::<Result<_, _>>()?;
        reader.finish(cursor)?;
        Ok(Self { axis, assignment, tables, order })
    }

    /// Fills in the class of each code of a row.
    pub(super) fn fill_row(&self, row: usize, classes: &mut [u8]) {
        match self.axis {
            Axis::Columns if !self.assignment.is_empty() => {
                classes.copy_from_slice(&self.assignment);
            }
            _ => classes.fill(self.of(row) as u8),
        }
    }

    /// Class of a line.
    pub(super) fn of(&self, line: usize) -> usize {
        self.assignment.get(line).map_or(0, |&class| usize::from(class))
    }
}

type Counts = Vec<u32>;

/// Estimated bits of these codes under their own table, with the table.
pub(super) fn bits_of(codes: &[i32], table: &FrequencyTable) -> f64 {
    bits(&[total(codes, table)], 0)
}

/// Histogram over the symbols of one table.
fn total(codes: &[i32], table: &FrequencyTable) -> Counts {
    let mut counts = vec![0; table.escape() + 1];
    codes.iter().for_each(|&code| counts[usize::from(table.symbol(code))] += 1);
    counts
}

fn line_counts(codes: &[i32], layout: Layout, axis: Axis, table: &FrequencyTable) -> Vec<Counts> {
    let symbols = table.escape() + 1;
    let lines = if axis == Axis::Rows { layout.rows() } else { layout.columns };
    if lines * symbols > MAX_HISTOGRAM {
        return Vec::new();
    }
    let mut counts = vec![vec![0; symbols]; lines];
    for (row, codes) in codes.chunks(layout.columns).enumerate() {
        for (column, &code) in codes.iter().enumerate() {
            let line = if axis == Axis::Rows { row } else { column };
            counts[line][usize::from(table.symbol(code))] += 1;
        }
    }
    counts
}

/// Lines in order of their mean magnitude.
fn by_scale(lines: &[Counts], codes: &[i32], layout: Layout, axis: Axis) -> Vec<usize> {
    let mut sums = vec![0_u64; lines.len()];
    if !lines.is_empty() {
        for (row, codes) in codes.chunks(layout.columns).enumerate() {
            for (column, &code) in codes.iter().enumerate() {
                sums[if axis == Axis::Rows { row } else { column }] +=
                    u64::from(code.unsigned_abs());
            }
        }
    }
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|&line| (sums[line], line));
    order
}

/// Bits of all lines under the tables of their classes, with tables and assignment.
fn bits(classes: &[Counts], assignment_bits: usize) -> f64 {
    let class = |counts: &Counts| {
        let total: u32 = counts.iter().sum();
        let bits = |count: u32| f64::from(count) * libm::log2(f64::from(total) / f64::from(count));
        let table = 10.0 * counts.len() as f64 + 16.0;
        table + counts.iter().filter(|&&count| count > 0).map(|&count| bits(count)).sum::<f64>()
    };
    classes.iter().map(class).sum::<f64>() + assignment_bits as f64
}

/// Starts with equal numbers of lines per class, by scale, then moves lines to where they cost least.
fn cluster(lines: &[Counts], order: &[usize], count: usize) -> (f64, Vec<u8>) {
    let mut assignment = vec![0_u8; lines.len()];
    for (rank, &line) in order.iter().enumerate() {
        assignment[line] = (rank * count / lines.len()) as u8;
    }
    let symbols = lines[0].len();
    let sum = |assignment: &[u8]| {
        let mut classes = vec![vec![0_u32; symbols]; count];
        for (line, &class) in lines.iter().zip(assignment) {
            let class = &mut classes[usize::from(class)];
            class.iter_mut().zip(line).for_each(|(sum, count)| *sum += count);
        }
        classes
    };
    for _ in 0..ROUNDS {
        // Half a count more, so that a value new to a class is dear but possible.
        let prices: Vec<Vec<f64>> = sum(&assignment)
            .iter()
            .map(|counts| {
                let total = f64::from(counts.iter().sum::<u32>()) + 0.5 * symbols as f64;
                counts.iter().map(|&count| libm::log2(total / (f64::from(count) + 0.5))).collect()
            })
            .collect();
        for (line, class) in lines.iter().zip(&mut assignment) {
            let price = |class: &Vec<f64>| {
                class.iter().zip(line).map(|(bits, &count)| bits * f64::from(count)).sum::<f64>()
            };
            let best = prices
                .iter()
                .map(price)
                .enumerate()
                .min_by(|left, right| left.1.total_cmp(&right.1));
            *class = best.expect("there is a class").0 as u8;
        }
    }
    (bits(&sum(&assignment), lines.len() * count.ilog2() as usize), assignment)
}

fn tables_of(
    codes: &[i32],
    layout: Layout,
    axis: Axis,
    assignment: &[u8],
    count: usize,
) -> Vec<FrequencyTable> {
    let mut members = vec![Vec::new(); count];
    for (row, codes) in codes.chunks(layout.columns).enumerate() {
        match axis {
            Axis::Rows => members[usize::from(assignment[row])].extend_from_slice(codes),
            Axis::Columns => {
                codes
                    .iter()
                    .zip(assignment)
                    .for_each(|(&code, &class)| members[usize::from(class)].push(code));
            }
        }
    }
    let table = |codes: &Vec<i32>| -> FrequencyTable {
        let counts: BTreeMap<i32, u64> = counts_of(codes);
        FrequencyTable::from_counts(codes.len() as u64, &counts)
    };
    members.iter().map(table).collect()
}
