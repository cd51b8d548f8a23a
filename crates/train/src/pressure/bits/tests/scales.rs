//! Steps of rows and columns of their own.

use super::*;

/// Those of gradients of which a row and a column are larger than the others; the vector comes first by its name.
fn uneven_squares() -> SquaredGradients {
    let gradient = |index: usize| match (index / 64, index % 64) {
        (5, _) => 4.0,
        (_, 9) => 16.0,
        _ => 1.0,
    };
    let values = vec![vec![0.0; 8], (0..64 * 64).map(gradient).collect()];
    let mut squares = SquaredGradients::of_nothing(&weights());
    squares.add(&Gradients { values }, 1 << 20);
    squares
}

fn scaled_pressure(rounding_from: f64) -> BitsPressure {
    let mut config = config(0.0, rounding_from);
    config.rate.line_scales = LineScaleRule::Sensitivity;
    let (weights, mut pressure) = (weights(), BitsPressure::new(&config, &weights()));
    assert!(pressure.scales_lines_at(0) && !pressure.scales_lines_at(1));
    pressure.scale_lines(&uneven_squares(), |_| false, &weights);
    pressure
}

#[test]
fn lines_that_the_loss_minds_have_finer_steps() {
    let pressure = scaled_pressure(0.0);
    let scales = pressure.plan().scales["w"].clone();
    // h^−¼ of 256 is two octaves, of 16 one.
    let octaves = |scales: &[f32], at: usize| (scales[at] / scales[0]).log2();
    assert!((octaves(&scales.columns, 9) + 2.0).abs() <= 0.25, "{:?}", scales.columns);
    assert!((octaves(&scales.rows, 5) + 0.5).abs() <= 0.5, "{:?}", scales.rows);
    let mut tokens = scaled_pressure(0.0);
    tokens.scale_lines(&uneven_squares(), |_| true, &weights());
    assert_eq!(tokens.plan().scales["w"].rows, [1.0; 64]);
    assert_eq!(tokens.plan().scales["w"].columns, scales.columns);
}

#[test]
fn what_the_loss_sees_of_scaled_lines_is_what_the_file_decodes_to() {
    let (weights, pressure) = (weights(), scaled_pressure(0.0));
    let seen = perturbed(&pressure, &weights, 1);
    let artifact = crate::sizing::artifact(&weights, &pressure.plan()).unwrap();
    let backslash_codec::Tensor::Quantized(tensor) = &artifact.tensors["w"] else {
        panic!("not coded")
    };
    let decoded = tensor.dequantize();
    for (decoded, seen) in decoded.iter().zip(&seen.get("w").unwrap().data) {
        assert!((decoded - seen).abs() < 1e-7, "{decoded} {seen}");
    }
}

/// The rate's gradient by a weight and by ln Δ against differences of its bits, where lines have steps of their own.
#[test]
fn gradients_of_scaled_lines_agree_with_finite_differences() {
    let (weights, mut pressure) = (weights(), scaled_pressure(1.0));
    let lambda = pressure.lambda;
    let (_, gradients) = values(&mut pressure, &weights, 0);
    let seen = perturbed(&pressure, &weights, 0).get("w").unwrap().data.clone();
    let bits = |pressure: &BitsPressure, points: &[f32]| {
        let mut nothing = vec![0.0; points.len()];
        pressure.tensors[0].clone().accumulate_noisy(points, points, 0.0, &mut nothing).sums.bits
    };
    for at in [0, 9, 5 * 64 + 1, 5 * 64 + 9, 4000] {
        let nudge = 2e-3 * step_of(&pressure);
        let shifted = |by: f32| {
            let mut points = seen.clone();
            points[at] += by;
            bits(&pressure, &points)
        };
        let slope = (shifted(nudge) - shifted(-nudge)) / (2.0 * f64::from(nudge));
        let expected = lambda / pressure.coded * slope;
        let found = f64::from(gradients.values[1][at]);
        assert!(
            (found - expected).abs() < 0.02 * expected.abs() + 1e-9,
            "{at}: {found} {expected}"
        );
    }
}

#[test]
fn a_restored_state_keeps_the_scales_of_lines() {
    let mut weights = weights();
    let mut first = scaled_pressure(0.0);
    values(&mut first, &weights, 0);
    first.update(0, 1.0, &mut weights);
    let mut config = config(0.0, 0.0);
    config.rate.line_scales = LineScaleRule::Sensitivity;
    let mut second = BitsPressure::new(&config, &weights);
    assert!(second.restore(&first.state(), 1));
    assert_eq!(second.plan(), first.plan());
    let state = first.state();
    assert!(!second.restore(&state[..state.len() - 1], 1));
    assert!(!second.restore(&[state, vec![1.0]].concat(), 1));
}

fn learned_config() -> RunConfig {
    let mut config = config(0.0, 0.0);
    config.rate.line_scales = LineScaleRule::Learned;
    config
}

fn learned_pressure() -> BitsPressure {
    let (weights, mut pressure) = (weights(), BitsPressure::new(&learned_config(), &weights()));
    pressure.lambda = 0.0;
    pressure.scale_lines(&uneven_squares(), |_| true, &weights);
    pressure
}

/// Rows whose louder points the loss likes become louder, by steps of Adam, and all that comes of it is a factor on what their
/// codes stand for; also of tokens' rows.
#[test]
fn learned_scales_move_rows_and_leave_their_codes_alone() {
    let (mut weights, mut pressure) = (weights(), learned_pressure());
    let before = pressure.plan().scales["w"].clone();
    assert!(before.rows.iter().any(|scale| *scale != 1.0));
    // Some tenths of an octave in all, more than a value of the grid.
    pressure.scale_learning_rate = 0.02;
    let codes = |pressure: &BitsPressure, weights: &NamedWeights| {
        let plan = pressure.plan();
        let artifact = crate::sizing::artifact(weights, &plan).unwrap();
        let backslash_codec::Tensor::Quantized(tensor) = &artifact.tensors["w"] else {
            panic!("not coded")
        };
        tensor.codes.clone()
    };
    pressure.learned = false;
    let codes_before = codes(&pressure, &weights);
    let at = weights.position("w").unwrap();
    for step in 0..20 {
        let seen = perturbed(&pressure, &weights, step);
        let mut gradients = Gradients {
            values: weights.tensors().iter().map(|t| vec![0.0; t.data.len()]).collect(),
        };
        // The loss falls as even rows grow and as odd rows shrink.
        for (row, (gradient, points)) in gradients.values[at]
            .chunks_mut(64)
            .zip(seen.get("w").unwrap().data.chunks(64))
            .enumerate()
        {
            let sign = if row % 2 == 0 { -1.0 } else { 1.0 };
            gradient.iter_mut().zip(points).for_each(|(g, p)| *g = sign * p);
        }
        pressure.add_gradient(&weights, &seen, step, &mut gradients);
        pressure.update(step, 1.0, &mut weights);
    }
    let after = pressure.plan().scales["w"].clone();
    for (row, (before, after)) in before.rows.iter().zip(&after.rows).enumerate() {
        let octaves = (after / before).log2();
        let expected = 20.0 * 0.02 * std::f32::consts::LOG2_E;
        let expected = if row % 2 == 0 { expected } else { -expected };
        // Rows of zeros have nothing to move.
        if codes_before[64 * row..][..64].iter().any(|code| *code != 0) {
            assert!((octaves - expected).abs() < 0.2, "row {row}: {octaves} {expected}");
        }
    }
    assert_eq!(before.columns, after.columns);
    let same = codes(&pressure, &weights).iter().zip(&codes_before).filter(|(a, b)| a == b).count();
    assert!(same as f64 > 0.999 * codes_before.len() as f64, "{same}");
}

#[test]
fn a_restored_state_goes_on_learning_scales() {
    let mut weights = weights();
    let mut first = learned_pressure();
    values(&mut first, &weights, 0);
    first.update(0, 1.0, &mut weights);
    let mut second = BitsPressure::new(&learned_config(), &weights);
    let state = first.state();
    assert!(!second.restore(&state[..state.len() - 1], 1));
    assert!(second.restore(&state, 1));
    assert_eq!(second.state(), state);
    let mut twin = weights.clone();
    for (pressure, weights) in [(&mut first, &mut weights), (&mut second, &mut twin)] {
        pressure.lambda = 0.0;
        values(pressure, weights, 1);
        pressure.update(1, 1.0, weights);
    }
    assert_eq!(second.plan(), first.plan());
    assert_eq!(twin, weights);
}
