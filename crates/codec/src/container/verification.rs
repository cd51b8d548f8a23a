//! Whether a file is whole, and whether it holds given weights.

use super::codes::Effort;
use super::reader::{Limits, decode};
use super::writer::encode_with;
use crate::artifact::Tensor;
use crate::error::CodecError;

/// What verification found in a file that decodes with all checksums and the content hash right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Tensors in the file.
    pub tensors: usize,
    /// Metadata values in the file.
    pub metadata: usize,
    /// Weights in the file.
    pub weights: u64,
    /// The effort with which this build encodes the content to the same bytes; `None` when it does not,
    /// which is no damage: another version of the encoder may have written the file.
    pub canonical: Option<Effort>,
}

/// Decodes a file, checking checksums, content hash and every rule of the format, and encodes it again.
///
/// # Errors
///
/// Those of [`decode`].
pub fn verify(file: &[u8], limits: &Limits) -> Result<Verification, CodecError> {
    let artifact = decode(file, limits)?;
    let mut canonical = None;
    for effort in [Effort::Fast, Effort::Smallest] {
        if canonical.is_none() && encode_with(&artifact, effort)? == file {
            canonical = Some(effort);
        }
    }
    let elements =
        artifact.tensors.values().map(|tensor| tensor.shape().iter().product::<usize>() as u64);
    Ok(Verification {
        tensors: artifact.tensors.len(),
        metadata: artifact.metadata.len(),
        weights: elements.sum(),
        canonical,
    })
}

/// Names of the tensors of a file that differ from `expected` in value after dequantisation, or exist on
/// one side only. `expected` gives the weights of a name as f32, or `None` when it has no such tensor.
///
/// # Errors
///
/// Those of [`decode`], and [`CodecError::InvalidArgument`] for a verbatim tensor that is not a float.
pub fn differences(
    file: &[u8],
    limits: &Limits,
    expected: impl Fn(&str) -> Option<Vec<f32>>,
) -> Result<Vec<String>, CodecError> {
    let artifact = decode(file, limits)?;
    let mut different = Vec::new();
    for (name, tensor) in &artifact.tensors {
        let found = match tensor {
            Tensor::Quantized(tensor) => tensor.dequantize(),
            Tensor::Raw(tensor) => tensor.to_f32(name)?,
        };
        let same = |expected: Vec<f32>| {
            expected.len() == found.len()
                && expected
                    .iter()
                    .zip(&found)
                    .all(|(left, right)| left.to_bits() == right.to_bits())
        };
        if !expected(name).is_some_and(same) {
            different.push(name.clone());
        }
    }
    Ok(different)
}
