//! Finished entries on the disk, so that a ledger can go on where it was interrupted.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Entry, ExceptionPath};
use crate::CompressError;

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

/// A file of one JSON object a line: the header, then an entry each.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    entries: Vec<Entry>,
}

impl Journal {
    /// Opens a journal to go on with, or begins one. A last line that was cut off is dropped.
    ///
    /// # Errors
    /// [`CompressError::Journal`] if the file cannot be read or written, holds anything else, or was measured at
    /// another operating point.
    pub fn open(path: &Path, header: &JournalHeader) -> Result<Self, CompressError> {
        let problem = |reason: String| CompressError::Journal { path: path.to_owned(), reason };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(problem(error.to_string())),
        };
        // Only whole lines count.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let mut lines = whole.lines().enumerate();
        let mut entries = Vec::new();
        if let Some((_, first)) = lines.next() {
            let found: JournalHeader = serde_json::from_str(first).map_err(|error| {
                problem(format!("line 1 is not the header of a ledger: {error}"))
            })?;
            if found != *header {
                return Err(problem(format!(
                    "was measured at another operating point ({first}): name another file, or repeat the options it was made with"
                )));
            }
        }
        for (index, line) in lines {
            let entry = serde_json::from_str(line)
                .map_err(|error| problem(format!("line {} is no entry: {error}", index + 1)))?;
            entries.push(entry);
        }
        let fail = |error: std::io::Error| problem(error.to_string());
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(fail)?;
        file.set_len(whole.len() as u64).map_err(fail)?;
        if whole.is_empty() {
            file.write_all(line(header).as_bytes()).map_err(fail)?;
        }
        Ok(Self { path: path.to_owned(), file, entries })
    }

    /// The entry of a change that was measured before.
    pub fn finished(&self, tensor: &str, path: ExceptionPath) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.tensor == tensor && entry.path == path)
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push(&mut self, entry: &Entry) -> Result<(), CompressError> {
        self.file.write_all(line(entry).as_bytes()).map_err(|error| CompressError::Journal {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        self.entries.push(entry.clone());
        Ok(())
    }
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data") + "\n"
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
    fn entries_come_back_exactly_and_a_cut_line_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let mut journal = Journal::open(&path, &header()).unwrap();
        let entries = [entry("a", ExceptionPath::Finer), entry("b", ExceptionPath::LowRank(8))];
        entries.iter().for_each(|entry| journal.push(entry).unwrap());
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        for cut in 0..=text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let mut journal = Journal::open(&path, &header()).unwrap();
            for entry in &entries {
                match journal.finished(&entry.tensor, entry.path) {
                    Some(found) => assert_eq!(found, entry),
                    None => journal.push(entry).unwrap(),
                }
            }
            assert!(journal.finished("b", ExceptionPath::LowRank(4)).is_none());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "cut at {cut}");
        }
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
        assert!(error.contains("line 2 is no entry"), "{error}");
    }
}
