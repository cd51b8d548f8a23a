//! Tensors as Python hands them over: bytes with the name of their type.

use std::borrow::Cow;
use std::collections::BTreeMap;

use backslash_codec::{FloatType, RawTensor, Tensor};
use backslash_quant::{Plan, Weights, is_coded, quantize_pieces, store_uncoded};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::errors::{self, InvalidTensorError};

/// Values that are floats in memory at a time.
const PIECE: usize = 1 << 18;

/// Name, safetensors type, shape and the bytes of the elements, row-major and little endian.
pub(crate) type Given<'py> = (String, String, Vec<usize>, PyReadonlyArray1<'py, u8>);

/// A tensor that borrows the bytes of an array.
pub(crate) struct Input<'a> {
    pub(crate) name: &'a str,
    pub(crate) shape: &'a [usize],
    dtype: FloatType,
    pub(crate) bytes: &'a [u8],
}

/// The tensors by name, as files list them.
pub(crate) fn sorted<'a>(given: &'a [Given<'_>]) -> PyResult<Vec<Input<'a>>> {
    let mut inputs = given.iter().map(Input::of).collect::<PyResult<Vec<_>>>()?;
    inputs.sort_by_key(|input| input.name);
    Ok(inputs)
}

impl<'a> Input<'a> {
    pub(crate) fn of((name, dtype, shape, bytes): &'a Given<'_>) -> PyResult<Self> {
        let dtype = FloatType::from_name(dtype).ok_or_else(|| {
            InvalidTensorError::new_err(format!(
                "tensor `{name}` is of type {dtype}, which cannot be stored"
            ))
        })?;
        let bytes = bytes.as_slice()?;
        let elements = shape.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent));
        if elements.and_then(|count| count.checked_mul(dtype.bytes())) != Some(bytes.len()) {
            return Err(InvalidTensorError::new_err(format!(
                "tensor `{name}`: {} bytes do not fit shape {shape:?} of type {}",
                bytes.len(),
                dtype.name()
            )));
        }
        Ok(Self { name, shape, dtype, bytes })
    }

    /// Whether the elements are weights: of the other types all are kept as they are.
    pub(crate) fn is_float(&self) -> bool {
        self.dtype.is_of_weights()
    }

    /// The weights, without a copy where they are F32 already.
    pub(crate) fn weights(&self) -> Cow<'a, [f32]> {
        match bytemuck::try_cast_slice(self.bytes) {
            Ok(weights) if self.dtype == FloatType::F32 => Cow::Borrowed(weights),
            _ => Cow::Owned(self.widened(self.bytes)),
        }
    }

    /// The bytes as they are.
    pub(crate) fn verbatim(&self) -> Tensor {
        let (shape, bytes) = (self.shape.to_vec(), self.bytes.to_vec());
        Tensor::Raw(RawTensor { shape, dtype: self.dtype, bytes })
    }

    /// What a file holds of the tensor where its step is `factor` times its root mean square: floats quantised or as
    /// BF16, everything else verbatim.
    pub(crate) fn by_factor(&self, factor: f32) -> PyResult<Tensor> {
        let Self { name, shape, bytes, .. } = *self;
        if !self.is_float() {
            return Ok(self.verbatim());
        }
        if !is_coded(shape) {
            let stored = store_uncoded(name, shape, &self.weights()).map_err(errors::quant)?;
            return Ok(Tensor::Raw(stored));
        }
        let quantized = quantize_pieces(name, shape, factor, |sink| {
            bytes
                .chunks(PIECE * self.dtype.bytes())
                .try_for_each(|piece| sink(&self.widened(piece)))
        });
        Ok(Tensor::Quantized(quantized.map_err(errors::quant)?))
    }

    /// What a file holds of the tensor where its codes are multiples of `step`. One that is not coded needs none.
    pub(crate) fn by_step(&self, step: Option<f32>) -> PyResult<Tensor> {
        if !self.is_float() {
            return Ok(self.verbatim());
        }
        let weights = self.weights();
        let view = Weights { name: self.name, shape: self.shape, data: &weights };
        let steps = step.map(|step| (self.name.to_owned(), step));
        let plan = Plan::learned(steps.into_iter().collect());
        let artifact = plan.artifact(&[view], &BTreeMap::new()).map_err(errors::quant)?;
        Ok(artifact.tensors.into_values().next().expect("one tensor went in"))
    }

    fn widened(&self, bytes: &[u8]) -> Vec<f32> {
        let halves = || bytes.as_chunks::<2>().0.iter();
        match self.dtype {
            FloatType::F16 => halves().map(|e| half::f16::from_le_bytes(*e).to_f32()).collect(),
            FloatType::BF16 => halves().map(|e| half::bf16::from_le_bytes(*e).to_f32()).collect(),
            _ => bytes.as_chunks::<4>().0.iter().map(|e| f32::from_le_bytes(*e)).collect(),
        }
    }
}
