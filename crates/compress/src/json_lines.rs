//! Results on the disk, a line of JSON each, so that long work can go on where it was interrupted.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::CompressError;

/// A file to which every finished result is added.
#[derive(Debug)]
pub struct JsonLines<T> {
    path: PathBuf,
    file: File,
    values: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> JsonLines<T> {
    /// Opens a file, or begins one, for this process alone. A last line that was cut is dropped, to be made again. `what`
    /// is a result in the words of an error.
    ///
    /// # Errors
    /// If the file cannot be read or written, is in use, or has another line that is no such result.
    pub fn open(path: &Path, what: &str) -> Result<Self, CompressError> {
        let problem = |reason: String| CompressError::Journal { path: path.to_owned(), reason };
        let fail = |error: std::io::Error| problem(error.to_string());
        let mut options = OpenOptions::new();
        let mut file = options.create(true).read(true).append(true).open(path).map_err(fail)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                problem("another process adds to it: name another file".to_owned())
            }
            TryLockError::Error(error) => problem(error.to_string()),
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(fail)?;
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let values = whole.lines().enumerate().map(|(index, line)| {
            serde_json::from_str(line)
                .map_err(|error| problem(format!("line {} is no {what}: {error}", index + 1)))
        });
        let values = values.collect::<Result<Vec<T>, CompressError>>()?;
        file.set_len(whole.len() as u64).map_err(fail)?;
        Ok(Self { path: path.to_owned(), file, values })
    }

    /// Adds a result.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push(&mut self, value: T) -> Result<(), CompressError> {
        let line = serde_json::to_string(&value).expect("plain data") + "\n";
        self.file.write_all(line.as_bytes()).map_err(|error| CompressError::Journal {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        self.values.push(value);
        Ok(())
    }

    /// All results.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_a_cut_one_is_made_again_and_one_process_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let mut lines = JsonLines::<(String, f64)>::open(&path, "result").unwrap();
        let results = [("a".to_owned(), -0.033_333_333_333), ("b".to_owned(), 1e-5)];
        results.iter().for_each(|result| lines.push(result.clone()).unwrap());
        let in_use = JsonLines::<(String, f64)>::open(&path, "result").unwrap_err().to_string();
        assert!(in_use.contains("another process"), "{in_use}");
        drop(lines);
        let text = std::fs::read_to_string(&path).unwrap();
        for cut in 0..=text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let mut lines = JsonLines::<(String, f64)>::open(&path, "result").unwrap();
            assert_eq!(lines.values(), &results[..lines.values().len()]);
            for result in &results[lines.values().len()..] {
                lines.push(result.clone()).unwrap();
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "cut at {cut}");
        }
        std::fs::write(&path, text.clone() + "no result\n").unwrap();
        let error = JsonLines::<(String, f64)>::open(&path, "result").unwrap_err().to_string();
        assert!(error.contains("line 3 is no result"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text + "no result\n");
    }
}
