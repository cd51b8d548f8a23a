//! The bytes of an export: a directory, then all codes, all scales and all kept values, in the order of the
//! directory, little-endian, compressed as one stream: int8 by zlib at level 9, SDClip by brotli at quality 11
//! after its bytes were shuffled.
//!
//! | field | bytes |
//! | --- | --- |
//! | magic `GOLFINT8` | 8 |
//! | number of tensors | 4 |
//! | per tensor: name length, name (UTF-8) | 2 + length |
//! | per tensor: number of dimensions, sizes | 1 + 4 each |
//! | per tensor: scheme (0 fp32, 1 fp16, 2 int8 rows, 3 int8 whole) | 1 |
//! | int8 codes of the tensors that have them | 1 each |
//! | scales: fp16 per row (scheme 2) or one fp32 (scheme 3) | 2 or 4 each |
//! | kept values, fp32 or fp16 | 4 or 2 each |

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use half::f16;

use super::{FloatTensor, GolfError, Stored};

const MAGIC: &[u8; 8] = b"GOLFINT8";
const MAX_TENSORS: u64 = 1 << 16;
const MAX_NAME_BYTES: u64 = 4096;
const MAX_DIMENSIONS: u64 = 8;
/// Elements of all tensors together: 512 MiB of fp32 values when decoded.
const MAX_ELEMENTS: u64 = 1 << 27;

/// Scheme bytes of the directory.
const FLOAT: u8 = 0;
const HALF: u8 = 1;
const ROWS: u8 = 2;
const WHOLE: u8 = 3;

struct Entry {
    name: String,
    shape: Vec<usize>,
    scheme: u8,
    elements: usize,
}

pub(super) fn write_zlib(
    tensors: &[FloatTensor<'_>],
    stored: &[Stored],
) -> Result<Vec<u8>, GolfError> {
    let inflated = serialise(tensors, stored)?;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(9));
    let deflated = encoder.write_all(&inflated).and_then(|()| encoder.finish());
    Ok(deflated.expect("writing to memory does not fail"))
}

pub(super) fn write_brotli(
    tensors: &[FloatTensor<'_>],
    stored: &[Stored],
) -> Result<Vec<u8>, GolfError> {
    let shuffled = shuffle(&serialise(tensors, stored)?);
    let parameters = BrotliEncoderParams { quality: 11, lgwin: 24, ..Default::default() };
    let mut bytes = Vec::new();
    brotli::BrotliCompress(&mut shuffled.as_slice(), &mut bytes, &parameters)
        .expect("writing to memory does not fail");
    Ok(bytes)
}

/// All bytes at even positions, then all at odd ones: the halves of 16-bit numbers come together.
fn shuffle(bytes: &[u8]) -> Vec<u8> {
    let plane = |parity| bytes.iter().skip(parity).step_by(2);
    plane(0).chain(plane(1)).copied().collect()
}

fn unshuffle(bytes: &[u8]) -> Vec<u8> {
    let (even, odd) = bytes.split_at(bytes.len().div_ceil(2));
    let position = |index: usize| if index.is_multiple_of(2) { even } else { odd }[index / 2];
    (0..bytes.len()).map(position).collect()
}

fn serialise(tensors: &[FloatTensor<'_>], stored: &[Stored]) -> Result<Vec<u8>, GolfError> {
    let mut inflated = MAGIC.to_vec();
    let count = at_most("the number of tensors", tensors.len() as u64, MAX_TENSORS)?;
    inflated.extend((count as u32).to_le_bytes());
    let elements = tensors.iter().map(|tensor| tensor.values.len() as u64).sum();
    at_most("the number of elements", elements, MAX_ELEMENTS)?;

    let mut names = HashSet::new();
    for (tensor, stored) in tensors.iter().zip(stored) {
        if !names.insert(tensor.name) {
            return Err(GolfError::Duplicate(tensor.name.to_owned()));
        }
        write_entry(&mut inflated, tensor, stored)?;
    }
    for stored in stored {
        if let Stored::Rows { codes, .. } | Stored::Whole { codes, .. } = stored {
            inflated.extend(codes.iter().map(|code| code.cast_unsigned()));
        }
    }
    for stored in stored {
        match stored {
            Stored::Rows { scales, .. } => {
                inflated.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()))
            }
            Stored::Whole { scale, .. } => inflated.extend(scale.to_le_bytes()),
            Stored::Float(_) | Stored::Half(_) => {}
        }
    }
    for stored in stored {
        match stored {
            Stored::Float(values) => {
                inflated.extend(values.iter().flat_map(|value| value.to_le_bytes()))
            }
            Stored::Half(values) => {
                inflated.extend(values.iter().flat_map(|value| value.to_le_bytes()))
            }
            Stored::Rows { .. } | Stored::Whole { .. } => {}
        }
    }
    Ok(inflated)
}

fn write_entry(
    inflated: &mut Vec<u8>,
    tensor: &FloatTensor<'_>,
    stored: &Stored,
) -> Result<(), GolfError> {
    let length =
        at_most("the length of a name in bytes", tensor.name.len() as u64, MAX_NAME_BYTES)?;
    inflated.extend((length as u16).to_le_bytes());
    inflated.extend(tensor.name.as_bytes());
    let dimensions =
        at_most("the number of dimensions", tensor.shape.len() as u64, MAX_DIMENSIONS)?;
    inflated.push(dimensions as u8);
    for &size in tensor.shape {
        let size = at_most("the size of a dimension", size as u64, u64::from(u32::MAX))?;
        inflated.extend((size as u32).to_le_bytes());
    }
    inflated.push(match stored {
        Stored::Float(_) => FLOAT,
        Stored::Half(_) => HALF,
        Stored::Rows { .. } => ROWS,
        Stored::Whole { .. } => WHOLE,
    });
    Ok(())
}

/// Name, shape and content of one tensor.
pub(super) type NamedTensor = (String, Vec<usize>, Stored);

pub(super) fn read_zlib(bytes: &[u8]) -> Result<Vec<NamedTensor>, GolfError> {
    let mut decoder = ZlibDecoder::new(bytes);
    let tensors = read(&mut decoder)?;
    // Reads to the end, where the stream has its checksum, and demands that nothing follows.
    let rest = decoder.read(&mut [0]).map_err(unreadable)?;
    if rest != 0 || decoder.total_in() != bytes.len() as u64 {
        return Err(corrupt("bytes follow its end"));
    }
    Ok(tensors)
}

pub(super) fn read_brotli(bytes: &[u8]) -> Result<Vec<NamedTensor>, GolfError> {
    let mut shuffled = Vec::new();
    let limit = 4 * MAX_ELEMENTS;
    let mut decoder = brotli::Decompressor::new(bytes, 1 << 16).take(limit + 1);
    decoder.read_to_end(&mut shuffled).map_err(unreadable)?;
    at_most("the number of bytes", shuffled.len() as u64, limit)?;
    let inflated = unshuffle(&shuffled);
    let mut rest = inflated.as_slice();
    let tensors = read(&mut rest)?;
    if rest.is_empty() { Ok(tensors) } else { Err(corrupt("bytes follow its end")) }
}

fn read(source: &mut impl Read) -> Result<Vec<NamedTensor>, GolfError> {
    let mut inflated = Inflated { source };
    if inflated.array::<8>()? != *MAGIC {
        return Err(corrupt("it does not begin with GOLFINT8"));
    }
    let entries = read_directory(&mut inflated)?;

    let mut codes = Vec::with_capacity(entries.len());
    for entry in &entries {
        let count = if matches!(entry.scheme, ROWS | WHOLE) { entry.elements } else { 0 };
        codes.push(inflated.bytes(count)?.into_iter().map(u8::cast_signed).collect::<Vec<i8>>());
    }
    let mut tensors = Vec::with_capacity(entries.len());
    for (entry, codes) in entries.iter().zip(codes) {
        tensors.push(match entry.scheme {
            ROWS => Some(Stored::Rows { codes, scales: inflated.halves(entry.shape[0])? }),
            WHOLE => Some(Stored::Whole { codes, scale: inflated.floats(1)?[0] }),
            _ => None,
        });
    }
    let mut decoded = Vec::with_capacity(entries.len());
    for (entry, quantised) in entries.into_iter().zip(tensors) {
        let stored = match (quantised, entry.scheme) {
            (Some(stored), _) => stored,
            (None, FLOAT) => Stored::Float(inflated.floats(entry.elements)?),
            (None, _) => Stored::Half(inflated.halves(entry.elements)?),
        };
        decoded.push((entry.name, entry.shape, stored));
    }
    Ok(decoded)
}

fn read_directory<R: Read>(inflated: &mut Inflated<'_, R>) -> Result<Vec<Entry>, GolfError> {
    let count = u64::from(u32::from_le_bytes(inflated.array()?));
    at_most("the number of tensors", count, MAX_TENSORS)?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut names = HashSet::new();
    let mut total = 0;
    for _ in 0..count {
        let length = u64::from(u16::from_le_bytes(inflated.array()?));
        at_most("the length of a name in bytes", length, MAX_NAME_BYTES)?;
        let name = String::from_utf8(inflated.bytes(length as usize)?)
            .map_err(|_| corrupt("the name of a tensor is not UTF-8"))?;
        if !names.insert(name.clone()) {
            return Err(GolfError::Duplicate(name));
        }
        let [dimensions] = inflated.array()?;
        at_most("the number of dimensions", u64::from(dimensions), MAX_DIMENSIONS)?;
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(u32::from_le_bytes(inflated.array()?) as usize);
        }
        let elements =
            shape.iter().fold(1_u64, |product, &size| product.saturating_mul(size as u64));
        total = at_most("the number of elements", elements.saturating_add(total), MAX_ELEMENTS)?;
        let [scheme] = inflated.array()?;
        let fits = match scheme {
            FLOAT | HALF => true,
            ROWS => shape.len() == 2 && elements > 0,
            WHOLE => elements > 0,
            _ => false,
        };
        if !fits {
            return Err(corrupt(format!(
                "tensor `{name}` of shape {shape:?} cannot have scheme {scheme}"
            )));
        }
        entries.push(Entry { name, shape, scheme, elements: elements as usize });
    }
    Ok(entries)
}

/// The decompressed bytes, read in order; nothing is reserved before it has been read.
struct Inflated<'a, R> {
    source: &'a mut R,
}

impl<R: Read> Inflated<'_, R> {
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, GolfError> {
        let mut bytes = Vec::new();
        self.source.by_ref().take(count as u64).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() == count { Ok(bytes) } else { Err(corrupt("it ends too early")) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GolfError> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }

    fn halves(&mut self, count: usize) -> Result<Vec<f16>, GolfError> {
        let bytes = self.bytes(count * 2)?;
        let values: Vec<f16> =
            bytes.as_chunks().0.iter().map(|&pair| f16::from_le_bytes(pair)).collect();
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(corrupt("a value is not finite"))
        }
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, GolfError> {
        let bytes = self.bytes(count * 4)?;
        let values: Vec<f32> =
            bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(corrupt("a value is not finite"))
        }
    }
}

fn at_most(what: &'static str, found: u64, limit: u64) -> Result<u64, GolfError> {
    if found <= limit { Ok(found) } else { Err(GolfError::TooLarge { what, found, limit }) }
}

fn corrupt(reason: impl Into<String>) -> GolfError {
    GolfError::Corrupt(reason.into())
}

fn unreadable(error: std::io::Error) -> GolfError {
    match error.kind() {
        ErrorKind::UnexpectedEof => corrupt("it ends too early"),
        _ => corrupt(error.to_string()),
    }
}
