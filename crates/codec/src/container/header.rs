//! The fixed header of 64 bytes.

use super::HEADER_BYTES;
use crate::cursor::Cursor;
use crate::error::CodecError;

/// A byte above 127, a name, and the line ends that a text-mode transfer would change.
pub(super) const MAGIC: [u8; 8] = *b"\x89BSL\r\n\x1a\n";
/// Readers refuse any other major version.
pub(super) const MAJOR: u16 = 1;

/// Bytes before the directory's checksum.
const PREFIX_BYTES: usize = 28;

/// The header, without magic and major version: where the directory ends and what the content must hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The bytes that both checksums begin with.
    prefix: [u8; PREFIX_BYTES],
    pub(super) minor: u16,
    pub(super) directory_bytes: u64,
    directory_checksum: u32,
    /// Sections start at multiples of this, in bytes from the start of the file: 1 or 64.
    pub(super) alignment: u64,
    /// BLAKE3 of the first 28 header bytes followed by everything after the header.
    pub(super) content_hash: [u8; 32],
}

/// The header fields before the directory checksum. Readers accept any minor version.
fn prefix(minor: u16, directory_bytes: u64, alignment: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(MAJOR.to_le_bytes());
    out.extend(minor.to_le_bytes());
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

/// The content hash, from bytes that come in pieces.
pub(super) struct ContentHash(blake3::Hasher);

impl ContentHash {
    fn new(prefix: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(prefix);
        Self(hasher)
    }

    /// Of a file with this header.
    pub(super) fn of(header: &Header) -> Self {
        Self::new(&header.prefix)
    }

    /// Takes the bytes that follow the header.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    /// Compares with the hash that the header states.
    pub(super) fn verify(&self, header: &Header) -> Result<(), CodecError> {
        if self.finish() == header.content_hash {
            return Ok(());
        }
        Err(CodecError::corrupt("file", "the content hash does not match"))
    }
}

/// A header in the making: all but the content hash, which takes everything that follows the header.
pub(super) struct NewHeader {
    bytes: Vec<u8>,
    pub(super) hash: ContentHash,
}

impl NewHeader {
    pub(super) fn new(minor: u16, directory: &[u8], alignment: u64) -> Self {
        let mut bytes = prefix(minor, directory.len() as u64, alignment);
        let hash = ContentHash::new(&bytes);
        bytes.extend(directory_checksum(&bytes, directory).to_le_bytes());
        Self { bytes, hash }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        bytes.extend(self.hash.finish());
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        bytes
    }
}

/// The header for a directory followed by sections, given as one slice.
pub(super) fn write(
    minor: u16,
    directory_bytes: usize,
    alignment: u64,
    after_header: &[u8],
) -> Vec<u8> {
    let mut header = NewHeader::new(minor, &after_header[..directory_bytes], alignment);
    header.hash.update(after_header);
    header.finish()
}

/// Reads the fixed fields.
pub(super) fn read_fields(bytes: &[u8]) -> Result<Header, CodecError> {
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
    let directory_checksum = cursor.u32()?;
    let content_hash = cursor.take(32)?.try_into().expect("32 bytes");
    let prefix = bytes[..PREFIX_BYTES].try_into().expect("28 bytes");
    Ok(Header { prefix, minor, alignment, directory_bytes, directory_checksum, content_hash })
}

/// Compares the checksum of the directory with its bytes.
pub(super) fn verify_directory(header: &Header, directory: &[u8]) -> Result<(), CodecError> {
    if directory_checksum(&header.prefix, directory) == header.directory_checksum {
        return Ok(());
    }
    Err(CodecError::corrupt("directory", "the checksum does not match"))
}

/// Splits a file into header, directory and sections, after checking the directory's checksum.
pub(super) fn read(bytes: &[u8]) -> Result<(Header, &[u8], &[u8]), CodecError> {
    let header = read_fields(bytes)?;
    let mut cursor = Cursor::new(&bytes[HEADER_BYTES..], "header");
    let directory = match usize::try_from(header.directory_bytes) {
        Ok(length) => cursor.take(length)?,
        Err(_) => return Err(cursor.corrupt("the directory exceeds the address space")),
    };
    verify_directory(&header, directory)?;
    Ok((header, directory, cursor.take(cursor.remaining())?))
}

/// Compares the content hash with the bytes of the whole file.
pub(super) fn verify_content(header: &Header, bytes: &[u8]) -> Result<(), CodecError> {
    let mut hash = ContentHash::of(header);
    hash.update(&bytes[HEADER_BYTES..]);
    hash.verify(header)
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
    let checksum = directory_checksum(&header[..PREFIX_BYTES], directory).to_le_bytes();
    header[28..32].copy_from_slice(&checksum);
    let mut hash = ContentHash::new(&header[..PREFIX_BYTES]);
    hash.update(rest);
    header[32..].copy_from_slice(&hash.finish());
}
