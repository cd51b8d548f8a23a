//! WordPiece vocabularies from text.

use std::collections::BTreeSet;

use serde_json::json;
use tokenizers::models::wordpiece::{WordPiece as Model, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    AddedToken, Model as _, NormalizedString, Normalizer, OffsetReferential, OffsetType,
    PreTokenizedString, PreTokenizer, Trainer,
};

use super::check_size;
use super::word_piece::{CONTINUATION, SPECIAL, pipeline};
use crate::{Error, Result};

const NAME: &str = "to be trained";

/// The `tokenizer.json` of WordPiece trained on `texts`.
pub(super) fn train<'a>(
    texts: impl IntoIterator<Item = &'a str>,
    vocabulary_size: usize,
) -> Result<Vec<u8>> {
    check_size(NAME, vocabulary_size)?;
    let texts = texts.into_iter().map(words).collect::<Result<Vec<Vec<String>>>>()?;
    // The trainer gives ids to continued characters as it meets them, in no fixed order: here they have theirs already.
    let continued: BTreeSet<char> =
        texts.iter().flatten().flat_map(|word| word.chars().skip(1)).collect();
    let continued = continued.into_iter().map(|character| format!("{CONTINUATION}{character}"));
    let first = SPECIAL.map(str::to_owned).into_iter().chain(continued);
    let mut trainer = WordPieceTrainer::builder()
        .vocab_size(vocabulary_size)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(first.map(|token| AddedToken::from(token, true)).collect())
        .build();
    let words: Vec<String> = texts.into_iter().flatten().collect();
    trainer.feed(words.iter(), |word| Ok(vec![word.to_owned()])).map_err(Error::tokenizer(NAME))?;
    let mut model = Model::default();
    trainer.train(&mut model).map_err(Error::tokenizer(NAME))?;
    let mut tokens: Vec<(u32, String)> =
        model.get_vocab().into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort_unstable();
    let tokens: Vec<&str> = tokens.iter().map(|(_, token)| token.as_str()).collect();
    let normalizer = json!({
        "type": "BertNormalizer",
        "clean_text": true,
        "handle_chinese_chars": true,
        "strip_accents": null,
        "lowercase": true,
    });
    pipeline(NAME, &tokens, &normalizer)
}

/// The words of a text by the rules of BERT's uncased models.
fn words(text: &str) -> Result<Vec<String>> {
    let failed = || Error::tokenizer(NAME);
    let mut normal = NormalizedString::from(text);
    BertNormalizer::default().normalize(&mut normal).map_err(failed())?;
    let mut parts = PreTokenizedString::from(normal);
    BertPreTokenizer.pre_tokenize(&mut parts).map_err(failed())?;
    let splits = parts.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use crate::Tokenizer;

    const TEXTS: [&str; 2] =
        ["The cats and the hats, the bats and the rats!", "No cat sat; the HAT sat on the mat."];

    #[test]
    fn the_vocabulary_begins_with_the_special_tokens_and_is_always_the_same() {
        let first = Tokenizer::train_word_piece(TEXTS, 80).unwrap();
        assert!(first.vocabulary_size() <= 80, "{}", first.vocabulary_size());
        let special = first.encoder_tokens().unwrap();
        assert_eq!((special.start, special.end, special.mask), (2, 3, 4));
        for _ in 0..8 {
            assert_eq!(
                Tokenizer::train_word_piece(TEXTS, 80).unwrap().to_bytes(),
                first.to_bytes()
            );
        }
        let tokens = first.encode("The and").unwrap();
        assert_eq!(tokens.len(), 2, "both are words of the text");
        assert_eq!(first.decode(&tokens).unwrap(), b"the and");
        // Characters are known at the beginning and within words where the text has them there.
        assert!(!first.encode("noat!").unwrap().contains(&1));
        assert_eq!(first.encode("nob").unwrap(), [1]);
        assert_eq!(first.encode("ω").unwrap(), [1]);
        let again = Tokenizer::from_bytes(&first.to_bytes()).unwrap();
        assert_eq!(again.encode(TEXTS[0]).unwrap(), first.encode(TEXTS[0]).unwrap());
    }

    #[test]
    fn a_vocabulary_too_large_for_its_ids_is_refused() {
        let error = Tokenizer::train_word_piece(TEXTS, 70_000).unwrap_err().to_string();
        assert!(error.contains("at most 65536"), "{error}");
    }
}
