//! The rate in bits: learned steps, noise or rounding, and a probability model that follows the weights.

use std::borrow::Cow;

use backslash_codec::Origin;
use backslash_model::{Gradients, NamedTensor, NamedWeights};
use backslash_quant::{Plan, is_coded};
use backslash_rate::{LaplaceMixture, Moments, RateSums, add_uniform_noise, round_to_step};
use rayon::prelude::*;

use crate::adamw::{CHUNK, ScalarAdam};
use crate::{RunConfig, StepRule};

/// J = D + λ·R, with R the mean code length in bits of all coded weights.
///
/// In the first part of a run there is neither a rate nor a quantiser. From its start on, each coded tensor has a step Δ
/// and a mixture of two Laplace components. Until rounding begins the loss sees w + Δ·u, u uniform in ±½, and R is the
/// code length at that point; afterwards the loss sees Δ·round(w/Δ) and R is the code length of that code, and the
/// gradient of both passes straight through to w. A matrix with an origin o has w − o in the place of w: what is
/// perturbed and priced is how far it has moved. In both, ∂/∂ln Δ of the point is (point − w), so the step's gradient
/// is Σ g·(point − w) plus what the
/// code length itself depends on Δ, with g the gradient of J at the points.
#[derive(Clone, Debug)]
pub(crate) struct BitsPressure {
    tensors: Vec<TensorRate>,
    lambda: f64,
    learning_rate: f64,
    learned: bool,
    seed: u64,
    /// Steps at the start, in units of the root mean square of the weights then.
    initial_step: f64,
    /// The first step with a rate.
    start: u64,
    /// The first step that rounds.
    rounding_from: u64,
    /// Weights in all coded tensors.
    coded: f64,
}

#[derive(Clone, Debug, PartialEq)]
struct TensorRate {
    /// Where the tensor stands among the weights.
    at: usize,
    name: String,
    /// What the decoder draws, where it does.
    origin: Option<Origin>,
    /// Its values, or none.
    start: Vec<f32>,
    log_step: f64,
    mixture: LaplaceMixture,
    adam: ScalarAdam<4>,
    /// Gradient of J by ln Δ, logit, ln s₀, ln s₁, waiting for the update.
    gradient: [f64; 4],
}

/// Numbers of one tensor's state in a checkpoint.
const STATE: usize = 12;

impl BitsPressure {
    pub(crate) fn new(config: &RunConfig, weights: &NamedWeights) -> Self {
        let RunConfig { rate, train, .. } = config;
        let origins = config.origins();
        let tensors: Vec<TensorRate> = weights
            .tensors()
            .iter()
            .enumerate()
            .filter(|(_, tensor)| is_coded(&tensor.shape))
            .map(|(at, tensor)| {
                let origin = origins.get(&tensor.name).copied();
                TensorRate::new(at, tensor, origin, rate.initial_step)
            })
            .collect();
        let coded = tensors.iter().map(|t| weights.tensors()[t.at].data.len()).sum::<usize>();
        Self {
            tensors,
            lambda: rate.lambda,
            learning_rate: rate.learning_rate,
            learned: rate.step_rule == StepRule::Learned,
            seed: train.seed,
            initial_step: rate.initial_step,
            start: rate.first_step(train),
            rounding_from: (rate.rounding_from * train.steps as f64).round() as u64,
            coded: coded.max(1) as f64,
        }
    }

    /// Weights in all coded tensors.
    pub(crate) fn coded(&self) -> f64 {
        self.coded
    }

    /// The price of a bit from now on, in nats of loss per bit per weight.
    pub(crate) fn set_lambda(&mut self, lambda: f64) {
        self.lambda = lambda;
    }

    /// Whether a step is the first that rounds, after others that had noise.
    pub(crate) fn rounding_begins(&self, step: u64) -> bool {
        step == self.rounding_from && step > self.start
    }

    /// Whether there is a rate at a step.
    pub(crate) fn acts_at(&self, step: u64) -> bool {
        step >= self.start
    }

    /// Whether steps and models are known once so many steps have been taken.
    pub(crate) fn has_begun(&self, taken: u64) -> bool {
        self.start == 0 || taken > self.start
    }

    /// Before the first step with a rate, steps and models are set by the weights as they are; otherwise nothing happens.
    pub(crate) fn prepare(&mut self, weights: &NamedWeights, step: u64) {
        if step == self.start && step > 0 {
            for rate in &mut self.tensors {
                rate.begin_with(&weights.tensors()[rate.at], self.initial_step);
            }
        }
    }

    /// The step of every coded tensor, and what its codes are added to.
    pub(crate) fn plan(&self) -> Plan {
        let tensors = self.tensors.iter();
        let steps = tensors.clone().map(|rate| (rate.name.clone(), rate.step())).collect();
        let origins = tensors.filter_map(|rate| Some((rate.name.clone(), rate.origin?)));
        Plan::learned(steps).from_origins(origins.collect())
    }

    /// The weights that the loss is computed with at a step with a rate.
    pub(crate) fn perturbed(&self, weights: &NamedWeights, step: u64) -> NamedWeights {
        let mut seen = weights.clone();
        for rate in &self.tensors {
            let from = &weights.tensors()[rate.at].data;
            let to = &mut seen.tensors_mut()[rate.at].data;
            let key = noise_key(self.seed, step, rate.at);
            let rounding = step >= self.rounding_from;
            to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).enumerate().for_each(
                |(chunk, (to, from))| {
                    let first = chunk * CHUNK;
                    let moved = rate.moved(first, from);
                    if rounding {
                        round_to_step(&moved, rate.step(), to);
                    } else {
                        add_uniform_noise(&moved, rate.step(), key, first as u64, to);
                    }
                    let start = rate.start.get(first..).unwrap_or(&[]);
                    to.iter_mut().zip(start).for_each(|(to, start)| *to += start);
                },
            );
        }
        seen
    }

    pub(crate) fn add_gradient(
        &mut self,
        weights: &NamedWeights,
        seen: &NamedWeights,
        gradients: &mut Gradients,
    ) -> f64 {
        let weight_of_bit = self.lambda / self.coded;
        let mut bits = 0.0;
        for rate in &mut self.tensors {
            let code_length = rate.mixture.at_step(rate.step());
            let points = &seen.tensors()[rate.at].data;
            let origins = &weights.tensors()[rate.at].data;
            let parts: Vec<(RateSums, f64)> = gradients.values[rate.at]
                .par_chunks_mut(CHUNK)
                .zip(points.par_chunks(CHUNK).zip(origins.par_chunks(CHUNK)))
                .enumerate()
                .map(|(chunk, (gradient, (points, origins)))| {
                    let moved = rate.moved(chunk * CHUNK, points);
                    let sums = code_length.accumulate(&moved, weight_of_bit as f32, gradient);
                    (sums, moved_by_step(gradient, points, origins))
                })
                .collect();
            let mut sums = RateSums::default();
            let mut through_points = 0.0;
            for (part, moved) in parts {
                sums += part;
                through_points += moved;
            }
            bits += sums.bits;
            rate.gradient = [
                through_points + weight_of_bit * sums.by_log_step,
                weight_of_bit * sums.by_logit,
                weight_of_bit * sums.by_log_scales[0],
                weight_of_bit * sums.by_log_scales[1],
            ];
        }
        bits / self.coded
    }

    /// Moves steps and models by Adam after a step with a rate.
    pub(crate) fn update(&mut self, step: u64, multiplier: f64) {
        let time = step + 1 - self.start;
        for rate in &mut self.tensors {
            let moved = rate.adam.step(time, multiplier * self.learning_rate, rate.gradient);
            if self.learned {
                rate.log_step += moved[0];
            }
            rate.mixture.logit += moved[1];
            rate.mixture.log_scales[0] += moved[2];
            rate.mixture.log_scales[1] += moved[3];
        }
    }

    /// Everything that changes during a run, as numbers for a checkpoint.
    pub(crate) fn state(&self) -> Vec<f64> {
        let of = |rate: &TensorRate| {
            let [s0, s1] = rate.mixture.log_scales;
            let mut numbers = vec![rate.log_step, rate.mixture.logit, s0, s1];
            numbers.extend(rate.adam.first);
            numbers.extend(rate.adam.second);
            numbers
        };
        self.tensors.iter().flat_map(of).collect()
    }

    /// Takes over a [`BitsPressure::state`]; `false` if it is of another length.
    pub(crate) fn restore(&mut self, state: &[f64]) -> bool {
        if state.len() != STATE * self.tensors.len() {
            return false;
        }
        for (rate, numbers) in self.tensors.iter_mut().zip(state.chunks_exact(STATE)) {
            rate.log_step = numbers[0];
            rate.mixture.logit = numbers[1];
            rate.mixture.log_scales = [numbers[2], numbers[3]];
            rate.adam.first.copy_from_slice(&numbers[4..8]);
            rate.adam.second.copy_from_slice(&numbers[8..12]);
        }
        true
    }
}

impl TensorRate {
    fn new(at: usize, tensor: &NamedTensor, origin: Option<Origin>, initial_step: f64) -> Self {
        let mut start = Vec::new();
        if let Some(origin) = origin {
            start.resize(tensor.data.len(), 0.0);
            origin.draw(0, &mut start);
        }
        let mut rate = Self {
            at,
            name: tensor.name.clone(),
            origin,
            start,
            log_step: 0.0,
            mixture: LaplaceMixture::around(1.0),
            adam: ScalarAdam::default(),
            gradient: [0.0; 4],
        };
        rate.begin_with(tensor, initial_step);
        rate
    }

    /// Step and model are those for the weights as they are.
    fn begin_with(&mut self, tensor: &NamedTensor, initial_step: f64) {
        let scale = expected_scale(&self.moved(0, &tensor.data), &tensor.shape);
        self.log_step = (initial_step * scale).ln();
        self.mixture = LaplaceMixture::around(scale);
    }

    fn step(&self) -> f32 {
        self.log_step.exp() as f32
    }

    /// How far weights, the first of which stands at `first`, are from where the decoder starts.
    fn moved<'a>(&self, first: usize, weights: &'a [f32]) -> Cow<'a, [f32]> {
        match self.start.get(first..) {
            Some(start) if !start.is_empty() => {
                weights.iter().zip(start).map(|(weight, start)| weight - start).collect()
            }
            _ => Cow::Borrowed(weights),
        }
    }
}

/// Root mean square of the weights, or that of a uniformly drawn layer where all are zero.
fn expected_scale(weights: &[f32], shape: &[usize]) -> f64 {
    let rms = Moments::of(weights).root_mean_square();
    let inputs: usize = shape[1..].iter().product();
    if rms > 0.0 { rms } else { 1.0 / (3.0 * inputs as f64).sqrt() }
}

/// Σ g·(point − origin): the gradient by ln Δ that passes through the points.
fn moved_by_step(gradient: &[f32], points: &[f32], origins: &[f32]) -> f64 {
    let terms = gradient.iter().zip(points.iter().zip(origins));
    terms.map(|(g, (point, origin))| f64::from(*g) * f64::from(point - origin)).sum()
}

/// A key of its own for each run, step and tensor.
fn noise_key(seed: u64, step: u64, tensor: usize) -> u64 {
    let mut key = seed;
    for part in [step, tensor as u64] {
        key = (key ^ part.wrapping_add(1)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        key ^= key >> 32;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OriginRule, RateConfig, RateMethod, TrainConfig};
    use backslash_model::{ModelConfig, initial_weights};

    fn weights() -> NamedWeights {
        let data = (0..64 * 64).map(|i| ((i * 2_654_435_761_usize) % 1000) as f32 * 1e-4 - 0.05);
        NamedWeights::new(vec![
            NamedTensor { name: "w".to_owned(), shape: vec![64, 64], data: data.collect() },
            NamedTensor { name: "gain".to_owned(), shape: vec![8], data: vec![1.0; 8] },
        ])
    }

    /// Steps and rate of 100 steps, codes from zero.
    fn config(start: f64, rounding_from: f64) -> RunConfig {
        let rate = RateConfig {
            method: RateMethod::Bits,
            start,
            origin: OriginRule::Zero,
            initial_step: 0.5,
            rounding_from,
            ..RateConfig::default()
        };
        let train = TrainConfig { steps: 100, ..TrainConfig::default() };
        RunConfig { rate, train, ..RunConfig::default() }
    }

    fn pressure(rounding_from: f64) -> BitsPressure {
        BitsPressure::new(&config(0.0, rounding_from), &weights())
    }

    fn step_of(pressure: &BitsPressure) -> f32 {
        pressure.plan().steps["w"]
    }

    fn values(pressure: &mut BitsPressure, weights: &NamedWeights, step: u64) -> (f64, Gradients) {
        let mut gradients = Gradients {
            values: weights.tensors().iter().map(|t| vec![0.0; t.data.len()]).collect(),
        };
        let seen = pressure.perturbed(weights, step);
        (pressure.add_gradient(weights, &seen, &mut gradients), gradients)
    }

    #[test]
    fn only_matrices_are_perturbed_by_at_most_half_a_step() {
        let (weights, pressure) = (weights(), pressure(0.5));
        let step = step_of(&pressure);
        for (at, whole) in [(3, false), (70, true)] {
            let seen = pressure.perturbed(&weights, at);
            assert_eq!(seen.get("gain"), weights.get("gain"));
            for (w, s) in weights.get("w").unwrap().data.iter().zip(&seen.get("w").unwrap().data) {
                assert!((w - s).abs() <= 0.500_1 * step);
                assert_eq!(whole, (s / step - (s / step).round()).abs() < 1e-4, "{s}");
                if !whole {
                    break;
                }
            }
        }
    }

    /// With a fixed noise, moving ln Δ moves the points; the gradient must contain both effects.
    #[test]
    fn the_gradient_by_the_step_agrees_with_a_finite_difference() {
        let weights = weights();
        let mut middle = pressure(1.0);
        values(&mut middle, &weights, 5);
        let gradient = middle.tensors[0].gradient[0];
        let at = |offset: f64| {
            let mut moved = pressure(1.0);
            moved.tensors[0].log_step += offset;
            moved.lambda * values(&mut moved, &weights, 5).0
        };
        let finite = (at(1e-3) - at(-1e-3)) / 2e-3;
        assert!((gradient / finite - 1.0).abs() < 0.01, "{gradient} {finite}");
        assert!(gradient < 0.0, "a wider step costs fewer bits");
    }

    #[test]
    fn a_late_start_begins_with_the_weights_of_that_time() {
        let config = config(0.3, 0.3);
        let mut late = BitsPressure::new(&config, &weights());
        assert!(!late.acts_at(29) && late.acts_at(30));
        assert!(!late.has_begun(30) && late.has_begun(31));
        let mut grown = weights();
        let at = grown.position("w").unwrap();
        grown.tensors_mut()[at].data.iter_mut().for_each(|w| *w *= 3.0);
        let before = step_of(&late);
        late.prepare(&grown, 29);
        assert_eq!(step_of(&late), before);
        late.prepare(&grown, 30);
        assert!((step_of(&late) / before - 3.0).abs() < 1e-5);
        // The first correction of Adam is that of its first step, however late.
        values(&mut late, &grown, 30);
        let log_step = late.tensors[0].log_step;
        late.update(30, 1.0);
        let moved = (late.tensors[0].log_step - log_step).abs();
        assert!((moved / config.rate.learning_rate - 1.0).abs() < 1e-3, "{moved}");
        late.prepare(&grown, 31);
        assert!(late.tensors[0].adam.first[0] != 0.0, "prepared once");
    }

    /// Weights that have not moved cost next to nothing and are seen as they are; those that have are on the grid
    /// around their start, which the file gives back bit for bit.
    #[test]
    fn codes_are_what_weights_have_moved_by() {
        let model = ModelConfig {
            vocabulary_size: 64,
            width: 32,
            layers: 1,
            heads: 2,
            kv_heads: 2,
            ..ModelConfig::default()
        };
        let mut config = RunConfig { model, ..config(0.0, 0.0) };
        config.rate.origin = OriginRule::Initial;
        let mut weights = initial_weights(&config.model, config.train.seed).unwrap();
        let name = "blocks.0.mlp.fc.weight";
        let mut pressure = BitsPressure::new(&config, &weights);
        let plan = pressure.plan();
        assert!(plan.origins.contains_key(name) && !plan.origins.contains_key("tok_emb.weight"));
        assert!(!plan.origins.contains_key("blocks.0.mlp.proj.weight"), "starts at zero");
        assert_eq!(pressure.perturbed(&weights, 0).get(name), weights.get(name));

        let at = weights.position(name).unwrap();
        let step = plan.steps[name];
        weights.tensors_mut()[at].data.iter_mut().step_by(3).for_each(|w| *w += 1.1 * step);
        let seen = pressure.perturbed(&weights, 0);
        let artifact = crate::sizing::artifact(&weights, &plan, &Default::default()).unwrap();
        let backslash_codec::Tensor::Quantized(tensor) = &artifact.tensors[name] else {
            panic!("a matrix is coded");
        };
        assert!(
            tensor
                .codes
                .chunks(3)
                .all(|codes| codes[0] == 1 && codes[1..] == [0; 2][..codes.len() - 1])
        );
        assert_eq!(tensor.dequantize(), seen.get(name).unwrap().data);
        // A pull towards the start, not towards zero.
        let mut gradients = Gradients {
            values: weights.tensors().iter().map(|t| vec![0.0; t.data.len()]).collect(),
        };
        pressure.add_gradient(&weights, &seen, &mut gradients);
        let pulls = gradients.values[at].iter();
        assert!(
            pulls
                .enumerate()
                .all(|(i, g)| (*g > 0.0) == (i % 3 == 0) && (*g == 0.0) == (i % 3 > 0))
        );
    }

    #[test]
    fn a_restored_state_continues_alike() {
        let weights = weights();
        let mut first = pressure(0.5);
        for step in 0..5 {
            values(&mut first, &weights, step);
            first.update(step, 1.0);
        }
        let mut second = pressure(0.5);
        assert!(second.restore(&first.state()));
        for step in 5..8 {
            values(&mut first, &weights, step);
            values(&mut second, &weights, step);
            first.update(step, 1.0);
            second.update(step, 1.0);
        }
        assert_eq!(first.tensors, second.tensors);
        assert!(!second.restore(&[0.0; 3]));
    }

    #[test]
    fn descending_the_rate_alone_lowers_the_entropy() {
        let mut weights = weights();
        let mut pressure = pressure(0.0);
        pressure.learned = false;
        let entropy = |weights: &NamedWeights, pressure: &BitsPressure| {
            let seen = pressure.perturbed(weights, 99);
            let step = step_of(pressure);
            let codes: Vec<i32> =
                seen.get("w").unwrap().data.iter().map(|s| (s / step).round() as i32).collect();
            backslash_rate::entropy_bits(&codes)
        };
        let before = entropy(&weights, &pressure);
        for step in 0..200 {
            let (_, gradients) = values(&mut pressure, &weights, step);
            pressure.update(step, 1.0);
            let at = weights.position("w").unwrap();
            for (w, g) in weights.tensors_mut()[at].data.iter_mut().zip(&gradients.values[at]) {
                *w -= 3e-3 * 4096.0 * 0.01 * g;
            }
        }
        let after = entropy(&weights, &pressure);
        assert!(after < 0.8 * before, "{before} {after}");
    }
}
