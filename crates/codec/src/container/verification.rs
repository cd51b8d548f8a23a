//! Whether a file is whole, and whether it is the file that this version writes.

use std::io::{Read, Seek};

use super::codes::Effort;
use super::directory;
use super::file_reader::FileReader;
use super::reader::Content;
use super::writer::{alignment, encode_metadata, encode_tensor};
use crate::error::CodecError;

/// What verification found in a file that decodes with all checksums and the content hash right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Tensors in the file.
    pub tensors: usize,
    /// Metadata values in the file.
    pub metadata: usize,
    /// Weights in the file.
    pub weights: u64,
    /// The effort with which this build encodes the content to the same bytes; `None` when it does not,
    /// which is no damage: another version of the encoder may have written the file.
    pub canonical: Option<Effort>,
}

/// Decodes a file entry by entry, checking checksums, content hash and every rule of the format, and encodes
/// it again; `progress` is told the number of entries done and of all.
///
/// # Errors
///
/// Those of [`decode`](super::decode), each naming the file.
pub fn verify<R: Read + Seek>(
    reader: &mut FileReader<R>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verification, CodecError> {
    reader.verify_content()?;
    let stated = reader.header.alignment;
    let effort = if stated == alignment(Effort::Fast) { Effort::Fast } else { Effort::Smallest };
    let directory = directory::write(reader.entries());
    let mut same = reader.header.minor == directory::minor_version(reader.entries())
        && directory == reader.directory()?;
    let keys: Vec<_> =
        reader.entries().map(|entry| (entry.name.clone(), entry.body.is_tensor())).collect();
    for (done, (name, is_tensor)) in keys.iter().enumerate() {
        let content = reader.content(name, *is_tensor)?;
        // Once a file is known to be of another encoder, decoding is all that is left to check.
        same = same && encodes_to_itself(reader, name, &content, effort)?;
        progress(done as u64 + 1, keys.len() as u64);
    }
    let tensors = keys.iter().filter(|key| key.1).count();
    Ok(Verification {
        tensors,
        metadata: keys.len() - tensors,
        weights: reader.elements(),
        canonical: same.then_some(effort),
    })
}

/// Whether an entry's content is encoded to the bytes that the file has for it.
fn encodes_to_itself<R: Read + Seek>(
    reader: &mut FileReader<R>,
    name: &str,
    content: &Content,
    effort: Effort,
) -> Result<bool, CodecError> {
    let is_tensor = matches!(content, Content::Tensor(_));
    let stored = reader.entry(name, is_tensor)?;
    let (mut index, mut same) = (0, true);
    let mut sink = |section: Vec<u8>| {
        let there = index < stored.sections.len();
        same = same && there && reader.section(name, is_tensor, index)? == section;
        index += 1;
        Ok(())
    };
    let (entry, _) = match content {
        Content::Metadata(value) => encode_metadata(name, value, effort, &mut sink)?,
        Content::Tensor(tensor) => encode_tensor(name, tensor, effort, &mut sink)?,
    };
    // A NaN step compares unequal to itself; its bytes do not.
    Ok(same && directory::write([&entry].into_iter()) == directory::write([&stored].into_iter()))
}
