//! The part of a document that a command has made.

use std::path::Path;

use anyhow::{Context, Result, bail};
use backslash_codec::{Overwrite, write_bytes};

use crate::failure::Usage;

/// The text of a section: the tables, and how they were made.
pub fn section(tables: &str, fingerprints: &[(String, String)]) -> String {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| quoted(without_folders(&word.to_string_lossy())))
        .collect();
    let inputs: Vec<String> =
        fingerprints.iter().map(|(name, hash)| format!("`{name}` {hash}")).collect();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    format!(
        "{tables}\nMade by `backslash {}` on {}; inputs and their hashes (for models with the tokens of calibration and of validation): {}.\n",
        arguments.join(" "),
        date,
        inputs.join(", ")
    )
}

/// A path without its folders: where something lies on one machine says nothing elsewhere.
fn without_folders(word: &str) -> String {
    let path = Path::new(word);
    match path.file_name() {
        Some(name) if path.is_absolute() => name.to_string_lossy().into_owned(),
        _ => word.to_owned(),
    }
}

/// A word as a shell takes it.
fn quoted(word: String) -> String {
    match word.contains(char::is_whitespace) {
        true => format!("\"{word}\""),
        false => word,
    }
}

/// Refuses a name of a section that cannot stand in a document.
pub fn check(section: Option<&str>) -> Result<()> {
    section.map_or(Ok(()), check_name)
}

/// Replaces the section of a document that is asked for, if one is.
pub fn replace(markdown: Option<&Path>, section: Option<&str>, text: &str) -> Result<()> {
    match (markdown, section) {
        (Some(path), Some(name)) => replace_section(path, name, text),
        _ => Ok(()),
    }
}

/// Refuses a name that cannot stand in a comment of a document.
fn check_name(name: &str) -> Result<()> {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !plain {
        bail!(Usage(format!("--section {name}: letters, digits and hyphens name a section")));
    }
    Ok(())
}

/// Replaces what stands between the marks of a section, or adds it at the end.
fn replace_section(path: &Path, name: &str, text: &str) -> Result<()> {
    let old = match std::fs::read_to_string(path) {
        Ok(old) => old,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let new = with_section(&old, name, text)
        .with_context(|| format!("{}: section `{name}` has no end mark", path.display()))?;
    write_bytes(path, new.as_bytes(), Overwrite::Replace)?;
    Ok(())
}

/// What stands between the marks of a section.
pub fn read_section(path: &Path, name: &str) -> Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (begin, end) = marks(name);
    let found = text.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    let (section, _) =
        found.with_context(|| format!("{}: has no section `{name}`", path.display()))?;
    Ok(section.to_owned())
}

fn marks(name: &str) -> (String, String) {
    (format!("<!-- section:{name} -->"), format!("<!-- /section:{name} -->"))
}

fn with_section(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = marks(name);
    let part = format!("{begin}\n{}\n{end}", text.trim_end());
    let Some(start) = document.find(&begin) else {
        let gap = if document.is_empty() { "" } else { "\n" };
        return Some(format!("{document}{gap}{part}\n"));
    };
    let length = document[start..].find(&end)? + end.len();
    Some(format!("{}{part}{}", &document[..start], &document[start + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_rest_stays() {
        let first = with_section("# Results\n", "a", "one\n").unwrap();
        assert_eq!(first, "# Results\n\n<!-- section:a -->\none\n<!-- /section:a -->\n");
        let both = with_section(&first, "b", "two").unwrap();
        let again = with_section(&both, "a", "three").unwrap();
        assert_eq!(again, both.replace("one", "three"));
        assert_eq!(with_section("<!-- section:a -->\n", "a", "x"), None);
    }

    #[test]
    fn folders_of_a_machine_are_left_out() {
        assert_eq!(without_folders("/data/text.bin"), "text.bin");
        assert_eq!(without_folders("runs/a"), "runs/a");
        assert_eq!(without_folders("--bits"), "--bits");
        assert_eq!(quoted("rate, λ 1=runs/a".to_owned()), "\"rate, λ 1=runs/a\"");
        assert_eq!(quoted("plain=runs/a".to_owned()), "plain=runs/a");
    }
}
