//! The fixed header of 64 bytes.

use super::HEADER_BYTES;
use crate::cursor::Cursor;
use crate::error::CodecError;

/// A byte above 127, a name, and the line ends that a text-mode transfer would change.
pub(super) const MAGIC: [u8; 8] = *b"\x89BSL\r\n\x1a\n";
/// Readers refuse any other major version.
pub(super) const MAJOR: u16 = 1;
/// Readers accept any minor version.
pub(super) const MINOR: u16 = 0;

/// The header, without magic and version: where the directory ends and what the content must hash to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) directory_bytes: u64,
    /// Sections start at multiples of this, in bytes from the start of the file: 1 or 64.
    pub(super) alignment: u64,
    /// BLAKE3 of the first 28 header bytes followed by everything after the header.
    pub(super) content_hash: [u8; 32],
}

/// The header fields before the directory checksum.
fn prefix(directory_bytes: u64, alignment: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(MAJOR.to_le_bytes());
    out.extend(MINOR.to_le_bytes());
    out.push(alignment.ilog2() as u8);
    out.extend([0; 7]);
    out.extend(directory_bytes.to_le_bytes());
    out
}

fn directory_checksum(prefix: &[u8], directory: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prefix);
    hasher.update(directory);
    hasher.finalize()
}

fn content_hash(prefix: &[u8], rest: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(prefix).update(rest).finalize().as_bytes()
}

/// The header for a directory followed by sections, given as one slice.
pub(super) fn write(directory_bytes: usize, alignment: u64, after_header: &[u8]) -> Vec<u8> {
    let mut out = prefix(directory_bytes as u64, alignment);
    let checksum = directory_checksum(&out, &after_header[..directory_bytes]);
    let hash = content_hash(&out, after_header);
    out.extend(checksum.to_le_bytes());
    out.extend(hash);
    debug_assert_eq!(out.len(), HEADER_BYTES);
    out
}

/// Splits a file into header, directory and sections, after checking the directory's checksum.
pub(super) fn read(bytes: &[u8]) -> Result<(Header, &[u8], &[u8]), CodecError> {
    let mut cursor = Cursor::new(bytes, "header");
    if cursor.take(MAGIC.len())? != MAGIC {
        return Err(cursor.corrupt("the first eight bytes are not those of a .bsl file"));
    }
    let (major, minor) = (cursor.u16()?, cursor.u16()?);
    if major != MAJOR {
        return Err(CodecError::UnsupportedVersion { major, minor, supported: MAJOR });
    }
    let alignment = match cursor.u8()? {
        0 => 1,
        6 => 64,
        exponent => {
            return Err(cursor.corrupt(format!("alignment 2^{exponent}; 1 and 64 are allowed")));
        }
    };
    if cursor.take(7)?.iter().any(|&byte| byte != 0) {
        return Err(cursor.corrupt("reserved bytes are not zero"));
    }
    let directory_bytes = cursor.u64()?;
    let checksum = cursor.u32()?;
    let content_hash = cursor.take(32)?.try_into().expect("32 bytes");
    let directory = match usize::try_from(directory_bytes) {
        Ok(length) => cursor.take(length)?,
        Err(_) => return Err(cursor.corrupt("the directory exceeds the address space")),
    };
    if directory_checksum(&bytes[..28], directory) != checksum {
        return Err(CodecError::corrupt("directory", "the checksum does not match"));
    }
    let sections = cursor.take(cursor.remaining())?;
    Ok((Header { directory_bytes, alignment, content_hash }, directory, sections))
}

/// Compares the content hash with the bytes of the whole file.
pub(super) fn verify_content(header: &Header, bytes: &[u8]) -> Result<(), CodecError> {
    if content_hash(&bytes[..28], &bytes[HEADER_BYTES..]) == header.content_hash {
        return Ok(());
    }
    Err(CodecError::corrupt("file", "the content hash does not match"))
}

/// Writes right checksums of the directory and the content into damaged bytes, for tests of what lies
/// behind them: the checksums of sections stay as they are in the directory.
#[doc(hidden)]
pub fn reseal(file: &mut [u8], directory_bytes: usize) {
    if file.len() < HEADER_BYTES {
        return;
    }
    let (header, rest) = file.split_at_mut(HEADER_BYTES);
    let directory = &rest[..directory_bytes.min(rest.len())];
    let checksum = directory_checksum(&header[..28], directory).to_le_bytes();
    header[28..32].copy_from_slice(&checksum);
    let hash = content_hash(&header[..28], rest);
    header[32..].copy_from_slice(&hash);
}
