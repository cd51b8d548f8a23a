//! The coding recipe of the BackSlash paper, as a method that ours is compared with.

use backslash_codec::{PaperBits, paper_bits};

use crate::{QuantError, Weights, quantize};

/// The step of all tables of the paper, 2⁻⁸.
pub const PAPER_STEP: f32 = 1.0 / 256.0;

/// What the recipe makes of a model.
#[derive(Clone, Debug)]
pub struct PaperExport {
    /// Bits of all codes together under each code of the paper; the table is counted apart.
    pub bits: PaperBits,
    /// Weights as they are read back, tensor by tensor in the order given.
    pub decoded: Vec<Vec<f32>>,
}

impl PaperExport {
    /// Bytes under the code that the paper recommends, exponential Golomb of order 0, with the table of
    /// values by rank, which its own numbers leave out.
    #[must_use]
    pub fn golomb_bytes(&self) -> u64 {
        (self.bits.exponential_golomb[0] + self.bits.table).div_ceil(8)
    }

    /// Bytes under the Huffman code, with the table of values by rank, from which the lengths are left out.
    #[must_use]
    pub fn huffman_bytes(&self) -> u64 {
        (self.bits.huffman + self.bits.table).div_ceil(8)
    }
}

/// Algorithm 2 of the BackSlash paper (arXiv 2504.16968): all tensors, vectors too, rounded to one step, values
/// ranked by how often they occur in the whole model, and the ranks coded. The paper's step is [`PAPER_STEP`].
///
/// ```
/// use backslash_quant::{PAPER_STEP, Weights, export_as_published};
///
/// let weights = [Weights { name: "w", shape: &[4], data: &[0.0, 0.001, 0.5, 0.0] }];
/// let export = export_as_published(&weights, PAPER_STEP)?;
/// assert_eq!(export.bits.exponential_golomb[0], 3 * 1 + 3);
/// assert_eq!(export.decoded[0], [0.0, 0.0, 0.5, 0.0]);
/// # Ok::<(), backslash_quant::QuantError>(())
/// ```
///
/// # Errors
/// If a weight is not finite, or the step is not positive or too fine for the largest weight.
pub fn export_as_published(weights: &[Weights<'_>], step: f32) -> Result<PaperExport, QuantError> {
    let mut codes = Vec::new();
    let mut decoded = Vec::with_capacity(weights.len());
    for tensor in weights {
        let quantized = quantize(tensor.name, tensor.shape, tensor.data, step)?;
        decoded.push(quantized.codes.iter().map(|code| *code as f32 * step).collect());
        codes.extend(quantized.codes);
    }
    Ok(PaperExport { bits: paper_bits(&codes), decoded })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_whole_model() {
        let first: Vec<f32> = [0, 0, 0, 5].map(|code| code as f32 / 256.0).to_vec();
        let second: Vec<f32> = [5, 5, 5, 5, -2].map(|code| code as f32 / 256.0).to_vec();
        let weights = [
            Weights { name: "a", shape: &[2, 2], data: &first },
            Weights { name: "b", shape: &[5], data: &second },
        ];
        let export = export_as_published(&weights, PAPER_STEP).unwrap();
        // 5 has rank 0 and one bit, 0 and −2 ranks 1 and 2 and three bits.
        assert_eq!(export.bits.exponential_golomb[0], 5 + 3 * 4);
        assert_eq!(export.bits.table, 3 * 16);
        assert_eq!(export.golomb_bytes(), (17_u64 + 48).div_ceil(8));
        assert_eq!(export.huffman_bytes(), (5_u64 + 2 * 4 + 48).div_ceil(8));
        assert_eq!(export.decoded, [first, second]);
    }

    #[test]
    fn a_nan_is_named() {
        let weights = [Weights { name: "bias", shape: &[2], data: &[0.0, f32::NAN] }];
        let error = export_as_published(&weights, PAPER_STEP).unwrap_err().to_string();
        assert!(error.contains("`bias` holds NaN at index 1"), "{error}");
    }
}
