//! Reads a file tensor by tensor, or block by block, with ordinary reads.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::codes::blocks_at_once;
use super::directory::{self, Body, Entry};
use super::header::{self, ContentHash, Header};
use super::reader::{Content, Limits, check_section, decode_entry, decode_side};
use super::{HEADER_BYTES, PIECE_BYTES};
use crate::artifact::Tensor;
use crate::error::CodecError;
use crate::file::io_error;
use crate::layout::Layout;
use crate::raw::FloatType;
use crate::shape::element_count;

/// One tensor as the directory lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name of the tensor.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Element type of a verbatim tensor; `None` for a quantised one.
    pub dtype: Option<FloatType>,
}

/// An open `.bsl` file of which header and directory have been checked, and nothing else has been read.
///
/// Every section is checked against its checksum when it is read; [`FileReader::verify_content`] checks the
/// hash of the whole file. Errors name the file and the tensor.
pub struct FileReader<R = File> {
    source: R,
    path: PathBuf,
    limits: Limits,
    length: u64,
    pub(super) header: Header,
    /// Entries, each with the offset at which its first section would start without padding.
    entries: Vec<(Entry, u64)>,
}

impl FileReader {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`CodecError::Io`], and those of [`FileReader::new`].
    pub fn open(path: &Path, limits: Limits) -> Result<Self, CodecError> {
        Self::new(File::open(path).map_err(io_error(path))?, path, limits)
    }
}

impl<R: Read + Seek> FileReader<R> {
    /// Reads header and directory from a source that holds a file from its beginning; `path` is named in
    /// errors.
    ///
    /// # Errors
    ///
    /// [`CodecError::Io`]; [`CodecError::Corrupt`], [`CodecError::Truncated`] and
    /// [`CodecError::UnsupportedVersion`] for header and directory; [`CodecError::LimitExceeded`] when the
    /// directory alone is larger than allowed.
    pub fn new(mut source: R, path: &Path, limits: Limits) -> Result<Self, CodecError> {
        let length = source.seek(SeekFrom::End(0)).map_err(io_error(path))?;
        let (header, entries) = read_directory(&mut source, path, limits, length)
            .map_err(|error| error.in_file(path))?;
        Ok(Self { source, path: path.to_owned(), limits, length, header, entries })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.length
    }

    /// The tensors, in file order.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let info = |(entry, _): &(Entry, u64)| {
            let (shape, dtype) = match &entry.body {
                Body::Metadata { .. } => return None,
                Body::Raw { shape, dtype, .. } => (shape, Some(*dtype)),
                Body::Quantized { shape, .. } => (shape, None),
            };
            Some(TensorInfo { name: entry.name.clone(), shape: shape.clone(), dtype })
        };
        self.entries.iter().filter_map(info).collect()
    }

    /// The keys of the metadata, in file order.
    #[must_use]
    pub fn metadata_keys(&self) -> Vec<String> {
        let metadata = self.entries.iter().filter(|(entry, _)| !entry.body.is_tensor());
        metadata.map(|(entry, _)| entry.name.clone()).collect()
    }

    /// Reads one metadata value.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](super::decode), and [`CodecError::InvalidArgument`] when there is none.
    pub fn metadata(&mut self, key: &str) -> Result<Vec<u8>, CodecError> {
        match self.content(key, false)? {
            Content::Metadata(value) => Ok(value),
            Content::Tensor(_) => unreachable!("the entry is metadata"),
        }
    }

    /// Reads one tensor.
    ///
    /// # Errors
    ///
    /// Those of [`decode`](super::decode), and [`CodecError::InvalidArgument`] when there is none.
    pub fn tensor(&mut self, name: &str) -> Result<Tensor, CodecError> {
        match self.content(name, true)? {
            Content::Tensor(tensor) => Ok(tensor),
            Content::Metadata(_) => unreachable!("the entry is a tensor"),
        }
    }

    /// Gives the weights of a tensor to `sink` as f32, in order and in pieces: of a quantised tensor only a
    /// few blocks of 2^20 codes are in memory at once.
    ///
    /// # Errors
    ///
    /// Those of [`FileReader::tensor`] and of `sink`, and [`CodecError::InvalidArgument`] for a verbatim
    /// tensor that is not a float.
    pub fn weights<E: From<CodecError>>(
        &mut self,
        name: &str,
        mut sink: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (entry, offsets) = self.find(name, true)?;
        if !matches!(entry.body, Body::Quantized { .. }) {
            let Tensor::Raw(tensor) = self.tensor(name)? else { unreachable!("not quantised") };
            return sink(&tensor.to_f32(name).map_err(|error| error.in_file(&self.path))?);
        }
        let path = self.path.clone();
        let named = |error: CodecError| error.in_file(&path);
        let side = self.sections(&entry, &offsets, 0..1)?;
        let (decoder, tensor) = decode_side(&entry, &side[0]).map_err(named)?;
        let layout = Layout::new(&tensor.shape);
        let mut codes = vec![0; layout.count.min(layout.block_codes() * blocks_at_once())];
        let mut weights = vec![0.0; codes.len()];
        for first in (0..layout.blocks()).step_by(blocks_at_once()) {
            let end = layout.blocks().min(first + blocks_at_once());
            let blocks = self.sections(&entry, &offsets, first + 1..end + 1)?;
            let position = first * layout.block_codes();
            let count = layout.count.min(end * layout.block_codes()) - position;
            let (codes, weights) = (&mut codes[..count], &mut weights[..count]);
            decoder.blocks(layout, first, &blocks, codes, name).map_err(named)?;
            tensor.dequantize_part(position, codes, weights);
            sink(weights)?;
        }
        Ok(())
    }

    /// Compares the content hash with the bytes of the whole file, in pieces of one MiB.
    ///
    /// # Errors
    ///
    /// [`CodecError::Io`], and [`CodecError::Corrupt`] when they do not match.
    pub fn verify_content(&mut self) -> Result<(), CodecError> {
        let mut hash = ContentHash::of(&self.header);
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = HEADER_BYTES as u64;
        while offset < self.length {
            let piece = &mut piece[..(self.length - offset).min(PIECE_BYTES as u64) as usize];
            read_at(&mut self.source, &self.path, offset, piece)?;
            hash.update(piece);
            offset += piece.len() as u64;
        }
        hash.verify(&self.header).map_err(|error| error.in_file(&self.path))
    }

    /// The bytes of the directory.
    pub(super) fn directory(&mut self) -> Result<Vec<u8>, CodecError> {
        let mut bytes = vec![0; self.header.directory_bytes as usize];
        read_at(&mut self.source, &self.path, HEADER_BYTES as u64, &mut bytes)?;
        Ok(bytes)
    }

    /// All entries, in file order.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().map(|(entry, _)| entry)
    }

    /// Reads an entry that is or is not a tensor.
    pub(super) fn content(&mut self, name: &str, is_tensor: bool) -> Result<Content, CodecError> {
        let (entry, offsets) = self.find(name, is_tensor)?;
        self.limit(name, entry.body.decoded_bytes())?;
        let sections = self.sections(&entry, &offsets, 0..entry.sections.len())?;
        decode_entry(&entry, &sections).map_err(|error| error.in_file(&self.path))
    }

    /// The entry that is or is not a tensor.
    pub(super) fn entry(&self, name: &str, is_tensor: bool) -> Result<Entry, CodecError> {
        Ok(self.find(name, is_tensor)?.0)
    }

    /// Reads one section of an entry.
    pub(super) fn section(
        &mut self,
        name: &str,
        is_tensor: bool,
        index: usize,
    ) -> Result<Vec<u8>, CodecError> {
        let (entry, offsets) = self.find(name, is_tensor)?;
        Ok(self.sections(&entry, &offsets, index..index + 1)?.remove(0))
    }

    /// An entry, with the offset of each of its sections.
    fn find(&self, name: &str, is_tensor: bool) -> Result<(Entry, Vec<u64>), CodecError> {
        let key = (is_tensor, name);
        let found = self
            .entries
            .binary_search_by(|(entry, _)| (entry.body.is_tensor(), entry.name.as_str()).cmp(&key));
        let Ok(found) = found else {
            let kind = if is_tensor { "tensor" } else { "metadata" };
            let error = CodecError::invalid(name, format!("the file has no {kind} of this name"));
            return Err(error.in_file(&self.path));
        };
        let (entry, start) = &self.entries[found];
        let mut offset = *start;
        let offset_of = |section: &directory::Section| {
            let this = offset;
            offset = offset.next_multiple_of(self.header.alignment) + section.length;
            this
        };
        let offsets = entry.sections.iter().map(offset_of).collect();
        Ok((entry.clone(), offsets))
    }

    /// Reads some sections of an entry, and checks their padding and checksums.
    fn sections(
        &mut self,
        entry: &Entry,
        offsets: &[u64],
        range: std::ops::Range<usize>,
    ) -> Result<Vec<Vec<u8>>, CodecError> {
        let stored = entry.sections[range.clone()].iter().map(|section| section.length).sum();
        self.limit(&entry.name, stored)?;
        let mut sections = Vec::new();
        for index in range {
            let start = offsets[index].next_multiple_of(self.header.alignment);
            let mut padding = vec![0; (start - offsets[index]) as usize];
            read_at(&mut self.source, &self.path, offsets[index], &mut padding)?;
            let mut bytes = vec![0; entry.sections[index].length as usize];
            read_at(&mut self.source, &self.path, start, &mut bytes)?;
            let checked = match padding.iter().all(|&byte| byte == 0) {
                true => check_section(entry, index, &bytes),
                false => Err(CodecError::corrupt(&entry.name, "padding is not zero")),
            };
            checked.map_err(|error| error.in_file(&self.path))?;
            sections.push(bytes);
        }
        Ok(sections)
    }

    fn limit(&self, place: &str, needed: u64) -> Result<(), CodecError> {
        limit(place, needed, self.limits).map_err(|error| error.in_file(&self.path))
    }

    /// Weights in all tensors.
    pub(super) fn elements(&self) -> u64 {
        let count = |tensor: TensorInfo| element_count(&tensor.shape).expect("checked when read");
        self.tensors().into_iter().map(|tensor| count(tensor) as u64).sum()
    }
}

fn limit(place: &str, needed: u64, limits: Limits) -> Result<(), CodecError> {
    if needed <= limits.max_memory {
        return Ok(());
    }
    Err(CodecError::LimitExceeded { place: place.to_owned(), needed, limit: limits.max_memory })
}

fn read_at<R: Read + Seek>(
    source: &mut R,
    path: &Path,
    offset: u64,
    bytes: &mut [u8],
) -> Result<(), CodecError> {
    source.seek(SeekFrom::Start(offset)).map_err(io_error(path))?;
    source.read_exact(bytes).map_err(io_error(path))
}

/// The checked header and the entries with their offsets, of a file of `length` bytes.
fn read_directory<R: Read + Seek>(
    source: &mut R,
    path: &Path,
    limits: Limits,
    length: u64,
) -> Result<(Header, Vec<(Entry, u64)>), CodecError> {
    let mut fields = vec![0; length.min(HEADER_BYTES as u64) as usize];
    read_at(source, path, 0, &mut fields)?;
    let header = header::read_fields(&fields)?;
    let available = length - HEADER_BYTES as u64;
    if header.directory_bytes > available {
        return Err(CodecError::Truncated {
            place: "directory".into(),
            needed: header.directory_bytes,
            available,
        });
    }
    limit("directory", header.directory_bytes, limits)?;
    let mut directory = vec![0; header.directory_bytes as usize];
    read_at(source, path, HEADER_BYTES as u64, &mut directory)?;
    header::verify_directory(&header, &directory)?;
    let mut offset = HEADER_BYTES as u64 + header.directory_bytes;
    let entries = directory::read(&directory, offset, length, header.alignment)?;
    let place = |entry: Entry| {
        let start = offset;
        // The directory's lengths are known to cover the file exactly.
        for section in &entry.sections {
            offset = offset.next_multiple_of(header.alignment) + section.length;
        }
        (entry, start)
    };
    let entries = entries.into_iter().map(place).collect();
    Ok((header, entries))
}
