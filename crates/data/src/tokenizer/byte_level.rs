//! Byte-level BPE: Hugging Face `tokenizer.json` files, and training.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::LazyLock;

use regex::Regex;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel as ByteLevelRule;
use tokenizers::{
    DecoderWrapper, Model, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl, Trainer,
};

use super::{Piece, check_size, checked_ids};
use crate::{Error, Result};

/// Bytes of text that training reads at most: enough to rank the pairs of any vocabulary of 16-bit ids.
const SAMPLE_BYTES: usize = 16_000_000;

/// Size of the parts that training samples and counts in parallel, in bytes.
const PART_BYTES: usize = 1 << 16;

pub(super) struct ByteLevel {
    content: Vec<u8>,
    encoder: tokenizers::Tokenizer,
    size: usize,
    /// Whether the text is split by GPT-2's expression and by nothing else, so that [`words`] can do it.
    plain: bool,
}

impl ByteLevel {
    pub(super) fn new(name: &str, content: &[u8]) -> Result<(Self, Vec<Piece>)> {
        check_json(name, content)?;
        let mut encoder =
            tokenizers::Tokenizer::from_bytes(content).map_err(Error::tokenizer(name))?;
        if !matches!(encoder.get_model(), ModelWrapper::BPE(_))
            || !matches!(encoder.get_decoder(), Some(DecoderWrapper::ByteLevel(_)))
        {
            return Err(Error::tokenizer(name)(
                "it is neither byte-level BPE nor WordPiece; use such a tokenizer.json, or a SentencePiece .model",
            ));
        }
        encoder.set_encode_special_tokens(true);
        encoder.with_truncation(None).map_err(Error::tokenizer(name))?;
        encoder.with_padding(None);
        let vocabulary = encoder.get_model().get_vocab();
        let added = encoder.get_added_tokens_decoder();
        let size = vocabulary.values().chain(added.keys()).max().map_or(0, |&id| id as usize + 1);
        check_size(name, size)?;

        let mut pieces = vec![Piece::Control; size];
        for (token, id) in vocabulary {
            let bytes = token
                .chars()
                .map(byte)
                .collect::<Option<Vec<u8>>>()
                .unwrap_or_else(|| token.into_bytes());
            pieces[id as usize] = Piece::Text(bytes);
        }
        for (&id, token) in &added {
            pieces[id as usize] = if token.special {
                Piece::Control
            } else {
                Piece::Text(token.content.clone().into_bytes())
            };
        }
        if let Some(missing) = (0..=255).find(|&byte| !pieces.contains(&Piece::Text(vec![byte]))) {
            return Err(Error::tokenizer(name)(format!(
                "it has no token for the byte {missing}; a vocabulary with all 256 bytes is needed"
            )));
        }
        let plain = matches!(encoder.get_pre_tokenizer(),
                Some(PreTokenizerWrapper::ByteLevel(rule)) if rule.use_regex && !rule.add_prefix_space)
            && encoder.get_normalizer().is_none()
            && added.values().all(|token| token.special);
        Ok((Self { content: content.to_vec(), encoder, size, plain }, pieces))
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u16>> {
        let failed = "byte-level BPE";
        if !self.plain {
            let encoding =
                self.encoder.encode_fast(text, false).map_err(Error::tokenizer(failed))?;
            return checked_ids(encoding.get_ids(), self.size);
        }
        // The library's own pipeline keeps offsets that nobody here reads; one look-up per word is ten times faster.
        let mut known: HashMap<&str, Vec<u16>> = HashMap::new();
        let mut tokens = Vec::with_capacity(text.len() / 2);
        for word in words(text) {
            let ids = match known.entry(word) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let pieces = self.encoder.get_model().tokenize(&characters(word));
                    let ids: Vec<u32> = pieces
                        .map_err(Error::tokenizer(failed))?
                        .into_iter()
                        .map(|piece| piece.id)
                        .collect();
                    entry.insert(checked_ids(&ids, self.size)?)
                }
            };
            tokens.extend_from_slice(ids);
        }
        Ok(tokens)
    }
}

/// Refuses what the library would panic at, or encode at random.
pub(super) fn check_json(name: &str, content: &[u8]) -> Result<()> {
    let json: serde_json::Value =
        serde_json::from_slice(content).map_err(Error::tokenizer(name))?;
    if json["normalizer"].to_string().contains("\"Precompiled\"") {
        return Err(Error::tokenizer(name)(
            "its normalizer is a Precompiled table; use the SentencePiece .model it was made from",
        ));
    }
    match json["model"]["dropout"].as_f64() {
        None | Some(0.0) => Ok(()),
        Some(_) => Err(Error::tokenizer(name)(
            "its model has a dropout, which encodes at random; set it to null",
        )),
    }
}

/// The `tokenizer.json` of byte-level BPE trained on `texts`.
pub(super) fn train<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    vocabulary_size: usize,
) -> Result<Vec<u8>> {
    if vocabulary_size < 256 {
        return Err(Error::VocabularyTooSmall { size: vocabulary_size });
    }
    let name = "to be trained";
    check_size(name, vocabulary_size)?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocabulary_size)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevelRule::alphabet().into_iter().collect())
        .build();
    let sample = sample(texts.into_iter().flat_map(parts).collect(), SAMPLE_BYTES);
    trainer
        .feed(sample, |part| Ok(words(part).map(characters).collect()))
        .map_err(Error::tokenizer(name))?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(Error::tokenizer(name))?;
    to_json(model, true)
}

/// The `tokenizer.json` of the 256 bytes, id = byte.
pub(super) fn bytes_only() -> Result<Vec<u8>> {
    let vocabulary: [(String, u32); 256] =
        std::array::from_fn(|byte| (character(byte as u8).to_string(), byte as u32));
    let model = BPE::builder().vocab_and_merges(vocabulary, Vec::new()).build();
    to_json(model.map_err(Error::tokenizer("bytes"))?, false)
}

pub(super) fn to_json(model: BPE, use_regex: bool) -> Result<Vec<u8>> {
    type Pipeline = TokenizerImpl<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >;
    let rule = ByteLevelRule::new(false, true, use_regex);
    let mut pipeline = Pipeline::new(model);
    pipeline.with_pre_tokenizer(Some(rule)).with_decoder(Some(rule));
    pipeline.to_string(false).map(String::into_bytes).map_err(Error::tokenizer("byte-level BPE"))
}

/// Cuts a text into parts of about [`PART_BYTES`], each ending at a line end.
pub(super) fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while rest.len() > PART_BYTES
        && let Some(line) = rest.as_bytes()[PART_BYTES..].iter().position(|&byte| byte == b'\n')
    {
        let (part, after) = rest.split_at(PART_BYTES + line + 1);
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}

/// Parts evenly spread over all of them, together about `limit` bytes at most.
fn sample(parts: Vec<&str>, limit: usize) -> impl Iterator<Item = &str> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    parts.into_iter().step_by(total.div_ceil(limit).max(1))
}

/// Splits a text as GPT-2 does: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
///
/// Look-ahead is the only part that a linear-time expression lacks: of several spaces before a word, the last is left
/// to what follows. Source: GPT-2, `encoder.py`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    static WORD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
            .expect("a valid expression")
    });
    let mut position = 0;
    std::iter::from_fn(move || {
        let found = WORD.find_at(text, position)?;
        let mut end = found.end();
        if end < text.len()
            && let Some((last, space)) = found.as_str().char_indices().next_back()
            && last > 0
            && space.is_whitespace()
        {
            end -= space.len_utf8();
        }
        let word = &text[position..end];
        position = end;
        Some(word)
    })
}

/// A word in the characters of byte-level vocabularies.
fn characters(word: &str) -> String {
    word.bytes().map(|byte| CHARACTERS[usize::from(byte)]).collect()
}

/// The character that stands for each byte in byte-level vocabularies: itself where it is printable, otherwise one of
/// the characters from U+0100 on, in order. Source: GPT-2, `encoder.py`.
static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        33..=126 | 161..=172 | 174..=255 => char::from(byte as u8),
        _ => others.next().expect("characters without end"),
    })
});

fn character(byte: u8) -> char {
    CHARACTERS[usize::from(byte)]
}

/// The byte that a character stands for in byte-level vocabularies.
fn byte(character: char) -> Option<u8> {
    CHARACTERS.iter().position(|&known| known == character).map(|byte| byte as u8)
}
