//! Scales of rows that are learned.

use backslash_codec::round_scale;

use crate::adamw::ScalarAdam;

/// Values of a scale in an octave: a grid of the file has four times as many, whose numbers would cost more than they gain.
const PER_OCTAVE: f64 = 8.0;

/// The scale of each row as a parameter.
///
/// A coarse code holds its weight's place, and the small gradients that would make a row as a whole a little louder or softer
/// move no code. So they move its scale: with g the gradient of the loss at the points p of row i, which are its scale times
/// what its codes stand for, ∂D/∂ln sᵢ = Σ g·p. The weights of the row move along with its scale, so that its codes, and with
/// them the rate, stay as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RowGains {
    rows: Vec<RowGain>,
}

#[derive(Clone, Debug, PartialEq)]
struct RowGain {
    /// ln of the scale before it is rounded.
    log: f64,
    adam: ScalarAdam<1>,
    /// ∂D/∂ln s, waiting for the update.
    gradient: f64,
}

/// Numbers of a row in a checkpoint.
const STATE: usize = 3;

impl RowGains {
    /// Those of rows that have these scales now.
    pub(super) fn of(scales: &[f32]) -> Self {
        let gain = |scale: &f32| RowGain {
            log: f64::from(*scale).ln(),
            adam: ScalarAdam::default(),
            gradient: 0.0,
        };
        Self { rows: scales.iter().map(gain).collect() }
    }

    /// Keeps the gradients by ln s of all rows, until the next update.
    pub(super) fn take_gradients(&mut self, gradients: impl Iterator<Item = f64>) {
        self.rows.iter_mut().zip(gradients).for_each(|(gain, gradient)| gain.gradient = gradient);
    }

    /// Moves the scales; what each is multiplied by.
    pub(super) fn update(&mut self, time: u64, learning_rate: f64, scales: &mut [f32]) -> Vec<f32> {
        let corrections = ScalarAdam::<1>::corrections(time);
        let rows = self.rows.iter_mut().zip(scales);
        let factors = rows.map(|(gain, scale)| {
            let [step] = gain.adam.step(corrections, learning_rate, [gain.gradient]);
            let before = on_grid(gain.log);
            gain.log += step;
            let number = on_grid(gain.log);
            if number == before {
                return 1.0;
            }
            let factor = scale_of(number) / *scale;
            *scale = scale_of(number);
            factor
        });
        factors.collect()
    }

    /// Everything that changes, as numbers for a checkpoint.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> {
        self.rows.iter().flat_map(|gain| [gain.log, gain.adam.first[0], gain.adam.second[0]])
    }

    /// Takes over [`RowGains::numbers`]; `false` if there are not enough.
    pub(super) fn restore(&mut self, numbers: &mut impl Iterator<Item = f64>) -> bool {
        for gain in &mut self.rows {
            let mut own = [0.0; STATE];
            for number in &mut own {
                let Some(next) = numbers.next() else { return false };
                *number = next;
            }
            [gain.log, gain.adam.first[0], gain.adam.second[0]] = own;
        }
        true
    }
}

/// The number on the grid that is nearest to a logarithm.
fn on_grid(log: f64) -> i64 {
    (log * std::f64::consts::LOG2_E * PER_OCTAVE).round() as i64
}

/// The scale that a number of the grid stands for.
fn scale_of(number: i64) -> f32 {
    round_scale((number as f64 / PER_OCTAVE).exp2() as f32)
}
