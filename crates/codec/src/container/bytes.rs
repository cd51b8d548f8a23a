//! Bytes that are not codes: verbatim tensors and metadata, compressed where that is smaller.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::directory::ByteCoder;
use crate::error::CodecError;

/// Splits elements of `width` bytes into planes: all first bytes, then all second bytes, and so on.
pub(super) fn to_planes(bytes: &[u8], width: usize) -> Vec<u8> {
    (0..width).flat_map(|plane| bytes.iter().skip(plane).step_by(width).copied()).collect()
}

/// Inverse of [`to_planes`].
pub(super) fn from_planes(planes: &[u8], width: usize) -> Vec<u8> {
    let count = planes.len() / width;
    (0..planes.len()).map(|index| planes[index % width * count + index / width]).collect()
}

/// The smaller of the bytes themselves and their deflated form.
pub(super) fn compress(bytes: &[u8]) -> (ByteCoder, Vec<u8>) {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let deflated =
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a vector takes any bytes");
    if deflated.len() < bytes.len() {
        (ByteCoder::Deflate, deflated)
    } else {
        (ByteCoder::Stored, bytes.to_vec())
    }
}

/// Exactly `length` bytes, or an error; never allocates more than the bytes that come out.
pub(super) fn decompress(
    coder: ByteCoder,
    stored: &[u8],
    length: u64,
    place: &str,
) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    match coder {
        ByteCoder::Stored => bytes.extend_from_slice(stored),
        ByteCoder::Deflate => {
            let mut decoder = DeflateDecoder::new(stored);
            decoder
                .by_ref()
                .take(length.saturating_add(1))
                .read_to_end(&mut bytes)
                .map_err(|error| CodecError::corrupt(place, format!("deflate stream: {error}")))?;
            if decoder.total_in() != stored.len() as u64 {
                return Err(CodecError::corrupt(
                    place,
                    "bytes are left over after the deflate stream",
                ));
            }
        }
    }
    if bytes.len() as u64 != length {
        return Err(CodecError::corrupt(
            place,
            format!("{} bytes decoded, {length} declared", bytes.len()),
        ));
    }
    Ok(bytes)
}
