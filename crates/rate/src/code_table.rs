//! What codes cost under a mixture, looked up: rounded weights take few values.

use multiversion::multiversion;

use crate::{CodeLength, LaplaceMixture, RateSums};

/// Codes of a smaller magnitude are looked up, others computed.
const TABLE: usize = 128;
/// Weights treated side by side.
const BLOCK: usize = 256;
/// Counts of each code that are kept apart, so that equal codes in a row do not wait for one another.
const COUNTERS: usize = 4;

/// The code lengths of all codes of a [`LaplaceMixture`] at one step, with their derivatives.
///
/// What [`CodeLength::accumulate`] computes for every point, this reads from a table of the codes q, at the points q·Δ.
#[derive(Clone, Debug)]
pub struct CodeTable {
    step: f32,
    code_length: CodeLength,
    /// ∂bits/∂x by magnitude; the last entry is 0, for codes beyond the table.
    slopes: [f32; TABLE],
    sums: [RateSums; TABLE],
}

impl LaplaceMixture {
    /// The code lengths of the codes of a quantiser of that step.
    pub fn codes_at_step(&self, step: f32) -> CodeTable {
        let code_length = self.at_step(step);
        let (mut slopes, mut sums) = ([0.0; TABLE], [RateSums::default(); TABLE]);
        for magnitude in 0..TABLE - 1 {
            let point = magnitude as f32 * step;
            // At zero the code length has its least value.
            let mut slope = [0.0];
            sums[magnitude] = code_length.accumulate(&[point], 1.0, &mut slope);
            slopes[magnitude] = if magnitude == 0 { 0.0 } else { slope[0] };
        }
        CodeTable { step, code_length, slopes, sums }
    }
}

impl CodeTable {
    /// Rounds weights w to codes q = round(w/Δ), ties to even, and adds `weight_of_bit` · ∂bits/∂x at x = q·Δ to each entry
    /// of `gradient`. Returned are the sums over the codes, and Σ g·(q·Δ − w) with g the gradient after that: what the
    /// step gains through the points where rounding is passed straight through.
    ///
    /// ```
    /// use backslash_rate::LaplaceMixture;
    ///
    /// let (mixture, step) = (LaplaceMixture::around(0.1), 0.25);
    /// let mut gradient = [0.0, 0.0, 1.0];
    /// let weights = [0.3, 0.1, -0.2];
    /// let (sums, through_points) =
    ///     mixture.codes_at_step(step).accumulate(&weights, 1.0, &mut gradient);
    /// let bits: f64 = [0.25, 0.0, -0.25].map(|x| mixture.at_step(step).bits(x)).iter().sum();
    /// assert!((sums.bits - bits).abs() < 1e-4);
    /// // A code of 1 costs more than one of 0, whose cost does not depend on the weight.
    /// assert!(gradient[0] > 0.0 && gradient[1] == 0.0 && gradient[2] < 1.0);
    /// let moved = [0.25 - 0.3, 0.0 - 0.1, -0.25 + 0.2];
    /// let expected: f32 = moved.iter().zip(gradient).map(|(m, g)| m * g).sum();
    /// assert!((through_points - f64::from(expected)).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn accumulate(
        &self,
        weights: &[f32],
        weight_of_bit: f32,
        gradient: &mut [f32],
    ) -> (RateSums, f64) {
        assert_eq!(weights.len(), gradient.len());
        let mut counts = [[0; TABLE]; COUNTERS];
        let mut sums = RateSums::default();
        let mut through_points = 0.0;
        let blocks = weights.chunks(BLOCK).zip(gradient.chunks_mut(BLOCK));
        for (weights, gradient) in blocks {
            let mut magnitudes = [0; BLOCK];
            let magnitudes = &mut magnitudes[..weights.len()];
            read(self, weights, weight_of_bit, gradient, magnitudes);
            count(magnitudes, &mut counts);
            if magnitudes.contains(&LAST) {
                self.compute(weights, weight_of_bit, gradient, magnitudes, &mut sums);
            }
            through_points += moved(self.step, weights, gradient);
        }
        for (magnitude, each) in self.sums.iter().enumerate().take(TABLE - 1) {
            let count: u32 = counts.iter().map(|counts| counts[magnitude]).sum();
            sums += each.times(f64::from(count));
        }
        (sums, through_points)
    }

    /// The codes that are not in the table.
    fn compute(
        &self,
        weights: &[f32],
        weight_of_bit: f32,
        gradient: &mut [f32],
        magnitudes: &[u8],
        sums: &mut RateSums,
    ) {
        for (index, magnitude) in magnitudes.iter().enumerate() {
            if *magnitude == LAST {
                let point = round(weights[index], 1.0 / self.step) * self.step;
                let gradient = &mut gradient[index..=index];
                *sums += self.code_length.accumulate(&[point], weight_of_bit, gradient);
            }
        }
    }
}

/// The entry of codes beyond the table.
const LAST: u8 = (TABLE - 1) as u8;

#[inline(always)]
fn round(weight: f32, codes_per_unit: f32) -> f32 {
    (weight * codes_per_unit).round_ties_even()
}

/// Magnitudes of codes, and the gradient of those in the table.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn read(
    table: &CodeTable,
    weights: &[f32],
    weight_of_bit: f32,
    gradient: &mut [f32],
    magnitudes: &mut [u8],
) {
    let codes_per_unit = 1.0 / table.step;
    for ((weight, gradient), magnitude) in weights.iter().zip(gradient).zip(magnitudes) {
        let code = round(*weight, codes_per_unit);
        let index = code.abs().min(f32::from(LAST)) as usize;
        *magnitude = index as u8;
        *gradient += weight_of_bit * table.slopes[index & (TABLE - 1)].copysign(code);
    }
}

fn count(magnitudes: &[u8], counts: &mut [[u32; TABLE]; COUNTERS]) {
    let groups = magnitudes.chunks_exact(COUNTERS);
    for magnitude in groups.remainder() {
        counts[0][usize::from(*magnitude) & (TABLE - 1)] += 1;
    }
    for group in groups {
        for (counts, magnitude) in counts.iter_mut().zip(group) {
            counts[usize::from(*magnitude) & (TABLE - 1)] += 1;
        }
    }
}

/// Σ g·(q·Δ − w).
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn moved(step: f32, weights: &[f32], gradient: &[f32]) -> f64 {
    const LANES: usize = 16;
    let codes_per_unit = 1.0 / step;
    let mut lanes = [0.0_f32; LANES];
    for (weights, gradient) in weights.chunks(LANES).zip(gradient.chunks(LANES)) {
        for (lane, (weight, gradient)) in lanes.iter_mut().zip(weights.iter().zip(gradient)) {
            *lane += gradient * (round(*weight, codes_per_unit) * step - weight);
        }
    }
    lanes.iter().map(|lane| f64::from(*lane)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round_to_step;
    use proptest::prelude::*;

    proptest! {
        /// The table gives what the code lengths at the rounded points give.
        #[test]
        fn it_agrees_with_the_code_length_of_each_point(
            weights in prop::collection::vec(-1.0_f32..1.0, 0..700),
            far in -2e4_f32..2e4,
            step in 0.003_f32..0.6,
            logit in -3.0_f64..3.0,
            (narrow, wide) in (0.004_f64..0.3, 0.004_f64..0.3),
            weight_of_bit in 0.0_f32..2.0,
        ) {
            let mixture = LaplaceMixture { logit, log_scales: [narrow.ln(), wide.ln()] };
            let weights: Vec<f32> = weights.into_iter().chain([far, -far, 0.0]).collect();
            let before: Vec<f32> = weights.iter().map(|w| 0.1 * w - 0.01).collect();

            let mut points = vec![0.0; weights.len()];
            round_to_step(&weights, step, &mut points);
            let mut expected = before.clone();
            let one_by_one =
                mixture.at_step(step).accumulate(&points, weight_of_bit, &mut expected);

            let mut gradient = before;
            let (sums, through_points) =
                mixture.codes_at_step(step).accumulate(&weights, weight_of_bit, &mut gradient);
            // At the middle of the zero cell rounding leaves a slope of some 1e-7 of its terms.
            for (gradient, expected) in gradient.iter().zip(&expected) {
                prop_assert!((gradient - expected).abs() <= 1e-4 * (1.0 + expected.abs()));
            }
            let near = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-4 * (1.0 + scale.abs());
            prop_assert!(near(sums.bits, one_by_one.bits, one_by_one.bits));
            let bits = one_by_one.bits;
            prop_assert!(near(sums.by_log_step, one_by_one.by_log_step, bits));
            prop_assert!(near(sums.by_logit, one_by_one.by_logit, bits));
            for (scale, one) in sums.by_log_scales.iter().zip(one_by_one.by_log_scales) {
                prop_assert!(near(*scale, one, bits));
            }
            let terms = || weights.iter().zip(&points).zip(&expected)
                .map(|((weight, point), g)| f64::from(*g) * f64::from(point - weight));
            let size = terms().map(f64::abs).sum::<f64>();
            prop_assert!(near(through_points, terms().sum(), size));
        }
    }
}
