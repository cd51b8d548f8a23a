//! Codes are priced by the levels that their rows and columns had at the step before.

use super::*;

const ROUNDING_FROM: u64 = 50;
const COLUMNS: usize = 64;

/// The weights of a step, whose rows and columns are louder and softer than those of another.
fn weights_of(step: u64) -> NamedWeights {
    let mut weights = weights();
    let at = weights.position("w").unwrap();
    for (index, weight) in weights.tensors_mut()[at].data.iter_mut().enumerate() {
        let (row, column) = (index / COLUMNS, index % COLUMNS);
        let octaves = ((row * (3 + step as usize % 4)) % 7) as f32 - 3.0;
        let of_column = ((column * (1 + step as usize % 4)) % 5) as f32 - 2.0;
        *weight *= (0.5 * (octaves + of_column)).exp2();
    }
    weights
}

/// Codes of the matrix and the step that they are of.
struct Codes {
    codes: Vec<f64>,
    step: f64,
}

impl Codes {
    fn of(pressure: &BitsPressure, weights: &NamedWeights) -> Self {
        let step = step_of(pressure);
        let code = |weight: &f32| f64::from((weight * (1.0 / step)).round_ties_even());
        Self {
            codes: weights.get("w").unwrap().data.iter().map(code).collect(),
            step: f64::from(step),
        }
    }

    /// By the formula, in the order of the lines: the level of each row and of each column.
    fn levels(&self) -> [Vec<f64>; 2] {
        let scale = |mean: f64| 0.5 / (0.5 / mean).asinh();
        let mean = self.codes.iter().map(|q| q.abs()).sum::<f64>() / self.codes.len() as f64;
        let level = |line: usize, line_of: fn(usize) -> usize| {
            let own = self.codes.iter().enumerate().filter(|(index, _)| line_of(*index) == line);
            let own: Vec<f64> = own.map(|(_, q)| q.abs()).collect();
            let own_mean = (own.iter().sum::<f64>() + 8.0 * mean) / (own.len() as f64 + 8.0);
            (16.0 * (scale(own_mean) / scale(mean)).log2()).trunc()
        };
        let rows = self.codes.len() / COLUMNS;
        [
            (0..rows).map(|row| level(row, |index| index / COLUMNS)).collect(),
            (0..COLUMNS).map(|column| level(column, |index| index % COLUMNS)).collect(),
        ]
    }

    /// Bits of all codes at the levels of `lines` and the gradient by each weight, from the masses of the cells.
    fn priced(&self, pressure: &BitsPressure, lines: &Self) -> (f64, Vec<f64>) {
        let mixture = &pressure.tensors[0].mixture;
        let share = 1.0 / (1.0 + (-mixture.logit).exp());
        let [rows, columns] = lines.levels();
        let mut bits = 0.0;
        let by_weight = self.codes.iter().enumerate().map(|(index, code)| {
            let level = rows[index / COLUMNS] + columns[index % COLUMNS];
            let wider = (0.25 * ((level + 2.0) / 4.0).floor().clamp(-16.0, 16.0)).exp2();
            let (mut mass, mut slope) = (0.0, 0.0);
            for (share, log_scale) in [share, 1.0 - share].into_iter().zip(mixture.log_scales) {
                let scale = log_scale.exp() * wider;
                let half = self.step / (2.0 * scale);
                let own = match *code {
                    0.0 => 1.0 - (-half).exp(),
                    code => (-2.0 * half * code.abs()).exp() * half.sinh(),
                };
                mass += share * own;
                slope += share * own / scale;
            }
            bits -= mass.log2();
            // At zero the code length is least.
            if *code == 0.0 { 0.0 } else { code.signum() * slope / mass * std::f64::consts::LOG2_E }
        });
        let by_weight = by_weight.collect();
        (bits, by_weight)
    }
}

fn difference(found: &[f64], expected: &[f64]) -> f64 {
    let size = expected.iter().map(|value| value.abs()).fold(0.0, f64::max);
    let errors = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    errors.fold(0.0, f64::max) / size
}

/// Through steps with noise, which leave no levels, the first that rounds, which has its own, and others.
#[test]
fn the_levels_are_those_of_the_step_before() {
    let mut pressure = pressure(0.5);
    let mut before: Option<Codes> = None;
    for step in ROUNDING_FROM - 2..ROUNDING_FROM + 4 {
        let mut weights = weights_of(step);
        let codes = Codes::of(&pressure, &weights);
        let models = pressure.clone();
        let (bits, gradients) = values(&mut pressure, &weights, step);
        if step >= ROUNDING_FROM {
            let weight_of_bit = pressure.lambda / pressure.coded;
            let found = gradients.values[weights.position("w").unwrap()].iter();
            let found: Vec<f64> = found.map(|g| f64::from(*g) / weight_of_bit).collect();
            let lines = before.as_ref().unwrap_or(&codes);
            let (expected_bits, expected) = codes.priced(&models, lines);
            assert!((bits * pressure.coded / expected_bits - 1.0).abs() < 1e-5, "{step}");
            assert!(difference(&found, &expected) < 1e-4, "{step}");
            if before.is_some() {
                let (own_bits, own) = codes.priced(&models, &codes);
                assert!(expected_bits > 1.01 * own_bits, "{expected_bits} {own_bits}");
                assert!(difference(&found, &own) > 0.1, "{}", difference(&found, &own));
            }
            before = Some(codes);
        }
        pressure.update(step, 1.0, &mut weights);
    }
}

/// Wherever it is stopped: with noise, at the first step that rounds, and after it.
#[test]
fn a_restored_state_goes_on_with_its_levels() {
    let mut whole = pressure(0.5);
    for step in ROUNDING_FROM - 2..ROUNDING_FROM + 4 {
        let mut resumed = pressure(0.5);
        if step > ROUNDING_FROM - 2 {
            assert!(resumed.restore(&whole.state(), step));
        }
        let of = |pressure: &mut BitsPressure| {
            let mut weights = weights_of(step);
            let (bits, gradients) = values(pressure, &weights, step);
            pressure.update(step, 1.0, &mut weights);
            (bits, gradients.values, pressure.state())
        };
        assert_eq!(of(&mut resumed), of(&mut whole), "{step}");
    }
    let (state, taken) = (whole.state(), ROUNDING_FROM + 4);
    // Those of lines, and the largest magnitude.
    let levels = 64 + COLUMNS + 1;
    assert_eq!(state.len(), STATE + levels);
    let (models, mut wrong) = (&state[..STATE], state.clone());
    wrong[STATE] = 0.5;
    let mut resumed = pressure(0.5);
    assert!(resumed.restore(&state, taken) && resumed.restore(models, ROUNDING_FROM));
    // Without levels, with some of them, with what is no level, and with levels where there are none yet.
    assert!(!resumed.restore(models, taken) && !resumed.restore(&state[..STATE + 1], taken));
    assert!(!resumed.restore(&wrong, taken) && !resumed.restore(&state, ROUNDING_FROM));
}
