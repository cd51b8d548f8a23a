//! Bytes that are not codes: verbatim tensors, metadata, scales. The smallest of three coders is kept.

use std::io::Read;

use flate2::read::DeflateDecoder;
use miniz_oxide::deflate::compress_to_vec;

use super::codes::Effort;
use super::directory::ByteCoder;
use crate::error::CodecError;
use crate::mix;

/// Longest run of bytes for the mixing coder, which is slow. Part of the file format.
const MAX_MIX_BYTES: u64 = 1 << 24;

/// Splits elements of `width` bytes into planes: all first bytes, then all second bytes, and so on.
fn to_planes(bytes: &[u8], width: usize) -> Vec<u8> {
    (0..width).flat_map(|plane| bytes.iter().skip(plane).step_by(width).copied()).collect()
}

/// Inverse of [`to_planes`].
fn from_planes(planes: &[u8], width: usize) -> Vec<u8> {
    let count = planes.len() / width;
    (0..planes.len()).map(|index| planes[index % width * count + index / width]).collect()
}

/// Level of the deflate encoder.
const DEFLATE_LEVEL: u8 = 9;

/// The smallest of: the bytes themselves, their planes deflated, and, where bytes matter more than
/// time, the mixing coder. `width` is the number of bytes of an element.
pub(super) fn compress(bytes: &[u8], width: usize, effort: Effort) -> (ByteCoder, Vec<u8>) {
    // Called by its name, since the encoder behind `flate2` depends on the features of other crates in a
    // build, and equal content must give equal bytes in all of them.
    let deflated = compress_to_vec(&to_planes(bytes, width), DEFLATE_LEVEL);
    let mut candidates = vec![(ByteCoder::Stored, bytes.to_vec()), (ByteCoder::Deflate, deflated)];
    if effort == Effort::Smallest && bytes.len() as u64 <= MAX_MIX_BYTES {
        candidates.push((ByteCoder::Mix, mix::encode_bytes(bytes, width)));
    }
    candidates.into_iter().min_by_key(|candidate| candidate.1.len()).expect("there are candidates")
}

/// Exactly `length` bytes, or an error; never allocates more than the bytes that come out.
pub(super) fn decompress(
    coder: ByteCoder,
    stored: &[u8],
    length: u64,
    width: usize,
    place: &str,
) -> Result<Vec<u8>, CodecError> {
    let bytes = match coder {
        ByteCoder::Stored => stored.to_vec(),
        ByteCoder::Deflate => from_planes(&inflate(stored, length, place)?, width),
        ByteCoder::Mix if length > MAX_MIX_BYTES => {
            return Err(CodecError::corrupt(
                place,
                format!("{length} bytes for a coder of at most {MAX_MIX_BYTES}"),
            ));
        }
        ByteCoder::Mix => mix::decode_bytes(stored, length as usize, width, place)?,
    };
    if bytes.len() as u64 != length {
        return Err(CodecError::corrupt(
            place,
            format!("{} bytes decoded, {length} declared", bytes.len()),
        ));
    }
    Ok(bytes)
}

fn inflate(stored: &[u8], length: u64, place: &str) -> Result<Vec<u8>, CodecError> {
    let mut planes = Vec::new();
    let mut decoder = DeflateDecoder::new(stored);
    decoder
        .by_ref()
        .take(length.saturating_add(1))
        .read_to_end(&mut planes)
        .map_err(|error| CodecError::corrupt(place, format!("deflate stream: {error}")))?;
    if decoder.total_in() != stored.len() as u64 || planes.len() as u64 != length {
        return Err(CodecError::corrupt(place, "the deflate stream does not end with its bytes"));
    }
    Ok(planes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coder_round_trips_and_text_shrinks() {
        let text = b"{\"layers\": 2, \"heads\": 4, \"layers\": 2, \"heads\": 4}".repeat(9);
        let floats: Vec<u8> =
            (0..500).flat_map(|index| (1.0 + index as f32 / 1e4).to_le_bytes()).collect();
        for (bytes, width) in [(&text[..], 1), (&floats, 4), (&[][..], 2), (&[7][..], 1)] {
            for effort in [Effort::Fast, Effort::Smallest] {
                let (coder, stored) = compress(bytes, width, effort);
                assert!(stored.len() * 2 <= bytes.len() || bytes.len() < 2);
                assert_eq!(
                    decompress(coder, &stored, bytes.len() as u64, width, "t").unwrap(),
                    bytes
                );
            }
        }
        assert!(decompress(ByteCoder::Mix, &[1], u64::MAX, 1, "t").is_err());
    }
}
