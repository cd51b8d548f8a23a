//! Text files and shards that a user names, or that a folder holds.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::Document;
use crate::shard::is_shard;
use crate::{Error, Result};

/// A file of a folder with a zero byte in its first bytes is not text, and passed over.
const BINARY_PROBE_BYTES: usize = 8192;

/// What paths named by a user hold.
#[derive(Debug)]
pub(super) enum Found {
    Text(Vec<Document>),
    Shards(Vec<PathBuf>),
}

/// Collects text or shards from files and folders, in the order given, folders in the order of names.
pub(super) fn find(paths: &[PathBuf]) -> Result<Found> {
    let mut documents = Vec::new();
    let mut shards = Vec::new();
    let mut text_path = None;
    for path in paths {
        let shards_before = shards.len();
        if path.is_dir() {
            let files = files_below(path)?;
            shards.extend(
                files.iter().filter(|file| has_extension(file, "bin") && is_shard(file)).cloned(),
            );
            if shards.len() == shards_before {
                documents.extend(text_files(path, &files)?);
                text_path = Some(path);
            }
        } else if has_extension(path, "bin") {
            shards.push(path.clone());
        } else {
            let text = read_text(path)?;
            if text.is_empty() {
                return Err(Error::NoText { path: path.clone() });
            }
            documents.push(Document { name: name_below(path, path), text });
            text_path = Some(path);
        }
    }
    match (text_path, shards.first()) {
        (Some(text), Some(shard)) => {
            Err(Error::MixedData { text: text.clone(), shard: shard.clone() })
        }
        (_, Some(_)) => Ok(Found::Shards(shards)),
        _ => Ok(Found::Text(documents)),
    }
}

/// The text files among the files of a folder.
fn text_files(folder: &Path, files: &[PathBuf]) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for file in files {
        let content = std::fs::read(file).map_err(Error::io(file))?;
        if content.is_empty() || content[..content.len().min(BINARY_PROBE_BYTES)].contains(&0) {
            continue;
        }
        documents.push(Document { name: name_below(folder, file), text: utf8(file, content)? });
    }
    if documents.is_empty() {
        return Err(Error::NoText { path: folder.to_path_buf() });
    }
    Ok(documents)
}

/// All files below a folder that are not hidden, in the order of names. Links to folders are not followed.
pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let hidden = |entry: &DirEntry| {
        entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".")
    };
    let mut files = Vec::new();
    for entry in
        WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(|entry| !hidden(entry))
    {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(folder).to_path_buf();
            Error::io(&path)(error.into())
        })?;
        if entry.path().is_file() {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

fn read_text(path: &Path) -> Result<String> {
    if path.exists() && !path.is_file() {
        // A pipe or device might never end.
        return Err(Error::NoText { path: path.to_path_buf() });
    }
    utf8(path, std::fs::read(path).map_err(Error::io(path))?)
}

fn utf8(path: &Path, content: Vec<u8>) -> Result<String> {
    String::from_utf8(content).map_err(|error| Error::NotUtf8 {
        path: path.to_path_buf(),
        offset: error.utf8_error().valid_up_to(),
    })
}

pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension() == Some(OsStr::new(extension))
}

/// The name of `root` and the path below it, with `/` on every system.
pub(super) fn name_below(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).expect("a path below its root");
    let parts = root.file_name().into_iter().chain(below.iter());
    parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn folders_are_read_in_order_without_hidden_and_binary_files() {
        let folder = folder(&[
            ("b.txt", b"second"),
            ("a/z.md", b"first"),
            ("c/deep/er.rs", "dritt\u{e9}".as_bytes()),
            (".git/config", b"hidden"),
            (".hidden.txt", b"hidden"),
            ("image.png", b"\x89PNG\0\xff"),
            ("weights.bin", b"\xff\xff\0"),
            ("empty.txt", b""),
        ]);
        let Found::Text(documents) = find(&[folder.path().to_path_buf()]).unwrap() else {
            panic!("text")
        };
        let root = folder.path().file_name().unwrap().to_str().unwrap();
        let found: Vec<_> = documents
            .iter()
            .map(|document| (document.name.strip_prefix(root).unwrap(), document.text.as_str()))
            .collect();
        assert_eq!(
            found,
            [("/a/z.md", "first"), ("/b.txt", "second"), ("/c/deep/er.rs", "dritté")]
        );
    }

    #[test]
    fn text_that_is_not_utf8_is_named_with_its_offset() {
        let folder = folder(&[("latin1.txt", b"caf\xe9 au lait")]);
        for path in [folder.path().to_path_buf(), folder.path().join("latin1.txt")] {
            let message = find(&[path]).unwrap_err().to_string();
            assert!(message.contains("latin1.txt is not UTF-8 text: byte 3"), "{message}");
        }
    }

    #[test]
    fn nothing_to_read() {
        let folder = folder(&[("empty.txt", b""), ("x/image.png", b"\0")]);
        let path = |name: &str| folder.path().join(name);
        assert!(matches!(find(&[path("")]), Err(Error::NoText { .. })));
        assert!(matches!(find(&[path("empty.txt")]), Err(Error::NoText { .. })));
        assert!(matches!(find(&[path("absent.txt")]), Err(Error::Io { .. })));
        assert!(matches!(
            find(&[PathBuf::from("/dev/zero")]),
            Err(Error::NoText { .. } | Error::Io { .. })
        ));
    }

    #[test]
    fn a_folder_of_shards_and_a_mix() {
        let folder = folder(&[("shards/manifest.json", b"{}"), ("text/a.txt", b"text")]);
        let shard = folder.path().join("shards/fineweb_train_000000.bin");
        crate::write_shard(&shard, &[1, 2]).unwrap();
        let (shards, text) = (folder.path().join("shards"), folder.path().join("text"));
        assert!(
            matches!(find(std::slice::from_ref(&shards)), Ok(Found::Shards(paths)) if paths == [shard])
        );
        assert!(matches!(find(&[shards, text]), Err(Error::MixedData { .. })));
    }
}
