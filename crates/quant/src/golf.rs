//! The exporters of Parameter Golf, as the methods that ours is compared with: the baseline's, described here,
//! and [`SdClip`], that of the later records.
//!
//! Parameter Golf (openai/parameter-golf, 2026) asked for the best language model within 16 MB, and
//! its stock exporter, format tag `int8_clean_per_row_v1`, is the way most of its models became
//! files. For every float tensor it does one of three things:
//!
//! 1. a tensor of at most [`MAX_KEPT_ELEMENTS`] elements is kept: as fp32 when its name marks it as
//!    a control tensor ([`CONTROL_NAMES`]), else as fp16;
//! 2. a larger matrix becomes int8 with one scale per row: c = the 99.99984 percentile of |w| over
//!    the row, s = max(c/127, 1/127), q = round(clip(w, −c, c)/s) clipped to ±127, with s in fp32
//!    while rounding and the fp16 value of s in the file and when decoding;
//! 3. any other large tensor becomes int8 with one fp32 scale c/127 (1 when c is 0).
//!
//! The arithmetic here is the original's, including the fp32 rank of the percentile and rounding
//! half to even. Two things differ:
//!
//! - The original pickles a dictionary into a PyTorch zip before compressing; ours has a plain
//!   directory, so the same codes cost a little less, which favours this baseline. Like there, the
//!   whole file is one zlib stream at level 9.
//! - Implementations of zlib differ by a few tenths of a percent; ours is `zlib-rs`.
//!
//! For the public model that exists as floats and as its export the two together give 771,016 bytes
//! against the published 772,586.
//!
//! In a model of about a million parameters nearly every matrix has fewer than 65,536 elements and
//! would stay fp16. [`export_int8_zlib_all_matrices`] therefore applies rule 2 to matrices of any
//! size; it gives much the smaller file there, and is the one to show.
//!
//! Source: `train_gpt.py` of openai/parameter-golf, functions `quantize_float_tensor` and
//! `quantize_state_dict_int8`.

mod container;
mod sdclip;

use half::f16;
use thiserror::Error;

pub use sdclip::{SdClip, export_sdclip, import_sdclip};

/// Largest number of elements of a tensor that the original leaves unquantised.
pub const MAX_KEPT_ELEMENTS: usize = 65_536;

/// A kept tensor whose name contains one of these stays fp32.
pub const CONTROL_NAMES: [&str; 9] = [
    "attn_scale",
    "attn_scales",
    "mlp_scale",
    "mlp_scales",
    "resid_mix",
    "resid_mixes",
    "q_gain",
    "skip_weight",
    "skip_weights",
];

/// Fraction of a row's magnitudes below the clip: the percentile 99.99984.
const CLIP_QUANTILE: f32 = 0.999_998_4;

/// Largest code.
const MAX_CODE: f32 = 127.0;

/// Why a set of tensors cannot be exported, or a file cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GolfError {
    /// The shape of a tensor promises another number of values.
    #[error("tensor `{name}`: shape {shape:?} does not fit its {count} values")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Number of values that came with it.
        count: usize,
    },
    /// A NaN or an infinity among the weights.
    #[error("tensor `{name}`: value {index} is {value}, every weight must be finite")]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// Row-major position of the value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A kept value or a row scale is too large for fp16.
    #[error("tensor `{name}`: {value} is beyond the range of fp16 (±65504)")]
    BeyondHalf {
        /// Name of the tensor.
        name: String,
        /// The value or scale.
        value: f32,
    },
    /// Two tensors have one name.
    #[error("tensor `{0}` occurs twice, names must be distinct")]
    Duplicate(String),
    /// More tensors, dimensions, elements or longer names than the file format holds.
    #[error("{what} is {found}, at most {limit} fit in this format")]
    TooLarge {
        /// The quantity.
        what: &'static str,
        /// Its value.
        found: u64,
        /// Its limit.
        limit: u64,
    },
    /// A width of codes or a clip that cannot be.
    #[error(
        "tensor `{name}`: {bits} bits and a clip at {clip} deviations; 2 to 8 bits and a positive, finite clip are right"
    )]
    Setting {
        /// Name of the tensor.
        name: String,
        /// Bits asked for.
        bits: u32,
        /// Clip asked for.
        clip: f32,
    },
    /// The file does not decompress to something this module wrote.
    #[error("not such an export: {0}")]
    Corrupt(String),
}

/// A named float tensor to export.
#[derive(Debug, Clone, Copy)]
pub struct FloatTensor<'a> {
    /// Name, distinct within one export.
    pub name: &'a str,
    /// Sizes of the dimensions, slowest first.
    pub shape: &'a [usize],
    /// Values, row-major.
    pub values: &'a [f32],
}

/// A named float tensor as a file gave it back.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedTensor {
    /// Name of the tensor.
    pub name: String,
    /// Sizes of the dimensions, slowest first.
    pub shape: Vec<usize>,
    /// Dequantised values, row-major.
    pub values: Vec<f32>,
}

/// A complete export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GolfExport {
    /// The file: one compressed stream. Its length is the size that counts.
    pub bytes: Vec<u8>,
    /// Bytes of codes, scales and kept values before compression, which the original logs as its
    /// payload.
    pub payload_bytes: u64,
}

/// A tensor in the form in which the file holds it.
#[derive(Debug, Clone, PartialEq)]
enum Stored {
    Float(Vec<f32>),
    Half(Vec<f16>),
    /// One scale per row of a matrix.
    Rows {
        codes: Vec<i8>,
        scales: Vec<f16>,
    },
    /// One scale for the tensor.
    Whole {
        codes: Vec<i8>,
        scale: f32,
    },
}

/// Exports `tensors` as the Parameter Golf baseline does: see the [module](self).
///
/// # Errors
///
/// A shape that does not fit its values, a value that is not finite or does not fit fp16 where the
/// format has fp16, a name that occurs twice, and sizes beyond the limits of the format.
///
/// # Example
///
/// ```
/// use backslash_quant::golf::{FloatTensor, export_int8_zlib, import_int8_zlib};
///
/// let values: Vec<f32> = (0..512 * 256).map(|i| (i % 17) as f32 / 127.0).collect();
/// let tensor = FloatTensor { name: "mlp.fc.weight", shape: &[512, 256], values: &values };
/// let export = export_int8_zlib(&[tensor])?;
/// assert_eq!(export.payload_bytes, 512 * 256 + 512 * 2);
///
/// let decoded = import_int8_zlib(&export.bytes)?;
/// assert!((decoded[0].values[16] - 16.0 / 127.0).abs() < 1e-4);
/// # Ok::<(), backslash_quant::golf::GolfError>(())
/// ```
pub fn export_int8_zlib(tensors: &[FloatTensor<'_>]) -> Result<GolfExport, GolfError> {
    export(tensors, |tensor| tensor.values.len() > MAX_KEPT_ELEMENTS)
}

/// Exports `tensors` with int8 rows for every matrix but the control tensors, however small, and
/// the original's rules for the rest: see the [module](self).
///
/// # Errors
///
/// As [`export_int8_zlib`].
pub fn export_int8_zlib_all_matrices(tensors: &[FloatTensor<'_>]) -> Result<GolfExport, GolfError> {
    export(tensors, |tensor| {
        let small_matrix =
            tensor.shape.len() == 2 && !tensor.values.is_empty() && !is_control(tensor.name);
        small_matrix || tensor.values.len() > MAX_KEPT_ELEMENTS
    })
}

/// Reads a file of [`export_int8_zlib`] or [`export_int8_zlib_all_matrices`] and dequantises it.
///
/// The decoded values take at most 512 MiB whatever the file claims, and nothing is reserved before
/// it was read.
///
/// # Errors
///
/// [`GolfError::Corrupt`] for bytes that are cut, altered or not of this format,
/// [`GolfError::TooLarge`] for a file beyond its limits.
pub fn import_int8_zlib(bytes: &[u8]) -> Result<Vec<DecodedTensor>, GolfError> {
    Ok(decoded(container::read_zlib(bytes)?))
}

fn decoded(tensors: Vec<container::NamedTensor>) -> Vec<DecodedTensor> {
    let decoded = tensors.into_iter().map(|(name, shape, stored)| DecodedTensor {
        values: dequantise(stored, &shape),
        name,
        shape,
    });
    decoded.collect()
}

fn export(
    tensors: &[FloatTensor<'_>],
    is_quantised: impl Fn(&FloatTensor<'_>) -> bool,
) -> Result<GolfExport, GolfError> {
    let mut stored = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        check(tensor)?;
        stored.push(if is_quantised(tensor) { quantise(tensor)? } else { keep(tensor)? });
    }
    let payload_bytes = stored.iter().map(payload_bytes).sum();
    let bytes = container::write_zlib(tensors, &stored)?;
    Ok(GolfExport { bytes, payload_bytes })
}

fn check(tensor: &FloatTensor<'_>) -> Result<(), GolfError> {
    let count = tensor.shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    if count != Some(tensor.values.len()) {
        return Err(GolfError::Shape {
            name: tensor.name.to_owned(),
            shape: tensor.shape.to_vec(),
            count: tensor.values.len(),
        });
    }
    match tensor.values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(GolfError::NotFinite {
            name: tensor.name.to_owned(),
            index,
            value: tensor.values[index],
        }),
        None => Ok(()),
    }
}

fn is_control(name: &str) -> bool {
    CONTROL_NAMES.iter().any(|pattern| name.contains(pattern))
}

fn keep(tensor: &FloatTensor<'_>) -> Result<Stored, GolfError> {
    if is_control(tensor.name) {
        return Ok(Stored::Float(tensor.values.to_vec()));
    }
    let halves: Result<Vec<f16>, GolfError> =
        tensor.values.iter().map(|&value| finite_half(tensor.name, value)).collect();
    Ok(Stored::Half(halves?))
}

fn quantise(tensor: &FloatTensor<'_>) -> Result<Stored, GolfError> {
    let &[rows, columns] = tensor.shape else {
        let clip = clip_magnitude(&mut magnitudes(tensor.values));
        // The original divides in double precision here.
        let scale = if clip > 0.0 { (f64::from(clip) / 127.0) as f32 } else { 1.0 };
        return Ok(Stored::Whole { codes: codes(tensor.values, clip, scale), scale });
    };
    let mut all_codes = Vec::with_capacity(tensor.values.len());
    let mut scales = Vec::with_capacity(rows);
    for row in tensor.values.chunks_exact(columns) {
        let clip = clip_magnitude(&mut magnitudes(row));
        let scale = (clip / MAX_CODE).max(1.0 / MAX_CODE);
        all_codes.extend(codes(row, clip, scale));
        scales.push(finite_half(tensor.name, scale)?);
    }
    Ok(Stored::Rows { codes: all_codes, scales })
}

fn codes(values: &[f32], clip: f32, scale: f32) -> Vec<i8> {
    let code = |value: &f32| {
        (value.clamp(-clip, clip) / scale).round_ties_even().clamp(-MAX_CODE, MAX_CODE) as i8
    };
    values.iter().map(code).collect()
}

fn magnitudes(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| value.abs()).collect()
}

/// The [`CLIP_QUANTILE`] of `magnitudes` with linear interpolation, in fp32 throughout as
/// `torch.quantile` does it; reorders its input, which must not be empty.
fn clip_magnitude(magnitudes: &mut [f32]) -> f32 {
    let rank = CLIP_QUANTILE * (magnitudes.len() - 1) as f32;
    let weight = rank - rank.floor();
    let (smaller, &mut above, _) =
        magnitudes.select_nth_unstable_by(rank.ceil() as usize, f32::total_cmp);
    if weight == 0.0 {
        return above;
    }
    let below = smaller.iter().copied().fold(0.0, f32::max);
    // The two forms of `torch.lerp`.
    if weight < 0.5 {
        below + weight * (above - below)
    } else {
        above - (above - below) * (1.0 - weight)
    }
}

fn finite_half(name: &str, value: f32) -> Result<f16, GolfError> {
    let half = f16::from_f32(value);
    if half.is_finite() {
        Ok(half)
    } else {
        Err(GolfError::BeyondHalf { name: name.to_owned(), value })
    }
}

fn payload_bytes(stored: &Stored) -> u64 {
    let bytes = match stored {
        Stored::Float(values) => values.len() * 4,
        Stored::Half(values) => values.len() * 2,
        Stored::Rows { codes, scales } => codes.len() + scales.len() * 2,
        Stored::Whole { codes, .. } => codes.len() + 4,
    };
    bytes as u64
}

fn dequantise(stored: Stored, shape: &[usize]) -> Vec<f32> {
    match stored {
        Stored::Float(values) => values,
        Stored::Half(values) => values.iter().map(|value| value.to_f32()).collect(),
        Stored::Rows { codes, scales } => codes
            .chunks_exact(shape[1])
            .zip(scales)
            .flat_map(|(row, scale)| row.iter().map(move |&code| f32::from(code) * scale.to_f32()))
            .collect(),
        Stored::Whole { codes, scale } => {
            codes.iter().map(|&code| f32::from(code) * scale).collect()
        }
    }
}

#[cfg(test)]
mod tests;
