//! The quantised tensor and the one place that turns its codes back into weights.

use crate::error::CodecError;
use crate::origin::Origin;
use crate::shape::{element_count, matrix_shape};
use crate::trellis::Indices;

/// How an integer code is turned into a real number before the step is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconstruction {
    /// The code itself: r(q) = q.
    Uniform,
    /// Shrunk towards zero by n/256: r(q) = sign(q)·(|q| − n/256), and r(0) = 0. The centroid of a
    /// cell of a peaked density lies nearer to zero than its middle.
    Shrink(u8),
}

impl Reconstruction {
    /// The real number, in units of the step, that stands for `code`.
    ///
    /// ```
    /// use backslash_codec::Reconstruction;
    /// assert_eq!(Reconstruction::Uniform.value(-3), -3.0);
    /// assert_eq!(Reconstruction::Shrink(64).value(-3), -2.75);
    /// assert_eq!(Reconstruction::Shrink(64).value(0), 0.0);
    /// ```
    #[must_use]
    pub fn value(self, code: i32) -> f32 {
        match self {
            Self::Uniform => code as f32,
            Self::Shrink(_) if code == 0 => 0.0,
            Self::Shrink(n) => {
                let magnitude = code.unsigned_abs() as f32 - f32::from(n) / 256.0;
                if code < 0 { -magnitude } else { magnitude }
            }
        }
    }
}

/// Integer codes of a weight tensor with everything needed to turn them back into weights.
///
/// The tensor is seen as a matrix: a tensor of rank 2 or more has its first dimension as rows and the
/// product of the others as columns; a vector or scalar is a single row.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedTensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// One code per weight, row-major.
    pub codes: Vec<i32>,
    /// Quantiser step Δ.
    pub step: f32,
    /// Optional factor per row.
    pub row_scales: Option<Vec<f32>>,
    /// Optional factor per column.
    pub column_scales: Option<Vec<f32>>,
    /// Rule from code to real number.
    pub reconstruction: Reconstruction,
    /// What is added in the end.
    pub origin: Option<Origin>,
}

impl QuantizedTensor {
    /// Rows of the matrix view.
    #[must_use]
    pub fn rows(&self) -> usize {
        matrix_shape(&self.shape).0
    }

    /// Columns of the matrix view.
    #[must_use]
    pub fn columns(&self) -> usize {
        matrix_shape(&self.shape).1
    }

    /// Weights, row-major: w = ((r(q)·Δ)·row)·column + origin, each product and the sum rounded to f32 (to nearest, ties
    /// to even), absent parts left out. The order is part of the file format.
    ///
    /// # Panics
    ///
    /// When the lengths of codes or scales contradict the shape; [`QuantizedTensor::validate`] tells.
    ///
    /// ```
    /// use backslash_codec::{QuantizedTensor, Reconstruction};
    /// let tensor = QuantizedTensor {
    ///     shape: vec![2, 2],
    ///     codes: vec![1, -2, 0, 3],
    ///     step: 0.5,
    ///     row_scales: Some(vec![1.0, 2.0]),
    ///     column_scales: None,
    ///     reconstruction: Reconstruction::Uniform,
    ///     origin: None,
    /// };
    /// assert_eq!(tensor.dequantize(), [0.5, -1.0, 0.0, 3.0]);
    /// ```
    #[must_use]
    pub fn dequantize(&self) -> Vec<f32> {
        let mut weights = vec![0.0; self.codes.len()];
        self.dequantize_part(0, &self.codes, &mut weights);
        weights
    }

    /// The weights of some codes, the first of which stands at `position`; the tensor's own codes are not
    /// looked at, and may be missing.
    pub(crate) fn dequantize_part(&self, position: usize, codes: &[i32], weights: &mut [f32]) {
        let columns = self.columns();
        if let Some(scales) = &self.column_scales {
            assert_eq!(scales.len(), columns, "one scale per column");
        }
        let mut done = 0;
        while done < codes.len() {
            let (row, column) = ((position + done) / columns, (position + done) % columns);
            let end = codes.len().min(done + columns - column);
            let (codes, weights) = (&codes[done..end], &mut weights[done..end]);
            for (weight, &code) in weights.iter_mut().zip(codes) {
                *weight = self.reconstruction.value(code) * self.step;
            }
            if let Some(scales) = &self.row_scales {
                weights.iter_mut().for_each(|weight| *weight *= scales[row]);
            }
            if let Some(scales) = &self.column_scales {
                for (weight, scale) in weights.iter_mut().zip(&scales[column..]) {
                    *weight *= scale;
                }
            }
            done = end;
        }
        if let Some(origin) = &self.origin {
            let mut start = vec![0.0; weights.len()];
            origin.draw(position as u64, &mut start);
            weights.iter_mut().zip(start).for_each(|(weight, start)| *weight += start);
        }
    }

    /// Entropy of the codes' histogram in bits per weight: what a static table per tensor approaches, its
    /// own size left out. Of codes on a [`trellis`](crate::trellis) it is that of the indices given their quantisers.
    /// A proxy, not a file size.
    #[must_use]
    pub fn entropy_bits(&self) -> f64 {
        let bits = match Indices::of(&self.codes, &self.shape) {
            Some(indices) => {
                [0, 1].map(|quantiser| total_bits(&indices.of_quantiser(quantiser))).iter().sum()
            }
            None => total_bits(&self.codes),
        };
        bits / self.codes.len().max(1) as f64
    }

    /// Checks that codes and scales fit the shape, and that the origin is made of numbers.
    ///
    /// # Errors
    ///
    /// [`CodecError::InvalidArgument`] naming the tensor and what does not fit.
    pub fn validate(&self, name: &str) -> Result<(), CodecError> {
        let expected = element_count(&self.shape).ok_or_else(|| {
            CodecError::invalid(name, "the shape has more elements than memory can hold")
        })?;
        if let Some(origin) = self.origin.filter(|origin| !origin.is_finite()) {
            let bound = origin.bound;
            return Err(CodecError::invalid(name, format!("an origin uniform in ±{bound}")));
        }
        let mut lengths = vec![("codes", self.codes.len(), expected)];
        if let Some(scales) = &self.row_scales {
            lengths.push(("row scales", scales.len(), self.rows()));
        }
        if let Some(scales) = &self.column_scales {
            lengths.push(("column scales", scales.len(), self.columns()));
        }
        for (what, found, expected) in lengths {
            if found != expected {
                let shape = &self.shape;
                return Err(CodecError::invalid(
                    name,
                    format!("{found} {what} for shape {shape:?}, which needs {expected}"),
                ));
            }
        }
        Ok(())
    }
}

/// Entropy of a histogram times the number of codes.
fn total_bits(codes: &[i32]) -> f64 {
    let mut counts = std::collections::BTreeMap::new();
    for &code in codes {
        *counts.entry(code).or_insert(0_u64) += 1;
    }
    let total = codes.len() as f64;
    counts.values().map(|&count| count as f64 * libm::log2(total / count as f64)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_apply_in_the_specified_order() {
        let tensor = QuantizedTensor {
            shape: vec![2, 3],
            codes: vec![1, 2, 3, -4, -5, i32::MIN],
            step: 0.1,
            row_scales: Some(vec![0.3, 7.7]),
            column_scales: Some(vec![1.1, 0.9, 3.3]),
            reconstruction: Reconstruction::Shrink(25),
            origin: None,
        };
        let weights = tensor.dequantize();
        let code = 5.0_f32 - 25.0 / 256.0;
        assert_eq!(weights[4], -(((code * 0.1) * 7.7) * 0.9));
        assert_eq!(weights[5], (((-2147483648.0_f32) * 0.1) * 7.7) * 3.3);
        assert!(tensor.validate("t").is_ok());
        // The origin is added last, in any part of the tensor.
        let origin = Origin { seed: 5, stream: 6, bound: 0.25 };
        let mut start = [0.0; 6];
        origin.draw(0, &mut start);
        let moved = QuantizedTensor { origin: Some(origin), ..tensor };
        let expected: Vec<f32> = weights.iter().zip(start).map(|(w, start)| w + start).collect();
        assert_eq!(moved.dequantize(), expected);
        let mut part = [0.0; 3];
        moved.dequantize_part(2, &moved.codes[2..5], &mut part);
        assert_eq!(part, expected[2..5]);
    }

    #[test]
    fn wrong_lengths_name_the_tensor() {
        let tensor = QuantizedTensor {
            shape: vec![2, 3],
            codes: vec![0; 6],
            step: 1.0,
            row_scales: Some(vec![1.0; 3]),
            column_scales: None,
            reconstruction: Reconstruction::Uniform,
            origin: None,
        };
        let message = tensor.validate("layer.weight").unwrap_err().to_string();
        assert!(message.contains("layer.weight") && message.contains("row scales"), "{message}");
        let origin = Some(Origin { seed: 0, stream: 0, bound: f32::NAN });
        let tensor = QuantizedTensor { row_scales: None, origin, ..tensor };
        let message = tensor.validate("layer.weight").unwrap_err().to_string();
        assert!(message.contains("layer.weight") && message.contains("NaN"), "{message}");
    }

    #[test]
    fn empty_and_scalar_shapes() {
        for (shape, rows, columns) in [
            (vec![], 1, 1),
            (vec![5], 1, 5),
            (vec![0, 4], 0, 4),
            (vec![3, 0], 3, 0),
            (vec![2, 3, 4], 2, 12),
        ] {
            assert_eq!(matrix_shape(&shape), (rows, columns));
        }
    }
}
