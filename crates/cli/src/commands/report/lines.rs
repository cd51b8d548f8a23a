//! Files of JSON, a line for each result, that are only read.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

/// All results of a file; `what` is a result in the words of an error.
///
/// # Errors
/// If the file cannot be read, has no line, or has one that is no such result or is cut; the line is named.
pub fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut values = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        match serde_json::from_str(line) {
            Ok(value) => values.push(value),
            Err(error) if error.is_eof() && !line.ends_with('\n') => bail!(
                "{}: line {} is cut in the middle: let what writes it finish, or remove that line",
                path.display(),
                index + 1
            ),
            Err(error) => {
                bail!("{}: line {} is no {what}: {error}", path.display(), index + 1)
            }
        }
    }
    if values.is_empty() {
        bail!("{}: has no {what}", path.display());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_and_cut_lines_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read::<(u64, f64)>(&path, "result").map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read("[1, 2.5]\n[3, 4]"), Ok(vec![(1, 2.5), (3, 4.0)]));
        for (text, message) in [
            ("[1, 2.5]\n[3, ", "line 2 is cut in the middle"),
            ("[1, 2.5]\n[3, \n[5, 6]\n", "line 2 is no result"),
            ("[1, 2.5]\n{}\n", "line 2 is no result"),
            ("", "has no result"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(message) && error.contains("results.jsonl"), "{error}");
        }
    }
}
