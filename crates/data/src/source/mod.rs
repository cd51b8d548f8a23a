//! Where data come from.
//!
//! A user names text files, folders of them, or Parameter Golf token shards; without any, the text is that of the
//! project's own pinned dependencies ([`Corpus::dependencies`]).

mod dependencies;
mod files;
mod shards;
mod split;

use std::path::PathBuf;

pub use shards::Shards;

use crate::{Error, Result, TokenSet, Tokenizer};
use files::Found;

/// One text and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Path inside what was named, with `/` on every system.
    pub name: String,
    /// The text.
    pub text: String,
}

/// Text, split into what is trained on and what is held out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// Documents to train on.
    pub train: Vec<Document>,
    /// Documents to evaluate on.
    pub validation: Vec<Document>,
}

impl Corpus {
    /// Bytes of text to train on.
    pub fn train_bytes(&self) -> usize {
        self.train.iter().map(|document| document.text.len()).sum()
    }

    /// Bytes of text to evaluate on.
    pub fn validation_bytes(&self) -> usize {
        self.validation.iter().map(|document| document.text.len()).sum()
    }

    /// Encodes both sides.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode_documents`].
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<TokenSet> {
        Ok(TokenSet {
            train: tokenizer.encode_documents(&self.train)?,
            validation: tokenizer.encode_documents(&self.validation)?,
        })
    }

    fn not_empty(self) -> Result<Self> {
        for (side, bytes) in
            [("training", self.train_bytes()), ("validation", self.validation_bytes())]
        {
            if bytes == 0 {
                return Err(Error::EmptySplit { side });
            }
        }
        Ok(self)
    }
}

/// Data as the user gave them: text that a tokenizer must encode, or tokens made by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Text.
    Text(Corpus),
    /// Token shards.
    Shards(Shards),
}

impl Source {
    /// Opens what the user named: text files, folders, or token shards (`.bin`). Folders are read with all folders
    /// below them, in the order of their names; hidden files, and files that are not text, are passed over.
    ///
    /// Where `validation` is empty, part of `data` is held out:
    ///
    /// - of ten text files or more, whole files, about 5 % of the bytes, chosen by the hash of their names; a file
    ///   with the same content as an earlier one is dropped, so that no held-out text is trained on;
    /// - of fewer, the last 10 % of the text, cut at a line end;
    /// - of shards, those with `val` in their names, as in `fineweb_val_000000.bin`; without any, the last 10 % of
    ///   the tokens.
    ///
    /// Without any `data`, the text is [`Corpus::dependencies`].
    ///
    /// # Errors
    ///
    /// A path that cannot be read or holds no text, text that is not UTF-8, text and shards together, or data that
    /// leave one side of the split empty.
    pub fn open(data: &[PathBuf], validation: &[PathBuf]) -> Result<Self> {
        if data.is_empty() {
            return match validation {
                [] => Corpus::dependencies().map(Self::Text),
                _ => Err(Error::NoTrainingData),
            };
        }
        let found = files::find(data)?;
        if validation.is_empty() {
            return match found {
                Found::Text(documents) => split::split(documents).not_empty().map(Self::Text),
                Found::Shards(paths) => Ok(Self::Shards(Shards::by_name(paths))),
            };
        }
        match (found, files::find(validation)?) {
            (Found::Text(train), Found::Text(validation)) => {
                Ok(Self::Text(Corpus { train, validation }))
            }
            (Found::Shards(train), Found::Shards(validation)) => {
                Ok(Self::Shards(Shards { train, validation }))
            }
            (Found::Text(_), Found::Shards(shards)) => {
                Err(Error::MixedData { text: data[0].clone(), shard: shards[0].clone() })
            }
            (Found::Shards(shards), Found::Text(_)) => {
                Err(Error::MixedData { text: validation[0].clone(), shard: shards[0].clone() })
            }
        }
    }

    /// The tokens of both sides: text is encoded, shards are read and checked against the vocabulary.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode_documents`] and [`read_shard`](crate::read_shard).
    pub fn tokens(&self, tokenizer: &Tokenizer) -> Result<TokenSet> {
        match self {
            Self::Text(corpus) => corpus.tokens(tokenizer),
            Self::Shards(shards) => shards.tokens(tokenizer.vocabulary_size()),
        }
    }
}

/// A file of the shared test data, or `None` with a printed reason.
#[cfg(test)]
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if !path.exists() {
        // Not eprintln!, which the test harness keeps to itself where a test passes.
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: the shared file data/{name} is absent");
        return None;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_and_without_validation() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.txt"), folder.path().join("b.txt"));
        std::fs::write(&a, "a line of text\n".repeat(100)).unwrap();
        std::fs::write(&b, "validation\n").unwrap();
        let tokenizer = Tokenizer::bytes();

        let (a, b) = ([a], [b]);
        let source = Source::open(&a, &b).unwrap();
        let tokens = source.tokens(&tokenizer).unwrap();
        assert_eq!((tokens.train.len(), tokens.validation.len()), (1500, 11));

        let source = Source::open(&a, &[]).unwrap();
        let Source::Text(corpus) = &source else { panic!("text") };
        assert_eq!((corpus.train_bytes(), corpus.validation_bytes()), (1350, 150));
        assert_eq!(corpus.train[0].name, "a.txt");

        assert!(matches!(Source::open(&[], &b), Err(Error::NoTrainingData)));
    }

    #[test]
    fn a_text_too_short_to_split() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short.txt");
        std::fs::write(&path, "word").unwrap();
        assert!(matches!(
            Source::open(&[path], &[]),
            Err(Error::EmptySplit { side: "validation" })
        ));
    }

    #[test]
    fn shards_are_split_by_name_or_from_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let shard = |name: &str| folder.path().join(name);
        let tokens = |range: std::ops::Range<u16>| range.collect::<Vec<u16>>();
        crate::write_shard(&shard("fineweb_train_000000.bin"), &tokens(0..30)).unwrap();
        crate::write_shard(&shard("fineweb_train_000001.bin"), &tokens(30..50)).unwrap();
        let open = || Source::open(&[folder.path().to_path_buf()], &[]).unwrap();
        let bytes = Tokenizer::bytes();
        let set = open().tokens(&bytes).unwrap();
        assert_eq!((set.train, set.validation), (tokens(0..45), tokens(45..50)));

        crate::write_shard(&shard("fineweb_val_000000.bin"), &tokens(50..60)).unwrap();
        let set = open().tokens(&bytes).unwrap();
        assert_eq!((set.train, set.validation), (tokens(0..50), tokens(50..60)));

        crate::write_shard(&shard("fineweb_val_000000.bin"), &[256]).unwrap();
        assert!(matches!(open().tokens(&bytes), Err(Error::TokenBeyondVocabulary { .. })));
    }
}
