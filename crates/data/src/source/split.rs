//! What is held out for validation.

use std::collections::HashSet;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{Corpus, Document};

/// From this many documents on, whole documents are held out.
const MIN_DOCUMENTS: usize = 10;

/// How far before the nine tenths of a text a line end is looked for, in bytes.
const LINE_BYTES: usize = 4096;

/// Splits documents as [`Source::open`](super::Source::open) says.
pub(super) fn split(documents: Vec<Document>) -> Corpus {
    if documents.len() < MIN_DOCUMENTS { split_text(documents) } else { split_documents(documents) }
}

/// Holds out whole documents, about 5 % of the bytes, in the order of the hashes of their names. Repeated contents are
/// dropped first, so that none is on both sides.
pub(super) fn split_documents(mut documents: Vec<Document>) -> Corpus {
    let mut seen = HashSet::new();
    documents.retain(|document| seen.insert(xxh3_128(document.text.as_bytes())));
    let total: usize = documents.iter().map(|document| document.text.len()).sum();

    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_key(|&i| (xxh3_64(documents[i].name.as_bytes()), i));
    let mut held_out = HashSet::new();
    let mut bytes = 0;
    for i in order {
        // A document that would make it more than a tenth is left to training.
        if bytes < total / 20 && bytes + documents[i].text.len() <= total / 10 {
            bytes += documents[i].text.len();
            held_out.insert(i);
        }
    }
    let (validation, train): (Vec<_>, Vec<_>) =
        documents.into_iter().enumerate().partition(|(i, _)| held_out.contains(i));
    let without_index =
        |side: Vec<(usize, Document)>| side.into_iter().map(|(_, document)| document).collect();
    Corpus { train: without_index(train), validation: without_index(validation) }
}

/// Holds out the last tenth of the text, from a line end on if there is one near.
fn split_text(documents: Vec<Document>) -> Corpus {
    let total: usize = documents.iter().map(|document| document.text.len()).sum();
    let mut train_bytes = total - total / 10;
    let mut corpus = Corpus { train: Vec::new(), validation: Vec::new() };
    for Document { name, text } in documents {
        let cut = cut_before(&text, train_bytes.min(text.len()));
        train_bytes -= train_bytes.min(text.len());
        let (train, validation) = text.split_at(cut);
        for (side, text) in [(&mut corpus.train, train), (&mut corpus.validation, validation)] {
            if !text.is_empty() {
                side.push(Document { name: name.clone(), text: text.to_owned() });
            }
        }
    }
    corpus
}

/// The nearest place at or before `position` that follows a line end, or else begins a character.
fn cut_before(text: &str, position: usize) -> usize {
    if position == text.len() {
        return position;
    }
    let nearest = text.floor_char_boundary(position);
    let lines = text.floor_char_boundary(position.saturating_sub(LINE_BYTES));
    text[lines..nearest].rfind('\n').map_or(nearest, |end| lines + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: impl ToString, text: impl ToString) -> Document {
        Document { name: name.to_string(), text: text.to_string() }
    }

    fn bytes(side: &[Document]) -> usize {
        side.iter().map(|document| document.text.len()).sum()
    }

    #[test]
    fn whole_documents_are_held_out() {
        let documents: Vec<_> =
            (0..400).map(|i| document(i, format!("{i} ").repeat(1 + i % 37))).collect();
        let total = bytes(&documents);
        let corpus = split(documents.clone());
        let held_out = bytes(&corpus.validation);
        assert!((total / 20..=total / 10).contains(&held_out), "{held_out} of {total}");
        assert_eq!(held_out + bytes(&corpus.train), total);
        let mut together: Vec<_> = corpus.train.iter().chain(&corpus.validation).cloned().collect();
        together.sort_by_key(|document| document.name.parse::<usize>().unwrap());
        assert_eq!(together, documents);
        assert_eq!(split(documents), corpus);
    }

    #[test]
    fn no_content_is_on_both_sides() {
        let documents: Vec<_> =
            (0..300).map(|i| document(i, format!("content {}", i % 60))).collect();
        let corpus = split(documents);
        assert_eq!(corpus.train.len() + corpus.validation.len(), 60);
        assert!(!corpus.validation.is_empty());
        let texts: HashSet<_> = corpus.train.iter().map(|document| &document.text).collect();
        assert!(corpus.validation.iter().all(|document| !texts.contains(&document.text)));
    }

    #[test]
    fn one_large_document_among_ten_is_trained_on() {
        for large in 0..10 {
            let text = |i| {
                if i == large { "large ".repeat(10_000) } else { format!("small {i}\n").repeat(90) }
            };
            let corpus = split((0..10).map(|i| document(i, text(i))).collect());
            assert!(bytes(&corpus.train) >= 60_000 && !corpus.validation.is_empty());
        }
    }

    #[test]
    fn the_end_of_a_text_is_held_out_from_a_line_end_on() {
        let corpus = split(vec![document("a", "line é\n".repeat(1000))]);
        assert_eq!((bytes(&corpus.train), bytes(&corpus.validation)), (7200, 800));
        assert!(corpus.train[0].text.ends_with('\n'));
        // Without line ends, at a character: 2 bytes each, 9/10 of 1,010 bytes is 909.
        let corpus = split(vec![document("a", "é".repeat(505))]);
        assert_eq!((bytes(&corpus.train), bytes(&corpus.validation)), (908, 102));
    }

    #[test]
    fn the_end_may_be_several_documents() {
        let corpus = split(vec![
            document("a", "a".repeat(50)),
            document("b", "b".repeat(45)),
            document("c", "ccccc"),
        ]);
        assert_eq!(corpus.train, [document("a", "a".repeat(50)), document("b", "b".repeat(40))]);
        assert_eq!(corpus.validation, [document("b", "bbbbb"), document("c", "ccccc")]);
    }
}
