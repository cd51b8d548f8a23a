//! The one error of the crate. Each variant is a kind of failure a caller can act on.

use std::path::{Path, PathBuf};

/// Why encoding, decoding, reading or writing failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes contradict the format; the file is damaged or was not written by a correct encoder.
    #[error("{place}: corrupt: {problem}")]
    Corrupt {
        /// Tensor, metadata key or part of the file.
        place: String,
        /// What was found and what would be right.
        problem: String,
    },
    /// The bytes end before the content does.
    #[error("{place}: truncated: needs {needed} bytes, {available} are there")]
    Truncated {
        /// Tensor, metadata key or part of the file.
        place: String,
        /// Bytes that the content needs.
        needed: u64,
        /// Bytes that are there.
        available: u64,
    },
    /// A format version that this build cannot read.
    #[error(
        "format version {major}.{minor} is not supported; this build reads major version {supported}"
    )]
    UnsupportedVersion {
        /// Major version of the file.
        major: u16,
        /// Minor version of the file.
        minor: u16,
        /// Major version that this build reads.
        supported: u16,
    },
    /// Decoding would need more memory than the caller allows.
    #[error(
        "{place}: needs {needed} bytes of memory, the limit is {limit}; raise the limit if the file is trusted"
    )]
    LimitExceeded {
        /// Tensor, metadata key or part of the file.
        place: String,
        /// Bytes that would be allocated.
        needed: u64,
        /// The caller's limit in bytes.
        limit: u64,
    },
    /// An artifact that the format cannot hold.
    #[error("{place}: {problem}")]
    InvalidArgument {
        /// Tensor or metadata key.
        place: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file in question.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file to write is already there.
    #[error("{} exists; choose another name or allow it to be replaced", path.display())]
    Exists {
        /// The file in question.
        path: PathBuf,
    },
}

impl CodecError {
    pub(crate) fn corrupt(place: &str, problem: impl Into<String>) -> Self {
        Self::Corrupt { place: place.to_owned(), problem: problem.into() }
    }

    pub(crate) fn invalid(place: &str, problem: impl Into<String>) -> Self {
        Self::InvalidArgument { place: place.to_owned(), problem: problem.into() }
    }

    /// Names the file before the place, where the error has one.
    pub(crate) fn in_file(mut self, path: &Path) -> Self {
        match &mut self {
            Self::Corrupt { place, .. }
            | Self::Truncated { place, .. }
            | Self::LimitExceeded { place, .. }
            | Self::InvalidArgument { place, .. } => {
                *place = format!("{}: {place}", path.display())
            }
            Self::UnsupportedVersion { .. } | Self::Io { .. } | Self::Exists { .. } => {}
        }
        self
    }
}
