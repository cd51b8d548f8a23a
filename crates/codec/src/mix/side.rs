//! Side information about lines: short runs of small integers, and the scale levels of rows and columns.

use super::codes::{decode, encode};
use super::parameters::{Parameters, Statistic};
use super::tables::TABLES;
use crate::cursor::{Cursor, write_varint};
use crate::error::CodecError;
use crate::layout::Layout;

/// Levels are quarter octaves within ±8 octaves.
const MAX_LEVEL: i8 = 32;
/// 2^(i/4) in units of 2^-16.
const QUARTER_OCTAVES: [u64; 4] = [65_536, 77_936, 92_682, 110_218];

/// Appends values with the mixing coder itself, as one row.
pub(super) fn write(values: &[i8], out: &mut Vec<u8>) {
    let values: Vec<i32> = values.iter().map(|&value| i32::from(value)).collect();
    let parameters = Parameters::plain(&values);
    write_varint(out, u64::from(parameters.mean));
    let coded = encode(&values, values.len(), 0, &parameters);
    write_varint(out, coded.len() as u64);
    out.extend(coded);
}

/// Reads what [`write`] wrote; nobody writes no values.
pub(super) fn read(cursor: &mut Cursor, count: usize) -> Result<Vec<i8>, CodecError> {
    let mean = cursor.varint()?;
    if !(1..=128 * 16).contains(&mean) {
        return Err(cursor.corrupt("the mean of side information is out of range"));
    }
    if count == 0 {
        return Err(cursor.corrupt("side information about nothing"));
    }
    let length = cursor.length()?;
    let mut values = vec![0; count];
    decode(
        cursor.take(length)?,
        &mut values,
        count,
        0,
        &Parameters::with_mean(mean as u32),
        "side information",
    )?;
    let small = values.iter().map(|&value| i8::try_from(value)).collect::<Result<_, _>>();
    small.map_err(|_| cursor.corrupt("side information exceeds eight bits"))
}

/// Reads levels: side information within its range.
pub(super) fn read_levels(cursor: &mut Cursor, count: usize) -> Result<Vec<i8>, CodecError> {
    let levels = read(cursor, count)?;
    if levels.iter().any(|level| level.unsigned_abs() > MAX_LEVEL as u8) {
        return Err(cursor.corrupt("a scale level is out of range"));
    }
    Ok(levels)
}

/// value·2^(level/4), rounded down, at least 1.
pub(super) fn scale_by_level(value: u64, level: i8) -> u64 {
    let scaled = (value * QUARTER_OCTAVES[(level & 3) as usize]) >> 16;
    let octaves = level >> 2;
    (if octaves < 0 { scaled >> -octaves } else { scaled << octaves }).max(1)
}

/// Levels of rows and of columns that suit these codes: mean statistic of a line against `mean`, in units
/// of 1/16.
pub(super) fn levels(
    codes: &[i32],
    layout: Layout,
    statistic: Statistic,
    mean: u32,
) -> (Vec<i8>, Vec<i8>) {
    let mut rows = vec![(0_u64, 0_u64); layout.rows()];
    let mut columns = vec![(0_u64, 0_u64); layout.columns];
    for (row, codes) in rows.iter_mut().zip(codes.chunks(layout.columns)) {
        for (column, code) in columns.iter_mut().zip(codes) {
            let value = u64::from(statistic.of(code.unsigned_abs()));
            *row = (row.0 + value, row.1 + 1);
            *column = (column.0 + value, column.1 + 1);
        }
    }
    let level = |(sum, count): (u64, u64)| {
        let clip = |value: u64| value.min(u64::from(u32::MAX)) as u32;
        // Four codes of average magnitude keep an empty line finite.
        let found = TABLES.log2(clip(sum * 16 + 4 * u64::from(mean)));
        let expected = TABLES.log2(clip((count + 4) * u64::from(mean)));
        ((found - expected + 8) >> 4).clamp(-i32::from(MAX_LEVEL), i32::from(MAX_LEVEL)) as i8
    };
    (rows.into_iter().map(level).collect(), columns.into_iter().map(level).collect())
}
