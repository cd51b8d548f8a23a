//! Tensors kept verbatim: float tensors that stay floats, and any other safetensors type.

use half::{bf16, f16};

use crate::error::CodecError;
use crate::shape::element_count;

/// Element type of a verbatim tensor: the types of the safetensors format that fill whole bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
#[rustfmt::skip]
pub enum FloatType { F32, F16, BF16, F64, F8E4M3, F8E5M2, F8E8M0, I8, I16, I32, I64, U8, U16, U32, U64, Bool, C64 }

/// The wire order: a type's place in this list is its number in the file.
#[rustfmt::skip]
const TYPES: [(FloatType, &str, usize); 17] = [
    (FloatType::F32, "F32", 4), (FloatType::F16, "F16", 2), (FloatType::BF16, "BF16", 2), (FloatType::F64, "F64", 8),
    (FloatType::F8E4M3, "F8_E4M3", 1), (FloatType::F8E5M2, "F8_E5M2", 1), (FloatType::F8E8M0, "F8_E8M0", 1),
    (FloatType::I8, "I8", 1), (FloatType::I16, "I16", 2), (FloatType::I32, "I32", 4), (FloatType::I64, "I64", 8),
    (FloatType::U8, "U8", 1), (FloatType::U16, "U16", 2), (FloatType::U32, "U32", 4), (FloatType::U64, "U64", 8),
    (FloatType::Bool, "BOOL", 1), (FloatType::C64, "C64", 8),
];

impl FloatType {
    /// Bytes per element.
    #[must_use]
    pub fn bytes(self) -> usize {
        TYPES[self as usize].2
    }

    /// Name in the safetensors format, such as `BF16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        TYPES[self as usize].1
    }

    /// Whether the elements are weights: floats of 32 or 16 bits.
    #[must_use]
    pub fn is_of_weights(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// The type of that safetensors name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|entry| entry.1 == name).map(|entry| entry.0)
    }

    pub(crate) fn from_wire(number: u8) -> Option<Self> {
        TYPES.get(usize::from(number)).map(|entry| entry.0)
    }
}

/// A tensor stored bit for bit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: FloatType,
    /// Elements, row-major, little endian.
    pub bytes: Vec<u8>,
}

impl RawTensor {
    /// Stores values as bf16, rounded to nearest, ties to even.
    ///
    /// ```
    /// use backslash_codec::RawTensor;
    /// let tensor = RawTensor::from_f32_as_bf16(vec![2], &[1.0, -0.5]);
    /// assert_eq!(tensor.to_f32("norm").unwrap(), [1.0, -0.5]);
    /// ```
    #[must_use]
    pub fn from_f32_as_bf16(shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
        Self { shape, dtype: FloatType::BF16, bytes }
    }

    /// Stores values as f16, rounded to nearest, ties to even.
    #[must_use]
    pub fn from_f32_as_f16(shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        Self { shape, dtype: FloatType::F16, bytes }
    }

    /// Stores values exactly.
    #[must_use]
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|&value| value.to_le_bytes()).collect();
        Self { shape, dtype: FloatType::F32, bytes }
    }

    /// The elements as f32; exact for F32, F16 and BF16, rounded for F64.
    ///
    /// # Errors
    ///
    /// [`CodecError::InvalidArgument`] when the type is not a plain float of 16 bits or more.
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>, CodecError> {
        let elements = self.bytes.chunks_exact(self.dtype.bytes());
        Ok(match self.dtype {
            FloatType::F32 => {
                elements.map(|e| f32::from_le_bytes(e.try_into().expect("4 bytes"))).collect()
            }
            FloatType::F16 => elements
                .map(|e| f16::from_le_bytes(e.try_into().expect("2 bytes")).to_f32())
                .collect(),
            FloatType::BF16 => elements
                .map(|e| bf16::from_le_bytes(e.try_into().expect("2 bytes")).to_f32())
                .collect(),
            FloatType::F64 => elements
                .map(|e| f64::from_le_bytes(e.try_into().expect("8 bytes")) as f32)
                .collect(),
            other => {
                let problem = format!(
                    "type {} does not convert to f32; F64, F32, F16 and BF16 do",
                    other.name()
                );
                return Err(CodecError::invalid(name, problem));
            }
        })
    }

    /// Checks that the bytes fit shape and type.
    ///
    /// # Errors
    ///
    /// [`CodecError::InvalidArgument`] naming the tensor.
    pub fn validate(&self, name: &str) -> Result<(), CodecError> {
        let expected =
            element_count(&self.shape).and_then(|count| count.checked_mul(self.dtype.bytes()));
        if expected == Some(self.bytes.len()) {
            return Ok(());
        }
        let (shape, dtype, found) = (&self.shape, self.dtype.name(), self.bytes.len());
        Err(CodecError::invalid(
            name,
            format!("{found} bytes do not fit shape {shape:?} of type {dtype}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_numbers_follow_the_declaration() {
        for (number, entry) in TYPES.iter().enumerate() {
            assert_eq!(entry.0 as usize, number);
            assert_eq!(FloatType::from_name(entry.0.name()), Some(entry.0));
            assert_eq!(FloatType::from_wire(number as u8), Some(entry.0));
        }
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        let tensor = RawTensor::from_f32_as_bf16(vec![2], &[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]);
        assert_eq!(tensor.to_f32("t").unwrap(), [1.0, 1.0 + 4.0 / 256.0]);
    }
}
