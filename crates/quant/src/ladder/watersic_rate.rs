//! Error feedback with steps per column and codes on a trellis, the rate in the recursion.

use backslash_codec::QuantizedTensor;
use faer::Mat;

use super::covariance::Metric;
use super::index_rates::IndexRates;
use super::rung::LadderOptions;
use super::trellis::{Trellis, choose};
use super::watersic::{column_steps, finish, recurse};
use crate::{QuantError, Weights};

/// Passes over the matrix; each knows what the codes of the one before cost.
const PASSES: u32 = 3;

/// The recursion of `watersic`, in which the codes of a column are chosen together, along the trellis that runs down its
/// rows, for the least error plus rate.
///
/// A column's codes do not depend on each other by the metric: once later columns are fixed, missing the targets of
/// column i by ε costs L_ii²·Σ ε². With steps α_i = c/L_ii that is c² for a step in every column, and a bit is worth
/// `strength`·(ln 2)/6·c².
pub(super) fn quantize(
    weights: &Weights<'_>,
    matrix: &Mat<f64>,
    metric: &Metric,
    step: f32,
    trellis: Trellis,
    options: &LadderOptions,
) -> Result<QuantizedTensor, QuantError> {
    let steps = column_steps(weights, metric, step)?;
    let fine: Vec<f64> = steps.iter().map(|step| 0.5 * step).collect();
    let (factor, dead) = (metric.factor.as_ref(), &metric.dead);
    let mut rates = IndexRates::expected(matrix, &steps);
    let mut pass = 1;
    loop {
        let columns = recurse(
            matrix.as_ref(),
            factor,
            dead,
            &fine,
            step,
            options.gain,
            |column, targets, codes| {
                choose(targets, trellis, |row| rates.lengths(row, column), codes);
            },
        );
        if pass == PASSES {
            return Ok(finish(weights, matrix, metric, columns, step, options));
        }
        rates = rates.measured(&columns.codes, trellis.rows_per_run);
        pass += 1;
    }
}
