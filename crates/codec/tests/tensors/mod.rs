//! A tensor of nothing but codes for several tests.

use backslash_codec::{QuantizedTensor, Reconstruction};

/// These codes at a step of ½, without scales or an origin.
pub fn tensor(shape: &[usize], codes: Vec<i32>) -> QuantizedTensor {
    QuantizedTensor {
        shape: shape.to_vec(),
        codes,
        step: 0.5,
        row_scales: None,
        column_scales: None,
        reconstruction: Reconstruction::Uniform,
        origin: None,
    }
}
