//! What a layer is to make of inputs that are no longer those it was trained on.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::{
    solve_lower_triangular_in_place, solve_upper_triangular_in_place,
};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::covariance::Covariance;
use super::inputs_first::transposed;
use super::rung::{matrix_of, matrix_shape};
use crate::{QuantError, Weights};

/// Rows of inputs that are turned into double precision at a time.
const BLOCK_ROWS: usize = 512;
/// Columns of moments that one thread updates at a time.
const PANEL: usize = 64;

/// How the inputs x̂ of a layer, behind layers that have been quantised, have moved from the x of the float model:
/// their covariance Σ̂ = E\[x̂·x̂ᵀ\] and E\[(x − x̂)·x̂ᵀ\].
#[derive(Clone, Debug)]
pub struct Drift {
    covariance: Covariance,
    /// Σ (x − x̂)·x̂ᵀ, column-major.
    moved: Vec<f64>,
}

impl Drift {
    /// No samples yet of inputs of that width.
    ///
    /// # Errors
    /// Those of [`Covariance::new`].
    pub fn new(width: usize) -> Result<Self, QuantError> {
        Ok(Self { covariance: Covariance::new(width)?, moved: vec![0.0; width * width] })
    }

    /// Adds inputs, one per row: those of the float model and, for the same tokens, those that there are now.
    ///
    /// # Errors
    /// Those of [`Covariance::accumulate`]; nothing is added then.
    pub fn accumulate(&mut self, before: &[f32], now: &[f32]) -> Result<(), QuantError> {
        let width = self.covariance.width();
        if before.len() != now.len() {
            return Err(QuantError::InputLength { length: before.len(), width });
        }
        if let Some(index) = before.iter().position(|value| !value.is_finite()) {
            let (row, column) = (index / width.max(1), index % width.max(1));
            return Err(QuantError::InputNotFinite { row, column, value: before[index] });
        }
        self.covariance.accumulate(now)?;
        let rows = BLOCK_ROWS * width.max(1);
        for (before, now) in before.chunks(rows).zip(now.chunks(rows)) {
            let difference: Vec<f64> =
                before.iter().zip(now).map(|(x, y)| f64::from(*x) - f64::from(*y)).collect();
            let now: Vec<f64> = now.iter().map(|x| f64::from(*x)).collect();
            let matrix = |values| MatRef::from_row_major_slice(values, now.len() / width, width);
            let (left, right) = (matrix(&difference).transpose(), matrix(&now));
            self.moved.par_chunks_mut(PANEL * width).enumerate().for_each(|(panel, moved)| {
                let columns = moved.len() / width;
                let right = right.subcols(panel * PANEL, columns);
                let moved = MatMut::from_column_major_slice_mut(moved, width, columns);
                matmul(moved, Accum::Add, left, right, 1.0, Par::Seq);
            });
        }
        Ok(())
    }

    /// The covariance of the inputs that there are now.
    #[must_use]
    pub fn covariance(&self) -> &Covariance {
        &self.covariance
    }

    /// The weights W′ = W + W·E\[(x − x̂)·x̂ᵀ\]·(Σ̂ + ρ·I)⁻¹, row-major, whose W′·x̂ is nearest to W·x: with ρ the share
    /// `ridge` of the mean of the diagonal, of all matrices the one of least E|W·x − W′·x̂|² + ρ·|W′ − W|². Where all x̂ are
    /// zero, as behind a layer that is quantised to nothing, no weights make anything of them, and W′ is W.
    ///
    /// # Errors
    /// If there are not as many columns as inputs, nothing was gathered, or no ridge makes Σ̂ positive definite.
    pub fn corrected(&self, weights: &Weights<'_>, ridge: f64) -> Result<Vec<f32>, QuantError> {
        let (rows, columns) = matrix_shape(weights)?;
        let width = self.covariance.width();
        if columns != width {
            let name = weights.name.to_owned();
            return Err(QuantError::CovarianceWidth { name, columns, width });
        }
        if self.covariance.samples() > 0 && !self.covariance.has_moments() {
            return Ok(weights.data.to_vec());
        }
        let metric = self.covariance.damped(ridge)?;
        let samples = self.covariance.samples().max(1) as f64;
        let matrix = matrix_of(weights, rows, columns);
        let mut outputs = Mat::zeros(rows, columns);
        let right = MatRef::from_column_major_slice(&self.moved, width, width);
        let left = matrix.as_ref();
        matmul(outputs.as_mut(), Accum::Replace, left, right, 1.0 / samples, Par::Seq);
        // Σ̂ is symmetric: its inverse from the right is that of the transposed from the left.
        let mut change = outputs.transpose().to_owned();
        let factor = metric.factor.as_ref();
        solve_lower_triangular_in_place(factor, change.as_mut(), Par::Seq);
        solve_upper_triangular_in_place(factor.transpose(), change.as_mut(), Par::Seq);
        let corrected = |row: usize, column: usize| matrix[(row, column)] + change[(column, row)];
        let rows = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        Ok(rows.map(|(row, column)| corrected(row, column) as f32).collect())
    }

    /// The same for a matrix that is stored with one row per input.
    ///
    /// # Errors
    /// As [`Drift::corrected`].
    pub fn corrected_inputs_first(
        &self,
        weights: &Weights<'_>,
        ridge: f64,
    ) -> Result<Vec<f32>, QuantError> {
        let (inputs, outputs) = matrix_shape(weights)?;
        let data = transposed(weights.data, outputs);
        let turned = Weights { shape: &[outputs, inputs], data: &data, ..*weights };
        Ok(transposed(&self.corrected(&turned, ridge)?, inputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::testing::gaussian;

    /// Inputs that were turned by a matrix A: W·A⁻¹ undoes it exactly.
    #[test]
    fn what_can_be_undone_is_undone() {
        let (width, samples) = (6, 500);
        let before = gaussian(width * samples, 1);
        // x̂ is x with each input replaced by itself plus half of the next.
        let turned = |x: &[f32]| -> Vec<f32> {
            (0..width).map(|i| x[i] + if i + 1 < width { 0.5 * x[i + 1] } else { 0.0 }).collect()
        };
        let now: Vec<f32> = before.chunks(width).flat_map(turned).collect();
        let mut drift = Drift::new(width).unwrap();
        drift.accumulate(&before[..60], &now[..60]).unwrap();
        drift.accumulate(&before[60..], &now[60..]).unwrap();
        let data = gaussian(4 * width, 2);
        let weights = Weights { name: "w", shape: &[4, width], data: &data };
        let corrected = drift.corrected(&weights, 0.0).unwrap();
        let outputs = |weights: &[f32], inputs: &[f32]| -> Vec<f32> {
            let row = |x: &[f32]| -> Vec<f32> {
                weights.chunks(width).map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
            };
            inputs.chunks(width).flat_map(row).collect()
        };
        let pairs = outputs(&data, &before).into_iter().zip(outputs(&corrected, &now));
        let worst = pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{worst}");
    }

    /// Against the least squares of the normal equations, by gradient: at the minimum it vanishes.
    #[test]
    fn the_correction_is_the_minimum_of_its_objective() {
        let (width, samples, ridge) = (5, 400, 0.1);
        let before = gaussian(width * samples, 3);
        let noise = gaussian(width * samples, 4);
        let now: Vec<f32> = before.iter().zip(&noise).map(|(x, n)| x + 0.7 * n).collect();
        let mut drift = Drift::new(width).unwrap();
        drift.accumulate(&before, &now).unwrap();
        let data = gaussian(width, 5);
        let weights = Weights { name: "w", shape: &[1, width], data: &data };
        let corrected = drift.corrected(&weights, ridge).unwrap();
        let mean = drift.covariance().diagonal().iter().sum::<f64>() / width as f64;
        let objective = |w: &[f64]| -> f64 {
            let dot = |w: &[f64], x: &[f32]| -> f64 {
                w.iter().zip(x).map(|(w, x)| w * f64::from(*x)).sum()
            };
            let plain: Vec<f64> = data.iter().map(|w| f64::from(*w)).collect();
            let pairs = before.chunks(width).zip(now.chunks(width));
            let errors = pairs.map(|(x, y)| (dot(&plain, x) - dot(w, y)).powi(2));
            let moved: f64 = w.iter().zip(&plain).map(|(a, b)| (a - b).powi(2)).sum();
            errors.sum::<f64>() / samples as f64 + ridge * mean * moved
        };
        let at: Vec<f64> = corrected.iter().map(|w| f64::from(*w)).collect();
        for index in 0..width {
            let nudged = |by: f64| {
                let mut moved = at.clone();
                moved[index] += by;
                objective(&moved)
            };
            let slope = (nudged(1e-3) - nudged(-1e-3)) / 2e-3;
            assert!(slope.abs() < 1e-5, "{index}: {slope}");
        }
    }

    #[test]
    fn inputs_that_have_become_zero_correct_nothing() {
        let mut drift = Drift::new(4).unwrap();
        drift.accumulate(&gaussian(4 * 50, 6), &[0.0; 4 * 50]).unwrap();
        let data = gaussian(8, 7);
        let weights = Weights { name: "w", shape: &[2, 4], data: &data };
        assert_eq!(drift.corrected(&weights, 0.1).unwrap(), data);
        let turned = Weights { shape: &[4, 2], ..weights };
        assert_eq!(drift.corrected_inputs_first(&turned, 0.1).unwrap(), data);
    }

    #[test]
    fn inputs_that_did_not_move_correct_nothing_and_bad_ones_are_named() {
        let x = gaussian(4 * 50, 6);
        let mut drift = Drift::new(4).unwrap();
        assert!(drift.accumulate(&x, &x[4..]).is_err());
        assert!(drift.accumulate(&x[..4], &[f32::NAN; 4]).is_err());
        let data = gaussian(8, 7);
        let weights = Weights { name: "w", shape: &[2, 4], data: &data };
        assert!(drift.corrected(&weights, 0.1).is_err());
        drift.accumulate(&x, &x).unwrap();
        assert_eq!(drift.corrected(&weights, 0.0).unwrap(), data);
        let narrow = Weights { name: "w", shape: &[4, 2], data: &data };
        assert!(drift.corrected(&narrow, 0.1).unwrap_err().to_string().contains("`w`"));
    }
}
