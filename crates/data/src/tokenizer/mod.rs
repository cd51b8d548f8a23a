//! Text to token ids and back.
//!
//! Four kinds of vocabulary behind one type: bytes, byte-level BPE (Hugging Face `tokenizer.json`, or trained here),
//! SentencePiece `.model` files, and WordPiece (`tokenizer.json` or `vocab.txt`). The encoders are those of the `tokenizers` and `kitoken` crates; decoding is one
//! table of pieces for all kinds, which is also what bytes are counted with.

mod byte_level;
mod llama2c;
mod merges;
mod sentencepiece;
#[cfg(test)]
mod tests;
mod word_piece;
mod word_piece_training;

use std::path::Path;

use rayon::prelude::*;

use crate::{ByteTable, Document, Error, Result};
use byte_level::ByteLevel;
use sentencepiece::SentencePiece;
pub use word_piece::EncoderTokens;
use word_piece::WordPiece;

/// The most ids that fit `u16`.
const MAX_VOCABULARY: usize = 1 << 16;

/// The text of one token id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Control, unknown or unused: no text.
    Control,
    /// These bytes.
    Text(Vec<u8>),
    /// A space, except after a [`Piece::Control`], then these bytes.
    Word(Vec<u8>),
}

impl Piece {
    /// The bytes, without the space of a word mark.
    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Piece::Control => &[],
            Piece::Text(bytes) | Piece::Word(bytes) => bytes,
        }
    }
}

/// A vocabulary of at most 65,536 tokens with its encoder and decoder.
///
/// ```
/// use backslash_data::Tokenizer;
///
/// let text = "the cat and the hat and the bat";
/// let tokenizer = Tokenizer::train_bpe([text], 260)?;
/// let tokens = tokenizer.encode(text)?;
/// assert!(tokens.len() < text.len());
/// assert_eq!(tokenizer.decode(&tokens)?, text.as_bytes());
///
/// let again = Tokenizer::from_bytes(&tokenizer.to_bytes())?;
/// assert_eq!(again.encode(text)?, tokens);
/// # Ok::<(), backslash_data::Error>(())
/// ```
///
/// Text never becomes a control token: `<s>` or `<|endoftext|>` in it is encoded letter by letter. SentencePiece,
/// WordPiece and some `tokenizer.json` files normalise the text (NFKC, lower case, runs of spaces); [`decode`](Self::decode) then gives the
/// normalised text, and that is the text whose bytes [`byte_table`](Self::byte_table) counts.
pub struct Tokenizer {
    kind: Kind,
    pieces: Vec<Piece>,
    /// Whether the encoder puts a space before the text, which decoding takes away.
    space_before_text: bool,
    start: Option<u16>,
}

enum Kind {
    Bytes,
    ByteLevel(Box<ByteLevel>),
    SentencePiece(Box<SentencePiece>),
    WordPiece(Box<WordPiece>),
}

/// First byte of [`Tokenizer::to_bytes`]. Changing these changes the format of model files.
const TAG_BYTES: u8 = 0;
const TAG_BYTE_LEVEL: u8 = 1;
const TAG_SENTENCE_PIECE: u8 = 2;
const TAG_MERGES: u8 = 3;
const TAG_WORD_PIECE: u8 = 4;

impl Tokenizer {
    /// The vocabulary of the 256 bytes: id = byte.
    pub fn bytes() -> Self {
        let pieces = (0..=255).map(|byte| Piece::Text(vec![byte])).collect();
        Self { kind: Kind::Bytes, pieces, space_before_text: false, start: None }
    }

    /// Trains byte-level BPE: the 256 bytes, then the pairs of tokens that are most frequent in `texts`, words being
    /// separated by the expression of GPT-2.
    ///
    /// Of more than 16 MB of text, training reads about 16 MB in parts that are spread evenly over it. The vocabulary
    /// is smaller than asked for where the texts run out of pairs that occur twice. The same texts give the same
    /// vocabulary.
    ///
    /// # Errors
    ///
    /// A vocabulary below 256 or above 65,536 tokens.
    pub fn train_bpe<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        vocabulary_size: usize,
    ) -> Result<Self> {
        Self::byte_level("trained here", &byte_level::train(texts, vocabulary_size)?)
    }

    /// Trains WordPiece with the rules of BERT's uncased models for text: `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`, the
    /// characters of `texts` at the beginning of words and within them, then the pairs of tokens that are most frequent.
    ///
    /// The vocabulary is smaller than asked for where the texts run out of pairs that occur twice, and larger where their
    /// characters alone are more. The same texts give the same vocabulary.
    ///
    /// ```
    /// use backslash_data::Tokenizer;
    ///
    /// let tokenizer = Tokenizer::train_word_piece(["The cat and the hat", "the cats"], 40)?;
    /// assert_eq!(tokenizer.encode("the CAT")?.len(), 2);
    /// assert_eq!(tokenizer.encoder_tokens().map(|tokens| tokens.start), Some(2));
    /// # Ok::<(), backslash_data::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A vocabulary above 65,536 tokens.
    pub fn train_word_piece<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        vocabulary_size: usize,
    ) -> Result<Self> {
        Self::word_piece("trained here", &word_piece_training::train(texts, vocabulary_size)?)
    }

    /// Opens a SentencePiece `.model`, a `tokenizer.json` with byte-level BPE or WordPiece, a `vocab.txt` of WordPiece
    /// (with the `tokenizer_config.json` beside it, if there is one), or a llama2.c `.bin`, which becomes the
    /// SentencePiece model it was exported from; a file of another extension by what it holds.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is none of these, or whose vocabulary is too large, lacks a byte or the unknown
    /// token, or has no piece for a space alone.
    pub fn open(path: &Path) -> Result<Self> {
        let content = std::fs::read(path).map_err(Error::io(path))?;
        let name = path.display().to_string();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Self::json(&name, &content),
            Some("txt") => Self::word_piece(&name, &word_piece::from_vocabulary(path, &content)?),
            Some("model") => Self::sentence_piece(&name, &content),
            Some("bin") => Self::sentence_piece(&name, &llama2c::sentence_piece(&name, &content)?),
            _ if content.starts_with(b"{") => Self::json(&name, &content),
            _ => Self::sentence_piece(&name, &content),
        }
    }

    /// Writes the file that [`open`](Self::open) reads: a `.model` for SentencePiece, otherwise a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written to.
    pub fn save(&self, path: &Path) -> Result<()> {
        match &self.kind {
            Kind::Bytes => crate::shard::write_whole(path, &byte_level::bytes_only()?),
            Kind::ByteLevel(encoder) => crate::shard::write_whole(path, encoder.content()),
            Kind::SentencePiece(encoder) => crate::shard::write_whole(path, encoder.content()),
            Kind::WordPiece(encoder) => crate::shard::write_whole(path, encoder.content()),
        }
    }

    /// The file name extension of [`save`](Self::save): `json` or `model`.
    pub fn extension(&self) -> &'static str {
        match self.kind {
            Kind::Bytes | Kind::ByteLevel(_) | Kind::WordPiece(_) => "json",
            Kind::SentencePiece(_) => "model",
        }
    }

    /// The tokenizer as bytes that a model file can carry: one byte for its kind, then its file, the merges alone
    /// where they say it all, or the vocabulary as a list.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Bytes => vec![TAG_BYTES],
            Kind::ByteLevel(encoder) => match merges::of_json(encoder.content()) {
                Some(merges) => [&[TAG_MERGES], &merges[..]].concat(),
                None => [&[TAG_BYTE_LEVEL], encoder.content()].concat(),
            },
            Kind::SentencePiece(encoder) => [&[TAG_SENTENCE_PIECE], encoder.content()].concat(),
            Kind::WordPiece(encoder) => {
                [&[TAG_WORD_PIECE], &word_piece::packed(encoder.content())[..]].concat()
            }
        }
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and an unknown kind.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let name = "in the model file";
        match bytes {
            [TAG_BYTES] => Ok(Self::bytes()),
            [TAG_BYTE_LEVEL, content @ ..] => Self::byte_level(name, content),
            [TAG_SENTENCE_PIECE, content @ ..] => Self::sentence_piece(name, content),
            [TAG_MERGES, merges @ ..] => Self::byte_level(name, &merges::to_content(name, merges)?),
            [TAG_WORD_PIECE, packed @ ..] => {
                Self::word_piece(name, &word_piece::unpacked(name, packed)?)
            }
            _ => Err(Error::tokenizer(name)(
                "its kind is not one of 0 (bytes), 1 (byte-level BPE), 2 (SentencePiece), 3 (merges), 4 (WordPiece)",
            )),
        }
    }

    /// A `tokenizer.json`.
    fn json(name: &str, content: &[u8]) -> Result<Self> {
        match word_piece::is_word_piece(content) {
            true => Self::word_piece(name, content),
            false => Self::byte_level(name, content),
        }
    }

    fn byte_level(name: &str, content: &[u8]) -> Result<Self> {
        let (encoder, pieces) = ByteLevel::new(name, content)?;
        let bytes = Self::bytes();
        if pieces == bytes.pieces {
            return Ok(bytes);
        }
        Ok(Self {
            kind: Kind::ByteLevel(Box::new(encoder)),
            pieces,
            space_before_text: false,
            start: None,
        })
    }

    fn sentence_piece(name: &str, content: &[u8]) -> Result<Self> {
        let (encoder, pieces) = SentencePiece::new(name, content)?;
        let (space_before_text, start) = (encoder.space_before_text(), encoder.start());
        Ok(Self { kind: Kind::SentencePiece(Box::new(encoder)), pieces, space_before_text, start })
    }

    fn word_piece(name: &str, content: &[u8]) -> Result<Self> {
        let (encoder, pieces) = WordPiece::new(name, content)?;
        let kind = Kind::WordPiece(Box::new(encoder));
        Ok(Self { kind, pieces, space_before_text: true, start: None })
    }

    /// Number of token ids.
    pub fn vocabulary_size(&self) -> usize {
        self.pieces.len()
    }

    /// The token that stands before each document, where the vocabulary has one (SentencePiece `<s>`).
    pub fn start_token(&self) -> Option<u16> {
        self.start
    }

    /// The tokens that an encoder needs besides those of text, where the vocabulary has them (WordPiece `[CLS]`, `[SEP]`
    /// and `[MASK]`).
    pub fn encoder_tokens(&self) -> Option<EncoderTokens> {
        match &self.kind {
            Kind::WordPiece(encoder) => encoder.special(),
            _ => None,
        }
    }

    /// The tokens of a text, without a start token.
    ///
    /// # Errors
    ///
    /// A text that the vocabulary cannot represent.
    pub fn encode(&self, text: &str) -> Result<Vec<u16>> {
        match &self.kind {
            Kind::Bytes => Ok(text.bytes().map(u16::from).collect()),
            Kind::ByteLevel(encoder) => encoder.encode(text),
            Kind::SentencePiece(encoder) => encoder.encode(text),
            Kind::WordPiece(encoder) => encoder.encode(text),
        }
    }

    /// The tokens of all documents, one after the other, each after a start token where there is one. Documents are
    /// encoded in parallel.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_documents(&self, documents: &[Document]) -> Result<Vec<u16>> {
        let encoded: Vec<Vec<u16>> = documents
            .par_iter()
            .map(|document| self.encode(&document.text))
            .collect::<Result<_>>()?;
        let mut tokens = Vec::with_capacity(encoded.iter().map(|tokens| tokens.len() + 1).sum());
        for document in encoded {
            tokens.extend(self.start);
            tokens.extend(document);
        }
        Ok(tokens)
    }

    /// The bytes of text that tokens stand for. They need not be UTF-8: a token may end within a character.
    ///
    /// # Errors
    ///
    /// An id beyond the vocabulary.
    pub fn decode(&self, tokens: &[u16]) -> Result<Vec<u8>> {
        let mut text = Vec::with_capacity(4 * tokens.len());
        let mut at_start = self.space_before_text;
        for (position, &token) in tokens.iter().enumerate() {
            let piece = self.pieces.get(usize::from(token)).ok_or_else(|| {
                Error::TokenBeyondVocabulary {
                    place: "decoding".into(),
                    position,
                    token: token.into(),
                    vocabulary_size: self.pieces.len(),
                }
            })?;
            if matches!(piece, Piece::Word(_)) && !at_start {
                text.push(b' ');
            }
            text.extend(piece.text());
            at_start = matches!(piece, Piece::Control);
        }
        Ok(text)
    }

    /// [`decode`](Self::decode) as a string, with U+FFFD in place of what is not UTF-8.
    ///
    /// # Errors
    ///
    /// An id beyond the vocabulary.
    pub fn decode_lossy(&self, tokens: &[u16]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.decode(tokens)?).into_owned())
    }

    /// Bytes of text per (previous, target) pair.
    pub fn byte_table(&self) -> ByteTable {
        ByteTable::new(&self.pieces)
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Bytes => "bytes",
            Kind::ByteLevel(_) => "byte-level BPE",
            Kind::SentencePiece(_) => "SentencePiece",
            Kind::WordPiece(_) => "WordPiece",
        };
        write!(formatter, "Tokenizer({kind}, {} tokens)", self.pieces.len())
    }
}

/// Checks the number of ids of the tokenizer `name`.
fn check_size(name: &str, size: usize) -> Result<()> {
    match size {
        0..=MAX_VOCABULARY => Ok(()),
        _ => Err(Error::VocabularyTooLarge { name: name.into(), size }),
    }
}

/// The ids that an encoder gave, checked against the vocabulary.
fn checked_ids(ids: &[u32], vocabulary_size: usize) -> Result<Vec<u16>> {
    let check = |(position, &id): (usize, &u32)| match u16::try_from(id) {
        Ok(token) if usize::from(token) < vocabulary_size => Ok(token),
        _ => Err(Error::TokenBeyondVocabulary {
            place: "encoding".into(),
            position,
            token: id,
            vocabulary_size,
        }),
    };
    ids.iter().enumerate().map(check).collect()
}
