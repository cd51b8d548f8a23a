//! The probability model of the rate in bits: two zero-mean Laplace components.

use multiversion::multiversion;

use crate::exponential::exp_of_negative;

/// Code lengths are capped where the model gives a probability below this, about 100 bits.
const LEAST_PROBABILITY: f32 = 1e-30;

/// A mixture of two Laplace distributions around zero, by the logarithms that training adjusts.
///
/// p(w) = m·L(w; s₀) + (1−m)·L(w; s₁) with L(w; s) = exp(−|w|/s) / 2s and m = σ(`logit`). A narrow and a
/// wide component together follow anything from nearly Gaussian to very heavy-tailed weights, and stay
/// in closed form where a generalised Gaussian needs incomplete gamma functions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaplaceMixture {
    /// Log-odds of the first component.
    pub logit: f64,
    /// ln s of both components.
    pub log_scales: [f64; 2],
}

impl LaplaceMixture {
    /// A mixture for weights whose root mean square is about `scale`: half of the weights in a component
    /// of half the width, half in one of the full width.
    pub fn around(scale: f64) -> Self {
        let scale = scale.max(f64::from(f32::MIN_POSITIVE));
        Self { logit: 0.0, log_scales: [(0.4 * scale).ln(), (0.9 * scale).ln()] }
    }

    /// The code lengths of this model for a quantiser of that step.
    pub fn at_step(&self, step: f32) -> CodeLength {
        let share = 1.0 / (1.0 + (-self.logit).exp());
        let component = |share: f64, log_scale: f64| {
            let scale = log_scale.exp();
            let half_step = 0.5 * f64::from(step) / scale;
            Component {
                share: share as f32,
                inverse_scale: (1.0 / scale) as f32,
                inner: (-half_step).exp() as f32,
                outer_sinh: half_step.min(80.0).sinh() as f32,
                outer_cosh: half_step.min(80.0).cosh() as f32,
            }
        };
        CodeLength {
            half_step: 0.5 * step,
            step,
            components: [
                component(share, self.log_scales[0]),
                component(1.0 - share, self.log_scales[1]),
            ],
        }
    }
}

/// One component, with what depends on the step only.
#[derive(Clone, Copy, Debug)]
struct Component {
    share: f32,
    inverse_scale: f32,
    /// e^(−Δ/2s).
    inner: f32,
    /// sinh(Δ/2s), cosh(Δ/2s).
    outer_sinh: f32,
    outer_cosh: f32,
}

/// Probability of one cell under one component, and its derivatives by the point and by the step, both
/// in units of the component's scale.
struct Cell {
    probability: f32,
    by_point: f32,
    by_step: f32,
}

impl Component {
    /// The cell \[x − Δ/2, x + Δ/2\] for x = `magnitude` ≥ 0.
    #[inline(always)]
    fn cell(&self, magnitude: f32, half_step: f32) -> Cell {
        let decay = exp_of_negative(-magnitude * self.inverse_scale);
        // Inside the zero cell magnitude ≤ Δ/2, so e^(−Δ/2s)·e^(x/s) cannot overflow; outside it the
        // value is not used.
        let growth = self.inner / decay.max(1e-30);
        let shrink = self.inner * decay;
        let inside = magnitude < half_step;
        let pick = |within: f32, beyond: f32| if inside { within } else { beyond };
        Cell {
            probability: pick(1.0 - 0.5 * (growth + shrink), decay * self.outer_sinh),
            by_point: pick(-0.5 * (growth - shrink), -decay * self.outer_sinh),
            by_step: pick(0.25 * (growth + shrink), 0.5 * decay * self.outer_cosh),
        }
    }
}

/// Sums over some weights of their code lengths and of the derivatives by the model's parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateSums {
    /// Bits.
    pub bits: f64,
    /// ∂bits/∂ln Δ at fixed points.
    pub by_log_step: f64,
    /// ∂bits/∂logit.
    pub by_logit: f64,
    /// ∂bits/∂ln s of both components.
    pub by_log_scales: [f64; 2],
}

impl RateSums {
    /// The sums of so many weights like these.
    pub fn times(&self, count: f64) -> Self {
        Self {
            bits: count * self.bits,
            by_log_step: count * self.by_log_step,
            by_logit: count * self.by_logit,
            by_log_scales: self.by_log_scales.map(|sum| count * sum),
        }
    }
}

impl std::ops::AddAssign for RateSums {
    fn add_assign(&mut self, other: Self) {
        self.bits += other.bits;
        self.by_log_step += other.by_log_step;
        self.by_logit += other.by_logit;
        self.by_log_scales[0] += other.by_log_scales[0];
        self.by_log_scales[1] += other.by_log_scales[1];
    }
}

/// The code lengths of a [`LaplaceMixture`] at one step Δ.
///
/// bits(x) = −log₂ P(x), P(x) being the probability mass of the cell of width Δ around x. At x = q·Δ this
/// is the length of the code q; at x = w + Δ·u it is the smooth stand-in whose gradient training follows.
#[derive(Clone, Copy, Debug)]
pub struct CodeLength {
    step: f32,
    half_step: f32,
    components: [Component; 2],
}

impl CodeLength {
    /// Code length at x, in bits.
    pub fn bits(&self, x: f32) -> f64 {
        let mut sums = RateSums::default();
        self.visit(x, &mut sums);
        sums.bits
    }

    /// Adds `weight_of_bit` · ∂bits/∂x to each entry of `gradient`, and returns the sums over `points`.
    ///
    /// One pass: value, gradient by the points and gradients by step and model together.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn accumulate(&self, points: &[f32], weight_of_bit: f32, gradient: &mut [f32]) -> RateSums {
        assert_eq!(points.len(), gradient.len());
        accumulate(self, points, weight_of_bit, gradient)
    }

    fn visit(&self, x: f32, sums: &mut RateSums) {
        let mut block = Block::default();
        block.add(self, &[x], 0.0, &mut [0.0]);
        *sums += block.sums(self);
    }
}

/// Weights treated side by side.
const LANES: usize = 16;
/// Groups of lanes whose probabilities are multiplied before one logarithm is taken: eight of at least 10⁻³⁰
/// multiply to a normal double.
const GROUPS: usize = 8;

/// What some weights add up to, lane by lane, so that a compiler can keep the lanes in one register.
#[derive(Clone, Copy)]
struct Block {
    probability: [f64; LANES],
    by_step: [f32; LANES],
    by_share: [f32; LANES],
    by_scale: [[f32; LANES]; 2],
}

impl Default for Block {
    fn default() -> Self {
        Self {
            probability: [1.0; LANES],
            by_step: [0.0; LANES],
            by_share: [0.0; LANES],
            by_scale: [[0.0; LANES]; 2],
        }
    }
}

impl Block {
    /// Adds up to [`LANES`] weights, one to a lane.
    #[inline(always)]
    fn add(
        &mut self,
        code_length: &CodeLength,
        points: &[f32],
        weight_of_bit: f32,
        gradient: &mut [f32],
    ) {
        let [first, second] = &code_length.components;
        let slope_one = first.share * first.inverse_scale;
        let slope_two = second.share * second.inverse_scale;
        for lane in 0..points.len().min(gradient.len()).min(LANES) {
            let point = points[lane];
            let magnitude = point.abs();
            let one = first.cell(magnitude, code_length.half_step);
            let two = second.cell(magnitude, code_length.half_step);
            let probability = (first.share * one.probability + second.share * two.probability)
                .max(LEAST_PROBABILITY);
            let inverse = 1.0 / probability;
            let by_magnitude = (slope_one * one.by_point + slope_two * two.by_point) * inverse;
            // The sign bit of the point turns the derivative by |x| into that by x.
            let sign = f32::from_bits(1.0_f32.to_bits() | (point.to_bits() & 0x8000_0000));
            gradient[lane] -= weight_of_bit * std::f32::consts::LOG2_E * sign * by_magnitude;

            self.probability[lane] *= f64::from(probability);
            self.by_step[lane] += (slope_one * one.by_step + slope_two * two.by_step) * inverse;
            self.by_share[lane] += (one.probability - two.probability) * inverse;
            // x·∂P/∂x + Δ·∂P/∂Δ of one component; its negative is ∂P/∂ln s.
            let scaled = |slope: f32, cell: &Cell| {
                slope * (magnitude * cell.by_point + code_length.step * cell.by_step) * inverse
            };
            self.by_scale[0][lane] += scaled(slope_one, &one);
            self.by_scale[1][lane] += scaled(slope_two, &two);
        }
    }

    fn sums(&self, code_length: &CodeLength) -> RateSums {
        let log2_e = std::f64::consts::LOG2_E;
        let sum = |lanes: &[f32; LANES]| lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>();
        let share = f64::from(code_length.components[0].share);
        let other = f64::from(code_length.components[1].share);
        RateSums {
            bits: -self.probability.iter().map(|product| product.log2()).sum::<f64>(),
            by_log_step: -log2_e * f64::from(code_length.step) * sum(&self.by_step),
            by_logit: -log2_e * share * other * sum(&self.by_share),
            by_log_scales: self.by_scale.map(|lanes| log2_e * sum(&lanes)),
        }
    }
}

/// The loop of [`CodeLength::accumulate`], compiled for several instruction sets; the best one that the
/// processor has is chosen at run time.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn accumulate(
    code_length: &CodeLength,
    points: &[f32],
    weight_of_bit: f32,
    gradient: &mut [f32],
) -> RateSums {
    let mut sums = RateSums::default();
    let groups = points.chunks(LANES * GROUPS).zip(gradient.chunks_mut(LANES * GROUPS));
    for (points, gradient) in groups {
        let mut block = Block::default();
        for (points, gradient) in points.chunks(LANES).zip(gradient.chunks_mut(LANES)) {
            // A fixed length lets the compiler unroll the lanes.
            match (<&[f32; LANES]>::try_from(points), <&mut [f32; LANES]>::try_from(&mut *gradient))
            {
                (Ok(points), Ok(gradient)) => {
                    block.add(code_length, points, weight_of_bit, gradient);
                }
                _ => block.add(code_length, points, weight_of_bit, gradient),
            }
        }
        sums += block.sums(code_length);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition in double precision, from the cumulative distribution.
    fn reference(mixture: &LaplaceMixture, step: f64, x: f64) -> f64 {
        let upper_tail = |x: f64, scale: f64| {
            if x > 0.0 { 0.5 * (-x / scale).exp() } else { 1.0 - 0.5 * (x / scale).exp() }
        };
        let share = 1.0 / (1.0 + (-mixture.logit).exp());
        let x = x.abs();
        let probability: f64 = [share, 1.0 - share]
            .iter()
            .zip(mixture.log_scales)
            .map(|(share, log_scale)| {
                let scale = log_scale.exp();
                share * (upper_tail(x - step / 2.0, scale) - upper_tail(x + step / 2.0, scale))
            })
            .sum();
        -probability.log2()
    }

    fn cases() -> Vec<(LaplaceMixture, f64, f64)> {
        let mut cases = Vec::new();
        for (logit, narrow, wide) in [(0.0, 0.03, 0.1), (2.0, 0.002, 0.3), (-1.0, 0.05, 0.05)] {
            let mixture = LaplaceMixture { logit, log_scales: [f64::ln(narrow), f64::ln(wide)] };
            for step in [0.004_f64, 0.03, 0.11, 0.5] {
                for x in [0.0013, -0.014, 0.0551, -0.0549, 0.2, -0.9] {
                    cases.push((mixture, f64::from(step as f32), f64::from(x as f32)));
                }
            }
        }
        cases
    }

    #[test]
    fn code_lengths_are_those_of_the_definition() {
        for (mixture, step, x) in cases() {
            let exact = reference(&mixture, step, x);
            let fast = mixture.at_step(step as f32).bits(x as f32);
            assert!((fast - exact).abs() < 2e-5 * (1.0 + exact), "{x} {step}: {fast} {exact}");
        }
    }

    #[test]
    fn the_probabilities_of_all_codes_sum_to_one() {
        for (mixture, step, _) in cases() {
            let code_length = mixture.at_step(step as f32);
            let sum: f64 = (-2000..=2000)
                .map(|code| (-code_length.bits(code as f32 * step as f32)).exp2())
                .sum();
            assert!((sum - 1.0).abs() < 1e-4, "{step}: {sum}");
        }
    }

    #[test]
    fn every_gradient_agrees_with_finite_differences() {
        for (mixture, step, x) in cases() {
            let nudge = 1e-6;
            let difference = |f: &dyn Fn(f64) -> f64| (f(nudge) - f(-nudge)) / (2.0 * nudge);
            let by_point = difference(&|d| reference(&mixture, step, x + d * step)) / step;
            let by_log_step = difference(&|d| reference(&mixture, step * d.exp(), x));
            let moved = |logit: f64, narrow: f64, wide: f64| LaplaceMixture {
                logit: mixture.logit + logit,
                log_scales: [mixture.log_scales[0] + narrow, mixture.log_scales[1] + wide],
            };
            let by_logit = difference(&|d| reference(&moved(d, 0.0, 0.0), step, x));
            let by_narrow = difference(&|d| reference(&moved(0.0, d, 0.0), step, x));
            let by_wide = difference(&|d| reference(&moved(0.0, 0.0, d), step, x));

            let mut gradient = [0.0_f32];
            let sums = mixture.at_step(step as f32).accumulate(&[x as f32], 1.0, &mut gradient);
            let pairs = [
                (f64::from(gradient[0]), by_point),
                (sums.by_log_step, by_log_step),
                (sums.by_logit, by_logit),
                (sums.by_log_scales[0], by_narrow),
                (sums.by_log_scales[1], by_wide),
            ];
            for (index, (closed, finite)) in pairs.into_iter().enumerate() {
                let error = (closed - finite).abs();
                assert!(
                    error < 3e-4 * (1.0 + finite.abs()),
                    "case {index} at {x}, step {step}: {closed} and {finite}"
                );
            }
        }
    }

    #[test]
    fn sums_over_many_weights_are_those_of_the_weights() {
        let mixture = LaplaceMixture::around(0.05);
        let code_length = mixture.at_step(0.04);
        let points: Vec<f32> = (0..1001).map(|i| ((i * 37) % 211) as f32 * 0.003 - 0.3).collect();
        let mut gradient = vec![0.5; points.len()];
        let sums = code_length.accumulate(&points, 2.0, &mut gradient);
        let bits: f64 = points.iter().map(|x| code_length.bits(*x)).sum();
        assert!((sums.bits / bits - 1.0).abs() < 1e-6);
        let mut single = [0.5_f32];
        code_length.accumulate(&points[500..501], 2.0, &mut single);
        assert_eq!(single[0], gradient[500]);
    }

    #[test]
    fn values_far_outside_the_model_stay_finite() {
        let code_length = LaplaceMixture::around(1e-6).at_step(1e-6);
        let mut gradient = [0.0_f32; 3];
        let sums = code_length.accumulate(&[1e3, -1e9, 0.0], 1.0, &mut gradient);
        assert!(sums.bits.is_finite() && gradient.iter().all(|g| g.is_finite()));
        let wide = LaplaceMixture::around(1e-6).at_step(10.0);
        assert!(wide.bits(0.0) < 1e-6 && wide.bits(20.0).is_finite());
    }
}
