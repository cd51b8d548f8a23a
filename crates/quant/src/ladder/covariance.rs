//! Second moments of a linear layer's inputs.

use faer::{Accum, Mat, MatMut, MatRef, Par, Side, linalg::matmul::matmul};
use rayon::prelude::*;

use crate::QuantError;

/// Widest layer whose moments are kept: 8 GiB of them.
const MAX_WIDTH: usize = 1 << 15;
/// Rows of inputs that are turned into double precision at a time.
const BLOCK_ROWS: usize = 512;
/// Columns of the moments that one thread updates at a time.
const PANEL: usize = 64;
/// An input is dead if its second moment is below this share of the median.
const DEAD: f64 = 0.001;
/// Largest ridge that is tried, as a share of the mean diagonal.
const MAX_RIDGE: f64 = 10.0;

/// Second moments Σ = E\[x·xᵀ\] of the inputs x of a linear layer, in double precision.
///
/// The squared error that quantised weights Ŵ make in the layer's outputs is tr((W−Ŵ)·Σ·(W−Ŵ)ᵀ) per input.
/// Sums over several texts, shards or threads are gathered apart and merged.
///
/// ```
/// use backslash_quant::Covariance;
///
/// let mut inputs = Covariance::new(2)?;
/// inputs.accumulate(&[1.0, 2.0, 3.0, -4.0])?;
/// assert_eq!(inputs.samples(), 2);
/// assert_eq!(inputs.moment(0, 1), (1.0 * 2.0 + 3.0 * -4.0) / 2.0);
/// # Ok::<(), backslash_quant::QuantError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Covariance {
    width: usize,
    samples: u64,
    /// Σ x·xᵀ, column-major; only the lower triangle is kept up.
    sums: Vec<f64>,
}

/// A damped covariance Σ + ρ·I with its lower Cholesky factor.
pub(crate) struct Metric {
    /// Σ + ρ·I.
    pub matrix: Mat<f64>,
    /// L with L·Lᵀ = Σ + ρ·I.
    pub factor: Mat<f64>,
    /// Inputs that are next to never active.
    pub dead: Vec<bool>,
}

impl Covariance {
    /// No samples yet of inputs of that width.
    ///
    /// # Errors
    /// If the width is above 32,768.
    pub fn new(width: usize) -> Result<Self, QuantError> {
        if width > MAX_WIDTH {
            return Err(QuantError::TooWide { width, limit: MAX_WIDTH });
        }
        Ok(Self { width, samples: 0, sums: vec![0.0; width * width] })
    }

    /// The moments of independent inputs of unit variance.
    ///
    /// # Errors
    /// As [`Covariance::new`].
    pub fn identity(width: usize) -> Result<Self, QuantError> {
        let mut identity = Self::new(width)?;
        identity.samples = 1;
        (0..width).for_each(|input| identity.sums[input * width + input] = 1.0);
        Ok(identity)
    }

    /// Moments that were gathered elsewhere: row-major E\[x·xᵀ\] over `samples` inputs, of which the lower
    /// triangle is read.
    ///
    /// # Errors
    /// If the matrix is not `width`×`width`, an entry is not finite, or a diagonal entry is negative.
    pub fn from_moments(width: usize, samples: u64, moments: &[f64]) -> Result<Self, QuantError> {
        let mut covariance = Self::new(width)?;
        if moments.len() != width * width {
            return Err(QuantError::InputLength { length: moments.len(), width });
        }
        covariance.samples = samples;
        for row in 0..width {
            for column in 0..=row {
                let value = moments[row * width + column];
                if !value.is_finite() || (row == column && value < 0.0) {
                    return Err(QuantError::Moment { row, column, value });
                }
                covariance.sums[column * width + row] = value * samples as f64;
            }
        }
        Ok(covariance)
    }

    /// Adds inputs, one per row of `width` values.
    ///
    /// # Errors
    /// If `rows` does not consist of whole rows, or a value is not finite; nothing is added then.
    pub fn accumulate(&mut self, rows: &[f32]) -> Result<(), QuantError> {
        let width = self.width;
        if rows.is_empty() {
            return Ok(());
        }
        if width == 0 || !rows.len().is_multiple_of(width) {
            return Err(QuantError::InputLength { length: rows.len(), width });
        }
        if let Some(index) = rows.iter().position(|value| !value.is_finite()) {
            let (row, column) = (index / width, index % width);
            return Err(QuantError::InputNotFinite { row, column, value: rows[index] });
        }
        for block in rows.chunks(BLOCK_ROWS * width) {
            let block: Vec<f64> = block.iter().map(|value| f64::from(*value)).collect();
            let inputs = MatRef::from_row_major_slice(&block, block.len() / width, width);
            self.sums.par_chunks_mut(PANEL * width).enumerate().for_each(|(panel, sums)| {
                let columns = sums.len() / width;
                let first = panel * PANEL;
                let sums = MatMut::from_column_major_slice_mut(sums, width, columns);
                let (_, below) = sums.split_at_row_mut(first);
                let left = inputs.subcols(first, width - first).transpose();
                matmul(below, Accum::Add, left, inputs.subcols(first, columns), 1.0, Par::Seq);
            });
        }
        self.samples += (rows.len() / width) as u64;
        Ok(())
    }

    /// Adds the samples of another gathering.
    ///
    /// # Errors
    /// If the widths differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), QuantError> {
        if self.width != other.width {
            return Err(QuantError::Widths { width: self.width, other: other.width });
        }
        self.samples += other.samples;
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, other)| *sum += other);
        Ok(())
    }

    /// The moments (1 − share)·Σ + share·Σ′ of this and another gathering.
    ///
    /// # Errors
    /// If the widths differ, nothing was gathered in one of them, or the share is not from 0 to 1.
    pub fn blended(&self, other: &Self, share: f64) -> Result<Self, QuantError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(QuantError::Setting { what: "share of a covariance", value: share });
        }
        for gathering in [self, other] {
            gathering.mean_diagonal()?;
        }
        let mut sum = self.scaled(1.0 - share);
        let samples = self.samples;
        sum.merge(&other.scaled(share * samples as f64 / other.samples as f64))?;
        Ok(Self { samples, ..sum })
    }

    /// Every moment multiplied by `factor`.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let sums = self.sums.iter().map(|sum| sum * factor).collect();
        Self { sums, ..self.clone() }
    }

    /// Number of inputs of the layer.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of input vectors that were seen.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// E\[x_i·x_j\]; zero before the first sample.
    ///
    /// # Panics
    /// If an index is not below the width.
    #[must_use]
    pub fn moment(&self, i: usize, j: usize) -> f64 {
        assert!(i < self.width && j < self.width, "inputs {i} and {j} of {}", self.width);
        self.sums[i.min(j) * self.width + i.max(j)] / self.samples.max(1) as f64
    }

    /// E\[x_i²\] of every input.
    #[must_use]
    pub fn diagonal(&self) -> Vec<f64> {
        (0..self.width).map(|input| self.moment(input, input)).collect()
    }

    /// Which inputs are dead: E\[x_i²\] below a thousandth of the median. Not of the mean, which a few
    /// outlying features can raise above all others.
    #[must_use]
    pub fn dead_inputs(&self) -> Vec<bool> {
        let diagonal = self.diagonal();
        let mut sorted = diagonal.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let median = sorted.get(self.width / 2).copied().unwrap_or(0.0);
        diagonal.iter().map(|square| *square < DEAD * median).collect()
    }

    /// I + `weight`·Σ/(mean of the diagonal): the metric of an embedding that is also the output head.
    ///
    /// As an embedding its rows are read as they are, so their plain squared error counts; as a head they
    /// are multiplied with the final hidden state, whose moments are Σ.
    ///
    /// # Errors
    /// If nothing was gathered, or `weight` is negative or not finite.
    pub fn identity_plus(&self, weight: f64) -> Result<Self, QuantError> {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(QuantError::Setting { what: "weight of the covariance", value: weight });
        }
        let mean = self.mean_diagonal()?;
        let mut sum = self.scaled(weight / mean);
        for input in 0..self.width {
            sum.sums[input * self.width + input] += self.samples as f64;
        }
        Ok(sum)
    }

    /// Geometric mean of the squared pivots L_ii² of the damped covariance, that is |Σ + ρ·I|^(1/width): the
    /// distortion per weight that error feedback meets where plain rounding meets the mean of the diagonal.
    ///
    /// # Errors
    /// If nothing was gathered, or there is no Cholesky factor however large the ridge.
    pub fn pivot_mean(&self, ridge: f64) -> Result<f64, QuantError> {
        let metric = self.damped(ridge)?;
        let live = (0..self.width).filter(|input| !metric.dead[*input]);
        let logs: Vec<f64> = live.map(|input| 2.0 * metric.factor[(input, input)].ln()).collect();
        Ok((logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp())
    }

    /// Whether there was any input but zeros.
    #[must_use]
    pub fn has_moments(&self) -> bool {
        self.diagonal().iter().any(|moment| *moment != 0.0)
    }

    fn mean_diagonal(&self) -> Result<f64, QuantError> {
        let diagonal = self.diagonal();
        let mean = diagonal.iter().sum::<f64>() / self.width.max(1) as f64;
        if self.samples == 0 || mean == 0.0 {
            return Err(QuantError::NoMoments { samples: self.samples });
        }
        if mean.is_finite() { Ok(mean) } else { Err(QuantError::NotPositive { ridge: 0.0 }) }
    }

    /// E\[x·xᵀ\] in full.
    pub(crate) fn matrix(&self) -> Mat<f64> {
        Mat::from_fn(self.width, self.width, |row, column| self.moment(row, column))
    }

    /// Σ + ρ·I and its Cholesky factor, where ρ is `ridge` times the mean diagonal, or the first of ten,
    /// hundred, … times that for which there is a factor.
    pub(crate) fn damped(&self, ridge: f64) -> Result<Metric, QuantError> {
        if !(ridge.is_finite() && ridge >= 0.0) {
            return Err(QuantError::Setting { what: "ridge", value: ridge });
        }
        let mean = self.mean_diagonal()?;
        let mut share = ridge;
        loop {
            let mut matrix = self.matrix();
            (0..self.width).for_each(|input| matrix[(input, input)] += share * mean);
            if let Some(factor) = cholesky(matrix.as_ref()) {
                return Ok(Metric { matrix, factor, dead: self.dead_inputs() });
            }
            share = (10.0 * share).max(1e-8);
            if share > MAX_RIDGE {
                return Err(QuantError::NotPositive { ridge: share / 10.0 });
            }
        }
    }
}

/// The lower Cholesky factor, if the matrix is positive definite beyond rounding errors.
pub(crate) fn cholesky(matrix: MatRef<'_, f64>) -> Option<Mat<f64>> {
    let factor = matrix.llt(Side::Lower).ok()?.L().to_owned();
    let usable = (0..factor.nrows()).all(|index| {
        let (pivot, diagonal) = (factor[(index, index)], matrix[(index, index)]);
        pivot.is_finite() && pivot * pivot > 1e-13 * diagonal
    });
    usable.then_some(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::testing::gaussian;

    #[test]
    fn moments_are_those_of_a_plain_triple_loop() {
        let (width, rows) = (83, 700);
        let inputs = gaussian(rows * width, 1);
        let mut whole = Covariance::new(width).unwrap();
        whole.accumulate(&inputs).unwrap();
        for i in 0..width {
            for j in 0..width {
                let product = |row: &[f32]| f64::from(row[i]) * f64::from(row[j]);
                let sum: f64 = inputs.chunks(width).map(product).sum();
                assert!((whole.moment(i, j) - sum / rows as f64).abs() < 1e-12, "{i} {j}");
            }
        }
        let mut merged = Covariance::new(width).unwrap();
        let mut second = merged.clone();
        merged.accumulate(&inputs[..100 * width]).unwrap();
        second.accumulate(&inputs[100 * width..]).unwrap();
        merged.merge(&second).unwrap();
        assert_eq!(merged.samples(), 700);
        assert!((merged.moment(80, 3) - whole.moment(80, 3)).abs() < 1e-12);
        assert_eq!(whole.scaled(3.0).moment(5, 6), 3.0 * whole.sums[5 * width + 6] / 700.0);
    }

    #[test]
    fn the_factor_times_its_transpose_is_the_damped_matrix() {
        let mut covariance = Covariance::new(20).unwrap();
        covariance.accumulate(&gaussian(20 * 300, 2)).unwrap();
        let metric = covariance.damped(1e-3).unwrap();
        let product = &metric.factor * metric.factor.transpose();
        for i in 0..20 {
            let mean = covariance.diagonal().iter().sum::<f64>() / 20.0;
            let expected = covariance.moment(i, i) + 1e-3 * mean;
            assert!((product[(i, i)] - expected).abs() < 1e-12);
            assert!((product[(i, 7)] - metric.matrix[(i, 7)]).abs() < 1e-12);
        }
    }

    #[test]
    fn singular_moments_get_a_larger_ridge() {
        // One sample: rank one.
        let mut covariance = Covariance::new(30).unwrap();
        covariance.accumulate(&gaussian(30, 3)).unwrap();
        assert!(covariance.damped(0.0).is_ok());
        // Not positive definite at all: only a ridge above the excess of the off-diagonal helps.
        let indefinite = Covariance::from_moments(2, 1, &[1.0, 3.0, 3.0, 1.0]).unwrap();
        assert!(indefinite.damped(1e-3).unwrap().matrix[(0, 0)] > 3.0);
        let hopeless = Covariance::from_moments(2, 1, &[1.0, 0.0, 3e9, 1.0]).unwrap();
        assert!(matches!(hopeless.damped(1e-3), Err(QuantError::NotPositive { .. })));
    }

    #[test]
    fn dead_inputs_are_found_beside_an_outlier() {
        let moments = [1e9, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1e-4];
        let covariance = Covariance::from_moments(3, 1, &moments).unwrap();
        assert_eq!(covariance.dead_inputs(), [false, false, true]);
    }

    #[test]
    fn identity_plus_adds_the_normalised_moments() {
        let covariance = Covariance::from_moments(2, 7, &[6.0, 1.0, 1.0, 2.0]).unwrap();
        let sum = covariance.identity_plus(2.0).unwrap();
        let entry = |i, j| (sum.moment(i, j) * 1e6).round() / 1e6;
        assert_eq!([entry(0, 0), entry(0, 1), entry(1, 1)], [4.0, 0.5, 2.0]);
        assert!(covariance.identity_plus(-1.0).is_err());
    }

    #[test]
    fn a_blend_is_the_weighted_mean_of_moments() {
        let first = Covariance::from_moments(2, 7, &[6.0, 1.0, 1.0, 2.0]).unwrap();
        let second = Covariance::from_moments(2, 100, &[2.0, 5.0, 5.0, 10.0]).unwrap();
        let blend = first.blended(&second, 0.25).unwrap();
        let entry = |i, j| (blend.moment(i, j) * 1e6).round() / 1e6;
        assert_eq!([entry(0, 0), entry(0, 1), entry(1, 1)], [5.0, 2.0, 4.0]);
        assert_eq!(blend.samples(), 7);
        assert!(first.blended(&Covariance::new(2).unwrap(), 0.5).is_err());
        assert!(first.blended(&Covariance::identity(3).unwrap(), 0.5).is_err());
        assert!(first.blended(&second, 1.5).is_err());
    }

    #[test]
    fn bad_inputs_are_named() {
        let mut covariance = Covariance::new(3).unwrap();
        assert!(covariance.damped(1e-3).is_err_and(|error| error.to_string().contains("no input")));
        let error = covariance.accumulate(&[0.0, 1.0, 2.0, 0.0, f32::NAN, 1.0]).unwrap_err();
        assert!(error.to_string().contains("sample 1, input 1"), "{error}");
        assert!(covariance.accumulate(&[1.0; 4]).is_err());
        assert_eq!(covariance.samples(), 0);
        covariance.accumulate(&[0.0; 6]).unwrap();
        assert!(matches!(covariance.damped(1e-3), Err(QuantError::NoMoments { samples: 2 })));
        assert!(Covariance::new(1 << 40).is_err());
        assert!(Covariance::from_moments(1, 1, &[-1.0]).is_err());
        assert!(Covariance::from_moments(1, 1, &[f64::NAN]).is_err());
        assert!(covariance.merge(&Covariance::new(2).unwrap()).is_err());
        assert!(Covariance::new(0).unwrap().accumulate(&[1.0]).is_err());
    }
}
