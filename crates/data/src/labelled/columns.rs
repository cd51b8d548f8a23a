//! Which column of a table is the text and which the label.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{Error, Result};

/// Names of label columns in the first lines of files.
const LABELS: [&str; 6] = ["label", "labels", "class", "category", "target", "sentiment"];
/// Names of text columns in the first lines of files.
const TEXTS: [&str; 4] = ["text", "sentence", "review", "content"];
/// Most different values of a column of labels.
const MOST_LABELS: usize = 256;
/// Largest magnitude of a number that is a label.
const LARGEST_LABEL: u64 = 1000;

/// The columns that a person names: by the name in the first line of the file, or by number from 1 on. Empty ones are found
/// from the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnNames {
    /// That of the text.
    pub text: String,
    /// That of the label.
    pub label: String,
}

/// What the columns of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) text: usize,
    pub(super) label: usize,
    /// Whether the first line names the columns.
    pub(super) header: bool,
}

impl Layout {
    /// Finds the columns of rows that all have as many fields.
    ///
    /// 1. The first row is a header where it holds a name that was asked for, or a usual name of a label or text column that
    ///    its column does not have again.
    /// 2. The label is the column that was named or has a usual name; else of the columns with few different values, whole
    ///    numbers before words, the one with the fewest, at least two if possible.
    /// 3. The text is the column that was named or has a usual name; else the one with the longest values.
    pub(super) fn find(path: &Path, rows: &[Vec<&str>], names: &ColumnNames) -> Result<Self> {
        let wrong = |reason: String| Error::LabelledFile { path: path.to_owned(), reason };
        let Some(first) = rows.first() else {
            return Err(wrong("has no line with a text and a label".to_owned()));
        };
        if first.len() < 2 {
            return Err(wrong(
                "has one column: a text and a label with a tab between them are needed".to_owned(),
            ));
        }
        let is_named = |column: usize| {
            let field = first[column];
            let usual = LABELS.iter().chain(&TEXTS).any(|name| field.eq_ignore_ascii_case(name));
            let asked = |name: &String| !name.is_empty() && name == field;
            asked(&names.text)
                || asked(&names.label)
                || (usual && rows[1..].iter().all(|row| row[column] != field))
        };
        let header = (0..first.len()).any(is_named);
        let body = &rows[usize::from(header)..];
        if body.is_empty() {
            return Err(wrong("has no line with a text and a label".to_owned()));
        }
        let chosen = |name: &str, key: &str, usual: &[&str]| -> Result<Option<usize>> {
            if name.is_empty() {
                let is_usual = |field: &&str| usual.iter().any(|u| field.eq_ignore_ascii_case(u));
                return Ok(first.iter().position(is_usual).filter(|_| header));
            }
            let by_name = first.iter().position(|field| header && *field == name);
            let number = name.parse::<usize>().ok();
            let by_number = number.filter(|at| (1..=first.len()).contains(at)).map(|at| at - 1);
            by_name.or(by_number).map(Some).ok_or_else(|| {
                wrong(format!(
                    "data.{key} = {name:?}: the file has {} columns and none of that name",
                    first.len()
                ))
            })
        };
        let label = chosen(&names.label, "label_column", &LABELS)?;
        let text = chosen(&names.text, "text_column", &TEXTS)?;
        let label = label.or_else(|| few_values(body, text)).ok_or_else(|| {
            wrong("has no column of labels, with few different values: name it with data.label_column".to_owned())
        })?;
        let text = text.unwrap_or_else(|| longest(body, label));
        if text == label {
            return Err(wrong(format!("column {} cannot be text and label", text + 1)));
        }
        Ok(Self { text, label, header })
    }
}

/// The column that is most like labels.
fn few_values(rows: &[Vec<&str>], text: Option<usize>) -> Option<usize> {
    let likeness = |column: usize| {
        let values = || rows.iter().map(|row| row[column]).filter(|value| !value.is_empty());
        if Some(column) == text || 2 * values().count() < rows.len() {
            return None;
        }
        let different: BTreeSet<&str> = values().collect();
        let is_small = |value: &&str| {
            value.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= LARGEST_LABEL)
        };
        let words = !different.iter().all(is_small);
        let few = different.len() <= MOST_LABELS && (!words || different.len() < rows.len());
        few.then_some(((different.len() < 2, words, different.len()), column))
    };
    (0..rows[0].len()).filter_map(likeness).min().map(|(_, column)| column)
}

/// The column with the longest values, other than that of the label.
fn longest(rows: &[Vec<&str>], label: usize) -> usize {
    let length = |column: &usize| rows.iter().map(|row| row[*column].len()).sum::<usize>();
    let columns = (0..rows[0].len()).filter(|column| *column != label);
    columns.rev().max_by_key(length).expect("two columns or more")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, names: [&str; 2]) -> std::result::Result<(usize, usize, bool), String> {
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('|').collect()).collect();
        let names = ColumnNames { text: names[0].to_owned(), label: names[1].to_owned() };
        let found = Layout::find(Path::new("x.tsv"), &rows, &names);
        found.map(|found| (found.text, found.label, found.header)).map_err(|e| e.to_string())
    }

    #[test]
    fn columns_are_found_by_what_they_hold() {
        for (text, expected) in [
            ("a fine film|1\na dull one|0\nfine|1", (0, 1, false)),
            ("0|neg/5_3|long and dull\n1|pos/7_9|long and fine\n0|neg/8_1|no", (2, 0, false)),
            ("sentence|label\nfine|1\ndull|0", (0, 1, true)),
            ("Label|Id|Review\npos|1|fine film\nneg|2|dull film", (2, 0, true)),
            ("good|what a film\nbad|what a bore\ngood|fine", (1, 0, false)),
            // A source that is the same everywhere is no label; a mark that most lines lack is none either.
            ("web|1||fine\nweb|0|*|dull\nweb|1||good", (3, 1, false)),
            // The word stands in a text, so the line names no columns.
            ("text|0\nfine|1\ntext|0", (0, 1, false)),
            ("fine|1", (0, 1, false)),
        ] {
            assert_eq!(find(text, ["", ""]), Ok(expected), "{text}");
        }
    }

    #[test]
    fn columns_are_taken_as_named() {
        let text = "stars|words|source\n5|fine|a\n1|dull|b\n5|good|a";
        assert_eq!(find(text, ["words", "stars"]), Ok((1, 0, true)));
        assert_eq!(find("5|fine|a\n1|dull|b\n5|so so|a", ["2", "3"]), Ok((1, 2, false)));
        assert_eq!(find(text, ["words", "source"]), Ok((1, 2, true)));
    }

    #[test]
    fn what_cannot_be_found_is_said() {
        for (text, names, message) in [
            ("", ["", ""], "has no line"),
            ("sentence|label", ["", ""], "has no line"),
            ("only text", ["", ""], "has one column"),
            ("a b|c d\ne f|g h", ["", ""], "has no column of labels"),
            ("a|1\nb|0", ["", "stars"], "data.label_column = \"stars\": the file has 2 columns"),
            ("a|1\nb|0", ["3", ""], "data.text_column = \"3\""),
            ("a|1\nb|0", ["2", "2"], "column 2 cannot be text and label"),
        ] {
            let error = find(text, names).unwrap_err();
            assert!(error.contains(message) && error.starts_with("x.tsv"), "{error}");
        }
    }
}
