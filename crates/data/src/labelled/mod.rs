//! Labelled texts: tab-separated files, the classes that their labels are, and batches of them.

mod batch;
mod columns;
mod reader;

use std::collections::BTreeSet;

use rayon::prelude::*;

pub use batch::{ExampleBatch, ExampleSampler, ExampleSamplerState};
pub use columns::ColumnNames;
pub use reader::{LabelledFile, LabelledText};

use crate::{Error, Result, Tokenizer};

/// Of every so many texts one is held back, where there is no validation file.
const HELD_BACK: usize = 10;

/// A text as an encoder reads it, and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// `[CLS]`, the tokens of the text, `[SEP]`.
    pub tokens: Vec<u16>,
    /// Index of its label.
    pub class: u16,
}

/// Examples to train on and to evaluate on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleSet {
    /// To train on.
    pub train: Vec<Example>,
    /// To evaluate on.
    pub validation: Vec<Example>,
}

/// The labels of all texts without repetition: in the order of numbers where all are whole numbers, else of letters.
///
/// ```
/// use backslash_data::{LabelledFile, LabelledText, label_set};
///
/// let text = |label: &str| LabelledText { text: "so so".into(), label: label.into(), line: 1 };
/// let file = |labels: &[&str]| LabelledFile {
///     path: "reviews.tsv".into(),
///     texts: labels.iter().map(|label| text(label)).collect(),
/// };
/// assert_eq!(label_set(&[file(&["10", "2", "10"])]), ["2", "10"]);
/// assert_eq!(label_set(&[file(&["good"]), file(&["bad"])]), ["bad", "good"]);
/// ```
pub fn label_set(files: &[LabelledFile]) -> Vec<String> {
    let texts = files.iter().flat_map(|file| &file.texts);
    let labels: BTreeSet<&str> = texts.map(|text| text.label.as_str()).collect();
    let mut labels: Vec<String> = labels.into_iter().map(str::to_owned).collect();
    let number = |label: &String| label.parse::<i64>();
    if labels.iter().all(|label| number(label).is_ok()) {
        labels.sort_by_key(|label| number(label).unwrap_or(0));
    }
    labels
}

/// Takes every tenth text out of each file; what was taken.
pub fn hold_back(files: &mut [LabelledFile]) -> Vec<LabelledFile> {
    let take = |file: &mut LabelledFile| {
        let texts = std::mem::take(&mut file.texts).into_iter().enumerate();
        let (held, kept): (Vec<_>, Vec<_>) =
            texts.partition(|(index, _)| index % HELD_BACK == HELD_BACK - 1);
        let texts = |pairs: Vec<(usize, LabelledText)>| pairs.into_iter().map(|pair| pair.1);
        file.texts = texts(kept).collect();
        LabelledFile { path: file.path.clone(), texts: texts(held).collect() }
    };
    files.iter_mut().map(take).collect()
}

/// The texts of files as rows of at most `context` tokens for an encoder, of which the last tokens are left out where a text is
/// longer. Texts are encoded in parallel.
///
/// # Errors
///
/// A label that is not among `labels`, with its file and line; a tokenizer without `[CLS]` and `[SEP]`; a text that it cannot
/// represent.
pub fn examples(
    files: &[LabelledFile],
    labels: &[String],
    tokenizer: &Tokenizer,
    context: usize,
) -> Result<Vec<Example>> {
    let special = tokenizer.encoder_tokens().ok_or_else(|| {
        Error::tokenizer("of a classifier")(
            "it has no [CLS], [SEP] and [MASK], which an encoder needs; use WordPiece: wordpiece:N, a vocab.txt or a tokenizer.json",
        )
    })?;
    let example = |file: &LabelledFile, text: &LabelledText| {
        let class = labels.iter().position(|label| *label == text.label);
        let class = class.and_then(|class| u16::try_from(class).ok());
        let class = class.ok_or_else(|| Error::LabelledLine {
            path: file.path.clone(),
            line: text.line,
            reason: format!("the label {:?} is none of {}", text.label, labels.join(", ")),
        })?;
        let mut tokens = tokenizer.encode(&text.text)?;
        tokens.truncate(context.saturating_sub(2));
        tokens.insert(0, special.start);
        tokens.push(special.end);
        Ok(Example { tokens, class })
    };
    let pairs = files.iter().flat_map(|file| file.texts.iter().map(move |text| (file, text)));
    let pairs: Vec<(&LabelledFile, &LabelledText)> = pairs.collect();
    pairs.into_par_iter().map(|(file, text)| example(file, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(labels: &[&str]) -> LabelledFile {
        let text = |(index, label): (usize, &&str)| LabelledText {
            text: format!("text {index}"),
            label: (*label).to_owned(),
            line: index + 1,
        };
        let texts = labels.iter().enumerate().map(text).collect();
        LabelledFile { path: "reviews.tsv".into(), texts }
    }

    #[test]
    fn examples_have_their_marks_and_classes_and_unknown_labels_are_named() {
        let texts = ["one text and another text"];
        let tokenizer = Tokenizer::train_word_piece(texts, 60).unwrap();
        let special = tokenizer.encoder_tokens().unwrap();
        let files = [file(&["b", "a"])];
        let found = examples(&files, &label_set(&files), &tokenizer, 16).unwrap();
        assert_eq!([found[0].class, found[1].class], [1, 0]);
        for (example, text) in found.iter().zip(&files[0].texts) {
            let inner = tokenizer.encode(&text.text).unwrap();
            let whole = [&[special.start][..], &inner, &[special.end]].concat();
            assert_eq!(example.tokens, whole);
        }
        let short = examples(&files, &label_set(&files), &tokenizer, 3).unwrap();
        assert_eq!(short[0].tokens.len(), 3);
        assert_eq!(short[0].tokens[2], special.end);
        let error = examples(&files, &["b".to_owned()], &tokenizer, 16).unwrap_err().to_string();
        assert_eq!(error, "reviews.tsv, line 2: the label \"a\" is none of b");
        let error = examples(&files, &label_set(&files), &Tokenizer::bytes(), 16).unwrap_err();
        assert!(error.to_string().contains("no [CLS]"), "{error}");
    }

    #[test]
    fn every_tenth_text_is_held_back() {
        let mut files = [file(&["0"; 25]), file(&["1"; 3])];
        let held = hold_back(&mut files);
        let lines: Vec<usize> = held[0].texts.iter().map(|text| text.line).collect();
        assert_eq!(lines, [10, 20]);
        assert_eq!((files[0].texts.len(), files[1].texts.len(), held[1].texts.len()), (23, 3, 0));
    }
}
