//! SDClip: steps relative to the standard deviation of each row.

use half::f16;

use super::{DecodedTensor, FloatTensor, GolfError, GolfExport, Stored, container};
use super::{check, decoded, finite_half, is_control, keep, payload_bytes};

/// Scale of a row whose deviation vanishes in fp16.
const SCALE_WITHOUT_DEVIATION: f16 = f16::ONE;

/// Width and clip of the codes of a matrix, as in the records of Parameter Golf from pull request 1394 on.
///
/// With b bits and clip k a row of standard deviation σ (over n − 1) has the step s = k·σ/(2^(b−1) − 1), stored
/// in fp16, and codes round(w/s) within ±(2^(b−1) − 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SdClip {
    /// Bits of a code, 2 to 8.
    pub bits: u32,
    /// Clip in standard deviations of the row.
    pub clip: f32,
}

impl SdClip {
    /// The records' setting for matrices: int6 at 12.85 deviations.
    pub const MATRIX: Self = Self { bits: 6, clip: 12.85 };
    /// The records' setting for embeddings: int8 at 20 deviations.
    pub const EMBEDDING: Self = Self { bits: 8, clip: 20.0 };
}

/// Exports every matrix but the control tensors by SDClip with nearest codes, and the rest in fp16, control
/// tensors in fp32; then shuffles the bytes and compresses them with brotli at quality 11.
///
/// The originals take GPTQ's codes in place of the nearest ones and leave matrices of up to 65,536 elements
/// in fp16, which in a small model is nearly every one.
///
/// # Errors
/// As [`export_int8_zlib`](super::export_int8_zlib), and for settings that cannot be.
///
/// ```
/// use backslash_quant::golf::{FloatTensor, SdClip, export_sdclip, import_sdclip};
///
/// let tensor = FloatTensor { name: "w", shape: &[1, 4], values: &[1.0, -1.0, 1.0, -1.0] };
/// let export = export_sdclip(&[tensor], |_| SdClip { bits: 6, clip: 3.1 })?;
/// let step = 0.1 * (4.0_f32 / 3.0).sqrt();
/// let decoded = import_sdclip(&export.bytes)?;
/// assert!((decoded[0].values[0] - 9.0 * step).abs() < 1e-3);
/// # Ok::<(), backslash_quant::golf::GolfError>(())
/// ```
pub fn export_sdclip(
    tensors: &[FloatTensor<'_>],
    setting: impl Fn(&FloatTensor<'_>) -> SdClip,
) -> Result<GolfExport, GolfError> {
    let mut stored = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        check(tensor)?;
        let is_matrix =
            tensor.shape.len() == 2 && !tensor.values.is_empty() && !is_control(tensor.name);
        stored.push(if is_matrix { rows(tensor, setting(tensor))? } else { keep(tensor)? });
    }
    let payload_bytes = stored.iter().map(payload_bytes).sum();
    Ok(GolfExport { bytes: container::write_brotli(tensors, &stored)?, payload_bytes })
}

/// Reads a file of [`export_sdclip`] and dequantises it.
///
/// The stream has no checksum, as the originals have none: changed bytes may go unnoticed.
///
/// # Errors
/// [`GolfError::Corrupt`] for bytes that are not of this format, [`GolfError::TooLarge`] for a file beyond its
/// limits.
pub fn import_sdclip(bytes: &[u8]) -> Result<Vec<DecodedTensor>, GolfError> {
    Ok(decoded(container::read_brotli(bytes)?))
}

fn rows(tensor: &FloatTensor<'_>, setting: SdClip) -> Result<Stored, GolfError> {
    let SdClip { bits, clip } = setting;
    if !((2..=8).contains(&bits) && clip.is_finite() && clip > 0.0) {
        return Err(GolfError::Setting { name: tensor.name.to_owned(), bits, clip });
    }
    let largest = ((1_u32 << (bits - 1)) - 1) as f32;
    let mut codes = Vec::with_capacity(tensor.values.len());
    let mut scales = Vec::with_capacity(tensor.shape[0]);
    for row in tensor.values.chunks_exact(tensor.shape[1]) {
        let mut scale = finite_half(tensor.name, clip * deviation(row) / largest)?;
        if scale == f16::ZERO {
            scale = SCALE_WITHOUT_DEVIATION;
        }
        let step = scale.to_f32();
        codes.extend(
            row.iter().map(|w| (w / step).round_ties_even().clamp(-largest, largest) as i8),
        );
        scales.push(scale);
    }
    Ok(Stored::Rows { codes, scales })
}

/// Standard deviation over n − 1; 0 for one value.
fn deviation(row: &[f32]) -> f32 {
    let count = row.len() as f64;
    let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let squares: f64 = row.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
    (squares / (count - 1.0).max(1.0)).sqrt() as f32
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    fn gaussian(count: usize, seed: u64) -> Vec<f32> {
        let mut random = rand_pcg::Pcg64::seed_from_u64(seed);
        StandardNormal.sample_iter(&mut random).take(count).collect()
    }

    /// Published: Gaussian weights at int6, k = 12.85 have an entropy of 3.328 bits, a distortion of 0.0143 of
    /// their variance, and take 1.4 % more than the entropy under brotli-11; at int8, k = 20 4.716 bits and 0.0021.
    #[test]
    fn gaussian_weights_have_the_known_size_and_distortion() {
        let values: Vec<f32> = gaussian(1024 * 1024, 1).iter().map(|value| 0.07 * value).collect();
        let tensor = FloatTensor { name: "w", shape: &[1024, 1024], values: &values };
        for (setting, bits, loss) in
            [(SdClip::MATRIX, 3.328, 0.0143), (SdClip::EMBEDDING, 4.716, 0.0021)]
        {
            let export = export_sdclip(&[tensor], |_| setting).unwrap();
            let scales = 2.0 * 1024.0;
            let excess = (8.0 * (export.bytes.len() as f64 - scales) / values.len() as f64) / bits;
            assert!((0.995..1.03).contains(&excess), "{setting:?}: {excess}");
            let decoded = import_sdclip(&export.bytes).unwrap().remove(0).values;
            let error = crate::squared_error(&values, &decoded)
                / values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
            assert!((error - loss).abs() < 0.0001, "{setting:?}: {error}");
        }
    }

    #[test]
    fn codes_are_clipped_and_scaling_a_row_changes_none() {
        let mut values = gaussian(64 * 64, 2);
        values[5] = 40.0;
        let setting = SdClip { bits: 4, clip: 2.0 };
        let quantised = |values: &[f32]| {
            let tensor = FloatTensor { name: "w", shape: &[64, 64], values };
            let Stored::Rows { codes, scales } = rows(&tensor, setting).unwrap() else {
                panic!("a matrix has row scales")
            };
            (codes, scales[0].to_f32())
        };
        let (codes, scale) = quantised(&values);
        assert_eq!((codes[5], codes.iter().max()), (7, Some(&7)));
        assert_eq!(codes.iter().min(), Some(&-7));
        assert!((scale - 2.0 * deviation(&values[..64]) / 7.0).abs() < 1e-3 * scale);
        let doubled: Vec<f32> = values.iter().map(|value| 2.0 * value).collect();
        assert_eq!(quantised(&doubled).0, codes);
    }

    #[test]
    fn constant_rows_single_values_and_bad_settings_are_handled() {
        let values = [0.0, 0.0, 3.0, 3.0];
        let tensor = FloatTensor { name: "w", shape: &[2, 2], values: &values };
        let export = export_sdclip(&[tensor], |_| SdClip::MATRIX).unwrap();
        assert_eq!(import_sdclip(&export.bytes).unwrap()[0].values, values);
        let column = FloatTensor { name: "w", shape: &[4, 1], values: &values };
        export_sdclip(&[column], |_| SdClip::MATRIX).unwrap();
        for (bits, clip) in [(1, 2.0), (9, 2.0), (6, 0.0), (6, f32::NAN)] {
            let error = export_sdclip(&[tensor], |_| SdClip { bits, clip });
            assert!(matches!(error, Err(GolfError::Setting { .. })), "{bits} {clip}");
        }
    }

    #[test]
    fn every_cut_is_noticed_and_other_bytes_are_refused() {
        let values = gaussian(30 * 20, 3);
        let control = [0.3, 0.7, 0.1];
        let tensors = [
            FloatTensor { name: "w", shape: &[30, 20], values: &values },
            FloatTensor { name: "q_gain", shape: &[3], values: &control },
        ];
        let bytes = export_sdclip(&tensors, |_| SdClip::MATRIX).unwrap().bytes;
        assert_eq!(import_sdclip(&bytes).unwrap()[1].values, control);
        for length in 0..bytes.len() {
            assert!(import_sdclip(&bytes[..length]).is_err(), "cut to {length} bytes");
        }
        assert!(import_sdclip(&[7; 100]).is_err());
    }
}
