//! What holds matrices small besides the loss: cautious, spectral and norm-keeping variants of weight decay.

use faer::MatRef;

use super::groups::Layout;
use super::low_rank::Leading;
use super::matrix::square_norm;
use super::orthogonalize::{Polar, orthogonalize};
use crate::config::{OptimizerConfig, SpectralDecayOf};

/// w ← keep·w − step, where a cautious decay keeps weights whole that the step moves away from zero (Chen et
/// al., arXiv 2510.12402): decay then only hurries what the loss wants anyway.
#[inline]
pub(super) fn decayed(weight: f32, step: f32, keep: f32, cautious: bool) -> f32 {
    let keep = if cautious && step * weight < 0.0 { 1.0 } else { keep };
    keep * weight - step
}

/// Decay of singular values, after a step that saw the loss only, with t = η·λ:
///
/// - of all: W ← W − t·U·Vᵀ, a step against the nuclear norm, with U·Vᵀ the orthogonalised W;
/// - of the largest: W ← W − t·σ₁·u₁·v₁ᵀ, a step against ½·σ₁² (Newhouse et al., arXiv 2507.13338).
pub(super) fn spectral_decay(
    config: &OptimizerConfig,
    layout: Layout,
    amount: f64,
    seed: [u128; 2],
    weights: &mut [f32],
) {
    let matrix = layout.load(weights);
    let (direction, amount) = match config.spectral_decay_of {
        SpectralDecayOf::All => {
            (orthogonalize(matrix.as_ref(), Polar::exact(config.orthogonalization)), amount)
        }
        SpectralDecayOf::Largest => {
            match Leading::of(matrix.as_ref(), 1, None, seed) {
                // Zeros have nothing to lower, and values that are not finite stop the run at its next loss.
                None => return,
                Some(leading) if leading.values.is_empty() => return,
                Some(leading) => (leading.polar(), amount * f64::from(leading.values[0])),
            }
        }
    };
    let direction = layout.store(direction.as_ref());
    weights.iter_mut().zip(direction).for_each(|(w, d)| *w -= amount as f32 * d);
}

/// The Frobenius norm that a matrix keeps.
///
/// Each step is followed by W ← W·R/‖W‖_F: the norm, which a network whose activations are normalised hardly
/// sees, is taken out of the training, and with it the cheap way to lower a rate by scaling down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ConstantNorm {
    /// R.
    norm: f64,
    /// Whether smaller norms are left as they are.
    only_from_above: bool,
}

impl ConstantNorm {
    /// R is the norm of the initial weights.
    ///
    /// A matrix of zeros grows freely up to the norm of one that is drawn uniformly from ±1/√inputs: to scale
    /// its first step up to a norm would make of it a matrix of noise.
    pub(super) fn of(layout: Layout, initial: &[f32]) -> Self {
        let norm = frobenius(initial);
        if norm > 0.0 {
            Self { norm, only_from_above: false }
        } else {
            Self { norm: (layout.outputs as f64 / 3.0).sqrt(), only_from_above: true }
        }
    }

    pub(super) fn keep(self, weights: &mut [f32]) {
        let norm = frobenius(weights);
        if norm > 0.0 && !(self.only_from_above && norm < self.norm) {
            let factor = (self.norm / norm) as f32;
            weights.iter_mut().for_each(|weight| *weight *= factor);
        }
    }
}

fn frobenius(values: &[f32]) -> f64 {
    square_norm(MatRef::from_column_major_slice(values, values.len(), 1)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::with_spectrum;
    use super::*;

    const LAYOUT: Layout = Layout { outputs: 24, inputs: 40, by_output: true };

    /// Singular values before and after a decay.
    fn decay(of: SpectralDecayOf, amount: f64) -> [Vec<f32>; 2] {
        let values: Vec<f32> = (0..24).map(|i| 3.0 * 0.9_f32.powi(i)).collect();
        let matrix = with_spectrum(40, 24, &values);
        let config = OptimizerConfig {
            spectral_decay_of: of,
            orthogonalization: crate::config::Orthogonalization::PolarExpress,
            ..OptimizerConfig::default()
        };
        let mut weights = LAYOUT.store(matrix.as_ref());
        spectral_decay(&config, LAYOUT, amount, [1, 2], &mut weights);
        [matrix, LAYOUT.load(&weights)].map(|matrix| matrix.singular_values().unwrap())
    }

    #[test]
    fn the_decay_of_the_largest_lowers_it_alone() {
        let [before, after] = decay(SpectralDecayOf::Largest, 0.05);
        assert!((after[0] / before[0] - 0.95).abs() < 1e-4, "{} {}", before[0], after[0]);
        for (before, after) in before[1..].iter().zip(&after[1..]) {
            assert!((after / before - 1.0).abs() < 1e-3, "{before} {after}");
        }
    }

    #[test]
    fn the_decay_of_all_lowers_all_by_nearly_the_same_amount() {
        let [before, after] = decay(SpectralDecayOf::All, 0.05);
        for (before, after) in before.iter().zip(&after) {
            let lowered = (before - after) / 0.05;
            assert!((0.858..=1.142).contains(&lowered), "{before} {after}");
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for of in [SpectralDecayOf::All, SpectralDecayOf::Largest] {
            let config = OptimizerConfig { spectral_decay_of: of, ..OptimizerConfig::default() };
            let mut weights = vec![0.0; 24 * 40];
            spectral_decay(&config, LAYOUT, 0.1, [1, 2], &mut weights);
            assert!(weights.iter().all(|weight| *weight == 0.0));
        }
    }

    #[test]
    fn a_cautious_decay_spares_what_the_step_enlarges() {
        for (weight, step, expected) in [
            (2.0, 0.5, 1.3),
            (2.0, -0.5, 2.5),
            (-2.0, -0.5, -1.3),
            (-2.0, 0.5, -2.5),
            (2.0, 0.0, 1.8),
        ] {
            assert!((decayed(weight, step, 0.9, true) - expected).abs() < 1e-6, "{weight} {step}");
        }
        assert!((decayed(2.0, -0.5, 0.9, false) - 2.3).abs() < 1e-6);
    }

    #[test]
    fn a_norm_is_kept_and_zeros_may_grow_up_to_theirs() {
        let layout = Layout { outputs: 3, inputs: 2, by_output: true };
        let mut weights = [3.0, 0.0, 0.0, 4.0, 0.0, 0.0];
        let norm = ConstantNorm::of(layout, &weights);
        weights[5] = 12.0;
        norm.keep(&mut weights);
        assert!((frobenius(&weights) - 5.0).abs() < 1e-6);
        weights = [0.1, 0.0, 0.0, 0.0, 0.0, 0.0];
        norm.keep(&mut weights);
        assert!((weights[0] - 5.0).abs() < 1e-6);

        let from_zero = ConstantNorm::of(layout, &[0.0; 6]);
        weights = [0.1, 0.0, 0.0, 0.0, 0.0, 0.0];
        from_zero.keep(&mut weights);
        assert_eq!(weights[0], 0.1);
        weights[1] = 7.0;
        from_zero.keep(&mut weights);
        assert!((frobenius(&weights) - 1.0).abs() < 1e-6);
    }
}
