//! Static frequencies of the values of one tensor, in units of 2^-12.

use std::collections::BTreeMap;

use super::PRECISION;
use super::bits::{BitReader, BitWriter};
use crate::cursor::{Cursor, unzigzag, zigzag};
use crate::error::CodecError;

/// Sum of all frequencies.
const TOTAL: u32 = 1 << PRECISION;
/// Order of the exponential Golomb code of frequencies.
const FREQUENCY_ORDER: u32 = 6;
/// Most consecutive values with a frequency of their own; one more symbol is the escape.
const MAX_VALUES: usize = 255;

/// Frequencies of the values `low`, `low + 1`, …; the last entry is the escape, for all other values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrequencyTable {
    pub(crate) low: i32,
    /// Sums to 2^12; the escape comes last.
    pub(crate) frequencies: Vec<u16>,
}

impl FrequencyTable {
    /// The table for these codes: their histogram, rounded so that it sums exactly.
    pub(crate) fn from_codes(codes: &[i32]) -> Self {
        Self::from_counts(codes.len() as u64, &counts_of(codes))
    }

    /// The table for this histogram of `total` codes.
    pub(super) fn from_counts(total: u64, counts: &BTreeMap<i32, u64>) -> Self {
        let (low, counts) = histogram(total, counts);
        let escaped = total - counts.iter().sum::<u64>();
        let mut counts = counts;
        counts.push(escaped);
        Self { low, frequencies: normalise(&counts) }
    }

    pub(crate) fn escape(&self) -> usize {
        self.frequencies.len() - 1
    }

    /// Symbol of a value: its index, or the escape.
    pub(super) fn symbol(&self, code: i32) -> u8 {
        let index = i64::from(code) - i64::from(self.low);
        match usize::try_from(index) {
            Ok(index) if index < self.escape() && self.frequencies[index] > 0 => index as u8,
            _ => self.escape() as u8,
        }
    }

    /// Side of the table on which an escaped value lies, and its distance: 0 is next to the table.
    /// Values inside, which have no frequency, count as above.
    pub(super) fn distance(&self, code: i32) -> (bool, u32) {
        let low = i64::from(self.low);
        let high = low + self.escape() as i64;
        let code = i64::from(code);
        match code {
            _ if code < low => (true, (low - 1 - code) as u32),
            _ if code >= high => (false, (code - high) as u32),
            // Wraps around: distances that no value above the table can have.
            _ => (true, (u32::MAX as i64 - (code - low)) as u32),
        }
    }

    /// The value at a distance below or above the table.
    pub(super) fn beyond(&self, below: bool, distance: u32) -> Option<i32> {
        let low = i64::from(self.low);
        let inside = i64::from(u32::MAX) - i64::from(distance);
        let code = match below {
            true if inside < self.escape() as i64 => low + inside,
            true => low - 1 - i64::from(distance),
            false => low + self.escape() as i64 + i64::from(distance),
        };
        i32::try_from(code).ok()
    }

    /// Lowest value, number of values, and all frequencies but the escape's, which the sum implies.
    pub(super) fn write(&self, writer: &mut BitWriter) {
        writer.golomb(zigzag(self.low), 3);
        writer.golomb(self.escape() as u32, 3);
        for &frequency in &self.frequencies[..self.escape()] {
            writer.golomb(u32::from(frequency), FREQUENCY_ORDER);
        }
    }

    pub(super) fn read(reader: &mut BitReader, cursor: &Cursor) -> Result<Self, CodecError> {
        let low = unzigzag(reader.golomb(3, cursor)?);
        let values = reader.golomb(3, cursor)? as usize;
        if values > MAX_VALUES {
            return Err(cursor
                .corrupt(format!("a table of {values} values; at most {MAX_VALUES} are allowed")));
        }
        if low.checked_add(values as i32).is_none() {
            return Err(cursor.corrupt("the table reaches beyond 32-bit codes"));
        }
        let mut left = TOTAL;
        let mut frequencies = Vec::with_capacity(values + 1);
        for _ in 0..values {
            let frequency = reader.golomb(FREQUENCY_ORDER, cursor)?;
            left = left
                .checked_sub(frequency)
                .ok_or_else(|| cursor.corrupt(format!("frequencies sum to more than {TOTAL}")))?;
            frequencies.push(frequency as u16);
        }
        frequencies.push(left as u16);
        Ok(Self { low, frequencies })
    }
}

/// Encoder's view: division by a frequency as multiplication with its reciprocal.
pub(super) struct EncoderTable {
    pub(super) entries: Vec<EncoderEntry>,
}

/// One symbol: x ← (x / frequency)·2^12 + x mod frequency + start = x + bias + (x / frequency)·complement.
#[derive(Clone, Copy)]
pub(super) struct EncoderEntry {
    /// States from here on give away a word first.
    pub(super) limit: u32,
    /// ⌈2^(32 + shift) / frequency⌉, which divides every 32-bit state exactly.
    pub(super) reciprocal: u64,
    pub(super) shift: u32,
    pub(super) bias: u32,
    /// 2^12 − frequency.
    pub(super) complement: u32,
}

impl EncoderTable {
    pub(super) fn new(table: &FrequencyTable) -> Self {
        let mut start = 0;
        let entries = table.frequencies.iter().map(|&frequency| {
            let frequency = u32::from(frequency);
            let shift = if frequency > 1 { 32 - (frequency - 1).leading_zeros() } else { 0 };
            let entry = EncoderEntry {
                limit: frequency
                    .checked_shl(32 - PRECISION)
                    .filter(|_| frequency < TOTAL)
                    .unwrap_or(u32::MAX),
                reciprocal: (1_u64 << (32 + shift)).div_ceil(u64::from(frequency.max(1))),
                shift,
                bias: start,
                complement: TOTAL - frequency,
            };
            start += frequency;
            entry
        });
        Self { entries: entries.collect() }
    }

    /// Whether one symbol has the full frequency, so that nothing needs to be coded.
    pub(super) fn is_constant(&self) -> bool {
        self.entries.iter().any(|entry| entry.complement == 0)
    }
}

/// Decoder's view: for each value of the low 12 bits of a state, the symbol (8 bits), its frequency
/// (12 bits) and the offset within the symbol (12 bits).
pub(super) struct SlotTable {
    pub(super) low: i32,
    pub(super) escape: i32,
    /// The only symbol, when it has the full frequency; the entries are not used then.
    pub(super) constant: Option<i32>,
    pub(super) entries: Box<[u32; TOTAL as usize]>,
}

impl SlotTable {
    pub(super) fn new(table: &FrequencyTable) -> Self {
        let mut entries = Box::new([0; TOTAL as usize]);
        let mut slots = entries.iter_mut();
        for (symbol, &frequency) in table.frequencies.iter().enumerate() {
            let frequency = u32::from(frequency);
            for (offset, slot) in (0..frequency).zip(slots.by_ref()) {
                *slot = symbol as u32 | (frequency & 0xfff) << 8 | offset << 20;
            }
        }
        let constant =
            table.frequencies.iter().position(|&frequency| u32::from(frequency) == TOTAL);
        let value = |symbol: usize| table.low.wrapping_add(symbol as i32);
        Self {
            low: table.low,
            escape: value(table.escape()),
            constant: constant.map(value),
            entries,
        }
    }
}

/// Histogram of codes.
pub(super) fn counts_of(codes: &[i32]) -> BTreeMap<i32, u64> {
    let mut counts = BTreeMap::new();
    // Runs of equal codes and small alphabets are the rule, so a small window of counters goes first.
    let mut window = [0_u64; 256];
    for &code in codes {
        match usize::try_from(i64::from(code) + 128) {
            Ok(index) if index < window.len() => window[index] += 1,
            _ => *counts.entry(code).or_insert(0) += 1,
        }
    }
    counts.extend((-128..).zip(window).filter(|entry| entry.1 > 0));
    counts
}

/// Lowest value and counts of the range of values that are frequent enough for an entry.
fn histogram(total: u64, counts: &BTreeMap<i32, u64>) -> (i32, Vec<u64>) {
    let Some((&mode, _)) = counts.iter().max_by_key(|entry| (entry.1, std::cmp::Reverse(entry.0)))
    else {
        return (0, Vec::new());
    };
    // Half a unit of the table: rarer values are cheaper as escapes.
    let threshold = total / u64::from(2 * TOTAL);
    let half = (MAX_VALUES / 2) as i32;
    let window = mode.saturating_sub(half)..=mode.saturating_add(half);
    let frequent: Vec<i32> =
        counts.range(window).filter(|entry| *entry.1 > threshold).map(|entry| *entry.0).collect();
    let low = frequent.first().copied().unwrap_or(mode);
    let high = frequent.last().copied().unwrap_or(mode).min(i32::MAX - 1);
    (low, (low..=high).map(|value| counts.get(&value).copied().unwrap_or(0)).collect())
}

/// Rounds counts to frequencies that sum to 2^12, at least one for each value that occurs; the units
/// left over go where they save the most bits.
fn normalise(counts: &[u64]) -> Vec<u16> {
    let total: u64 = counts.iter().sum();
    let mut frequencies = vec![0_u16; counts.len()];
    if total == 0 {
        frequencies[counts.len() - 1] = TOTAL as u16;
        return frequencies;
    }
    for (frequency, &count) in frequencies.iter_mut().zip(counts) {
        let share = u128::from(count) * u128::from(TOTAL) / u128::from(total);
        *frequency = (share as u16).max(u16::from(count > 0));
    }
    let mut sum: i64 = frequencies.iter().map(|&frequency| i64::from(frequency)).sum();
    while sum != i64::from(TOTAL) {
        let step = if sum < i64::from(TOTAL) { 1 } else { -1 };
        // Compares count/(frequency + ½ step): the change in bits of one unit, to first order, in integers.
        let value = |index: usize| {
            (u128::from(counts[index]) << 32)
                / (2 * i128::from(frequencies[index]) + i128::from(step)).max(1) as u128
        };
        let candidates = (0..counts.len()).filter(|&index| counts[index] > 0);
        let best = if step > 0 {
            candidates.max_by_key(|&index| (value(index), std::cmp::Reverse(index)))
        } else {
            candidates
                .filter(|&index| frequencies[index] > 1)
                .min_by_key(|&index| (value(index), index))
        };
        let best = best.expect("a value occurs, and fewer values than units do");
        frequencies[best] = (i64::from(frequencies[best]) + step) as u16;
        sum += step;
    }
    frequencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_sum_and_cover() {
        for counts in [
            vec![1, 0],
            vec![0, 7, 0],
            vec![1; 256],
            vec![1_000_000, 1, 1, 1, 0],
            vec![u64::MAX / 8, 3, 5],
        ] {
            let frequencies = normalise(&counts);
            assert_eq!(frequencies.iter().map(|&f| u32::from(f)).sum::<u32>(), TOTAL);
            for (&count, &frequency) in counts.iter().zip(&frequencies) {
                assert_eq!(count > 0, frequency > 0);
            }
        }
        assert_eq!(normalise(&[0, 0]), [0, TOTAL as u16]);
    }

    #[test]
    fn a_table_that_sums_to_too_much_is_rejected() {
        let mut table = FrequencyTable::from_codes(&[0, 0, 1, -1, 5]);
        let read = |table: &FrequencyTable| {
            let mut writer = BitWriter::default();
            table.write(&mut writer);
            FrequencyTable::read(&mut BitReader::new(&writer.finish()), &Cursor::new(&[], "t"))
        };
        assert_eq!(read(&table).unwrap(), table);
        table.frequencies[0] += TOTAL as u16;
        assert!(read(&table).is_err());
    }

    #[test]
    fn reciprocals_divide_exactly() {
        for frequency in 1..TOTAL {
            let table = FrequencyTable {
                low: 0,
                frequencies: vec![frequency as u16, (TOTAL - frequency) as u16],
            };
            let entry = EncoderTable::new(&table).entries[0];
            for state in
                [65536, 65537, (frequency << 20) - 1, (frequency << 19) + 77, frequency * 1000 - 1]
            {
                let quotient = ((u64::from(state) * entry.reciprocal) >> 32) as u32 >> entry.shift;
                assert_eq!(quotient, state / frequency, "{state} / {frequency}");
            }
        }
    }
}
