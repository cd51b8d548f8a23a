//! Tokenizer files of llama2.c, turned into the SentencePiece models they were exported from.
//!
//! The longest piece as `i32`, then for each id a score as `f32`, a length as `i32` and the text, with spaces
//! for word marks; little-endian. 0 is unknown, 1 and 2 begin and end a text, then come the 256 bytes. What
//! llama2.c does with them is SentencePiece's BPE with byte fallback and a space before the text. Source:
//! karpathy/llama2.c, `tokenizer.py` and `run.c`.

use super::check_size;
use crate::{Error, Result};

const WORD_MARK: &str = "\u{2581}";

/// The content of a SentencePiece `.model` with the same pieces.
pub(super) fn sentence_piece(name: &str, content: &[u8]) -> Result<Vec<u8>> {
    let pieces = pieces(content).ok_or_else(|| {
        Error::tokenizer(name)(
            "it is not a llama2.c tokenizer: scores, lengths and texts do not end with the file",
        )
    })?;
    check_size(name, pieces.len())?;
    let mut model = Vec::new();
    for (id, (score, text)) in pieces.iter().enumerate() {
        let text = std::str::from_utf8(text)
            .map_err(|_| Error::tokenizer(name)(format!("the text of token {id} is not UTF-8")))?;
        let (text, kind) = match id {
            0 => ("<unk>".to_owned(), UNKNOWN),
            1 => ("<s>".to_owned(), CONTROL),
            2 => ("</s>".to_owned(), CONTROL),
            3..259 => (format!("<0x{:02X}>", id - 3), BYTE),
            _ => (text.replace(' ', WORD_MARK), NORMAL),
        };
        let mut piece = Vec::new();
        bytes(&mut piece, 1, text.as_bytes());
        float(&mut piece, 2, *score);
        number(&mut piece, 3, kind);
        bytes(&mut model, 1, &piece);
    }
    let mut trainer = Vec::new();
    for (field, value) in [
        (3, 2), // the model is BPE
        (4, pieces.len() as u64),
        (35, 1), // bytes stand in for what has no piece
        (40, 0), // unknown
        (41, 1), // start
        (42, 2), // end
    ] {
        number(&mut trainer, field, value);
    }
    bytes(&mut model, 2, &trainer);
    let mut normalizer = Vec::new();
    bytes(&mut normalizer, 1, b"identity");
    for (field, value) in [
        (3, 1), // a space before the text
        (4, 0), // runs of spaces stay
        (5, 1), // spaces become word marks
    ] {
        number(&mut normalizer, field, value);
    }
    bytes(&mut model, 3, &normalizer);
    Ok(model)
}

// Values of `SentencePiece.Type` in sentencepiece_model.proto, whose field numbers are used above.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const BYTE: u64 = 6;

/// Scores and texts, or `None` if the content is not made of them.
fn pieces(content: &[u8]) -> Option<Vec<(f32, &[u8])>> {
    let (_, mut rest) = content.split_first_chunk::<4>()?;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (score, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_le_bytes(*length)).ok()?;
        let (text, after) = after.split_at_checked(length)?;
        pieces.push((f32::from_le_bytes(*score), text));
        rest = after;
    }
    Some(pieces)
}

// The three kinds of protobuf fields that the model needs.

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn float(out: &mut Vec<u8>, field: u64, value: f32) {
    varint(out, field << 3 | 5);
    out.extend(value.to_le_bytes());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
