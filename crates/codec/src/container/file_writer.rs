//! Writes a file entry by entry, with one of them in memory at a time.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::codes::Effort;
use super::directory::{self, Entry};
use super::header::NewHeader;
use super::writer::{Sink, alignment, encode_metadata, encode_tensor};
use super::{HEADER_BYTES, PIECE_BYTES};
use crate::artifact::Tensor;
use crate::error::CodecError;
use crate::file::{NewFile, Overwrite, io_error, scratch_file};
use crate::size::SizeSplit;

/// Writes the file that [`encode_with`](super::encode_with) makes of the same content, byte for byte, while
/// only the entry that is being added is in memory.
///
/// Where a section lies depends on the length of the directory, which is known at the end. Until then the
/// encoded sections wait in a file without a name in the folder of the target, so the disk must hold
/// them twice. A writer that is dropped before [`FileWriter::finish`] leaves nothing behind.
///
/// ```
/// use backslash_codec::{Effort, FileWriter, Limits, Overwrite, RawTensor, Tensor, read_file};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.bsl");
/// let mut writer = FileWriter::create(&path, Effort::Smallest, Overwrite::Refuse)?;
/// writer.metadata("note", b"two tensors")?;
/// for name in ["a", "b"] {
///     writer.tensor(name, &Tensor::Raw(RawTensor::from_f32(vec![1], &[0.5])))?;
/// }
/// let split = writer.finish()?;
/// assert_eq!(split.total(), std::fs::metadata(&path)?.len());
/// assert_eq!(read_file(&path, &Limits::default())?.tensors.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FileWriter {
    path: PathBuf,
    effort: Effort,
    target: NewFile,
    sections: BufWriter<File>,
    entries: Vec<Entry>,
    split: SizeSplit,
}

impl FileWriter {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// [`CodecError::Exists`] and [`CodecError::Io`].
    pub fn create(path: &Path, effort: Effort, overwrite: Overwrite) -> Result<Self, CodecError> {
        Ok(Self {
            path: path.to_owned(),
            effort,
            target: NewFile::create(path, overwrite)?,
            sections: BufWriter::new(scratch_file(path)?),
            entries: Vec::new(),
            split: SizeSplit::default(),
        })
    }

    /// Adds metadata; all of it comes before the tensors, keys in increasing byte order.
    ///
    /// # Errors
    ///
    /// [`CodecError::InvalidArgument`] for a key that is out of order, empty or too long, and
    /// [`CodecError::Io`].
    pub fn metadata(&mut self, key: &str, value: &[u8]) -> Result<(), CodecError> {
        let effort = self.effort;
        self.add(key, false, |sink| encode_metadata(key, value, effort, sink)).map(drop)
    }

    /// Adds a tensor, names in increasing byte order, and tells where its bytes go.
    ///
    /// # Errors
    ///
    /// [`CodecError::InvalidArgument`] for a name that is out of order, empty or too long or a tensor that
    /// contradicts its shape, and [`CodecError::Io`].
    pub fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<SizeSplit, CodecError> {
        let effort = self.effort;
        self.add(name, true, |sink| encode_tensor(name, tensor, effort, sink))
    }

    fn add(
        &mut self,
        name: &str,
        is_tensor: bool,
        encode: impl FnOnce(Sink) -> Result<(Entry, SizeSplit), CodecError>,
    ) -> Result<SizeSplit, CodecError> {
        if let Some(last) = self.entries.last()
            && (last.body.is_tensor(), last.name.as_str()) >= (is_tensor, name)
        {
            let problem = format!(
                "comes after {}: metadata comes first, names are in increasing order",
                last.name
            );
            return Err(CodecError::invalid(name, problem));
        }
        let (sections, path) = (&mut self.sections, &self.path);
        let encoded = encode(&mut |section| sections.write_all(&section).map_err(io_error(path)));
        let (entry, split) = encoded?;
        self.entries.push(entry);
        self.split += split;
        Ok(split)
    }

    /// Completes the file, gives it its name, and tells where its bytes go.
    ///
    /// # Errors
    ///
    /// [`CodecError::Io`], and [`CodecError::Exists`] when a file of that name has come up meanwhile.
    pub fn finish(self) -> Result<SizeSplit, CodecError> {
        let Self { path, effort, mut target, sections, entries, mut split } = self;
        let failed = io_error(&path);
        let mut waiting = sections.into_inner().map_err(|error| failed(error.into_error()))?;
        waiting.seek(SeekFrom::Start(0)).map_err(&failed)?;

        let directory = directory::write(entries.iter());
        let minor = directory::minor_version(entries.iter());
        let mut header = NewHeader::new(minor, &directory, alignment(effort));
        target.write(&[0; HEADER_BYTES])?;
        let mut put = |bytes: &[u8]| {
            header.hash.update(bytes);
            target.write(bytes)
        };
        put(&directory)?;
        let mut offset = (HEADER_BYTES + directory.len()) as u64;
        split.directory = offset;
        let mut piece = vec![0; PIECE_BYTES];
        for section in entries.iter().flat_map(|entry| &entry.sections) {
            let padding = offset.next_multiple_of(alignment(effort)) - offset;
            put(&vec![0; padding as usize])?;
            split.directory += padding;
            offset += padding + section.length;
            let mut left = section.length;
            while left > 0 {
                let piece = &mut piece[..left.min(PIECE_BYTES as u64) as usize];
                waiting.read_exact(piece).map_err(&failed)?;
                put(piece)?;
                left -= piece.len() as u64;
            }
        }
        target.write_at_start(&header.finish())?;
        target.commit()?;
        Ok(split)
    }
}
