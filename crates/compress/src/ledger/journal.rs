//! Finished entries on the disk, so that a ledger can go on where it was interrupted.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Entry, ExceptionPath};
use crate::{CompressError, JsonLines};

/// What the entries of a journal were measured at: entries of another file or another text do not go with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JournalHeader {
    /// Quantiser.
    pub rung: String,
    /// ln κ of the file, in text so that it is compared as it was written.
    pub log_kappa: String,
    /// Bytes of all coded tensors.
    pub coded_bytes: u64,
    /// Tokens that were measured on.
    pub tokens: usize,
    /// Cross-entropy of the float model on them, in nats per token to six decimals.
    pub float_loss: String,
}

/// A line of a journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Header(JournalHeader),
    Entry(Entry),
}

/// A file of one JSON object a line: the header, then an entry each.
#[derive(Debug)]
pub struct Journal {
    lines: JsonLines<Line>,
}

impl Journal {
    /// Opens a journal to go on with, or begins one. A last line that was cut off is dropped.
    ///
    /// # Errors
    /// [`CompressError::Journal`] if the file cannot be read or written, holds anything else, or was measured at
    /// another operating point.
    pub fn open(path: &Path, header: &JournalHeader) -> Result<Self, CompressError> {
        let mut lines = JsonLines::open(path, "header or entry of a ledger")?;
        match lines.values().first() {
            None => lines.push(Line::Header(header.clone()))?,
            Some(Line::Header(found)) if found == header => {}
            Some(first) => {
                let first = serde_json::to_string(first).expect("plain data");
                return Err(CompressError::Journal {
                    path: path.to_owned(),
                    reason: format!(
                        "was measured at another operating point ({first}): name another file, or repeat the options it was made with"
                    ),
                });
            }
        }
        Ok(Self { lines })
    }

    /// The entry of a change that was measured before.
    pub fn finished(&self, tensor: &str, path: ExceptionPath) -> Option<&Entry> {
        let entries = self.lines.values().iter().filter_map(|line| match line {
            Line::Entry(entry) => Some(entry),
            Line::Header(_) => None,
        });
        entries.into_iter().find(|entry| entry.tensor == tensor && entry.path == path)
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push(&mut self, entry: &Entry) -> Result<(), CompressError> {
        self.lines.push(Line::Entry(entry.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Change;

    fn header() -> JournalHeader {
        JournalHeader {
            rung: "watersic".to_owned(),
            log_kappa: "-1.5".to_owned(),
            coded_bytes: 1234,
            tokens: 4096,
            float_loss: "3.500000".to_owned(),
        }
    }

    fn entry(tensor: &str, path: ExceptionPath) -> Entry {
        let change = Change { mean: -0.033_333_333_333, error: 1e-5 };
        Entry {
            tensor: tensor.to_owned(),
            path,
            bytes: -7,
            divergence: change,
            cross_entropy: change,
            predicted: -0.03,
            predicted_plain: 0.1,
        }
    }

    #[test]
    fn entries_come_back_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut journal = Journal::open(&path, &header()).unwrap();
        let entries = [entry("a", ExceptionPath::Finer), entry("b", ExceptionPath::LowRank(8))];
        entries.iter().for_each(|entry| journal.push(entry).unwrap());
        drop(journal);
        let journal = Journal::open(&path, &header()).unwrap();
        for entry in &entries {
            assert_eq!(journal.finished(&entry.tensor, entry.path), Some(entry));
        }
        assert!(journal.finished("b", ExceptionPath::LowRank(4)).is_none());
    }

    #[test]
    fn entries_of_another_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        Journal::open(&path, &header()).unwrap();
        let other = JournalHeader { coded_bytes: 1235, ..header() };
        let error = Journal::open(&path, &other).unwrap_err().to_string();
        assert!(error.contains("another operating point") && error.contains("1234"), "{error}");
        for (text, message) in [("no JSON\n", "line 1"), ("", "")] {
            std::fs::write(&path, text).unwrap();
            match Journal::open(&path, &header()) {
                Ok(_) => assert!(message.is_empty()),
                Err(error) => assert!(error.to_string().contains(message), "{error}"),
            }
        }
        let mut text = std::fs::read_to_string(&path).unwrap();
        text += "{\"tensor\":3}\n";
        std::fs::write(&path, text).unwrap();
        let error = Journal::open(&path, &header()).unwrap_err().to_string();
        assert!(error.contains("line 2 is no header or entry"), "{error}");
    }
}
