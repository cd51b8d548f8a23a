//! What a `.bsl` file holds: named tensors and opaque metadata.

use std::collections::BTreeMap;

use crate::error::CodecError;
use crate::quantized::QuantizedTensor;
use crate::raw::RawTensor;

/// One named tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Tensor {
    /// Integer codes with a step; entropy coded.
    Quantized(QuantizedTensor),
    /// Stored bit for bit.
    Raw(RawTensor),
}

impl Tensor {
    /// Dimensions, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Quantized(tensor) => &tensor.shape,
            Self::Raw(tensor) => &tensor.shape,
        }
    }

    /// The weights, row-major: of codes those that they stand for.
    ///
    /// # Errors
    ///
    /// Those of [`RawTensor::to_f32`], in which `name` is named.
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>, CodecError> {
        match self {
            Self::Quantized(tensor) => Ok(tensor.dequantize()),
            Self::Raw(tensor) => tensor.to_f32(name),
        }
    }
}

/// Everything one file holds. The maps are sorted, so equal content means equal bytes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Artifact {
    /// Opaque values by key: model configuration, tokenizer, provenance.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}
