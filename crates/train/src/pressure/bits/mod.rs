//! The rate in bits: learned steps, noise or rounding, and a probability model that follows the weights.

mod dropout;
mod gains;
mod tensor;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trajectory;

use backslash_model::{Gradients, NamedWeights, is_ngram_table};
use backslash_quant::{Plan, is_coded};

use crate::adamw::ScalarAdam;
use crate::sensitivity::SquaredGradients;
use crate::{LineScaleRule, RunConfig, StepRule};
use dropout::coarsening;
use tensor::{Priced, Rounding, TensorRate};

/// J = D + λ·R, with R the mean code length in bits of all coded weights.
///
/// In the first part of a run there is neither a rate nor a quantiser. From its start on, each coded tensor has a step Δ
/// and a mixture of two Laplace components. Until rounding begins the loss sees w + Δ·u, u uniform in ±½, and R is the
/// code length at that point; afterwards the loss sees Δ·round(w/Δ) and R is the code length of that code, with the
/// scales of the mixture times those that its row and its column had at the step before, and the gradient of both passes
/// straight through to w.
/// A matrix with an origin o has w − o in the place of w: what is perturbed and priced is how far it has moved. In both,
/// ∂/∂ln Δ of the point is (point − w), so the step's gradient is Σ g·(point − w) plus what the code length itself
/// depends on Δ, with g the gradient of J at the points.
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
    line_scales: LineScaleRule,
    /// Learning rate of ln of the scales of rows.
    scale_learning_rate: f64,
    /// Share of the steps at which the loss sees coarser points than a file would have.
    step_dropout: f64,
    /// Share of the weights that are rounded at the first step that rounds.
    rounded_share: f64,
    /// The first step that rounds all weights.
    all_rounded_from: u64,
    /// Share of a step by which thresholds are further from zero in the file, of rows for pairs and triples of tokens.
    ngram_dead_zone: f32,
}

/// Share of the steps that round after which all weights are rounded.
const ALL_ROUNDED: f64 = 0.8;

/// Numbers of one tensor's state in a checkpoint, without the scales and levels of its rows and columns.
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
        let start = rate.first_step(train);
        let rounding_from = ((rate.rounding_from * train.steps as f64).round() as u64).max(start);
        let rounding = train.steps.saturating_sub(rounding_from) as f64;
        Self {
            tensors,
            lambda: rate.lambda,
            learning_rate: rate.learning_rate,
            learned: rate.step_rule == StepRule::Learned,
            seed: train.seed,
            initial_step: rate.initial_step,
            start,
            rounding_from,
            coded: coded.max(1) as f64,
            line_scales: rate.line_scales,
            scale_learning_rate: rate.scale_learning_rate,
            step_dropout: rate.step_dropout,
            rounded_share: rate.rounded_share,
            all_rounded_from: rounding_from + (ALL_ROUNDED * rounding) as u64,
            ngram_dead_zone: rate.ngram_dead_zone as f32,
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
            self.begin(weights);
        }
    }

    /// Multiplies the steps that the rate begins with.
    pub(crate) fn scale_initial_steps(&mut self, factor: f64, weights: &NamedWeights) {
        self.initial_step *= factor;
        self.begin(weights);
    }

    fn begin(&mut self, weights: &NamedWeights) {
        for rate in &mut self.tensors {
            rate.begin_with(&weights.tensors()[rate.at], self.initial_step);
        }
    }

    /// The step of every coded tensor, and what its codes are added to.
    pub(crate) fn plan(&self) -> Plan {
        let tensors = self.tensors.iter();
        let steps = tensors.clone().map(|rate| (rate.name.clone(), rate.step())).collect();
        let scales = tensors
            .clone()
            .filter_map(|rate| Some((rate.name.clone(), rate.scales.clone()?)))
            .collect();
        let zones =
            tensors.clone().filter(|rate| self.ngram_dead_zone > 0.0 && is_ngram_table(&rate.name));
        let zones = zones.map(|rate| (rate.name.clone(), self.ngram_dead_zone)).collect();
        let origins = tensors.filter_map(|rate| Some((rate.name.clone(), rate.origin?)));
        Plan::learned(steps)
            .from_origins(origins.collect())
            .with_scales(scales)
            .with_dead_zones(zones)
    }

    /// Whether a step is the first with a rate and rows and columns have steps of their own.
    pub(crate) fn scales_lines_at(&self, step: u64) -> bool {
        step == self.start && self.line_scales != LineScaleRule::None
    }

    /// Gives rows and columns steps of their own, by the squared gradients of all weights, and begins anew.
    pub(crate) fn scale_lines(
        &mut self,
        squares: &SquaredGradients,
        rows_are_tokens: impl Fn(usize) -> bool,
        weights: &NamedWeights,
    ) {
        let learned = self.line_scales == LineScaleRule::Learned;
        for rate in &mut self.tensors {
            // A few batches say little of the tokens that they do not have.
            rate.scale_lines(squares, learned || !rows_are_tokens(rate.at));
            if learned {
                rate.learn_rows();
            }
        }
        self.begin(weights);
    }

    /// Makes `seen` the weights that the loss is computed with at a step with a rate.
    pub(crate) fn perturb(&self, weights: &NamedWeights, step: u64, seen: &mut NamedWeights) {
        let (rounding, coarser) = (self.rounding_at(step), self.coarsening_at(step));
        let mut rates = self.tensors.iter().peekable();
        let pairs = weights.tensors().iter().zip(seen.tensors_mut()).enumerate();
        for (at, (from, to)) in pairs {
            let key = noise_key(self.seed, step, at);
            match (rates.next_if(|rate| rate.at == at), rounding) {
                (Some(rate), Some(rounding)) => rate.round(&from.data, rounding, key, &mut to.data),
                (Some(rate), None) => rate.add_noise(&from.data, coarser, key, &mut to.data),
                (None, _) => to.data.copy_from_slice(&from.data),
            }
        }
    }

    /// How the weights are rounded where the loss is computed; `None` where they have noise.
    fn rounding_at(&self, step: u64) -> Option<Rounding> {
        let taken = step.checked_sub(self.rounding_from)?;
        let way = taken as f64 / (self.all_rounded_from - self.rounding_from).max(1) as f64;
        let share = self.rounded_share + (1.0 - self.rounded_share) * way.min(1.0);
        Some(Rounding { coarser: self.coarsening_at(step), share: share as f32 })
    }

    /// What steps are multiplied by where the loss is computed.
    fn coarsening_at(&self, step: u64) -> f32 {
        // A number that no tensor has.
        coarsening(self.step_dropout, noise_key(self.seed, step, usize::MAX))
    }

    /// Adds λ·∂R/∂w to the gradients of a step and keeps what moves steps and models; R in bits per weight.
    pub(crate) fn add_gradient(
        &mut self,
        weights: &NamedWeights,
        seen: &NamedWeights,
        step: u64,
        gradients: &mut Gradients,
    ) -> f64 {
        let weight_of_bit = self.lambda / self.coded;
        let mut bits = 0.0;
        let rounds = self.rounding_at(step).is_some();
        for rate in &mut self.tensors {
            let [weights, points] = [weights, seen].map(|all| &all.tensors()[rate.at].data);
            let gradient = &mut gradients.values[rate.at];
            let Priced { sums, through_points, .. } = match rounds {
                true => rate.accumulate_rounded(weights, points, weight_of_bit, gradient),
                false => rate.accumulate_noisy(weights, points, weight_of_bit, gradient),
            };
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

    /// Moves steps, models and scales by Adam after a step with a rate, and with learned scales the weights of their rows.
    pub(crate) fn update(&mut self, step: u64, multiplier: f64, weights: &mut NamedWeights) {
        let time = step + 1 - self.start;
        let corrections = ScalarAdam::<4>::corrections(time);
        for rate in &mut self.tensors {
            let learning_rate = multiplier * self.learning_rate;
            let moved = rate.adam.step(corrections, learning_rate, rate.gradient);
            if self.learned {
                rate.log_step += moved[0];
            }
            rate.mixture.logit += moved[1];
            rate.mixture.log_scales[0] += moved[2];
            rate.mixture.log_scales[1] += moved[3];
            let values = &mut weights.tensors_mut()[rate.at].data;
            rate.move_gains(time, multiplier * self.scale_learning_rate, values);
        }
    }

    /// Everything that changes during a run, as numbers for a checkpoint.
    pub(crate) fn state(&self) -> Vec<f64> {
        let of = |rate: &TensorRate| {
            let [s0, s1] = rate.mixture.log_scales;
            let mut numbers = vec![rate.log_step, rate.mixture.logit, s0, s1];
            numbers.extend(rate.adam.first);
            numbers.extend(rate.adam.second);
            numbers.extend(rate.scale_numbers());
            numbers.extend(rate.level_numbers());
            numbers
        };
        self.tensors.iter().flat_map(of).collect()
    }

    /// Takes over a [`BitsPressure::state`] of a run whose rate has begun, once `taken` steps have been taken; `false` if it
    /// is of another length.
    pub(crate) fn restore(&mut self, state: &[f64], taken: u64) -> bool {
        let has_rounded = taken > self.rounding_from;
        let mut numbers = state.iter().copied();
        for rate in &mut self.tensors {
            let Some(own) = take(&mut numbers) else { return false };
            let [log_step, logit, s0, s1, first @ .., a, b, c, d] = own;
            rate.log_step = log_step;
            rate.mixture.logit = logit;
            rate.mixture.log_scales = [s0, s1];
            rate.adam.first = first;
            rate.adam.second = [a, b, c, d];
            let learned = self.line_scales == LineScaleRule::Learned;
            if self.line_scales != LineScaleRule::None
                && !rate.restore_scales(learned, &mut numbers)
            {
                return false;
            }
            if has_rounded && !rate.restore_levels(&mut numbers) {
                return false;
            }
        }
        numbers.next().is_none()
    }
}

/// The next numbers of a tensor's state.
fn take(numbers: &mut impl Iterator<Item = f64>) -> Option<[f64; STATE]> {
    let mut own = [0.0; STATE];
    for number in &mut own {
        *number = numbers.next()?;
    }
    Some(own)
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
