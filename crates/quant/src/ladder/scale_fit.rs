//! Row and column scales in closed form, for codes that are fixed.

use faer::Mat;
use faer::Side;
use faer::linalg::solvers::Solve;

use super::covariance::{Metric, cholesky};
use super::feedback::{inner, product};
use super::rung::ScaleFit;
use super::scale::round_scale;
use super::watersic::{Columns, on_grid};

/// Rounds of rows and columns in turn.
const ROUNDS: u32 = 3;
/// Pull of every scale towards what it was, as a share of its own curvature.
const RIDGE: f64 = 1e-3;
/// Bits that a row scale costs in the file, about.
const ROW_SCALE_BITS: f64 = 6.0;

/// The scales that were fitted.
pub(super) struct Fit {
    /// Step of each column, the grid's scale times the tensor's step.
    pub steps: Vec<f64>,
    /// Scale of each row, on the grid.
    pub row_scales: Option<Vec<f64>>,
}

impl Fit {
    /// Least and most that a column's step or a row's scale may change by in a fit.
    pub(super) const LEAST_GAIN: f64 = 0.25;
    pub(super) const MOST_GAIN: f64 = 2.0;
}

struct Problem<'a> {
    weights: &'a Mat<f64>,
    codes: Mat<f64>,
    metric: &'a Mat<f64>,
    /// W·Σ.
    weighted: Mat<f64>,
    start: Vec<f64>,
    step: f32,
}

/// Minimises tr((W−Ŵ)·Σ·(W−Ŵ)ᵀ), ŵ_ri = t_r·z_ri·s_i, over row scales t and column steps s (arXiv 2603.04956,
/// section 4), and puts them on their grid.
///
/// Row scales stay only if they save more than they cost: an error smaller by a factor of 4 is worth one bit
/// per weight.
pub(super) fn fit_scales(
    weights: &Mat<f64>,
    columns: Columns,
    metric: &Metric,
    step: f32,
    scale_fit: ScaleFit,
) -> Fit {
    if scale_fit == ScaleFit::Recursion {
        return Fit { steps: columns.steps, row_scales: None };
    }
    let weighted = product(weights.as_ref(), metric.matrix.as_ref());
    let Columns { codes, steps: start } = columns;
    let problem = Problem { weights, codes, metric: &metric.matrix, weighted, start, step };
    let ones = vec![1.0; weights.nrows()];
    let steps = problem.column_steps_on_grid(&ones);
    if scale_fit == ScaleFit::Columns {
        return Fit { steps, row_scales: None };
    }
    let (mut row_scales, mut fitted) = (ones.clone(), steps.clone());
    for round in 0..ROUNDS {
        row_scales = problem.row_scales(&fitted);
        if round + 1 == ROUNDS {
            row_scales.iter_mut().for_each(|scale| *scale = round_scale(*scale));
            fitted = problem.column_steps_on_grid(&row_scales);
        } else {
            fitted = problem.column_steps(&row_scales);
        }
    }
    let saved = 0.5 * (problem.error(&ones, &steps) / problem.error(&row_scales, &fitted)).log2();
    if saved * weights.ncols() as f64 > ROW_SCALE_BITS {
        Fit { steps: fitted, row_scales: Some(row_scales) }
    } else {
        Fit { steps, row_scales: None }
    }
}

impl Problem<'_> {
    /// The codes with every column times its step and every row times its scale.
    fn scaled(&self, row_scales: &[f64], steps: &[f64]) -> Mat<f64> {
        Mat::from_fn(self.codes.nrows(), self.codes.ncols(), |row, column| {
            row_scales[row] * self.codes[(row, column)] * steps[column]
        })
    }

    fn error(&self, row_scales: &[f64], steps: &[f64]) -> f64 {
        let errors = self.weights - self.scaled(row_scales, steps);
        inner(product(errors.as_ref(), self.metric.as_ref()).as_ref(), errors.as_ref())
    }

    /// Best scale of every row for given columns, with a mean of one.
    fn row_scales(&self, steps: &[f64]) -> Vec<f64> {
        let rows = self.codes.nrows();
        let decoded = self.scaled(&vec![1.0; rows], steps);
        let weighted = product(decoded.as_ref(), self.metric.as_ref());
        let sum = |matrix: &Mat<f64>, row: usize| -> f64 {
            matrix.row(row).iter().zip(decoded.row(row).iter()).map(|(a, b)| a * b).sum()
        };
        let mut scales: Vec<f64> = (0..rows)
            .map(|row| {
                let square = sum(&weighted, row);
                let scale = (sum(&self.weighted, row) + RIDGE * square) / (square + RIDGE * square);
                if square > 0.0 { scale.clamp(Fit::LEAST_GAIN, Fit::MOST_GAIN) } else { 1.0 }
            })
            .collect();
        let mean = scales.iter().sum::<f64>() / rows as f64;
        scales.iter_mut().for_each(|scale| *scale /= mean);
        scales
    }

    /// The quadratic in the column steps for given rows: matrix A_ij = Σ_ij·Σ_r t_r²·z_ri·z_rj and right side
    /// b_i = Σ_r t_r·z_ri·(W·Σ)_ri, with a pull towards the steps of the recursion.
    fn normal_equations(&self, row_scales: &[f64]) -> (Mat<f64>, Mat<f64>) {
        let columns = self.codes.ncols();
        let scaled = self.scaled(row_scales, &vec![1.0; columns]);
        let mut matrix = product(scaled.transpose(), scaled.as_ref());
        let mut right = Mat::zeros(columns, 1);
        for i in 0..columns {
            for j in 0..columns {
                matrix[(i, j)] *= self.metric[(i, j)];
            }
            let curvature = matrix[(i, i)];
            // A column without codes keeps its step.
            let pull = if curvature > 0.0 { RIDGE * curvature } else { 1.0 };
            matrix[(i, i)] += pull;
            right[(i, 0)] = pull * self.start[i]
                + scaled
                    .col_as_slice(i)
                    .iter()
                    .zip(self.weighted.col_as_slice(i))
                    .map(|(z, p)| z * p)
                    .sum::<f64>();
        }
        (matrix, right)
    }

    fn column_steps(&self, row_scales: &[f64]) -> Vec<f64> {
        let (matrix, right) = self.normal_equations(row_scales);
        let Ok(factor) = matrix.llt(Side::Lower) else { return self.start.clone() };
        let solution = factor.solve(&right);
        (0..self.start.len()).map(|i| self.clamped(solution[(i, 0)], i)).collect()
    }

    /// As [`Problem::column_steps`], each step in turn put on the grid and those still open moved to make up for
    /// it: the recursion of the codes once more, on a single row.
    fn column_steps_on_grid(&self, row_scales: &[f64]) -> Vec<f64> {
        let (matrix, right) = self.normal_equations(row_scales);
        let Some(factor) = cholesky(matrix.as_ref()) else { return self.start.clone() };
        let Ok(solver) = matrix.llt(Side::Lower) else { return self.start.clone() };
        let solution = solver.solve(&right);
        let mut steps = vec![0.0; self.start.len()];
        super::feedback::feed_back(
            solution.transpose(),
            factor.as_ref(),
            |column, target, chosen| {
                steps[column] = on_grid(self.clamped(target[0], column), self.step);
                chosen[0] = steps[column];
            },
        );
        steps
    }

    fn clamped(&self, step: f64, column: usize) -> f64 {
        step.clamp(Fit::LEAST_GAIN * self.start[column], Fit::MOST_GAIN * self.start[column])
    }
}
