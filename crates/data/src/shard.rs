//! Parameter Golf token shards.
//!
//! A shard is 256 little-endian `i32` header words (20240520, 1, number of tokens, then zeros) followed by that many
//! little-endian `u16` token ids, and nothing else. Source: `data/` and `train_gpt.py` of openai/parameter-golf.

use std::io::Write;
use std::path::Path;

use crate::{Error, Result};

const MAGIC: i32 = 20_240_520;
const VERSION: i32 = 1;
const HEADER_BYTES: usize = 1024;

/// Reads the tokens of one shard and checks each against the vocabulary.
///
/// # Errors
///
/// A file that cannot be read, has another magic number or version, is truncated, has bytes after the last token, or
/// holds an id that is not below `vocabulary_size`.
pub fn read_shard(path: &Path, vocabulary_size: usize) -> Result<Vec<u16>> {
    let content = std::fs::read(path).map_err(Error::io(path))?;
    let length = |expected: u64| Error::ShardLength {
        path: path.to_path_buf(),
        expected,
        found: content.len() as u64,
    };
    if content.len() < 4 {
        return Err(length(HEADER_BYTES as u64));
    }
    let word =
        |i: usize| i32::from_le_bytes(content[4 * i..4 * i + 4].try_into().expect("four bytes"));
    if word(0) != MAGIC {
        return Err(Error::ShardMagic { path: path.to_path_buf(), found: word(0) });
    }
    if content.len() < HEADER_BYTES {
        return Err(length(HEADER_BYTES as u64));
    }
    if word(1) != VERSION {
        return Err(Error::ShardVersion { path: path.to_path_buf(), found: word(1) });
    }
    let expected = HEADER_BYTES as u64 + 2 * u64::from(word(2) as u32);
    if content.len() as u64 != expected {
        return Err(length(expected));
    }
    let tokens: Vec<u16> = content[HEADER_BYTES..]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    match tokens.iter().position(|&token| usize::from(token) >= vocabulary_size) {
        None => Ok(tokens),
        Some(position) => Err(Error::TokenBeyondVocabulary {
            place: path.display().to_string(),
            position,
            token: tokens[position].into(),
            vocabulary_size,
        }),
    }
}

/// Writes one shard, under a temporary name until it is complete. An existing file of that name is replaced.
///
/// # Errors
///
/// A folder that cannot be written to, or more tokens than the header's 31 bits can count.
pub fn write_shard(path: &Path, tokens: &[u16]) -> Result<()> {
    let count =
        i32::try_from(tokens.len()).map_err(std::io::Error::other).map_err(Error::io(path))?;
    let mut content = Vec::with_capacity(HEADER_BYTES + 2 * tokens.len());
    for word in [MAGIC, VERSION, count] {
        content.extend(word.to_le_bytes());
    }
    content.resize(HEADER_BYTES, 0);
    content.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    write_whole(path, &content)
}

/// Writes `content` to a temporary file beside `path` and renames it when complete.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(path))?;
    file.write_all(content).map_err(Error::io(path))?;
    file.persist(path).map_err(|error| Error::io(path)(error.error))?;
    Ok(())
}

/// Whether the file begins like a shard.
pub(crate) fn is_shard(path: &Path) -> bool {
    use std::io::Read;
    let mut word = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut word)).is_ok()
        && i32::from_le_bytes(word) == MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fineweb_train_000000.bin");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn round_trip_and_exact_layout() {
        let (_folder, path) = write(b"");
        let tokens: Vec<u16> = (0..1000).map(|i| (i * 37 % 1024) as u16).collect();
        write_shard(&path, &tokens).unwrap();
        let content = std::fs::read(&path).unwrap();
        assert_eq!(content.len(), 1024 + 2000);
        assert_eq!(content[..12], [0x88, 0xd8, 0x34, 0x01, 1, 0, 0, 0, 0xe8, 0x03, 0, 0]);
        assert!(content[12..1024].iter().all(|&byte| byte == 0));
        assert_eq!(content[1026..1028], [37, 0]);
        assert!(is_shard(&path));
        assert_eq!(read_shard(&path, 1024).unwrap(), tokens);
    }

    #[test]
    fn every_wrong_length_is_refused() {
        let (_folder, path) = write(b"");
        write_shard(&path, &[1, 2, 3]).unwrap();
        let content = std::fs::read(&path).unwrap();
        for end in 0..content.len() {
            std::fs::write(&path, &content[..end]).unwrap();
            assert!(
                matches!(read_shard(&path, 4), Err(Error::ShardLength { found, .. }) if found == end as u64)
            );
        }
        std::fs::write(&path, [&content[..], &[0]].concat()).unwrap();
        let message = read_shard(&path, 4).unwrap_err().to_string();
        assert!(
            message.ends_with("has 1031 bytes, its header asks for 1030: it has trailing bytes"),
            "{message}"
        );
        // A negative count is a count beyond any file, not a huge allocation.
        let mut negative = content.clone();
        negative[8..12].fill(0xff);
        std::fs::write(&path, negative).unwrap();
        assert!(matches!(read_shard(&path, 4), Err(Error::ShardLength { .. })));
    }

    #[test]
    fn wrong_magic_version_and_token() {
        let (_folder, path) = write(b"plain text, long enough for a word");
        assert!(matches!(read_shard(&path, 4), Err(Error::ShardMagic { .. })));
        assert!(!is_shard(&path));
        write_shard(&path, &[1, 2, 3]).unwrap();
        let mut content = std::fs::read(&path).unwrap();
        content[4] = 2;
        std::fs::write(&path, &content).unwrap();
        assert!(matches!(read_shard(&path, 4), Err(Error::ShardVersion { found: 2, .. })));
        write_shard(&path, &[1, 2, 3]).unwrap();
        let message = read_shard(&path, 3).unwrap_err().to_string();
        assert!(
            message.contains("fineweb_train_000000.bin: token 2 has id 3, the vocabulary has 3"),
            "{message}"
        );
    }

    #[test]
    fn reads_the_official_validation_prefix() {
        let Some(path) = crate::source::shared("fineweb/fineweb_val_prefix.sp1024.bin") else {
            return;
        };
        let tokens = read_shard(&path, 1024).unwrap();
        assert_eq!(tokens.len(), 1_040_298);
        assert_eq!(tokens.iter().filter(|&&token| token == 1).count(), 902);
    }
}
