//! Artifact to bytes.

use rayon::prelude::*;

use super::codes::{self, Effort};
use super::directory::{self, Body, Entry, Section};
use super::{HEADER_BYTES, bytes, header, scales};
use crate::artifact::{Artifact, Tensor};
use crate::error::CodecError;
use crate::quantized::QuantizedTensor;
use crate::size::SizeSplit;

/// An entry with the bytes of its sections.
struct EncodedEntry {
    name: String,
    body: Body,
    sections: Vec<Vec<u8>>,
    split: SizeSplit,
}

/// Bytes of one file. The same content gives the same bytes, whatever the number of threads.
///
/// # Errors
///
/// [`CodecError::InvalidArgument`] when a name is empty or too long, or a tensor contradicts its shape.
pub fn encode(artifact: &Artifact) -> Result<Vec<u8>, CodecError> {
    encode_with(artifact, Effort::default())
}

/// [`encode`] with a chosen effort.
///
/// # Errors
///
/// Those of [`encode`].
pub fn encode_with(artifact: &Artifact, effort: Effort) -> Result<Vec<u8>, CodecError> {
    let entries = encode_entries(artifact, effort)?;
    let alignment = alignment(effort);
    let mut after_header = write_directory(&entries);
    let directory_bytes = after_header.len();
    for section in entries.iter().flat_map(|entry| &entry.sections) {
        let offset = HEADER_BYTES + after_header.len();
        after_header.resize(offset.next_multiple_of(alignment as usize) - HEADER_BYTES, 0);
        after_header.extend_from_slice(section);
    }
    let mut file = header::write(directory_bytes, alignment, &after_header);
    file.append(&mut after_header);
    Ok(file)
}

/// Padding costs about 32 bytes per section, which only the fast files can afford.
fn alignment(effort: Effort) -> u64 {
    match effort {
        Effort::Smallest => 1,
        Effort::Fast => 64,
    }
}

/// Exact size of the file that [`encode`] makes, by purpose.
///
/// # Errors
///
/// Those of [`encode`].
pub fn encoded_size(artifact: &Artifact) -> Result<SizeSplit, CodecError> {
    encoded_size_with(artifact, Effort::default())
}

/// [`encoded_size`] with a chosen effort.
///
/// # Errors
///
/// Those of [`encode`].
pub fn encoded_size_with(artifact: &Artifact, effort: Effort) -> Result<SizeSplit, CodecError> {
    let entries = encode_entries(artifact, effort)?;
    let mut offset = (HEADER_BYTES + write_directory(&entries).len()) as u64;
    let mut split = SizeSplit { directory: offset, ..SizeSplit::default() };
    for entry in &entries {
        split += entry.split;
        for section in &entry.sections {
            let start = offset.next_multiple_of(alignment(effort));
            split.directory += start - offset;
            offset = start + section.len() as u64;
        }
    }
    Ok(split)
}

fn write_directory(entries: &[EncodedEntry]) -> Vec<u8> {
    let section =
        |bytes: &Vec<u8>| Section { length: bytes.len() as u64, checksum: crc32fast::hash(bytes) };
    let entries: Vec<Entry> = entries
        .iter()
        .map(|entry| Entry {
            name: entry.name.clone(),
            body: entry.body.clone(),
            sections: entry.sections.iter().map(section).collect(),
        })
        .collect();
    directory::write(&entries)
}

fn encode_entries(artifact: &Artifact, effort: Effort) -> Result<Vec<EncodedEntry>, CodecError> {
    let metadata: Vec<_> = artifact.metadata.iter().collect();
    let tensors: Vec<_> = artifact.tensors.iter().collect();
    let metadata = metadata.into_par_iter().map(|(key, value)| encode_metadata(key, value, effort));
    let tensors = tensors.into_par_iter().map(|(name, tensor)| encode_tensor(name, tensor, effort));
    metadata.chain(tensors).collect()
}

fn encode_metadata(key: &str, value: &[u8], effort: Effort) -> Result<EncodedEntry, CodecError> {
    directory::validate(key, &[])?;
    let (coder, stored) = bytes::compress(value, 1, effort);
    let split = SizeSplit { uncoded: stored.len() as u64, ..SizeSplit::default() };
    let body = Body::Metadata { length: value.len() as u64, coder };
    Ok(EncodedEntry { name: key.to_owned(), body, sections: vec![stored], split })
}

fn encode_tensor(name: &str, tensor: &Tensor, effort: Effort) -> Result<EncodedEntry, CodecError> {
    directory::validate(name, tensor.shape())?;
    match tensor {
        Tensor::Quantized(tensor) => encode_quantized(name, tensor, effort),
        Tensor::Raw(tensor) => {
            tensor.validate(name)?;
            let (coder, stored) = bytes::compress(&tensor.bytes, tensor.dtype.bytes(), effort);
            let split = SizeSplit { uncoded: stored.len() as u64, ..SizeSplit::default() };
            let body = Body::Raw { shape: tensor.shape.clone(), dtype: tensor.dtype, coder };
            Ok(EncodedEntry { name: name.to_owned(), body, sections: vec![stored], split })
        }
    }
}

fn encode_quantized(
    name: &str,
    tensor: &QuantizedTensor,
    effort: Effort,
) -> Result<EncodedEntry, CodecError> {
    tensor.validate(name)?;
    let (row_scales, column_scales) = (tensor.row_scales.is_some(), tensor.column_scales.is_some());
    if directory::has_idle_scales(&tensor.shape, row_scales, column_scales) {
        return Err(CodecError::invalid(name, "the tensor has no elements, but over 2^20 scales"));
    }
    let mut split = SizeSplit::default();
    let encoded = codes::encode(tensor, effort);
    let mut side = encoded.tables;
    split.tables = side.len() as u64;
    for scales in tensor.row_scales.iter().chain(&tensor.column_scales) {
        scales::write(scales, effort, &mut side);
    }
    split.scales = side.len() as u64 - split.tables;
    split.payload = encoded.blocks.iter().map(|block| block.len() as u64).sum();
    let mut sections = vec![side];
    sections.extend(encoded.blocks);
    let body = Body::Quantized {
        shape: tensor.shape.clone(),
        coder: encoded.coder,
        step: tensor.step,
        reconstruction: tensor.reconstruction,
        row_scales,
        column_scales,
    };
    Ok(EncodedEntry { name: name.to_owned(), body, sections, split })
}
