//! Bytes to artifact, safe on any input.

use rayon::prelude::*;

use super::bytes;
use super::codes;
use super::directory::{self, Body, Entry};
use super::header::{self, Header};
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
    let (header, directory, mut rest) = header::read(file)?;
    let entries = directory::read(directory, rest.len() as u64)?;
    let mut sections = |entry: &Entry| {
        let section = |length| {
            let (front, back) = rest.split_at(length);
            rest = back;
            front
        };
        // The directory's lengths are known to add up to the bytes that are there.
        entry
            .sections
            .iter()
            .map(|section| section.length as usize)
            .map(section)
            .collect::<Vec<_>>()
    };
    let entries = entries
        .into_iter()
        .map(|entry| {
            let bytes = sections(&entry);
            (entry, bytes)
        })
        .collect();
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

enum Content {
    Metadata(Vec<u8>),
    Tensor(Tensor),
}

fn decode_entry(entry: &Entry, sections: &[&[u8]]) -> Result<Content, CodecError> {
    let name = &entry.name;
    for (index, (section, bytes)) in entry.sections.iter().zip(sections).enumerate() {
        if crc32fast::hash(bytes) != section.checksum {
            return Err(CodecError::corrupt(
                name,
                format!("the checksum of section {index} does not match"),
            ));
        }
    }
    let length = entry.body.decoded_bytes();
    match &entry.body {
        Body::Metadata { coder, .. } => {
            Ok(Content::Metadata(bytes::decompress(*coder, sections[0], length, name)?))
        }
        Body::Raw { shape, dtype, coder } => {
            let planes = bytes::decompress(*coder, sections[0], length, name)?;
            let bytes = bytes::from_planes(&planes, dtype.bytes());
            Ok(Content::Tensor(Tensor::Raw(RawTensor {
                shape: shape.clone(),
                dtype: *dtype,
                bytes,
            })))
        }
        Body::Quantized { shape, coder, step, reconstruction, row_scales, column_scales } => {
            let (rows, columns) = matrix_shape(shape);
            let mut side = Cursor::new(sections[0], name);
            let codes = codes::decode(*coder, Layout::new(shape), &mut side, &sections[1..], name)?;
            let row_scales = row_scales.then(|| read_scales(&mut side, rows)).transpose()?;
            let column_scales =
                column_scales.then(|| read_scales(&mut side, columns)).transpose()?;
            side.finish()?;
            Ok(Content::Tensor(Tensor::Quantized(QuantizedTensor {
                shape: shape.clone(),
                codes,
                step: *step,
                row_scales,
                column_scales,
                reconstruction: *reconstruction,
            })))
        }
    }
}

fn read_scales(cursor: &mut Cursor, count: usize) -> Result<Vec<f32>, CodecError> {
    let bytes = cursor.take(count.saturating_mul(4))?;
    Ok(bytes
        .chunks_exact(4)
        .map(|scale| f32::from_le_bytes(scale.try_into().expect("4 bytes")))
        .collect())
}
