//! AdamW (Loshchilov and Hutter 2019), one pass over each tensor.

use rayon::prelude::*;

use super::decay::decayed;

/// Elements that one task treats; fixed, so that sums do not depend on the number of threads.
pub(crate) const CHUNK: usize = 1 << 14;

/// The constants of AdamW.
///
/// m ← β₁·m + (1−β₁)·g, v ← β₂·v + (1−β₂)·g²,
/// w ← w − η·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε) − η·d·w, with t the number of the step from 1 on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdamW {
    pub(crate) beta1: f64,
    pub(crate) beta2: f64,
    pub(crate) epsilon: f64,
}

/// Moments of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorMoments {
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
}

impl TensorMoments {
    pub(crate) fn zeros(length: usize) -> Self {
        Self { first: vec![0.0; length], second: vec![0.0; length] }
    }
}

impl AdamW {
    /// Moves `weights` against `gradient`; `time` counts from 1, `decay` is the decoupled weight decay, which is
    /// [`decayed`] with caution or without.
    #[expect(clippy::too_many_arguments, reason = "the symbols of the formula")]
    pub(crate) fn update(
        &self,
        time: u64,
        learning_rate: f64,
        decay: f64,
        cautious: bool,
        weights: &mut [f32],
        gradient: &[f32],
        moments: &mut TensorMoments,
    ) {
        let rate = (learning_rate / correction(self.beta1, time)) as f32;
        let second_correction = (1.0 / correction(self.beta2, time).sqrt()) as f32;
        let (beta1, beta2) = (self.beta1 as f32, self.beta2 as f32);
        let epsilon = self.epsilon as f32;
        let keep = (1.0 - learning_rate * decay) as f32;
        weights
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(moments.first.par_chunks_mut(CHUNK))
            .zip(moments.second.par_chunks_mut(CHUNK))
            .for_each(|(((weights, gradient), first), second)| {
                for index in 0..weights.len() {
                    let g = gradient[index];
                    let m = beta1 * first[index] + (1.0 - beta1) * g;
                    let v = beta2 * second[index] + (1.0 - beta2) * g * g;
                    first[index] = m;
                    second[index] = v;
                    let step = rate * m / (v.sqrt() * second_correction + epsilon);
                    weights[index] = decayed(weights[index], step, keep, cautious);
                }
            });
    }
}

/// 1 − βᵗ.
fn correction(beta: f64, time: u64) -> f64 {
    1.0 - beta.powf(time as f64)
}

/// Adam for a handful of numbers, in double precision, with the usual constants (0.9, 0.99).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScalarAdam<const N: usize> {
    pub(crate) first: [f64; N],
    pub(crate) second: [f64; N],
}

impl<const N: usize> Default for ScalarAdam<N> {
    fn default() -> Self {
        Self { first: [0.0; N], second: [0.0; N] }
    }
}

impl<const N: usize> ScalarAdam<N> {
    const BETA1: f64 = 0.9;
    const BETA2: f64 = 0.99;

    /// What the means of a step are divided by, since they began at zero.
    pub(crate) fn corrections(time: u64) -> [f64; 2] {
        [Self::BETA1, Self::BETA2].map(|beta| correction(beta, time))
    }

    /// What to add to the numbers, by the corrections of the step.
    pub(crate) fn step(
        &mut self,
        corrections: [f64; 2],
        learning_rate: f64,
        gradient: [f64; N],
    ) -> [f64; N] {
        std::array::from_fn(|index| {
            let g = gradient[index];
            self.first[index] += (1.0 - Self::BETA1) * (g - self.first[index]);
            self.second[index] += (1.0 - Self::BETA2) * (g * g - self.second[index]);
            let mean = self.first[index] / corrections[0];
            let square = self.second[index] / corrections[1];
            -learning_rate * mean / (square.sqrt() + 1e-12)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps against the published update in double precision.
    #[test]
    fn the_update_is_the_published_one() {
        let optimizer = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 };
        let gradients = [[0.3_f32, -2.0], [0.1, 0.5], [-0.7, 0.0]];
        let mut weights = [1.0_f32, -0.5];
        let mut moments = TensorMoments::zeros(2);
        let (mut w, mut m, mut v) = ([1.0_f64, -0.5], [0.0_f64; 2], [0.0_f64; 2]);
        for (index, gradient) in gradients.iter().enumerate() {
            let time = index as u64 + 1;
            optimizer.update(time, 0.01, 0.1, false, &mut weights, gradient, &mut moments);
            for i in 0..2 {
                let g = f64::from(gradient[i]);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                let m_hat = m[i] / (1.0 - 0.9_f64.powi(time as i32));
                let v_hat = v[i] / (1.0 - 0.95_f64.powi(time as i32));
                w[i] -= 0.01 * 0.1 * w[i] + 0.01 * m_hat / (v_hat.sqrt() + 1e-8);
                assert!((f64::from(weights[i]) - w[i]).abs() < 1e-6, "{weights:?} {w:?}");
            }
        }
    }

    #[test]
    fn the_scalar_form_finds_a_minimum() {
        let mut adam = ScalarAdam::<2>::default();
        let mut x = [3.0_f64, -2.0];
        for time in 1..2000 {
            let corrections = ScalarAdam::<2>::corrections(time);
            let step = adam.step(corrections, 0.01, [2.0 * (x[0] - 1.0), 20.0 * x[1]]);
            x = [x[0] + step[0], x[1] + step[1]];
        }
        assert!((x[0] - 1.0).abs() < 1e-3 && x[1].abs() < 1e-3, "{x:?}");
    }
}
