//! Bytes to artifact, safe on any input.

use rayon::prelude::*;

use super::HEADER_BYTES;
use super::bytes;
use super::codes::Decoder;
use super::directory::{self, Body, Entry};
use super::header::{self, Header};
use super::scales;
use crate::artifact::{Artifact, Tensor};
use crate::cursor::Cursor;
use crate::error::CodecError;
use crate::layout::Layout;
use crate::quantized::QuantizedTensor;
use crate::raw::RawTensor;
use crate::shape::matrix_shape;

/// What decoding may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes that the decoded content may take in memory; checked before allocating.
    pub max_memory: u64,
}

impl Default for Limits {
    /// 16 GiB.
    fn default() -> Self {
        Self { max_memory: 16 << 30 }
    }
}

/// A file whose header and directory have been checked.
pub(super) struct OpenFile<'a> {
    pub(super) header: Header,
    /// Entries with the bytes of each of their sections.
    pub(super) entries: Vec<(Entry, Vec<&'a [u8]>)>,
}

pub(super) fn open(file: &[u8]) -> Result<OpenFile<'_>, CodecError> {
    let (header, directory, _) = header::read(file)?;
    let mut offset = HEADER_BYTES + directory.len();
    let entries = directory::read(directory, offset as u64, file.len() as u64, header.alignment)?;
    let mut with_sections = Vec::new();
    for entry in entries {
        let mut sections = Vec::new();
        for section in &entry.sections {
            // The directory's lengths are known to cover the file exactly.
            let start = offset.next_multiple_of(header.alignment as usize);
            if file[offset..start].iter().any(|&byte| byte != 0) {
                return Err(CodecError::corrupt(
                    &entry.name,
                    "padding before a section is not zero",
                ));
            }
            offset = start + section.length as usize;
            sections.push(&file[start..offset]);
        }
        with_sections.push((entry, sections));
    }
    let entries = with_sections;
    Ok(OpenFile { header, entries })
}

/// Reads a whole file; every checksum and the content hash are verified.
///
/// # Errors
///
/// Any damage is one of [`CodecError::Corrupt`], [`CodecError::Truncated`],
/// [`CodecError::UnsupportedVersion`]; content larger than allowed is [`CodecError::LimitExceeded`].
pub fn decode(file: &[u8], limits: &Limits) -> Result<Artifact, CodecError> {
    let open = open(file)?;
    let needed = open
        .entries
        .iter()
        .fold(0_u64, |sum, (entry, _)| sum.saturating_add(entry.body.decoded_bytes()));
    if needed > limits.max_memory {
        return Err(CodecError::LimitExceeded {
            place: "file".into(),
            needed,
            limit: limits.max_memory,
        });
    }
    header::verify_content(&open.header, file)?;
    let decoded = open.entries.par_iter().map(|(entry, sections)| decode_entry(entry, sections));
    let mut artifact = Artifact::default();
    for ((entry, _), content) in open.entries.iter().zip(decoded.collect::<Result<Vec<_>, _>>()?) {
        match content {
            Content::Metadata(value) => drop(artifact.metadata.insert(entry.name.clone(), value)),
            Content::Tensor(tensor) => drop(artifact.tensors.insert(entry.name.clone(), tensor)),
        }
    }
    Ok(artifact)
}

/// Reads one tensor, decoding nothing else. Its own checksums are verified; the content hash of the
/// whole file is not.
///
/// # Errors
///
/// Those of [`decode`], and [`CodecError::InvalidArgument`] when the file has no tensor of that name.
pub fn decode_tensor(file: &[u8], name: &str, limits: &Limits) -> Result<Tensor, CodecError> {
    let open = open(file)?;
    let found = open.entries.iter().find(|(entry, _)| entry.body.is_tensor() && entry.name == name);
    let (entry, sections) =
        found.ok_or_else(|| CodecError::invalid(name, "the file has no tensor of this name"))?;
    let needed = entry.body.decoded_bytes();
    if needed > limits.max_memory {
        return Err(CodecError::LimitExceeded {
            place: name.to_owned(),
            needed,
            limit: limits.max_memory,
        });
    }
    match decode_entry(entry, sections)? {
        Content::Tensor(tensor) => Ok(tensor),
        Content::Metadata(_) => unreachable!("the entry is a tensor"),
    }
}

pub(super) enum Content {
    Metadata(Vec<u8>),
    Tensor(Tensor),
}

/// Refuses a section whose bytes do not have its checksum.
pub(super) fn check_section(entry: &Entry, index: usize, bytes: &[u8]) -> Result<(), CodecError> {
    if crc32fast::hash(bytes) == entry.sections[index].checksum {
        return Ok(());
    }
    Err(CodecError::corrupt(&entry.name, format!("the checksum of section {index} does not match")))
}

pub(super) fn decode_entry<B: AsRef<[u8]> + Sync>(
    entry: &Entry,
    sections: &[B],
) -> Result<Content, CodecError> {
    let name = &entry.name;
    for (index, bytes) in sections.iter().enumerate() {
        check_section(entry, index, bytes.as_ref())?;
    }
    let (first, length) = (sections[0].as_ref(), entry.body.decoded_bytes());
    match &entry.body {
        Body::Metadata { coder, .. } => {
            Ok(Content::Metadata(bytes::decompress(*coder, first, length, 1, name)?))
        }
        Body::Raw { shape, dtype, coder } => {
            let bytes = bytes::decompress(*coder, first, length, dtype.bytes(), name)?;
            Ok(Content::Tensor(Tensor::Raw(RawTensor {
                shape: shape.clone(),
                dtype: *dtype,
                bytes,
            })))
        }
        Body::Quantized { .. } => {
            let (decoder, mut tensor) = decode_side(entry, first)?;
            let layout = Layout::new(&tensor.shape);
            tensor.codes = vec![0; layout.count];
            decoder.blocks(layout, 0, &sections[1..], &mut tensor.codes, name)?;
            Ok(Content::Tensor(Tensor::Quantized(tensor)))
        }
    }
}

/// What the side section and the entry of a quantised tensor say: all but its codes.
///
/// # Panics
///
/// When the entry is of another kind.
pub(super) fn decode_side(
    entry: &Entry,
    side: &[u8],
) -> Result<(Decoder, QuantizedTensor), CodecError> {
    let Body::Quantized { shape, coder, step, reconstruction, row_scales, column_scales, origin } =
        &entry.body
    else {
        panic!("{} is not quantised", entry.name);
    };
    let name = &entry.name;
    let (rows, columns) = matrix_shape(shape);
    let mut side = Cursor::new(side, name);
    let decoder = Decoder::read(*coder, Layout::new(shape), &mut side)?;
    let mut scales = |present: bool, count: usize| {
        present.then(|| scales::read(&mut side, count, name)).transpose()
    };
    let (row_scales, column_scales) =
        (scales(*row_scales, rows)?, scales(*column_scales, columns)?);
    side.finish()?;
    let tensor = QuantizedTensor {
        shape: shape.clone(),
        codes: Vec::new(),
        step: *step,
        row_scales,
        column_scales,
        reconstruction: *reconstruction,
        origin: *origin,
    };
    Ok((decoder, tensor))
}
