//! Static frequencies of the values of one tensor, in units of 2^-12.

use super::PRECISION;
use crate::cursor::{Cursor, unzigzag, write_varint, zigzag};
use crate::error::CodecError;

/// Sum of all frequencies.
const TOTAL: u32 = 1 << PRECISION;
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
        let (low, counts) = histogram(codes);
        let escaped = codes.len() as u64 - counts.iter().sum::<u64>();
        let mut counts = counts;
        counts.push(escaped);
        Self { low, frequencies: normalise(&counts) }
    }

    pub(crate) fn escape(&self) -> usize {
        self.frequencies.len() - 1
    }

    /// Symbol of a value: its index, or the escape.
    pub(crate) fn symbol(&self, code: i32) -> usize {
        let index = i64::from(code) - i64::from(self.low);
        match usize::try_from(index) {
            Ok(index) if index < self.escape() && self.frequencies[index] > 0 => index,
            _ => self.escape(),
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_varint(out, u64::from(zigzag(self.low)));
        write_varint(out, self.escape() as u64);
        for &frequency in &self.frequencies {
            write_varint(out, u64::from(frequency));
        }
    }

    pub(crate) fn read(cursor: &mut Cursor) -> Result<Self, CodecError> {
        let low = u32::try_from(cursor.varint()?)
            .map_err(|_| cursor.corrupt("the lowest value exceeds 32 bits"))?;
        let values = cursor.length()?;
        if values > MAX_VALUES {
            return Err(cursor
                .corrupt(format!("a table of {values} values; at most {MAX_VALUES} are allowed")));
        }
        let low = unzigzag(low);
        if low.checked_add(values as i32).is_none() {
            return Err(cursor.corrupt("the table reaches beyond 32-bit codes"));
        }
        let mut frequencies = Vec::with_capacity(values + 1);
        let mut sum = 0;
        for _ in 0..=values {
            let frequency = cursor.varint()?;
            if frequency > u64::from(TOTAL) {
                return Err(cursor.corrupt(format!("frequency {frequency} exceeds {TOTAL}")));
            }
            sum += frequency;
            frequencies.push(frequency as u16);
        }
        if sum != u64::from(TOTAL) {
            return Err(
                cursor.corrupt(format!("frequencies sum to {sum}; the sum must be {TOTAL}"))
            );
        }
        Ok(Self { low, frequencies })
    }
}

/// Lowest value and counts of the range of values that are frequent enough for an entry.
fn histogram(codes: &[i32]) -> (i32, Vec<u64>) {
    let mut counts = std::collections::BTreeMap::new();
    for &code in codes {
        *counts.entry(code).or_insert(0_u64) += 1;
    }
    let Some((&mode, _)) = counts.iter().max_by_key(|entry| (entry.1, std::cmp::Reverse(entry.0)))
    else {
        return (0, Vec::new());
    };
    // Half a unit of the table: rarer values are cheaper as escapes.
    let threshold = codes.len() as u64 / u64::from(2 * TOTAL);
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
    fn a_table_that_does_not_sum_is_rejected() {
        let mut table = FrequencyTable::from_codes(&[0, 0, 1, -1, 5]);
        let mut bytes = Vec::new();
        table.write(&mut bytes);
        assert_eq!(FrequencyTable::read(&mut Cursor::new(&bytes, "t")).unwrap(), table);
        table.frequencies[0] += 1;
        bytes.clear();
        table.write(&mut bytes);
        assert!(FrequencyTable::read(&mut Cursor::new(&bytes, "t")).is_err());
    }
}
