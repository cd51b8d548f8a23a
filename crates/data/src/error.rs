//! The one error type of this crate.

use std::path::{Path, PathBuf};

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with data, a tokenizer or a sampler; each message names the file or value concerned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A text file is not UTF-8.
    #[error("{path} is not UTF-8 text: byte {offset} cannot be read; convert the file to UTF-8", path = path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Position of the first byte that is not part of a character.
        offset: usize,
    },
    /// A file or folder holds no text.
    #[error("{path} holds no readable text; give a UTF-8 text file, a folder of them, or .bin token shards", path = path.display())]
    NoText {
        /// The file or folder.
        path: PathBuf,
    },
    /// Text and token shards were given together.
    #[error("{text} is text and {shard} is a token shard; give one kind only", text = text.display(), shard = shard.display())]
    MixedData {
        /// One of the text files.
        text: PathBuf,
        /// One of the shards.
        shard: PathBuf,
    },
    /// Validation data without training data.
    #[error("validation data were given without training data; name both, or training data alone")]
    NoTrainingData,
    /// All data went to one side of the split.
    #[error("the data leave nothing for {side}; give more text, or separate validation data")]
    EmptySplit {
        /// `training` or `validation`.
        side: &'static str,
    },
    /// The text of the project's own dependencies could not be found.
    #[error(
        "the default text (sources of the pinned dependencies) needs cargo and this workspace: {reason}; pass --data with your own text instead"
    )]
    Dependencies {
        /// What was missing.
        reason: String,
    },
    /// A file is not a token shard.
    #[error("{path} is not a token shard: it begins with {found}, not 20240520", path = path.display())]
    ShardMagic {
        /// The file.
        path: PathBuf,
        /// Header word 0.
        found: i32,
    },
    /// A token shard of another version.
    #[error("{path} is a token shard of version {found}, only version 1 is known", path = path.display())]
    ShardVersion {
        /// The file.
        path: PathBuf,
        /// Header word 1.
        found: i32,
    },
    /// A token shard ends too early, or carries bytes after its last token.
    #[error("{path} has {found} bytes, its header asks for {expected}: {}", if found < expected { "it is truncated" } else { "it has trailing bytes" }, path = path.display())]
    ShardLength {
        /// The file.
        path: PathBuf,
        /// 1024 + 2 × count, or 1024 where not even the header is complete.
        expected: u64,
        /// Bytes in the file.
        found: u64,
    },
    /// A token id that the vocabulary does not have.
    #[error(
        "{place}: token {position} has id {token}, the vocabulary has {vocabulary_size} tokens; use the tokenizer that made these tokens"
    )]
    TokenBeyondVocabulary {
        /// The file, or what was being done.
        place: String,
        /// Index of the token.
        position: usize,
        /// Its id.
        token: u32,
        /// Number of ids in the vocabulary.
        vocabulary_size: usize,
    },
    /// A tokenizer file that cannot be used.
    #[error("tokenizer {name}: {reason}")]
    Tokenizer {
        /// File name, or where the tokenizer came from.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The vocabulary does not fit `u16` ids.
    #[error("tokenizer {name} has {size} tokens; at most 65536 fit 16-bit ids")]
    VocabularyTooLarge {
        /// File name, or where the tokenizer came from.
        name: String,
        /// Number of ids.
        size: usize,
    },
    /// A vocabulary too small to hold all 256 bytes.
    #[error("a byte-level vocabulary needs at least 256 tokens, not {size}")]
    VocabularyTooSmall {
        /// What was asked for.
        size: usize,
    },
    /// The text is shorter than one sequence.
    #[error(
        "the text has {found} tokens, one sequence needs {needed} (its length and one more); give more text or a shorter sequence"
    )]
    TooFewTokens {
        /// Tokens found.
        found: usize,
        /// Sequence length + 1.
        needed: usize,
    },
    /// A file of labelled texts that cannot be understood.
    #[error("{path} {reason}", path = path.display())]
    LabelledFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A line of a file of labelled texts that cannot be understood.
    #[error("{path}, line {line}: {reason}", path = path.display())]
    LabelledLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A length that must not be zero.
    #[error("{what} must be at least 1")]
    Zero {
        /// The setting.
        what: &'static str,
    },
    /// A saved position that belongs to other data.
    #[error(
        "the saved position is for {what} {saved}, this run has {found}; continue with the data and sequence length it was made with"
    )]
    SamplerState {
        /// What differs.
        what: &'static str,
        /// Its value in the saved position.
        saved: u64,
        /// Its value here.
        found: u64,
    },
}

impl Error {
    /// For `map_err`: an [`Error::Io`] about `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// For `map_err`: an [`Error::Tokenizer`] about the tokenizer `name`.
    pub(crate) fn tokenizer<E: std::fmt::Display>(name: &str) -> impl FnOnce(E) -> Self {
        let name = name.to_owned();
        move |reason| Self::Tokenizer { name, reason: reason.to_string() }
    }
}
