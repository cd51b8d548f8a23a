//! Error feedback with steps per column and the rate in the recursion.

use std::collections::BTreeMap;

use backslash_codec::QuantizedTensor;
use faer::linalg::solvers::Solve;
use faer::{Mat, Side};

use super::covariance::{Metric, cholesky};
use super::rate_table::{RateTable, cheapest_code};
use super::rung::{ScaleFit, THEORETICAL_SLOPE};
use super::watersic::{Columns, column_steps, finish, nearest, recurse};
use crate::{QuantError, Weights};

/// Passes over the matrix with the rate; each knows the codes of the one before.
const PASSES: u32 = 3;

/// What codes cost in each column, as the codes of the pass before have it.
struct Rates {
    /// Table of each column's class: columns of about the same code variance share one, as a coder would have it
    /// that adapts to the column.
    tables: BTreeMap<i32, RateTable>,
    class: Vec<i32>,
    /// Curvature g of the rate in each column: R(z) ≈ R(0) + g·z²/2.
    curvature: Vec<f64>,
}

impl Rates {
    fn of(codes: &Mat<f64>) -> Self {
        let mut members: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        let (mut class, mut curvature) = (Vec::new(), Vec::new());
        for column in 0..codes.ncols() {
            let codes = codes.col_as_slice(column);
            let square = codes.iter().map(|code| code * code).sum::<f64>() / codes.len() as f64;
            // 1/12 is what rounding adds; it keeps columns of zeros finite.
            let variance = square + 1.0 / 12.0;
            class.push(variance.log2().round() as i32);
            curvature.push(1.0 / (std::f64::consts::LN_2 * variance));
            members.entry(class[column]).or_default().push(column);
        }
        let table = |columns: Vec<usize>| {
            let codes = columns.into_iter().flat_map(|column| codes.col_as_slice(column));
            RateTable::of(codes.map(|code| *code as i32))
        };
        let tables = members.into_iter().map(|(class, columns)| (class, table(columns))).collect();
        Self { tables, class, curvature }
    }
}

/// Minimises tr((W−Ŵ)·Σ·(W−Ŵ)ᵀ) + λ·Σ R(z) by the split of CERWU (arXiv 2505.18758, section 3): the quadratic
/// part of the rate, that of a Gaussian, goes into the metric, where the recursion can pass it on; what is left
/// of the rate decides between codes.
///
/// With column steps α_i, the cost c² = α_i²·L_ii² of missing a target by one step, λ = `strength`·(ln 2)/6·c²
/// and rate R(z) ≈ g_i·z²/2: the quadratic part is ŵ·D·ŵᵀ, D_ii = λ·g_i/(2·α_i²). So the metric is Σ' = Σ + D,
/// the targets are W' = W·Σ·Σ'⁻¹, and z minimises L'_ii²·α_i²·(u/α_i − z)² + λ·(R(z) − g_i·z²/2).
pub(super) fn quantize(
    weights: &Weights<'_>,
    matrix: &Mat<f64>,
    metric: &Metric,
    step: f32,
    strength: f64,
    scale_fit: ScaleFit,
) -> Result<QuantizedTensor, QuantError> {
    let steps = column_steps(weights, metric, step)?;
    let mut columns = nearest(matrix, metric, &steps, step);
    if strength > 0.0 {
        for _ in 0..PASSES {
            let rates = Rates::of(&columns.codes);
            let Some(next) = pass(matrix, metric, &steps, step, strength, &rates) else { break };
            columns = next;
        }
    }
    Ok(finish(weights, matrix, metric, columns, step, scale_fit))
}

/// One pass; none if rounding errors spoil the metric.
fn pass(
    matrix: &Mat<f64>,
    metric: &Metric,
    steps: &[f64],
    step: f32,
    strength: f64,
    rates: &Rates,
) -> Option<Columns> {
    let slope = strength * THEORETICAL_SLOPE;
    let width = steps.len();
    let pivot = |factor: &Mat<f64>, column: usize| factor[(column, column)].powi(2);
    // λ·g/(2·α²) with λ = slope·L²·α².
    let quadratic: Vec<f64> = (0..width)
        .map(|column| slope * pivot(&metric.factor, column) * rates.curvature[column] / 2.0)
        .collect();
    let mut damped = metric.matrix.clone();
    (0..width).for_each(|column| damped[(column, column)] += quadratic[column]);
    let factor = cholesky(damped.as_ref())?;
    // W·Σ·Σ'⁻¹ = W − (Σ'⁻¹·D·Wᵀ)ᵀ.
    let pulled = Mat::from_fn(width, matrix.nrows(), |column, row| {
        quadratic[column] * matrix[(row, column)]
    });
    let pulled = damped.llt(Side::Lower).ok()?.solve(&pulled);
    let targets = matrix - pulled.transpose();
    let choose = |column: usize, target: f64| {
        let table = &rates.tables[&rates.class[column]];
        let price = |code: i32| {
            let square = f64::from(code).powi(2);
            slope * (table.bits(code) - rates.curvature[column] * square / 2.0)
        };
        let curvature = pivot(&factor, column) / pivot(&metric.factor, column);
        f64::from(cheapest_code(target, f64::from, curvature, price).0)
    };
    Some(recurse(targets.as_ref(), factor.as_ref(), &metric.dead, steps, step, choose))
}
