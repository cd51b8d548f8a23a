//! Tab-separated files of texts and labels.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::columns::{ColumnNames, Layout};
use crate::{Error, Result};

/// A text and what it is labelled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledText {
    /// The text.
    pub text: String,
    /// Its label.
    pub label: String,
    /// Line of the file, from 1 on.
    pub line: usize,
}

/// The labelled texts of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledFile {
    /// Where it is.
    pub path: PathBuf,
    /// In the order of its lines.
    pub texts: Vec<LabelledText>,
}

impl LabelledFile {
    /// Reads a file of a text per line with its label, and more columns if there are any, which are left out; columns are
    /// separated by tabs. A file that ends in `.gz` is unpacked. In texts `\\`, `\t` and `\n` are a backslash, a tab and a
    /// line end; any other backslash stays. Lines that are empty are passed over. A first line such as `sentence` and
    /// `label` names the columns.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or unpacked, or holds no text; columns that cannot be told apart; and with its line:
    /// text that is not UTF-8, another number of columns than in the first line, or an empty label.
    ///
    /// ```
    /// use backslash_data::{ColumnNames, LabelledFile};
    ///
    /// let folder = tempfile::tempdir()?;
    /// let path = folder.path().join("reviews.tsv");
    /// std::fs::write(&path, "sentence\tlabel\nfine \\\\o/\t1\ndull\t0\n")?;
    /// let file = LabelledFile::open(&path, &ColumnNames::default())?;
    /// assert_eq!((file.texts[0].text.as_str(), file.texts[0].label.as_str()), ("fine \\o/", "1"));
    /// assert_eq!(file.texts[1].line, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: &Path, columns: &ColumnNames) -> Result<Self> {
        let content = content(path)?;
        let mut numbers = Vec::new();
        let mut rows: Vec<Vec<&str>> = Vec::new();
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let wrong = |reason: String| wrong(path, index + 1, reason);
            let line = std::str::from_utf8(line)
                .map_err(|_| wrong("is not UTF-8 text; convert the file to UTF-8".to_owned()))?;
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                continue;
            }
            let fields: Vec<&str> = line.split('\t').collect();
            if let Some(first) = rows.first()
                && first.len() != fields.len()
            {
                return Err(wrong(format!(
                    "has {} columns, the first line has {}",
                    fields.len(),
                    first.len()
                )));
            }
            rows.push(fields);
            numbers.push(index + 1);
        }
        let layout = Layout::find(path, &rows, columns)?;
        let lines = numbers.into_iter().zip(&rows).skip(usize::from(layout.header));
        let text = |(line, fields): (usize, &Vec<&str>)| {
            let label = unescaped(fields[layout.label].trim()).into_owned();
            if label.is_empty() {
                return Err(wrong(path, line, format!("column {} has no label", layout.label + 1)));
            }
            Ok(LabelledText { text: unescaped(fields[layout.text]).into_owned(), label, line })
        };
        let texts = lines.map(text).collect::<Result<Vec<LabelledText>>>()?;
        Ok(Self { path: path.to_owned(), texts })
    }
}

fn wrong(path: &Path, line: usize, reason: String) -> Error {
    Error::LabelledLine { path: path.to_owned(), line, reason }
}

fn content(path: &Path) -> Result<Vec<u8>> {
    if path.exists() && !path.is_file() {
        let reason = "is no file: a text and a label per line are needed".to_owned();
        return Err(Error::LabelledFile { path: path.to_owned(), reason });
    }
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(bytes);
    }
    let mut content = Vec::new();
    MultiGzDecoder::new(&bytes[..]).read_to_end(&mut content).map_err(Error::io(path))?;
    Ok(content)
}

/// A field with its escapes resolved.
fn unescaped(field: &str) -> Cow<'_, str> {
    if !field.contains('\\') {
        return Cow::Borrowed(field);
    }
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escaped = match rest.as_bytes().get(at + 1) {
            Some(b'\\') => Some('\\'),
            Some(b't') => Some('\t'),
            Some(b'n') => Some('\n'),
            _ => None,
        };
        text.push(escaped.unwrap_or('\\'));
        rest = &rest[at + 1 + usize::from(escaped.is_some())..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::shared;
    use std::io::Write;

    fn open(name: &str, content: &[u8]) -> std::result::Result<LabelledFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        LabelledFile::open(&path, &ColumnNames::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn escapes_line_ends_and_packed_files_are_read() {
        let content = b"1\tid\ta\\tb\\nc\\\\n \\x\r\n\n0\tid\tdull";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(content).unwrap();
        for (name, content) in [("x.tsv", content.to_vec()), ("x.tsv.gz", packed.finish().unwrap())]
        {
            let texts = open(name, &content).unwrap().texts;
            let found: Vec<_> =
                texts.iter().map(|t| (t.text.as_str(), t.label.as_str(), t.line)).collect();
            assert_eq!(found, [("a\tb\nc\\n \\x", "1", 1), ("dull", "0", 3)]);
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (content, message) in [
            (&b"fine\t1\ncaf\xe9\t0\n"[..], "x.tsv, line 2: is not UTF-8"),
            (b"fine\t1\ndull\t0\t7\n", "x.tsv, line 2: has 3 columns, the first line has 2"),
            (b"fine\t1\nso so\t\ndull\t0", "x.tsv, line 2: column 2 has no label"),
            (b"", "x.tsv has no line with a text and a label"),
            (b"\n\n", "x.tsv has no line with a text and a label"),
        ] {
            let error = open("x.tsv", content).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        assert!(open("x.tsv.gz", b"no gzip").unwrap_err().contains("x.tsv.gz: "));
        let error = LabelledFile::open(Path::new("absent.tsv"), &ColumnNames::default());
        assert!(error.unwrap_err().to_string().starts_with("absent.tsv: "));
    }

    #[test]
    fn the_shared_files_have_their_known_classes() {
        for (name, positive, negative) in [
            ("sst2/train.tsv", 3610, 3310),
            ("sst2/dev.tsv", 444, 428),
            ("sst2/test.tsv", 909, 912),
            ("imdb/test.tsv.gz", 12_500, 12_500),
        ] {
            let Some(path) = shared(name) else { return };
            let file = LabelledFile::open(&path, &ColumnNames::default()).unwrap();
            let count = |label: &str| file.texts.iter().filter(|text| text.label == label).count();
            assert_eq!((count("1"), count("0")), (positive, negative), "{name}");
            // The id of a review, which tells its stars, is not its text.
            assert!(file.texts.iter().all(|text| !text.text.starts_with("neg/")), "{name}");
        }
    }
}
