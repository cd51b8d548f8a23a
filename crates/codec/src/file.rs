//! Files: read with a limit, written whole or not at all.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::container::{Limits, decode, encode};
use crate::{Artifact, CodecError};

/// What to do when the file to write exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Leave it and return [`CodecError::Exists`].
    Refuse,
    /// Replace it in one step, once the new file is complete.
    Replace,
}

/// Writes an artifact: to a temporary file in the same folder, flushed to the disk, then renamed. A
/// failure on the way leaves nothing behind. Returns the file size in bytes.
///
/// # Errors
///
/// [`CodecError::Exists`], [`CodecError::Io`], and those of [`encode`].
pub fn write_file(
    path: &Path,
    artifact: &Artifact,
    overwrite: Overwrite,
) -> Result<u64, CodecError> {
    if overwrite == Overwrite::Refuse && path.symlink_metadata().is_ok() {
        return Err(CodecError::Exists { path: path.to_owned() });
    }
    write_bytes(path, &encode(artifact)?, overwrite)
}

/// Writes bytes as [`write_file`] does: whole or not at all. Returns their number.
///
/// # Errors
///
/// [`CodecError::Exists`] and [`CodecError::Io`].
pub fn write_bytes(path: &Path, bytes: &[u8], overwrite: Overwrite) -> Result<u64, CodecError> {
    let mut file = NewFile::create(path, overwrite)?;
    file.write(bytes)?;
    file.commit()?;
    Ok(bytes.len() as u64)
}

/// A file that takes its name when it is complete; dropped before, it leaves nothing behind.
pub(crate) struct NewFile {
    path: PathBuf,
    overwrite: Overwrite,
    temporary: NamedTempFile,
}

impl NewFile {
    pub(crate) fn create(path: &Path, overwrite: Overwrite) -> Result<Self, CodecError> {
        if overwrite == Overwrite::Refuse && path.symlink_metadata().is_ok() {
            return Err(CodecError::Exists { path: path.to_owned() });
        }
        let temporary = tempfile::Builder::new()
            .prefix(".")
            .suffix(".tmp")
            .tempfile_in(folder(path))
            .map_err(io_error(path))?;
        Ok(Self { path: path.to_owned(), overwrite, temporary })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.temporary.write_all(bytes).map_err(io_error(&self.path))
    }

    /// Writes over the beginning.
    pub(crate) fn write_at_start(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.temporary.seek(SeekFrom::Start(0)).map_err(io_error(&self.path))?;
        self.write(bytes)
    }

    /// Flushes the content to the disk and gives it its name.
    pub(crate) fn commit(self) -> Result<(), CodecError> {
        let Self { path, overwrite, temporary } = self;
        temporary.as_file().sync_all().map_err(io_error(&path))?;
        let persisted = match overwrite {
            Overwrite::Refuse => temporary.persist_noclobber(&path),
            Overwrite::Replace => temporary.persist(&path),
        };
        if let Err(error) = persisted {
            return Err(match error.error.kind() {
                std::io::ErrorKind::AlreadyExists => CodecError::Exists { path },
                _ => CodecError::Io { path, source: error.error },
            });
        }
        // The rename itself must survive a crash; file systems that cannot sync a folder do not need it.
        if let Ok(folder) = File::open(folder(&path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// A file without a name for what will be copied to `path`: it is gone when closed.
pub(crate) fn scratch_file(path: &Path) -> Result<File, CodecError> {
    tempfile::tempfile_in(folder(path)).map_err(io_error(path))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Names the file in an error of the operating system.
pub(crate) fn io_error(path: &Path) -> impl Fn(std::io::Error) -> CodecError + '_ {
    |source| CodecError::Io { path: path.to_owned(), source }
}

/// Reads an artifact. A file larger than the memory limit is refused before it is read.
///
/// # Errors
///
/// [`CodecError::Io`], and those of [`decode`].
pub fn read_file(path: &Path, limits: &Limits) -> Result<Artifact, CodecError> {
    decode(&read_bytes(path, limits)?, limits)
}

/// Reads the bytes of a file that is no larger than the memory limit.
///
/// # Errors
///
/// [`CodecError::Io`] and [`CodecError::LimitExceeded`].
pub fn read_bytes(path: &Path, limits: &Limits) -> Result<Vec<u8>, CodecError> {
    let file = File::open(path).map_err(io_error(path))?;
    let mut bytes = Vec::new();
    // The limit holds while reading, whatever the file system says the length is.
    file.take(limits.max_memory.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(io_error(path))?;
    if bytes.len() as u64 > limits.max_memory {
        return Err(CodecError::LimitExceeded {
            place: path.display().to_string(),
            needed: bytes.len() as u64,
            limit: limits.max_memory,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_is_refused_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bsl");
        let artifact = Artifact::default();
        write_file(&path, &artifact, Overwrite::Refuse).unwrap();
        assert!(matches!(
            write_file(&path, &artifact, Overwrite::Refuse),
            Err(CodecError::Exists { .. })
        ));
        assert!(matches!(
            write_bytes(&path, b"x", Overwrite::Refuse),
            Err(CodecError::Exists { .. })
        ));
        write_file(&path, &artifact, Overwrite::Replace).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(read_file(&path, &Limits::default()).unwrap(), artifact);
        let tight = Limits { max_memory: 10 };
        assert!(matches!(read_file(&path, &tight), Err(CodecError::LimitExceeded { .. })));
    }

    #[test]
    fn a_full_disk_leaves_nothing_behind() {
        let missing = std::path::Path::new("/nonexistent-folder/model.bsl");
        assert!(matches!(
            write_file(missing, &Artifact::default(), Overwrite::Refuse),
            Err(CodecError::Io { .. })
        ));
    }
}
