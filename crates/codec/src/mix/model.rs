//! Counters and the mixer: the probability of one binary decision from several contexts.

use super::range::BitCoder;
use super::tables::{LOGIT_LIMIT, Tables};

/// Contexts per decision.
pub(super) const INPUTS: usize = 6;
/// Mixer lanes: the first input, the differences of the others from it, and a constant, padded for vector
/// registers.
const LANES: usize = 8;
/// Weights are in units of 2^-20 and stay within ±3.
const WEIGHT_LIMIT: i32 = 3 << 20;
// The weighted sum stays within 32 bits: one input, differences of twice its range, and the constant.
const _: () = assert!(
    (WEIGHT_LIMIT >> 6) as i64 * (LOGIT_LIMIT as i64 * (2 * INPUTS as i64 - 1) + 256) + (1 << 13)
        <= i32::MAX as i64
);

/// Probability in units of 2^-22, and below it the number of decisions seen, at most the limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counter(u32);

impl Counter {
    /// A counter that starts at `probability`/65536 with the confidence of `count` decisions.
    pub(super) fn new(probability: u32, count: u32) -> Self {
        Self(probability << 16 | count)
    }

    #[inline(always)]
    fn update(&mut self, tables: &Tables, bit: u32, limit: u32) {
        let (probability, count) = ((self.0 >> 10) as i32, self.0 & 1023);
        let error = i64::from((bit << 22) as i32 - probability);
        // Rounded down, which never leaves 0 ≤ probability < 2^22, because the rate is below one.
        let step = ((error * i64::from(tables.rate[count as usize])) >> 16) as i32;
        self.0 = ((probability + step) as u32) << 10 | (count + u32::from(count < limit));
    }
}

/// Learning rates of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rates {
    /// Decisions after which a counter forgets, at most 1023.
    pub(super) counter_limit: u32,
    /// Mixer step 2^-(shift) of the differences.
    pub(super) mixer_shift: u32,
    /// The step of the first input and of the constant is smaller by 2^-(shift): what the inputs have in
    /// common is large and nearly right from the start, so that a fast step there is mostly noise.
    pub(super) common_shift: u32,
}

/// One logistic mixer per kind of decision.
pub(super) struct Mixer {
    weights: Vec<[i32; LANES]>,
}

impl Mixer {
    pub(super) fn new(kinds: usize) -> Self {
        let mut weights = [0; LANES];
        // The average of the inputs.
        weights[0] = 1 << 20;
        weights[1..INPUTS].fill((1 << 20) / INPUTS as i32);
        Self { weights: vec![weights; kinds] }
    }

    /// Codes one decision of a kind: predicts, codes, and teaches counters and weights.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn code<C: BitCoder, const N: usize>(
        &mut self,
        coder: &mut C,
        tables: &Tables,
        rates: Rates,
        kind: usize,
        counters: &mut [Counter; N],
        contexts: &[usize; INPUTS],
        bit: u32,
    ) -> u32 {
        let mut inputs = [0_i32; LANES];
        for (input, &context) in inputs.iter_mut().zip(contexts) {
            // N is a power of two, so the mask only spares the bounds check.
            *input = i32::from(tables.stretch[(counters[context & (N - 1)].0 >> 20) as usize]);
        }
        let common = inputs[0];
        inputs[1..INPUTS].iter_mut().for_each(|input| *input -= common);
        inputs[INPUTS] = 256;
        let weights = &mut self.weights[kind];
        let mut sum = 0;
        for lane in 0..LANES {
            sum += (weights[lane] >> 6) * inputs[lane];
        }
        let logit = ((sum + (1 << 13)) >> 14).clamp(-LOGIT_LIMIT, LOGIT_LIMIT);
        let probability = u32::from(tables.squash[(logit + LOGIT_LIMIT) as usize]);
        let bit = coder.code(probability, bit);
        let error = (bit << 16) as i32 - probability as i32;
        for lane in 0..LANES {
            let common = lane == 0 || lane == INPUTS;
            let shift = rates.mixer_shift + 4 + if common { rates.common_shift } else { 0 };
            let step = (inputs[lane] * error + (1 << (shift - 1))) >> shift;
            weights[lane] = (weights[lane] + step).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT);
        }
        for &context in contexts {
            counters[context & (N - 1)].update(tables, bit, rates.counter_limit);
        }
        bit
    }
}

/// One adaptive decision without mixing, for what needs no context or is rare.
#[inline(always)]
pub(super) fn code_plain<C: BitCoder>(
    coder: &mut C,
    tables: &Tables,
    counter: &mut Counter,
    bit: u32,
) -> u32 {
    let bit = coder.code((counter.0 >> 16).clamp(32, 65504), bit);
    counter.update(tables, bit, 1023);
    bit
}
