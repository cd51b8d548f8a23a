//! Steps corrected by slopes that are measured on the decoded model.

use std::collections::BTreeMap;

use backslash_codec::Effort;
use backslash_model::{ModelConfig, NamedWeights};

use crate::allocation::StepRule;
use crate::ledger::{HeldOut, OperatingPoint};
use crate::{CompressError, Fitted, Recipe, Sensitivity, Start, Target, Trial, fit_to_bytes};

/// Times that slopes are measured and steps corrected.
const ROUNDS: usize = 3;
/// Share of the full correction that is made in a round: slopes are taken one tensor at a time, and at low rates they
/// change in other ways than the model has it.
const DAMPING: f64 = 0.7;
/// Most octaves that a step may move in all.
const FURTHEST: f64 = 1.0;
/// A slope is taken to be at least this share of the median: below it, it is mostly noise.
const LEAST_SLOPE: f64 = 1.0 / 16.0;

/// The model and the text that slopes are measured on.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// The network.
    pub config: &'a ModelConfig,
    /// The float model.
    pub weights: &'a NamedWeights,
    /// Sensitivity of its matrices.
    pub sensitivities: &'a BTreeMap<String, Sensitivity>,
    /// Text that calibration has not used.
    pub held_out: &'a HeldOut,
}

/// Loss saved per byte by one tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// −dD/dB, in nats per token and byte.
    pub value: f64,
    /// Standard error of the value.
    pub error: f64,
    /// Number of weights in the tensor.
    pub weights: usize,
}

/// What happens while steps are corrected.
#[derive(Clone, Debug, PartialEq)]
pub enum MeasuredStep {
    /// A size was tried in search of the budget.
    Trial(Trial),
    /// Slopes measured, and slopes to measure, over all rounds.
    Slopes(usize, usize),
    /// A file of the budget, after so many corrections, and its divergence from the float model in nats per token.
    Round(usize, f64),
}

/// Rules that were measured, and the file that was measured with them.
#[derive(Clone, Debug)]
pub struct MeasuredRules {
    /// Step of every coded tensor at κ = 1.
    pub rules: BTreeMap<String, StepRule>,
    /// ln κ of the file.
    pub log_kappa: f64,
    /// Its mean divergence from the float model, in nats per token.
    pub divergence: f64,
}

/// The rules of a recipe with steps corrected so that every tensor saves the same loss per byte, in a file of `budget`
/// bytes: of the first rules and those after each of three corrections, the ones of least divergence.
///
/// # Errors
/// Those of [`fit_to_bytes`] and of [`OperatingPoint::slope`].
pub fn measured_rules(
    recipe: &Recipe<'_>,
    judge: Judge<'_>,
    budget: u64,
    progress: &mut dyn FnMut(MeasuredStep),
) -> Result<MeasuredRules, CompressError> {
    let Judge { config, weights, sensitivities, held_out } = judge;
    let bits = 8.0 * budget as f64 / recipe.parameters().max(1) as f64;
    let target = Target { budget, effort: Effort::Smallest };
    let mut start = Start::at(recipe.guess(bits));
    let mut recipe = recipe.clone();
    let mut octaves: BTreeMap<String, f64> = BTreeMap::new();
    let mut best: Option<MeasuredRules> = None;
    for round in 0..=ROUNDS {
        let mut make = |log_kappa| recipe.artifact(log_kappa);
        let mut note = |trial| progress(MeasuredStep::Trial(trial));
        let Fitted { log_kappa, ratio, inverse_slope, .. } =
            fit_to_bytes(&mut make, start, target, &mut note)?;
        start = Start { log_kappa, ratio, inverse_slope };
        let point =
            OperatingPoint::new(config, weights, &recipe, sensitivities, held_out, log_kappa)?;
        let divergence = point.losses().mean_divergence();
        progress(MeasuredStep::Round(round, divergence));
        if best.as_ref().is_none_or(|best| divergence < best.divergence) {
            best = Some(MeasuredRules { rules: recipe.rules.clone(), log_kappa, divergence });
        }
        if round == ROUNDS {
            break;
        }
        let names: Vec<String> = point.tensors().map(str::to_owned).collect();
        let (mut measured, mut slopes) = (Vec::new(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            if let Some(slope) = point.slope(name)? {
                let weights = weights.get(name).map_or(0, |tensor| tensor.data.len());
                measured.push(name.clone());
                slopes.push(Slope { value: slope.mean, error: slope.error, weights });
            }
            progress(MeasuredStep::Slopes(round * names.len() + index + 1, ROUNDS * names.len()));
        }
        for (name, correction) in measured.into_iter().zip(corrections(&slopes)) {
            let octaves = octaves.entry(name.clone()).or_default();
            let moved = (*octaves + DAMPING * correction).clamp(-FURTHEST, FURTHEST);
            if let Some(rule) = recipe.rules.get_mut(&name) {
                rule.step *= (moved - *octaves).exp2();
            }
            *octaves = moved;
        }
    }
    Ok(best.expect("one round at least"))
}

/// Octaves to move each step by, so that all slopes become equal.
///
/// With D = a·Δ² and B = N/8·(h − log₂Δ) bytes for N weights, a tensor's slope −dD/dB = (16·ln 2/N)·a·Δ² goes with Δ².
/// So slopes s_n become their mean s̄ if Δ_n is multiplied by (s_n/s̄)^−½. At low rates slopes grow more slowly than Δ²,
/// down to not at all where all codes are zero, so the correction is then too small rather than too large. The mean
/// is that of ln s weighted by N, which leaves the size as it is.
///
/// What noise may have made is not corrected: each ln s_n moves towards their mean by τ²/(τ² + v_n), v_n being the
/// variance of its error and τ² the variance between tensors that is left when noise is taken off (DerSimonian and
/// Laird 1986).
pub fn corrections(slopes: &[Slope]) -> Vec<f64> {
    let mut sorted: Vec<f64> = slopes.iter().map(|slope| slope.value).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let median = sorted.get(slopes.len() / 2).copied().unwrap_or(0.0);
    if !(median.is_normal() && median > 0.0) {
        return vec![0.0; slopes.len()];
    }
    let floor = |slope: &Slope| slope.value.max(LEAST_SLOPE * median);
    let logs: Vec<f64> = slopes.iter().map(|slope| floor(slope).ln()).collect();
    let variances: Vec<f64> =
        slopes.iter().map(|slope| (slope.error / floor(slope)).powi(2).max(1e-9)).collect();
    let between = variance_between(&logs, &variances);
    let count: f64 = slopes.iter().map(|slope| slope.weights as f64).sum();
    let sum = logs.iter().zip(slopes).map(|(log, slope)| log * slope.weights as f64).sum::<f64>();
    let mean = sum / count.max(1.0);
    let pairs = logs.iter().zip(&variances);
    pairs
        .map(|(log, variance)| {
            let believed = between / (between + variance);
            -0.5 * believed * (log - mean) / std::f64::consts::LN_2
        })
        .collect()
}

/// τ² of figures x with error variances v, by moments: with w = 1/v, x̄ their weighted mean and Q = Σ w·(x − x̄)²,
/// τ² = (Q − (n − 1))/(Σw − Σw²/Σw), and 0 if that is negative.
fn variance_between(figures: &[f64], variances: &[f64]) -> f64 {
    let sum = |power: i32| variances.iter().map(|v| v.powi(-power)).sum::<f64>();
    let weight = sum(1);
    let mean = figures.iter().zip(variances).map(|(x, v)| x / v).sum::<f64>() / weight;
    let spread: f64 = figures.iter().zip(variances).map(|(x, v)| (x - mean).powi(2) / v).sum();
    let excess = spread - (figures.len() as f64 - 1.0);
    let scale = weight - sum(2) / weight;
    if excess > 0.0 && scale > 0.0 { excess / scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D = Σ a·Δ² and B = Σ N/8·(h − log₂Δ): the slopes are known, and one correction makes them equal.
    #[test]
    fn one_correction_levels_a_quadratic_loss() {
        let tensors = [(3.0, 1000, 0.1), (0.2, 4000, 0.3), (40.0, 500, 0.02), (1.0, 1000, 0.2)];
        let slope = |(a, count, step): (f64, usize, f64)| {
            // By differences, as a ledger takes them.
            let loss = |step: f64| a * step * step;
            let bytes = |step: f64| count as f64 / 8.0 * (10.0 - step.log2());
            let (fine, coarse) = (step * 0.999, step * 1.001);
            let value = (loss(coarse) - loss(fine)) / (bytes(fine) - bytes(coarse));
            let formula = 16.0 * std::f64::consts::LN_2 / count as f64 * a * step * step;
            assert!((value / formula - 1.0).abs() < 1e-5, "{value} against {formula}");
            Slope { value, error: 0.0, weights: count }
        };
        let before = tensors.map(slope);
        let octaves = corrections(&before);
        let after: Vec<Slope> = tensors
            .iter()
            .zip(&octaves)
            .map(|((a, count, step), octaves)| slope((*a, *count, step * octaves.exp2())))
            .collect();
        for slope in &after {
            assert!((slope.value / after[0].value - 1.0).abs() < 1e-4, "{after:?}");
        }
        // The bytes stay: Σ N·octaves = 0.
        let moved: f64 = tensors.iter().zip(&octaves).map(|(t, o)| t.1 as f64 * o).sum();
        assert!(moved.abs() < 1e-6, "{moved}");
    }

    #[test]
    fn noise_moves_nothing() {
        let noisy = |value| Slope { value, error: 1.0, weights: 100 };
        assert_eq!(corrections(&[0.8, 1.3, 1.0, 0.7].map(noisy)), [0.0; 4]);
        // One that is known well among others that are not.
        let mut slopes = [1.0, 4.0, 1.1, 0.9].map(noisy);
        slopes.iter_mut().for_each(|slope| slope.error = 0.05);
        slopes[0].error = 3.0;
        let octaves = corrections(&slopes);
        assert!(octaves[0].abs() < 0.05 && octaves[1] < -0.5, "{octaves:?}");
    }

    #[test]
    fn slopes_that_are_no_slopes_are_harmless() {
        let slope = |value| Slope { value, error: 0.01, weights: 100 };
        assert_eq!(corrections(&[]), [0.0; 0]);
        assert_eq!(corrections(&[-1.0, -2.0].map(slope)), [0.0; 2]);
        let octaves = corrections(&[1.0, -3.0, 1.0].map(slope));
        assert!(octaves.iter().all(|octaves| octaves.abs() < 2.0), "{octaves:?}");
    }

    #[test]
    fn the_variance_between_is_what_noise_does_not_explain() {
        assert!((variance_between(&[1.0, 3.0], &[1e-9, 1e-9]) - 2.0).abs() < 1e-6);
        assert_eq!(variance_between(&[1.0, 1.5], &[1.0, 1.0]), 0.0);
    }
}
