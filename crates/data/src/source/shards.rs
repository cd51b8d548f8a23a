//! Parameter Golf shards as a source.

use std::path::{Path, PathBuf};

use crate::{Result, TokenSet, read_shard};

/// Token shards, split into what is trained on and what is held out. Their tokens are read when the vocabulary is
/// known, all into memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards {
    /// Shards to train on.
    pub train: Vec<PathBuf>,
    /// Shards to evaluate on. Where there are none, the last 10 % of the training tokens are held out.
    pub validation: Vec<PathBuf>,
}

impl Shards {
    /// Shards with `val` in their file names are held out.
    pub(super) fn by_name(paths: Vec<PathBuf>) -> Self {
        let held_out = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().contains("val"))
        };
        let (validation, train): (Vec<_>, Vec<_>) = paths.into_iter().partition(held_out);
        match train.is_empty() {
            // Validation shards alone are meant to be used.
            true => Self { train: validation, validation: train },
            false => Self { train, validation },
        }
    }

    /// Reads all shards and checks them against the vocabulary.
    ///
    /// # Errors
    ///
    /// As [`read_shard`].
    pub fn tokens(&self, vocabulary_size: usize) -> Result<TokenSet> {
        let read = |paths: &[PathBuf]| -> Result<Vec<u16>> {
            let read = |path: &PathBuf| read_shard(Path::new(path), vocabulary_size);
            Ok(paths.iter().map(read).collect::<Result<Vec<_>>>()?.concat())
        };
        let mut train = read(&self.train)?;
        let validation = match self.validation[..] {
            [] => train.split_off(train.len() - train.len() / 10),
            _ => read(&self.validation)?,
        };
        Ok(TokenSet { train, validation })
    }
}
