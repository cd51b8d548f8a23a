//! WordPiece: Hugging Face `tokenizer.json` files and `vocab.txt` files of the BERT family.
//!
//! Source: arXiv 1810.04805; google-research/bert, `tokenization.py`. A word is cut greedily into the longest
//! tokens there are; those that do not begin a word are marked with `##`.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::wordpiece::WordPiece as Model;
use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::byte_level::{check_json, parts};
use super::{Piece, check_size, checked_ids};
use crate::{Error, Result};

/// Mark of tokens that continue a word, in `vocab.txt` files.
pub(super) const CONTINUATION: &str = "##";

/// The tokens of BERT's vocabularies that are no text.
pub(super) const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Ids of the tokens that an encoder of the BERT family needs besides those of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderTokens {
    /// `[CLS]`, which stands before a text.
    pub start: u16,
    /// `[SEP]`, which stands after a text.
    pub end: u16,
    /// `[MASK]`, which stands for a token that is to be predicted.
    pub mask: u16,
}

pub(super) struct WordPiece {
    content: Vec<u8>,
    encoder: tokenizers::Tokenizer,
    size: usize,
    /// Whether a text can be cut at line ends: BERT's rules take them for spaces.
    lines_are_apart: bool,
    special: Option<EncoderTokens>,
}

impl WordPiece {
    pub(super) fn new(name: &str, content: &[u8]) -> Result<(Self, Vec<Piece>)> {
        check_json(name, content)?;
        let mut encoder =
            tokenizers::Tokenizer::from_bytes(content).map_err(Error::tokenizer(name))?;
        let ModelWrapper::WordPiece(model) = encoder.get_model() else {
            return Err(Error::tokenizer(name)("its model is not WordPiece"));
        };
        let continuation = model.continuing_subword_prefix.clone();
        let unknown = model.unk_token.clone();
        encoder.set_encode_special_tokens(true);
        encoder.with_truncation(None).map_err(Error::tokenizer(name))?;
        encoder.with_padding(None);
        if encoder.token_to_id(&unknown).is_none() {
            return Err(Error::tokenizer(name)(format!(
                "its vocabulary has no {unknown:?}, which stands for words that it cannot cut"
            )));
        }
        let vocabulary = encoder.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        check_size(name, size)?;

        let mut pieces = vec![Piece::Control; size];
        for (token, id) in vocabulary {
            pieces[id as usize] = match token.strip_prefix(&continuation) {
                Some(rest) if !rest.is_empty() => Piece::Text(rest.as_bytes().to_vec()),
                _ => Piece::Word(token.into_bytes()),
            };
        }
        let id = |token: &str| encoder.token_to_id(token).and_then(|id| u16::try_from(id).ok());
        let special =
            || Some(EncoderTokens { start: id("[CLS]")?, end: id("[SEP]")?, mask: id("[MASK]")? });
        let special = special();
        let added = encoder.get_added_tokens_decoder().into_iter();
        let control = added.filter(|(_, token)| token.special).map(|(id, _)| id as usize);
        let known = special.into_iter().flat_map(|tokens| [tokens.start, tokens.end, tokens.mask]);
        for id in control.chain(known.chain(id(&unknown)).map(usize::from)) {
            if let Some(piece) = pieces.get_mut(id) {
                *piece = Piece::Control;
            }
        }
        let lines_are_apart = matches!(encoder.get_normalizer(),
                Some(NormalizerWrapper::BertNormalizer(rule)) if rule.clean_text)
            && matches!(
                encoder.get_pre_tokenizer(),
                Some(PreTokenizerWrapper::BertPreTokenizer(_))
            );
        Ok((Self { content: content.to_vec(), encoder, size, lines_are_apart, special }, pieces))
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(super) fn special(&self) -> Option<EncoderTokens> {
        self.special
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u16>> {
        let parts = if self.lines_are_apart { parts(text) } else { vec![text] };
        let mut tokens = Vec::with_capacity(text.len() / 4);
        for part in parts {
            let encoding =
                self.encoder.encode_fast(part, false).map_err(Error::tokenizer("WordPiece"))?;
            tokens.extend(checked_ids(encoding.get_ids(), self.size)?);
        }
        Ok(tokens)
    }
}

/// Whether a `tokenizer.json` is of this kind.
pub(super) fn is_word_piece(content: &[u8]) -> bool {
    serde_json::from_slice::<Value>(content).is_ok_and(|json| json["model"]["type"] == "WordPiece")
}

/// A `tokenizer.json` for a model file: a line of JSON without the vocabulary, then the vocabulary, a token per
/// line. A vocabulary that is no list, since ids are missing or tokens break lines, stays in the JSON. Changing
/// this changes the format of model files.
pub(super) fn packed(content: &[u8]) -> Vec<u8> {
    let lines = |json: &mut Value| -> Option<String> {
        let vocabulary = json["model"]["vocab"].as_object()?;
        let mut tokens = vec![None; vocabulary.len()];
        for (token, id) in vocabulary {
            let id = usize::try_from(id.as_u64()?).ok()?;
            let breaks = token.contains('\n');
            *tokens.get_mut(id).filter(|_| !breaks)? = Some(token.as_str());
        }
        let lines = tokens.into_iter().map(|token| Some(format!("\n{}", token?)));
        let lines = lines.collect::<Option<String>>()?;
        json["model"]["vocab"] = json!({});
        Some(lines)
    };
    let Ok(mut json) = serde_json::from_slice::<Value>(content) else { return content.to_vec() };
    let lines = lines(&mut json).unwrap_or_default();
    format!("{json}{lines}").into_bytes()
}

/// The `tokenizer.json` that was packed.
pub(super) fn unpacked(name: &str, packed: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(packed).map_err(Error::tokenizer(name))?;
    let mut lines = text.split('\n');
    let json = lines.next().unwrap_or_default();
    let mut json: Value = serde_json::from_str(json).map_err(Error::tokenizer(name))?;
    let vocabulary = lines.zip(0..).map(|(token, id)| (token.to_owned(), Value::from(id)));
    let vocabulary: serde_json::Map<String, Value> = vocabulary.collect();
    if !vocabulary.is_empty() {
        let model = json.get_mut("model").and_then(Value::as_object_mut);
        let model = model.ok_or_else(|| Error::tokenizer(name)("it has no model"))?;
        model.insert("vocab".to_owned(), vocabulary.into());
    }
    Ok(json.to_string().into_bytes())
}

/// The `tokenizer.json` of a `vocab.txt`: a token per line, ids from 0 on, with BERT's rules for text. What
/// they do with case, accents and Chinese characters stands in a `tokenizer_config.json` beside it; without
/// one they are those of BERT's uncased models.
pub(super) fn from_vocabulary(path: &Path, content: &[u8]) -> Result<Vec<u8>> {
    let name = path.display().to_string();
    let rules = path.with_file_name("tokenizer_config.json");
    let rules: Value = match std::fs::read(&rules) {
        Ok(text) => {
            serde_json::from_slice(&text).map_err(Error::tokenizer(&rules.display().to_string()))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
        Err(error) => return Err(Error::io(&rules)(error)),
    };
    let flag = |key: &str| rules[key].as_bool().unwrap_or(true);
    let normalizer = json!({
        "type": "BertNormalizer",
        "clean_text": true,
        "handle_chinese_chars": flag("tokenize_chinese_chars"),
        "strip_accents": rules["strip_accents"].as_bool(),
        "lowercase": flag("do_lower_case"),
    });
    let text = std::str::from_utf8(content).map_err(Error::tokenizer(&name))?;
    let tokens: Vec<&str> = text.lines().map(str::trim_end).collect();
    pipeline(&name, &tokens, &normalizer)
}

/// The `tokenizer.json` of a list of tokens, ids from 0 on, with BERT's rules for words.
pub(super) fn pipeline(name: &str, tokens: &[&str], normalizer: &Value) -> Result<Vec<u8>> {
    check_size(name, tokens.len())?;
    let vocabulary = tokens.iter().zip(0..).map(|(token, id)| ((*token).to_owned(), id));
    let model = Model::builder()
        .vocab(vocabulary.collect::<ahash::AHashMap<String, u32>>())
        .continuing_subword_prefix(CONTINUATION.to_owned())
        .build()
        .map_err(Error::tokenizer(name))?;
    let mut added = Vec::new();
    for token in SPECIAL {
        if let Some(id) = tokens.iter().rposition(|known| *known == token) {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }));
        }
    }
    let pipeline = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": null,
        "decoder": { "type": "WordPiece", "prefix": CONTINUATION, "cleanup": true },
        "model": serde_json::to_value(&model).map_err(Error::tokenizer(name))?,
    });
    Ok(pipeline.to_string().into_bytes())
}
