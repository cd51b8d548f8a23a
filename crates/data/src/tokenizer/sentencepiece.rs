//! SentencePiece `.model` files.

use kitoken::Kitoken;
use sentencepiece_model::{SentencePieceModel, Type};

use super::{Piece, check_size, checked_ids};
use crate::{Error, Result};

/// The word mark, which stands for a space.
const WORD_MARK: char = '\u{2581}';

pub(super) struct SentencePiece {
    content: Vec<u8>,
    encoder: Kitoken,
    size: usize,
    space_before_text: bool,
    start: Option<u16>,
}

impl SentencePiece {
    pub(super) fn new(name: &str, content: &[u8]) -> Result<(Self, Vec<Piece>)> {
        let model = SentencePieceModel::from_slice(content).map_err(Error::tokenizer(name))?;
        check_size(name, model.pieces().len())?;
        if model.trainer().is_some_and(|trainer| trainer.treat_whitespace_as_suffix()) {
            return Err(Error::tokenizer(name)(
                "spaces end its words; a vocabulary whose spaces begin words is needed",
            ));
        }
        let pieces = model
            .pieces()
            .iter()
            .map(|piece| {
                let text = piece.piece();
                Ok(match piece.r#type() {
                    Type::Control | Type::Unknown | Type::Unused => Piece::Control,
                    Type::Byte => Piece::Text(vec![byte(text).ok_or_else(|| {
                        Error::tokenizer(name)(format!(
                            "the byte piece {text:?} is not of the form <0x41>"
                        ))
                    })?]),
                    Type::Normal | Type::UserDefined => match text.strip_prefix(WORD_MARK) {
                        Some(word) => Piece::Word(word.replace(WORD_MARK, " ").into_bytes()),
                        None => Piece::Text(text.replace(WORD_MARK, " ").into_bytes()),
                    },
                })
            })
            .collect::<Result<Vec<_>>>()?;
        if !pieces.contains(&Piece::Word(Vec::new())) {
            return Err(Error::tokenizer(name)(
                "it has no piece for U+2581 alone, so that a space would become three byte tokens and bits per byte \
                 would come out too low; use a SentencePiece vocabulary that has one",
            ));
        }
        let start = model
            .trainer()
            .and_then(|trainer| u16::try_from(trainer.bos_id()).ok())
            .filter(|&start| pieces.get(usize::from(start)) == Some(&Piece::Control));
        let space_before_text =
            model.normalizer().is_none_or(|normalizer| normalizer.add_dummy_prefix());
        let encoder = Kitoken::from_sentencepiece_slice(content).map_err(Error::tokenizer(name))?;
        let size = pieces.len();
        Ok((Self { content: content.to_vec(), encoder, size, space_before_text, start }, pieces))
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.content
    }

    pub(super) fn space_before_text(&self) -> bool {
        self.space_before_text
    }

    pub(super) fn start(&self) -> Option<u16> {
        self.start
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u16>> {
        let ids = self.encoder.encode(text, false).map_err(Error::tokenizer("SentencePiece"))?;
        checked_ids(&ids, self.size)
    }
}

/// The byte of a piece such as `<0x0A>`.
fn byte(piece: &str) -> Option<u8> {
    u8::from_str_radix(piece.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}
