//! Which tensors are coded, at which steps.

use std::borrow::Cow;
use std::collections::BTreeMap;

use backslash_codec::{Artifact, Origin, QuantizedTensor, RawTensor, Tensor};
use backslash_rate::Moments;
use multiversion::multiversion;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{QuantError, quantize, quantize_to_centroids, quantize_with_dead_zone};

/// Fewest elements of a matrix that is worth a probability table of its own.
const LEAST_CODED_ELEMENTS: usize = 4096;
/// As many, of a matrix that is not narrow.
const LEAST_IN_MATRIX: usize = 1024;
/// Rows and columns of a matrix that is not narrow.
const LEAST_EXTENT: usize = 16;

/// A tensor to be compressed.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// Name of the tensor.
    pub name: &'a str,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Values, row-major.
    pub data: &'a [f32],
}

/// Whether a tensor of this shape is quantised; one-dimensional tensors and small ones are stored as BF16: those of fewer
/// than 1,024 weights, and of fewer than 4,096 if they have less than 16 rows or columns, which are rather sets of
/// vectors.
pub fn is_coded(shape: &[usize]) -> bool {
    let (Some(&rows), count) = (shape.first(), shape.iter().product::<usize>()) else {
        return false;
    };
    let matrix = rows >= LEAST_EXTENT && count / LEAST_EXTENT >= rows;
    let least = if matrix { LEAST_IN_MATRIX } else { LEAST_CODED_ELEMENTS };
    shape.len() >= 2 && count >= least
}

/// What a code is read back as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Levels {
    /// Multiples of the step: for weights whose training has seen exactly these.
    #[default]
    Grid,
    /// Near the mean of the weights in each cell: for weights trained without the quantiser.
    Centroids,
}

/// The step of every coded tensor, by name, and what codes are read back as.
///
/// ```
/// use backslash_quant::{Plan, Weights};
///
/// let data = vec![0.5_f32; 64 * 64];
/// let weights = [Weights { name: "w", shape: &[64, 64], data: &data }];
/// assert_eq!(Plan::relative(&weights, 0.5).steps["w"], 0.25);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Step Δ by tensor name.
    pub steps: BTreeMap<String, f32>,
    /// What codes are read back as.
    pub levels: Levels,
    /// Tensors whose codes say how far each weight is from a number that the decoder draws.
    pub origins: BTreeMap<String, Origin>,
    /// Tensors whose rows and columns have steps of their own.
    pub scales: BTreeMap<String, LineScales>,
    /// By how large a share of a step the thresholds of codes on the grid are further from zero, for tensors where they are.
    pub dead_zones: BTreeMap<String, f32>,
}

/// Factors on the step of a matrix: the code in row i and column j is a multiple of Δ·r_i·c_j.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LineScales {
    /// r, by row.
    pub rows: Vec<f32>,
    /// c, by column.
    pub columns: Vec<f32>,
}

impl LineScales {
    /// Multiplies whole rows, of which the first is number `first`, by r_i·c_j.
    ///
    /// # Panics
    /// If there are more rows than scales, or parts of a row.
    pub fn multiply(&self, first: usize, values: &mut [f32]) {
        multiply(self.rows_from(first, values), &self.columns, values);
    }

    /// Divides whole rows, of which the first is number `first`, by r_i·c_j.
    ///
    /// # Panics
    /// As [`LineScales::multiply`].
    pub fn divide(&self, first: usize, values: &mut [f32]) {
        divide(self.rows_from(first, values), &self.columns, values);
    }

    /// Refuses scales that are not one for each row and column of a tensor, or not positive.
    fn check(&self, name: &str, shape: &[usize]) -> Result<(), QuantError> {
        let expected = (shape[0], shape[1..].iter().product());
        let found = (self.rows.len(), self.columns.len());
        let mut all = self.rows.iter().chain(&self.columns);
        match found == expected && all.all(|scale| scale.is_normal() && *scale > 0.0) {
            true => Ok(()),
            false => Err(QuantError::Scales { name: name.to_owned(), found, expected }),
        }
    }

    /// The scales of the rows of `values`.
    fn rows_from(&self, first: usize, values: &[f32]) -> &[f32] {
        let columns = self.columns.len();
        assert!(values.len().is_multiple_of(columns), "whole rows");
        &self.rows[first..first + values.len() / columns]
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn multiply(rows: &[f32], columns: &[f32], values: &mut [f32]) {
    for (values, row) in values.chunks_mut(columns.len()).zip(rows) {
        for (value, column) in values.iter_mut().zip(columns) {
            *value *= row * column;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn divide(rows: &[f32], columns: &[f32], values: &mut [f32]) {
    for (values, row) in values.chunks_mut(columns.len()).zip(rows) {
        for (value, column) in values.iter_mut().zip(columns) {
            *value /= row * column;
        }
    }
}

impl Plan {
    /// The steps that a training with rounding has learned, with the levels it has seen.
    pub fn learned(steps: BTreeMap<String, f32>) -> Self {
        Self { steps, levels: Levels::Grid, ..Self::default() }
    }

    /// The same plan with codes that start from these numbers.
    #[must_use]
    pub fn from_origins(self, origins: BTreeMap<String, Origin>) -> Self {
        Self { origins, ..self }
    }

    /// The same plan with steps of their own for these tensors' rows and columns.
    #[must_use]
    pub fn with_scales(self, scales: BTreeMap<String, LineScales>) -> Self {
        Self { scales, ..self }
    }

    /// The same plan with thresholds further from zero for these tensors.
    #[must_use]
    pub fn with_dead_zones(self, dead_zones: BTreeMap<String, f32>) -> Self {
        Self { dead_zones, ..self }
    }

    /// One step for all tensors.
    pub fn equal(weights: &[Weights<'_>], step: f32) -> Self {
        Self::of(weights, |_| step)
    }

    /// The step of a tensor is `factor` times its root mean square: the same rate for every tensor.
    pub fn relative(weights: &[Weights<'_>], factor: f32) -> Self {
        Self::of(weights, |tensor| relative_step(&Moments::of(tensor.data), factor))
    }

    /// The step of a tensor is `factor` times the square root of its root mean square: between
    /// [`Plan::equal`] and [`Plan::relative`].
    pub fn between(weights: &[Weights<'_>], factor: f32) -> Self {
        Self::of(weights, |tensor| {
            let rms = Moments::of(tensor.data).root_mean_square() as f32;
            if rms.is_normal() { factor * rms.sqrt() } else { 1.0 }
        })
    }

    /// The same plan with every step multiplied by `factor`.
    pub fn scaled(&self, factor: f32) -> Self {
        let steps = self.steps.iter().map(|(name, step)| (name.clone(), factor * step));
        Self { steps: steps.collect(), ..self.clone() }
    }

    fn of(weights: &[Weights<'_>], step: impl Fn(&Weights<'_>) -> f32) -> Self {
        let coded = weights.iter().filter(|tensor| is_coded(tensor.shape));
        let steps = coded.map(|tensor| (tensor.name.to_owned(), step(tensor))).collect();
        Self { steps, levels: Levels::Centroids, ..Self::default() }
    }

    /// Quantises all weights by this plan into the content of a file; `metadata` goes along as it is.
    ///
    /// # Errors
    /// If a weight is not finite, a coded tensor has no step, or a step does not fit its tensor.
    pub fn artifact(
        &self,
        weights: &[Weights<'_>],
        metadata: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Artifact, QuantError> {
        let tensors = weights
            .par_iter()
            .map(|tensor| Ok((tensor.name.to_owned(), self.tensor(tensor)?)))
            .collect::<Result<BTreeMap<_, _>, QuantError>>()?;
        Ok(Artifact { metadata: metadata.clone(), tensors })
    }

    fn tensor(&self, tensor: &Weights<'_>) -> Result<Tensor, QuantError> {
        let Weights { name, shape, data } = *tensor;
        if is_coded(shape) {
            let step = *self
                .steps
                .get(name)
                .ok_or_else(|| QuantError::NoStep { name: name.to_owned() })?;
            let origin = self.origins.get(name).copied();
            let mut data = match origin {
                Some(origin) => Cow::Owned(moved_from(origin, data)),
                None => Cow::Borrowed(data),
            };
            let scales = self.scales.get(name);
            if let Some(scales) = scales {
                scales.check(name, shape)?;
                scales.divide(0, data.to_mut());
            }
            let quantized = match (self.levels, self.dead_zones.get(name)) {
                (Levels::Grid, Some(&zone)) => {
                    quantize_with_dead_zone(name, shape, &data, step, zone)
                }
                (Levels::Grid, None) => quantize(name, shape, &data, step),
                (Levels::Centroids, _) => quantize_to_centroids(name, shape, &data, step),
            }?;
            return Ok(Tensor::Quantized(QuantizedTensor {
                origin,
                row_scales: scales.map(|scales| scales.rows.clone()),
                column_scales: scales.map(|scales| scales.columns.clone()),
                ..quantized
            }));
        }
        Ok(Tensor::Raw(store_uncoded(name, shape, data)?))
    }
}

/// How far weights are from the numbers that an origin draws.
fn moved_from(origin: Origin, weights: &[f32]) -> Vec<f32> {
    let mut start = vec![0.0; weights.len()];
    origin.draw(0, &mut start);
    weights.iter().zip(start).map(|(weight, start)| weight - start).collect()
}

/// A tensor that is not coded, as BF16.
///
/// # Errors
/// If a weight is not finite.
pub fn store_uncoded(name: &str, shape: &[usize], data: &[f32]) -> Result<RawTensor, QuantError> {
    if let Some(index) = data.iter().position(|value| !value.is_finite()) {
        return Err(QuantError::NotFinite { name: name.to_owned(), index, value: data[index] });
    }
    Ok(RawTensor::from_f32_as_bf16(shape.to_vec(), data))
}

/// `factor` times the root mean square of a tensor.
pub(crate) fn relative_step(moments: &Moments, factor: f32) -> f32 {
    let rms = moments.root_mean_square() as f32;
    // A tensor of zeros, or of values that are refused later, takes any step.
    if rms.is_normal() { factor * rms } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_coded_and_the_rest_is_stored() {
        let (matrix, vector) = (vec![0.3_f32; 4096], vec![0.7_f32; 9000]);
        let weights = [
            Weights { name: "matrix", shape: &[64, 64], data: &matrix },
            Weights { name: "vector", shape: &[9000], data: &vector },
            Weights { name: "small", shape: &[2, 8], data: &matrix[..16] },
        ];
        let artifact = Plan::relative(&weights, 0.5).artifact(&weights, &BTreeMap::new()).unwrap();
        assert!(matches!(artifact.tensors["matrix"], Tensor::Quantized(_)));
        assert!(matches!(artifact.tensors["vector"], Tensor::Raw(_)));
        assert!(matches!(artifact.tensors["small"], Tensor::Raw(_)));
    }

    #[test]
    fn dead_zones_move_thresholds_of_their_tensors_alone() {
        let data: Vec<f32> = (0..4096).map(|i| i as f32 / 1024.0 - 2.0).collect();
        let weights = ["a", "b"].map(|name| Weights { name, shape: &[64, 64], data: &data });
        let steps = BTreeMap::from([("a".to_owned(), 1.0), ("b".to_owned(), 1.0)]);
        let plan = Plan::learned(steps).with_dead_zones(BTreeMap::from([("a".to_owned(), 0.125)]));
        let artifact = plan.artifact(&weights, &BTreeMap::new()).unwrap();
        let codes = |name: &str| match &artifact.tensors[name] {
            Tensor::Quantized(tensor) => tensor.codes.clone(),
            Tensor::Raw(_) => panic!("not coded"),
        };
        for ((weight, a), b) in data.iter().zip(codes("a")).zip(codes("b")) {
            let expected = [0.625, 1.625].iter().filter(|least| weight.abs() >= **least).count();
            assert_eq!(a, expected as i32 * weight.signum() as i32, "{weight}");
            assert_eq!(b, weight.round_ties_even() as i32, "{weight}");
        }
    }

    /// Scales take part in the codes and are taken back by the decoder.
    #[test]
    fn rows_and_columns_have_steps_of_their_own() {
        let data: Vec<f32> = (0..4096).map(|i| ((i * 37) % 101) as f32 * 0.01 - 0.5).collect();
        let weights = [Weights { name: "w", shape: &[64, 64], data: &data }];
        let lines = |period: i32| (0..64).map(move |i| 2.0_f32.powi(i % period - 1));
        let scales = LineScales { rows: lines(3).collect(), columns: lines(4).collect() };
        let plan = |scales: LineScales| {
            let steps = BTreeMap::from([("w".to_owned(), 0.1)]);
            Plan::learned(steps).with_scales(BTreeMap::from([("w".to_owned(), scales)]))
        };
        let artifact = plan(scales.clone()).artifact(&weights, &BTreeMap::new()).unwrap();
        let Tensor::Quantized(tensor) = &artifact.tensors["w"] else { panic!("not coded") };
        for (index, (decoded, weight)) in tensor.dequantize().iter().zip(&data).enumerate() {
            let (row, column) = (index / 64, index % 64);
            let step = 0.1 * scales.rows[row] * scales.columns[column];
            let code = tensor.codes[index] as f32;
            assert!((decoded - code * step).abs() < 1e-6, "{row} {column}: {decoded} {code}");
            assert!(
                (decoded - weight).abs() <= 0.5001 * step,
                "{row} {column}: {decoded} {weight}"
            );
        }
        let mut there_and_back = data[2 * 64..].to_vec();
        scales.divide(2, &mut there_and_back);
        scales.multiply(2, &mut there_and_back);
        for (value, expected) in there_and_back.iter().zip(&data[2 * 64..]) {
            assert!((value - expected).abs() < 1e-6, "{value} {expected}");
        }
        let short = LineScales { rows: vec![1.0; 63], ..scales.clone() };
        let negative = LineScales { columns: vec![-1.0; 64], ..scales };
        for wrong in [short, negative] {
            let error = plan(wrong).artifact(&weights, &BTreeMap::new()).unwrap_err();
            assert!(error.to_string().contains("`w`"), "{error}");
        }
    }

    #[test]
    fn a_missing_step_and_a_nan_in_a_vector_are_named() {
        let matrix = vec![0.3_f32; 4096];
        let weights = [Weights { name: "matrix", shape: &[64, 64], data: &matrix }];
        let error = Plan::default().artifact(&weights, &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("`matrix` has no step"));
        let bias = [Weights { name: "bias", shape: &[2], data: &[1.0, f32::NAN] }];
        let error = Plan::default().artifact(&bias, &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("`bias` holds NaN at index 1"));
    }
}
