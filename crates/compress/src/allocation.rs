//! From sensitivities to steps: every tensor, and every row, at the same slope of loss against bits.

use std::collections::BTreeMap;
use std::fmt;

use backslash_codec::round_scale;
use backslash_quant::{Covariance, Rung, Weights, is_coded};
use backslash_rate::Moments;

use crate::{Calibration, CompressError, Sensitivity};

/// Share of a tensor's mean sensitivity below which a row's own is not believed: a token that the text does not
/// hold is not free.
const ROW_FLOOR: f64 = 0.05;
/// Row factors lie on 2^(k/4): an eighth of an octave off costs next to nothing, and the factors cost two bits.
const ROW_FACTORS_PER_OCTAVE: f64 = 4.0;

/// How steps are shared out among tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// The same step relative to the root mean square of each tensor.
    Relative,
    /// The same step for all tensors: the least squared error at a number of bytes.
    Equal,
    /// Steps by the sensitivity of each tensor.
    Tensors,
    /// Steps by the sensitivity of each tensor and of each of its rows.
    Rows,
}

impl fmt::Display for Allocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Relative => "relative",
            Self::Equal => "equal",
            Self::Tensors => "tensors",
            Self::Rows => "rows",
        })
    }
}

/// The step of a tensor at κ = 1.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRule {
    /// Step Δ.
    pub step: f64,
    /// Factor on the step of each row.
    pub rows: Option<Vec<f32>>,
}

/// Steps Δ = κ/√f at κ = 1, by tensor name, with f the curvature of the loss that an error of the rung meets.
///
/// An error of variance v in every weight raises the loss by ½·v·ΣF, F being the Fisher information of each weight.
/// Where Σ is the covariance of the inputs with Cholesky factor L, error feedback meets the geometric mean of L_ii²
/// instead of the mean of the diagonal of Σ, so f = F·GM(L_ii²)/mean(Σ_ii). At equal slopes of loss against bits every
/// weight then costs κ²/24 nats. (Reverse water-filling; Radio, arXiv 2505.03031.)
///
/// # Errors
/// If a covariance has no Cholesky factor however much it is damped.
pub fn step_rules(
    weights: &[Weights<'_>],
    calibration: &Calibration,
    rung: Rung,
    allocation: Allocation,
    ridge: f64,
) -> Result<BTreeMap<String, StepRule>, CompressError> {
    match allocation {
        Allocation::Relative => return Ok(relative_rules(weights)),
        Allocation::Equal => return Ok(equal_rules(weights)),
        Allocation::Tensors | Allocation::Rows => {}
    }
    let mut rules = BTreeMap::new();
    for tensor in weights.iter().filter(|tensor| is_coded(tensor.shape)) {
        let Some(sensitivity) = calibration.sensitivities.get(tensor.name) else {
            rules.insert(tensor.name.to_owned(), relative_rule(tensor));
            continue;
        };
        let gain = match calibration.covariances.get(tensor.name) {
            Some(covariance) if rung.needs_covariance() => feedback_gain(covariance, ridge)?,
            _ => 1.0,
        };
        let curvature = sensitivity.mean() * gain;
        let rule = if curvature.is_normal() && curvature > 0.0 {
            // Factors are for outputs: the rows of other matrices are their inputs.
            let by_output = !calibration.inputs_first.contains(tensor.name);
            let rows =
                (allocation == Allocation::Rows && by_output).then(|| row_factors(sensitivity));
            StepRule { step: curvature.powf(-0.5), rows }
        } else {
            relative_rule(tensor)
        };
        rules.insert(tensor.name.to_owned(), rule);
    }
    Ok(rules)
}

/// The same step relative to the root mean square for every tensor: what can be said without text.
pub fn relative_rules(weights: &[Weights<'_>]) -> BTreeMap<String, StepRule> {
    let coded = weights.iter().filter(|tensor| is_coded(tensor.shape));
    coded.map(|tensor| (tensor.name.to_owned(), relative_rule(tensor))).collect()
}

/// The same step for every tensor: where only the squared error is known, a bit then saves as much of it anywhere.
pub fn equal_rules(weights: &[Weights<'_>]) -> BTreeMap<String, StepRule> {
    let coded = weights.iter().filter(|tensor| is_coded(tensor.shape));
    coded.map(|tensor| (tensor.name.to_owned(), StepRule { step: 1.0, rows: None })).collect()
}

/// Step of one root mean square; for a tensor of zeros any step does.
fn relative_rule(tensor: &Weights<'_>) -> StepRule {
    let rms = Moments::of(tensor.data).root_mean_square();
    StepRule { step: if rms.is_normal() { rms } else { 1.0 }, rows: None }
}

/// GM(L_ii²)/mean(Σ_ii): what error feedback with a step per column gains over none.
fn feedback_gain(covariance: &Covariance, ridge: f64) -> Result<f64, CompressError> {
    let mean = covariance.diagonal().iter().sum::<f64>() / covariance.width().max(1) as f64;
    Ok(covariance.pivot_mean(ridge)? / mean)
}

/// Factors on the steps of rows, with a geometric mean of about one: (f_r + floor)^−½ on the grid.
pub(crate) fn row_factors(sensitivity: &Sensitivity) -> Vec<f32> {
    let floor = ROW_FLOOR * sensitivity.mean();
    let logs: Vec<f64> = sensitivity.rows.iter().map(|row| -0.5 * (row + floor).log2()).collect();
    let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
    let on_grid = |log: f64| {
        let steps = ((log - mean) * ROW_FACTORS_PER_OCTAVE).round();
        round_scale((steps / ROW_FACTORS_PER_OCTAVE).exp2() as f32)
    };
    logs.into_iter().map(on_grid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration(rows: Vec<f64>, moments: &[f64]) -> Calibration {
        let covariance = Covariance::from_moments(2, 1000, moments).unwrap();
        Calibration {
            covariances: BTreeMap::from([("w".to_owned(), covariance)]),
            sensitivities: BTreeMap::from([("w".to_owned(), Sensitivity { rows, columns: 2 })]),
            inputs_first: Default::default(),
            tokens: 1000,
        }
    }

    fn rule(rung: Rung, allocation: Allocation, calibration: &Calibration) -> StepRule {
        let data = vec![0.5_f32; 4096];
        let weights = [Weights { name: "w", shape: &[2048, 2], data: &data }];
        step_rules(&weights, calibration, rung, allocation, 0.0).unwrap()["w"].clone()
    }

    #[test]
    fn steps_fall_with_the_root_of_the_sensitivity() {
        let one = calibration(vec![4.0; 2048], &[1.0, 0.0, 0.0, 1.0]);
        assert_eq!(rule(Rung::Rtn, Allocation::Tensors, &one).step, 0.5);
        assert_eq!(rule(Rung::Rtn, Allocation::Relative, &one).step, 0.5);
        let four = calibration(vec![16.0; 2048], &[1.0, 0.0, 0.0, 1.0]);
        assert_eq!(rule(Rung::Rtn, Allocation::Tensors, &four).step, 0.25);
        // A sensitivity of nothing says nothing.
        let none = calibration(vec![0.0; 2048], &[1.0, 0.0, 0.0, 1.0]);
        assert_eq!(rule(Rung::Rtn, Allocation::Rows, &none).step, 0.5);
    }

    /// det Σ = 4 − 3.84 = 0.16: error feedback meets 0.4 where rounding meets 2.
    #[test]
    fn error_feedback_earns_coarser_steps() {
        let correlated = calibration(vec![1.0; 2048], &[2.0, 1.959_591_794, 1.959_591_794, 2.0]);
        let rounded = rule(Rung::Rtn, Allocation::Tensors, &correlated).step;
        let fed_back = rule(Rung::Watersic, Allocation::Tensors, &correlated).step;
        assert!((fed_back / rounded - 5.0_f64.sqrt()).abs() < 1e-6, "{fed_back} {rounded}");
    }

    #[test]
    fn rows_are_believed_down_to_a_floor() {
        let mut rows = vec![1.0; 2048];
        (rows[0], rows[1]) = (16.0, 0.0);
        let factors = rule(Rung::Rtn, Allocation::Rows, &calibration(rows, &[1.0, 0.0, 0.0, 1.0]));
        let factors = factors.rows.unwrap();
        assert_eq!(factors[2], 1.0);
        assert_eq!(factors[0], 0.25);
        // 1/√0.05 is 4.47 or 2^2.16; with the floor of the others, 4.58.
        assert_eq!(factors[1], round_scale(2.0_f32.powf(2.25)));
    }
}
