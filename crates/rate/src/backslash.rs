//! The rate of BackSlash (arXiv 2504.16968), as published and as released.
//!
//! R(θ) = (1/N)·Σ|θ|^ν, with N the number of parameters and ν the shape of a generalised Gaussian fitted
//! to all of them before every step ([`crate::published_shape`]). The two forms differ in where the
//! gradient goes: *in the loss* (the paper's Algorithm 1) it passes through the optimizer and the
//! learning rate; *decoupled* (the released code) it is subtracted from the weights after the step and is
//! not multiplied by the learning rate.

use multiversion::multiversion;

use crate::power::power;

/// The shape and the strengths of one step of the method.
///
/// ```
/// use backslash_rate::backslash::Pull;
///
/// // Shape 1 is plain L1: every weight is pulled towards zero with the same force.
/// let pull = Pull { lambda: 2.0, shape: 1.0, epsilon: 1.0, parameters: 4 };
/// let mut weights = [1.0, -2.0, 0.0];
/// pull.step(&mut weights);
/// assert_eq!(weights, [0.5, -1.5, 0.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pull {
    /// λ of the paper.
    pub lambda: f64,
    /// ν, the common shape of all parameters.
    pub shape: f64,
    /// ε, which keeps the gradient finite at zero; 1 in the released code.
    pub epsilon: f64,
    /// N, the number of all parameters.
    pub parameters: u64,
}

impl Pull {
    /// λ·(1/N)·Σ(|θ|+ε)^ν over these weights, to be added to the loss.
    pub fn penalty(&self, weights: &[f32]) -> f64 {
        let sum: f64 = weights
            .iter()
            .map(|weight| (f64::from(weight.abs()) + self.epsilon).powf(self.shape))
            .sum();
        self.lambda * sum / self.parameters as f64
    }

    /// Adds the gradient of [`Pull::penalty`], λ·ν/N·sign(θ)·(|θ|+ε)^(ν−1): the form in the loss.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn add_gradient(&self, weights: &[f32], gradient: &mut [f32]) {
        assert_eq!(weights.len(), gradient.len());
        add_force(weights, self.force(), gradient);
    }

    /// θ ← θ − λ·ν/N·sign(θ)·(|θ|+ε)^(ν−1): the decoupled form, after the optimizer's step.
    pub fn step(&self, weights: &mut [f32]) {
        subtract_force(self.force(), weights);
    }

    fn force(&self) -> Force {
        Force {
            strength: (self.lambda * self.shape / self.parameters as f64) as f32,
            epsilon: self.epsilon as f32,
            exponent: (self.shape - 1.0) as f32,
        }
    }
}

/// strength·sign(θ)·(|θ|+ε)^exponent, by the weight θ.
#[derive(Clone, Copy)]
struct Force {
    strength: f32,
    epsilon: f32,
    exponent: f32,
}

impl Force {
    #[inline(always)]
    fn on(self, weight: f32) -> f32 {
        let magnitude = self.strength * power(weight.abs() + self.epsilon, self.exponent);
        // A weight that is no number has a force that is none.
        let moved = if weight == 0.0 { weight } else { magnitude.copysign(weight) };
        if weight.is_nan() { weight } else { moved }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn add_force(weights: &[f32], force: Force, gradient: &mut [f32]) {
    for (weight, gradient) in weights.iter().zip(gradient) {
        *gradient += force.on(*weight);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn subtract_force(force: Force, weights: &mut [f32]) {
    for weight in weights {
        *weight -= force.on(*weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_penalty() {
        let weights = [0.3_f32, -0.02, 1.7, -0.6];
        for (shape, epsilon) in [(0.26, 1.0), (1.36, 0.01), (2.0, 0.5), (0.5, 0.001)] {
            let pull = Pull { lambda: 100.0, shape, epsilon, parameters: 7 };
            let mut gradient = [0.0_f32; 4];
            pull.add_gradient(&weights, &mut gradient);
            for index in 0..weights.len() {
                let nudge = 2e-4_f32;
                let at = |offset: f32| {
                    let mut moved = weights;
                    moved[index] += offset;
                    (pull.penalty(&moved), f64::from(moved[index]))
                };
                let ((above, x1), (below, x0)) = (at(nudge), at(-nudge));
                let difference = (above - below) / (x1 - x0);
                let error = (f64::from(gradient[index]) / difference - 1.0).abs();
                assert!(error < 1e-4, "{shape} {epsilon} {index}: {error}");
            }
        }
    }

    #[test]
    fn the_decoupled_step_subtracts_the_same_force() {
        let weights = [0.3_f32, -0.02, 0.0];
        let pull = Pull { lambda: 2000.0, shape: 1.36, epsilon: 1.0, parameters: 110_000_000 };
        let (mut moved, mut gradient) = (weights, [0.0_f32; 3]);
        pull.step(&mut moved);
        pull.add_gradient(&weights, &mut gradient);
        for index in 0..3 {
            assert_eq!(moved[index], weights[index] - gradient[index]);
        }
        // At shape 1.36 and ε = 1 the released λ moves a small weight by about 2.5·10⁻⁵ a step.
        assert!((gradient[1].abs() / 2.5e-5 - 1.0).abs() < 0.02, "{}", gradient[1]);
    }
}
