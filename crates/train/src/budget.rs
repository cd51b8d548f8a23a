//! λ as a dual variable: driven by the gap between a forecast of the finished file and a number of bytes.
//!
//! A size is not monotone in training: steps widen, rounding replaces noise, the learning rate falls. So what is held
//! against the budget is a forecast of the file at the end of the run, made of the code length now, its trend, and the
//! share of the schedule that is left. The progress of a run is counted in multiples of the peak learning rate, because
//! that is what weights and steps move by.

use backslash_codec::SizeSplit;

use crate::{RateConfig, TrainConfig, schedule};

/// Share of the budget that is aimed at: a file above the budget loses about ten times what as much below it costs.
const AIM: f64 = 0.985;
/// Time in which codes follow a price, in units of what the rate's learning rate moves a logarithm by 1 in; at most that
/// share of the time with a rate.
const LAG: f64 = 0.6;
const LONGEST_LAG: f64 = 0.3;
/// Times over which the level and its slope are averaged, and in which λ moves by what closes a gap, in lags.
const LEVEL: f64 = 0.15;
const SLOPE: f64 = 0.5;
const RESPONSE: f64 = 0.7;
/// The same towards the end, in times that are left, and the least, in lags.
const LAST_RESPONSE: f64 = 0.5;
const LEAST_RESPONSE: f64 = 0.1;
/// Time in which a gap closes, in lags.
const CLOSING: f64 = 1.0;
/// −∂ln λ/∂ln R: the code length falls about as λ^(−⅓).
const ELASTICITY: f64 = 3.0;
/// Time in lags in which λ stays as it is, while steps widen and weights settle, and the longest, as a share of the time
/// with a rate.
const HOLD: f64 = 1.0;
const LONGEST_HOLD: f64 = 0.4;
/// Largest fall by the trend, in ln(code length), of what has settled.
const SETTLED: f64 = 0.05;
/// Bits per weight that codes still lose when weights come to rest, from where the learning rate has fallen to that share
/// of its peak: so many for each unit of the time with a rate, as measured, and at most half of all bits.
const LAST_FALL: f64 = 3e-4;
const LARGEST_LAST_FALL: f64 = 0.15;
const LAST_FALL_FROM: f64 = 0.25;
/// Largest share of the time with a rate, in steps, that the level looks back: weights at rest are those of the file.
const LONGEST_LEVEL: f64 = 0.02;
/// Share of a trend that goes on.
const TRUST: f64 = 0.5;
/// Largest change by a trend, in ln(code length).
const LARGEST_CHANGE: f64 = 0.35;
/// Largest gap that is acted upon at once, in ln bytes.
const LARGEST_GAP: f64 = 0.5;
/// Bounds of ln λ: from what is hardly felt to what leaves nothing but zeros.
const LOG_LAMBDA: (f64, f64) = (-14.0, 3.0);
/// λ and bits per weight at which a small model has come to rest, for a first guess.
const KNOWN: (f64, f64) = (0.3, 1.0);
/// Bits per weight of codes whose step is the root mean square of the weights.
const BITS_OF_ONE_STEP: f64 = 2.0;
/// How far files end from the aim, as a share of it.
const USUAL_DEVIATION: f64 = 0.02;
/// Bytes of payload per bit of code length until that has been measured.
const USUAL_BYTES: f64 = 0.125;

/// What the finished file is expected to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Bytes of the whole file at the end of the run.
    pub bytes: f64,
    /// How far it may be off, by how much the forecast has moved so far: one standard deviation.
    pub deviation: f64,
    /// Bytes that it may have.
    pub budget: u64,
}

/// Sizes that tie a code length under the model to bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    /// Bytes that are no payload.
    fixed: f64,
    /// Bytes of payload per bit of code length.
    per_bit: f64,
}

/// The controller of one run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Budget {
    budget: u64,
    /// Weights in all coded tensors.
    coded: f64,
    /// Time that the run takes from the start of the rate on, in multiples of the peak learning rate.
    total: f64,
    /// Time in which codes follow a price.
    lag: f64,
    /// Time since then.
    time: f64,
    log_lambda: f64,
    scale: Scale,
    /// Mean of ln(code length) over the last stretch, and of its slope by time.
    level: Option<f64>,
    slope: f64,
    /// Mean square of what the forecast has moved by, per unit of time.
    wander: f64,
    forecast: Option<f64>,
}

/// Numbers of the state in a checkpoint.
pub(crate) const STATE: usize = 8;

impl Budget {
    /// A controller for a file of at most `budget` bytes, of which `fixed` are no codes, and `coded` coded weights.
    pub(crate) fn new(
        budget: u64,
        fixed: u64,
        coded: f64,
        rate: &RateConfig,
        train: &TrainConfig,
    ) -> Self {
        let steps = rate.first_step(train)..train.steps;
        let bits = 8.0 * room(budget, fixed as f64) / coded;
        let guess = KNOWN.0.ln() + ELASTICITY * (KNOWN.1 / bits).ln();
        let total = steps.map(|step| schedule::cycle(train, step)).sum();
        Self {
            budget,
            coded,
            total,
            // Fixed steps have no learning rate.
            lag: (LAG / rate.learning_rate).min(LONGEST_LAG * total),
            time: 0.0,
            log_lambda: guess.clamp(LOG_LAMBDA.0, LOG_LAMBDA.1),
            scale: Scale { fixed: fixed as f64, per_bit: USUAL_BYTES },
            level: None,
            slope: 0.0,
            wander: 0.0,
            forecast: None,
        }
    }

    /// What the steps that a rate begins with are multiplied by: steps follow a price slowly, and those of a large file are
    /// far from those of a small one.
    pub(crate) fn initial_step_factor(&self) -> f64 {
        (BITS_OF_ONE_STEP - 8.0 * self.room() / self.coded).min(0.0).exp2()
    }

    /// Bytes of the payload that is aimed at.
    fn room(&self) -> f64 {
        room(self.budget, self.scale.fixed)
    }

    /// λ, in nats of loss per bit per weight.
    pub(crate) fn lambda(&self) -> f64 {
        self.log_lambda.exp()
    }

    /// Takes note of the size of a file whose codes have `bits` bits of code length.
    pub(crate) fn measured(&mut self, size: &SizeSplit, bits: f64) {
        self.scale.fixed = (size.total() - size.payload) as f64;
        self.scale.per_bit = size.payload as f64 / bits.max(1.0);
    }

    /// The smoothed level starts anew: rounding does not cost what noise has cost.
    pub(crate) fn break_trend(&mut self) {
        self.level = None;
        self.slope = 0.0;
    }

    /// One step at `multiplier` of the peak learning rate, after which the codes have `bits_per_weight`.
    pub(crate) fn step(&mut self, bits_per_weight: f64, multiplier: f64) {
        self.time += multiplier;
        let fall = (LAST_FALL * self.total).min(LARGEST_LAST_FALL);
        let fall = fall * (multiplier / LAST_FALL_FROM).min(1.0);
        let value = (bits_per_weight - fall).max(0.5 * bits_per_weight).max(1e-6).ln();
        let longest = (LONGEST_LEVEL * self.total).max(1.0);
        let keep = (-(multiplier / (LEVEL * self.lag)).max(1.0 / longest)).exp();
        let level = match self.level {
            None => value,
            Some(before) => {
                let level = keep * before + (1.0 - keep) * value;
                let slope = (level - before) / multiplier.max(1e-9);
                let keep = (-multiplier / (SLOPE * self.lag)).exp();
                self.slope = keep * self.slope + (1.0 - keep) * slope;
                level
            }
        };
        self.level = Some(level);

        let left = (self.total - self.time).max(0.0);
        let change = TRUST * self.slope * self.lag * (1.0 - (-left / self.lag).exp());
        let payload = |log_bits: f64| log_bits.exp() * self.coded * self.scale.per_bit;
        let settling = change < -SETTLED && self.time < LONGEST_HOLD * self.total;
        let change = change.clamp(-LARGEST_CHANGE, LARGEST_CHANGE);
        let held = payload(level + change).max(1.0);
        let room = self.room();
        let gap = (held / room).ln();
        // What is left of the gap when λ has done its work.
        let bytes = self.scale.fixed + room * (gap * (-left / (CLOSING * self.lag)).exp()).exp();
        if let Some(before) = self.forecast {
            let moved = (bytes - before).powi(2) / multiplier.max(1e-9);
            self.wander = keep * self.wander + (1.0 - keep) * moved;
        }
        self.forecast = Some(bytes);
        if settling || self.time < (HOLD * self.lag).min(LONGEST_HOLD * self.total) {
            return;
        }
        let gap = gap.clamp(-LARGEST_GAP, LARGEST_GAP);
        // With little time left a price has to be found sooner.
        let response = (LAST_RESPONSE * left).clamp(LEAST_RESPONSE * self.lag, RESPONSE * self.lag);
        self.log_lambda += ELASTICITY * gap * multiplier / response;
        self.log_lambda = self.log_lambda.clamp(LOG_LAMBDA.0, LOG_LAMBDA.1);
    }

    /// What the file will be. Before there is a rate that is what λ will be driven to.
    pub(crate) fn forecast(&self) -> Forecast {
        let budget = self.budget;
        let Some(bytes) = self.forecast else {
            let bytes = AIM * budget as f64;
            return Forecast { bytes, deviation: USUAL_DEVIATION * bytes, budget };
        };
        // A forecast that wanders without memory strays by the root of the time that is left; λ pulls it back within
        // the time of its response.
        let left = (self.total - self.time).clamp(0.0, RESPONSE * self.lag);
        Forecast { bytes, deviation: (self.wander * left).sqrt(), budget }
    }

    pub(crate) fn state(&self) -> [f64; STATE] {
        let Scale { fixed, per_bit } = self.scale;
        let absent = f64::NAN;
        [
            self.time,
            self.log_lambda,
            fixed,
            per_bit,
            self.level.unwrap_or(absent),
            self.slope,
            self.wander,
            self.forecast.unwrap_or(absent),
        ]
    }

    pub(crate) fn restore(&mut self, state: &[f64; STATE]) {
        let [time, log_lambda, fixed, per_bit, level, slope, wander, forecast] = *state;
        let present = |value: f64| (!value.is_nan()).then_some(value);
        self.time = time;
        self.log_lambda = log_lambda;
        self.scale = Scale { fixed, per_bit };
        self.level = present(level);
        self.slope = slope;
        self.wander = wander;
        self.forecast = present(forecast);
    }
}

/// What the aim leaves for the payload, in bytes.
fn room(budget: u64, fixed: f64) -> f64 {
    (AIM * budget as f64 - fixed).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODED: f64 = 2e6;

    fn rate(start: f64) -> RateConfig {
        RateConfig { start, ..RateConfig::default() }
    }

    fn train() -> TrainConfig {
        TrainConfig { steps: 600, warmup_steps: 20, warmdown: 0.5, ..TrainConfig::default() }
    }

    /// A model whose code length goes to a·λ^(−0.35) with a lag, drops where rounding begins after noise, and loses `fall` bits
    /// for each unit of the time with a rate as weights come to rest. A late start rounds at once, with steps as wide as weights.
    fn simulate(
        budget: u64,
        amplitude: f64,
        start: f64,
        fall: f64,
    ) -> (Budget, Vec<Forecast>, f64) {
        let train = train();
        let mut controller = Budget::new(budget, 20_000, CODED, &rate(start), &train);
        let mut bits = if start == 0.0 { 6.0 } else { 2.0_f64 };
        let mut seen = bits;
        let mut forecasts = Vec::new();
        for step in rate(start).first_step(&train)..train.steps {
            let multiplier = schedule::multiplier(&train, step);
            let noise = start == 0.0 && step < 300;
            let amplitude = if noise { amplitude } else { 0.85 * amplitude };
            if start == 0.0 && step == 300 {
                controller.break_trend();
            }
            let rest = amplitude * controller.lambda().powf(-0.35);
            bits += (rest - bits) * multiplier / 30.0;
            seen = bits - fall * controller.total * (1.0 - (multiplier / 0.25).min(1.0));
            controller.step(seen, multiplier);
            forecasts.push(controller.forecast());
        }
        let file = 20_000.0 + seen * CODED * 0.125;
        (controller, forecasts, file)
    }

    #[test]
    fn files_end_near_the_aim_whatever_the_model() {
        for start in [0.0, 0.4] {
            for (amplitude, fall) in [(0.4, 3.6e-4), (0.62, 2.4e-4), (0.95, 3.6e-4), (0.95, 2.4e-4)]
            {
                for budget in [300_000, 500_000, 900_000] {
                    let (controller, forecasts, file) = simulate(budget, amplitude, start, fall);
                    let share = file / budget as f64;
                    assert!((share - AIM).abs() < 0.03, "{start} {amplitude} {budget}: {share}");
                    let half = forecasts[forecasts.len() / 2].bytes / file;
                    assert!((half - 1.0).abs() < 0.05, "{amplitude} {budget}: {half}");
                    assert!(controller.lambda() > 0.0);
                    let last = forecasts.last().unwrap();
                    assert!((last.bytes / file - 1.0).abs() < 0.01, "{last:?} {file}");
                    assert!(last.deviation < 0.01 * file, "{last:?}");
                }
            }
        }
    }

    #[test]
    fn a_restored_controller_goes_on_alike() {
        let train = train();
        let mut first = Budget::new(400_000, 1_000, CODED, &rate(0.0), &train);
        for step in 0..100 {
            first.step(3.0 - 0.01 * f64::from(step), 1.0);
        }
        let mut second = Budget::new(400_000, 1_000, CODED, &rate(0.0), &train);
        second.restore(&first.state());
        assert_eq!(first, second);
        first.step(2.0, 0.5);
        second.step(2.0, 0.5);
        assert_eq!(first, second);
        // Nothing is known before the first step but what is wanted.
        let fresh = Budget::new(400_000, 1_000, CODED, &rate(0.0), &train);
        let mut restored = fresh.clone();
        restored.restore(&fresh.state());
        assert_eq!(restored.forecast().bytes, AIM * 400_000.0);
    }
}
