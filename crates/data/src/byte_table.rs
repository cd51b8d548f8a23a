//! How many bytes of text a token stands for: the denominator of bits per byte.

use crate::tokenizer::Piece;

/// Bytes of text per (previous token, target) pair.
///
/// Let base(t) be the UTF-8 length of token t's text without the one space that a word mark (U+2581) at its beginning
/// stands for; 1 for a byte token; 0 for control, unknown and unused ids. Then
///
/// bytes(previous, target) = base(target) + 1 if target begins with a word mark and previous is not a control,
/// unknown or unused id.
///
/// The space after such an id is not text: the tokenizer added it. For byte and byte-level vocabularies, where a
/// space is a byte like any other, the table is the length of the decoded token whatever stands before it.
///
/// Bits per byte over targets t₁ … t_N is then Σ −log2 P(tᵢ) / Σ bytes(tᵢ₋₁, tᵢ). Two mistakes would make it wrong
/// without anything looking wrong: counting the space in base *and* by the mark (bits per byte 17 % too low), and a
/// vocabulary without a stand-alone U+2581, in which a lone space becomes three byte tokens; such a vocabulary is
/// refused when it is opened. Inside a piece, each further U+2581 counts as the one space it stands for.
///
/// Source: openai/parameter-golf, `train_gpt.py`.
///
/// ```
/// let table = backslash_data::Tokenizer::bytes().byte_table();
/// assert_eq!(table.bytes(b't'.into(), b'o'.into()), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteTable {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    base: u32,
    word_mark: bool,
    control: bool,
}

impl ByteTable {
    pub(crate) fn new(pieces: &[Piece]) -> Self {
        let entry = |piece: &Piece| Entry {
            base: piece.text().len() as u32,
            word_mark: matches!(piece, Piece::Word(_)),
            control: matches!(piece, Piece::Control),
        };
        Self { entries: pieces.iter().map(entry).collect() }
    }

    /// Bytes of text that `target` stands for after `previous`; 0 for a target beyond the vocabulary.
    pub fn bytes(&self, previous: u16, target: u16) -> u32 {
        let Some(entry) = self.entries.get(usize::from(target)) else {
            return 0;
        };
        let after_text =
            self.entries.get(usize::from(previous)).is_some_and(|previous| !previous.control);
        entry.base + u32::from(entry.word_mark && after_text)
    }

    /// Bytes of text of all targets in `tokens`: every token but the first, each after its predecessor.
    pub fn count(&self, tokens: &[u16]) -> u64 {
        tokens.windows(2).map(|pair| u64::from(self.bytes(pair[0], pair[1]))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    const UNKNOWN: u16 = 0;
    const BOS: u16 = 1;
    const NUL: u16 = 2;
    const NEWLINE: u16 = 3;
    const SPACE: u16 = 4;
    const THE: u16 = 5;
    const WORD_THE: u16 = 6;
    const WORD_CAFE: u16 = 7;

    fn table() -> ByteTable {
        let text = |text: &str| text.as_bytes().to_vec();
        ByteTable::new(&[
            Piece::Control,
            Piece::Control,
            Piece::Text(vec![0]),
            Piece::Text(text("\n")),
            Piece::Word(text("")),
            Piece::Text(text("the")),
            Piece::Word(text("the")),
            Piece::Word(text("café")),
        ])
    }

    #[test]
    fn the_space_counts_once() {
        let table = table();
        assert_eq!(table.bytes(THE, WORD_THE), 4);
        assert_eq!(table.bytes(THE, WORD_CAFE), 6);
        assert_eq!(table.bytes(THE, SPACE), 1);
        assert_eq!(table.bytes(WORD_THE, THE), 3);
    }

    #[test]
    fn a_document_begins_without_its_space() {
        let table = table();
        for control in [BOS, UNKNOWN] {
            assert_eq!(table.bytes(control, WORD_THE), 3);
            assert_eq!(table.bytes(control, SPACE), 0);
            assert_eq!(table.bytes(THE, control), 0);
        }
        // "the café" | BOS "the": 3 + 6, 0 + 3.
        assert_eq!(table.count(&[BOS, WORD_THE, WORD_CAFE, BOS, WORD_THE]), 12);
    }

    #[test]
    fn nul_is_a_byte_and_not_a_boundary() {
        let table = table();
        assert_eq!(table.bytes(BOS, NUL), 1);
        assert_eq!(table.bytes(NUL, WORD_THE), 4);
        assert_eq!(table.bytes(NEWLINE, NUL), 1);
    }

    #[test]
    fn ids_beyond_the_vocabulary_are_no_text() {
        assert_eq!(table().bytes(THE, 8), 0);
        assert_eq!(table().bytes(u16::MAX, u16::MAX), 0);
    }

    #[test]
    fn the_published_byte_counts_of_the_golf_shards() {
        let Some(model) = crate::source::shared("tokenizers/fineweb_1024_bpe.model") else {
            return;
        };
        let tokenizer = Tokenizer::open(&model).unwrap();
        let table = tokenizer.byte_table();
        for (name, bytes) in [
            ("fineweb_train_000000", 2_557_436),
            ("fineweb_val_prefix", 2_504_867),
            ("fineweb_val_000003", 4_939_885),
        ] {
            let Some(path) = crate::source::shared(&format!("fineweb/{name}.sp1024.bin")) else {
                return;
            };
            let tokens = crate::read_shard(&path, 1024).unwrap();
            assert_eq!(table.count(&tokens), bytes, "{name}");
            // The first token is BOS, or in the last file the middle of a document: it is no target.
            let first = tokenizer.decode(&tokens[..1]).unwrap().len() as u64;
            assert_eq!(tokenizer.decode(&tokens).unwrap().len() as u64 - first, bytes, "{name}");
        }
    }
}
