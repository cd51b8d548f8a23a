//! The binary directory: what the file holds and where, checked before anything is allocated.

use crate::cursor::{Cursor, write_varint};
use crate::error::CodecError;
use crate::layout::Layout;
use crate::origin::Origin;
use crate::quantized::Reconstruction;
use crate::raw::FloatType;
use crate::shape::{element_count, matrix_shape};
use crate::trellis::rows_per_run;

/// Longest name of a tensor or metadata key, in bytes.
const MAX_NAME: usize = 1024;
/// Most dimensions of a tensor.
const MAX_RANK: usize = 16;
/// Most entries of a file.
const MAX_ENTRIES: u64 = 1 << 20;
/// Most scales of a tensor without elements, whose sections are no measure of them.
const MAX_IDLE_SCALES: u64 = 1 << 20;

/// A stretch of bytes; sections follow each other without gaps, in directory order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) length: u64,
    pub(super) checksum: u32,
}

impl Section {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { length: bytes.len() as u64, checksum: crc32fast::hash(bytes) }
    }
}

/// What an entry is and how it is coded.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Metadata {
        length: u64,
        coder: ByteCoder,
    },
    Raw {
        shape: Vec<usize>,
        dtype: FloatType,
        coder: ByteCoder,
    },
    Quantized {
        shape: Vec<usize>,
        coder: CodeCoder,
        step: f32,
        reconstruction: Reconstruction,
        row_scales: bool,
        column_scales: bool,
        /// Since minor version 2.
        origin: Option<Origin>,
    },
}

/// How the codes of a tensor are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CodeCoder {
    Rans,
    Mix,
    /// For codes on a trellis, since minor version 1.
    TrellisMix,
    TrellisRans,
}

impl CodeCoder {
    fn from_wire(number: u8) -> Option<Self> {
        [Self::Rans, Self::Mix, Self::TrellisMix, Self::TrellisRans]
            .get(usize::from(number))
            .copied()
    }

    fn needs_trellis(self) -> bool {
        matches!(self, Self::TrellisMix | Self::TrellisRans)
    }
}

/// How a run of bytes is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteCoder {
    Stored,
    Deflate,
    Mix,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) body: Body,
    pub(super) sections: Vec<Section>,
}

impl Body {
    /// Sections that belong to an entry of this kind: for codes one with tables and scales, then blocks.
    pub(super) fn section_count(&self) -> usize {
        match self {
            Self::Metadata { .. } | Self::Raw { .. } => 1,
            Self::Quantized { shape, .. } => 1 + Layout::new(shape).blocks(),
        }
    }

    /// Bytes of memory that the decoded entry takes.
    pub(super) fn decoded_bytes(&self) -> u64 {
        match self {
            Self::Metadata { length, .. } => *length,
            Self::Raw { shape, dtype, .. } => (element_count(shape).expect("checked when read")
                as u64)
                .saturating_mul(dtype.bytes() as u64),
            Self::Quantized { shape, row_scales, column_scales, .. } => {
                let count = element_count(shape).expect("checked when read") as u64;
                count.saturating_add(scales(shape, *row_scales, *column_scales)).saturating_mul(4)
            }
        }
    }
}

/// Number of scales of a tensor.
fn scales(shape: &[usize], row_scales: bool, column_scales: bool) -> u64 {
    let (rows, columns) = matrix_shape(shape);
    let rows = if row_scales { rows as u64 } else { 0 };
    let columns = if column_scales { columns as u64 } else { 0 };
    rows.saturating_add(columns)
}

/// Whether a tensor has no elements and more scales than such a tensor may have.
pub(super) fn has_idle_scales(shape: &[usize], row_scales: bool, column_scales: bool) -> bool {
    shape.contains(&0) && scales(shape, row_scales, column_scales) > MAX_IDLE_SCALES
}

pub(super) fn write<'a>(entries: impl ExactSizeIterator<Item = &'a Entry>) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(&mut out, entries.len() as u64);
    let mut previous: &[u8] = &[];
    for entry in entries {
        let name = entry.name.as_bytes();
        let shared = name.iter().zip(previous).take_while(|pair| pair.0 == pair.1).count();
        write_varint(&mut out, shared as u64);
        write_varint(&mut out, (name.len() - shared) as u64);
        out.extend(&name[shared..]);
        previous = name;
        match &entry.body {
            Body::Metadata { length, coder } => {
                out.extend([0, *coder as u8]);
                write_varint(&mut out, *length);
            }
            Body::Raw { shape, dtype, coder } => {
                out.extend([1, *coder as u8, *dtype as u8]);
                write_shape(&mut out, shape);
            }
            Body::Quantized {
                shape,
                coder,
                step,
                reconstruction,
                row_scales,
                column_scales,
                origin,
            } => {
                let shrink = match reconstruction {
                    Reconstruction::Uniform => None,
                    Reconstruction::Shrink(n) => Some(*n),
                };
                let flags = u8::from(*row_scales)
                    | u8::from(*column_scales) << 1
                    | u8::from(shrink.is_some()) << 2
                    | u8::from(origin.is_some()) << 3;
                out.extend([2, flags, *coder as u8]);
                out.extend(shrink);
                out.extend(step.to_le_bytes());
                if let Some(Origin { seed, stream, bound }) = origin {
                    write_varint(&mut out, *seed);
                    write_varint(&mut out, *stream);
                    out.extend(bound.to_le_bytes());
                }
                write_shape(&mut out, shape);
            }
        }
        for section in &entry.sections {
            write_varint(&mut out, section.length);
            out.extend(section.checksum.to_le_bytes());
        }
    }
    out
}

/// The first minor version that has all that these entries use: files that do not use what a later one adds are the
/// same as ever.
pub(super) fn minor_version<'a>(entries: impl Iterator<Item = &'a Entry>) -> u16 {
    let needed = |entry: &Entry| match &entry.body {
        Body::Quantized { origin: Some(_), .. } => 2,
        Body::Quantized { coder, .. } if coder.needs_trellis() => 1,
        Body::Quantized { .. } | Body::Metadata { .. } | Body::Raw { .. } => 0,
    };
    entries.map(needed).max().unwrap_or(0)
}

fn write_shape(out: &mut Vec<u8>, shape: &[usize]) {
    write_varint(out, shape.len() as u64);
    for &size in shape {
        write_varint(out, size as u64);
    }
}

/// Checks what the directory can hold.
pub(super) fn validate(name: &str, shape: &[usize]) -> Result<(), CodecError> {
    if name.is_empty() || name.len() > MAX_NAME {
        let problem = format!("a name of {} bytes; 1 to {MAX_NAME} are allowed", name.len());
        return Err(CodecError::invalid(name, problem));
    }
    if shape.len() > MAX_RANK {
        return Err(CodecError::invalid(
            name,
            format!("rank {}; at most {MAX_RANK} is allowed", shape.len()),
        ));
    }
    Ok(())
}

/// Offset of a section that would start at `offset` without padding.
pub(super) fn aligned(offset: u64, alignment: u64) -> Option<u64> {
    offset.checked_next_multiple_of(alignment)
}

/// Reads a directory for sections that cover the bytes from `start` to `end` of the file.
pub(super) fn read(
    bytes: &[u8],
    start: u64,
    end: u64,
    alignment: u64,
) -> Result<Vec<Entry>, CodecError> {
    let mut cursor = Cursor::new(bytes, "directory");
    let count = cursor.varint()?;
    if count > MAX_ENTRIES {
        return Err(cursor.corrupt(format!("{count} entries; at most {MAX_ENTRIES} are allowed")));
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut covered = start;
    for _ in 0..count {
        let entry = read_entry(&mut cursor, entries.last().map_or("", |entry| &entry.name))?;
        if let Some(previous) = entries.last()
            && (previous.body.is_tensor(), &previous.name) >= (entry.body.is_tensor(), &entry.name)
        {
            return Err(cursor.corrupt(format!("{}: out of order or twice", entry.name)));
        }
        for section in &entry.sections {
            let reached =
                aligned(covered, alignment).and_then(|offset| offset.checked_add(section.length));
            covered = reached.ok_or_else(|| cursor.corrupt("section lengths overflow"))?;
        }
        entries.push(entry);
    }
    cursor.finish()?;
    if covered > end {
        return Err(CodecError::Truncated {
            place: "sections".into(),
            needed: covered,
            available: end,
        });
    }
    if covered < end {
        return Err(CodecError::corrupt(
            "sections",
            format!("{} bytes belong to no entry", end - covered),
        ));
    }
    Ok(entries)
}

impl Body {
    pub(super) fn is_tensor(&self) -> bool {
        !matches!(self, Self::Metadata { .. })
    }
}

fn read_entry(cursor: &mut Cursor, previous: &str) -> Result<Entry, CodecError> {
    let (shared, length) = (cursor.length()?, cursor.length()?);
    let shared = previous
        .as_bytes()
        .get(..shared)
        .ok_or_else(|| cursor.corrupt("a name shares more than there is"))?;
    if shared.len() + length.min(MAX_NAME + 1) > MAX_NAME || shared.len() + length == 0 {
        return Err(cursor.corrupt(format!("a name is empty or longer than {MAX_NAME} bytes")));
    }
    let name = [shared, cursor.take(length)?].concat();
    let name = String::from_utf8(name).map_err(|_| cursor.corrupt("a name is not UTF-8"))?;
    let body = match cursor.u8()? {
        0 => Body::Metadata { coder: read_coder(cursor)?, length: cursor.varint()? },
        1 => {
            let coder = read_coder(cursor)?;
            let number = cursor.u8()?;
            let dtype = FloatType::from_wire(number)
                .ok_or_else(|| cursor.corrupt(format!("{name}: type {number} is unknown")))?;
            Body::Raw { coder, dtype, shape: read_shape(cursor, &name)? }
        }
        2 => {
            let flags = cursor.u8()?;
            if flags > 15 {
                return Err(cursor.corrupt(format!("{name}: flags {flags} are unknown")));
            }
            let number = cursor.u8()?;
            let coder = CodeCoder::from_wire(number)
                .ok_or_else(|| cursor.corrupt(format!("{name}: coder {number} is unknown")))?;
            let reconstruction = match flags & 4 {
                0 => Reconstruction::Uniform,
                _ => Reconstruction::Shrink(cursor.u8()?),
            };
            let step = f32::from_bits(cursor.u32()?);
            let origin = match flags & 8 {
                0 => None,
                _ => Some(read_origin(cursor, &name)?),
            };
            let (row_scales, column_scales) = (flags & 1 != 0, flags & 2 != 0);
            let shape = read_shape(cursor, &name)?;
            if has_idle_scales(&shape, row_scales, column_scales) {
                return Err(cursor.corrupt(format!(
                    "{name}: shape {shape:?} has no elements and more than {MAX_IDLE_SCALES} scales"
                )));
            }
            if coder.needs_trellis() && rows_per_run(&shape).is_none() {
                return Err(cursor.corrupt(format!("{name}: shape {shape:?} has no trellis")));
            }
            Body::Quantized {
                shape,
                coder,
                step,
                reconstruction,
                row_scales,
                column_scales,
                origin,
            }
        }
        kind => return Err(cursor.corrupt(format!("{name}: entry kind {kind} is unknown"))),
    };
    let mut sections = Vec::new();
    for _ in 0..body.section_count() {
        // Grows with the bytes that are there, never with what they declare.
        sections.push(Section { length: cursor.varint()?, checksum: cursor.u32()? });
    }
    Ok(Entry { name, body, sections })
}

fn read_origin(cursor: &mut Cursor, name: &str) -> Result<Origin, CodecError> {
    let (seed, stream) = (cursor.varint()?, cursor.varint()?);
    let origin = Origin { seed, stream, bound: f32::from_bits(cursor.u32()?) };
    match origin.is_finite() {
        true => Ok(origin),
        false => Err(cursor.corrupt(format!("{name}: an origin uniform in ±{}", origin.bound))),
    }
}

fn read_coder(cursor: &mut Cursor) -> Result<ByteCoder, CodecError> {
    coder(cursor.u8()?, cursor)
}

/// The byte coder of that number.
pub(super) fn coder(number: u8, cursor: &Cursor) -> Result<ByteCoder, CodecError> {
    match number {
        0 => Ok(ByteCoder::Stored),
        1 => Ok(ByteCoder::Deflate),
        2 => Ok(ByteCoder::Mix),
        number => Err(cursor.corrupt(format!("byte coder {number} is unknown"))),
    }
}

fn read_shape(cursor: &mut Cursor, name: &str) -> Result<Vec<usize>, CodecError> {
    let rank = cursor.length()?;
    if rank > MAX_RANK {
        return Err(cursor.corrupt(format!("{name}: rank {rank}; at most {MAX_RANK} is allowed")));
    }
    let shape = (0..rank).map(|_| cursor.length()).collect::<Result<Vec<_>, _>>()?;
    match element_count(&shape) {
        // Byte counts of eight-byte elements must fit too.
        Some(count) if count <= usize::MAX / 16 => Ok(shape),
        _ => Err(cursor.corrupt(format!("{name}: shape {shape:?} has too many elements"))),
    }
}
