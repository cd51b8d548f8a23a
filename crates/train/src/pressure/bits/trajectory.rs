//! A short training on a fixed loss whose course the Python package is held against.

use backslash_model::{Gradients, NamedTensor, NamedWeights};

use super::BitsPressure;
use crate::{OriginRule, RateMethod, RunConfig};

/// Step, code length in bits per weight, then for both matrices ln Δ, the logit and ln s of both components after the step, and
/// Σ|w|. Python's tests read it too; a change of the rate is entered in both by what this test prints.
const EXPECTED: &str = include_str!("../../../../../python/tests/trajectory_of_bits.txt");
const LEARNING_RATE: f32 = 1.0;
const CURVATURE: f32 = 0.02;

/// Numbers of all sizes, and their signs.
fn drawn(count: usize, seed: usize) -> Vec<f32> {
    let value = |index: usize| {
        let uniform = ((index * 2_654_435_761 + 97 * seed) % 1009) as f64 / 1009.0 - 0.5;
        (2.0 * uniform.powi(3)) as f32
    };
    (0..count).map(value).collect()
}

fn tensors(seed: usize) -> NamedWeights {
    let tensor = |name: &str, shape: &[usize], seed: usize| NamedTensor {
        name: name.into(),
        shape: shape.to_vec(),
        data: drawn(shape.iter().product(), seed),
    };
    NamedWeights::new(vec![
        tensor("a", &[48, 40], seed),
        tensor("v", &[8], seed + 1),
        tensor("w", &[64, 64], seed + 2),
    ])
}

fn numbers_of(text: &str) -> Vec<f64> {
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

#[test]
fn the_course_of_a_training_is_the_known_one() {
    let mut config = RunConfig::default();
    config.train.steps = 20;
    config.rate.method = RateMethod::Bits;
    config.rate.origin = OriginRule::Zero;
    config.rate.lambda = 0.3;
    config.rate.start = 0.25;
    config.rate.rounding_from = 0.5;
    config.rate.rounded_share = 0.6;
    let (mut weights, targets) = (tensors(1), tensors(11));
    let mut pressure = BitsPressure::new(&config, &weights);
    let mut course = String::new();
    for step in 0..config.train.steps {
        let multiplier = if step < 12 { 1.0 } else { 0.5 };
        pressure.prepare(&weights, step);
        let mut seen = weights.clone();
        if pressure.acts_at(step) {
            pressure.perturb(&weights, step, &mut seen);
        }
        let slope = |(seen, target): (&f32, &f32)| CURVATURE * (seen - target);
        let values = seen.tensors().iter().zip(targets.tensors());
        let values = values.map(|(s, t)| s.data.iter().zip(&t.data).map(slope).collect());
        let mut gradients = Gradients { values: values.collect() };
        let bits = pressure
            .acts_at(step)
            .then(|| pressure.add_gradient(&weights, &seen, step, &mut gradients));
        for (tensor, gradient) in weights.tensors_mut().iter_mut().zip(&gradients.values) {
            let pairs = tensor.data.iter_mut().zip(gradient);
            pairs.for_each(|(w, g)| *w -= multiplier as f32 * LEARNING_RATE * g);
        }
        let Some(bits) = bits else { continue };
        pressure.update(step, multiplier, &mut weights);
        let magnitude = weights.tensors().iter().flat_map(|tensor| &tensor.data);
        let magnitude: f64 = magnitude.map(|w| f64::from(w.abs())).sum();
        let models = pressure.tensors.iter().flat_map(|rate| {
            let [narrow, wide] = rate.mixture.log_scales;
            [rate.log_step, rate.mixture.logit, narrow, wide]
        });
        let numbers: Vec<String> = std::iter::once(bits)
            .chain(models)
            .chain([magnitude])
            .map(|number| format!("{number:.9}"))
            .collect();
        course += &format!("{step} {}\n", numbers.join(" "));
    }
    let (found, expected) = (numbers_of(&course), numbers_of(EXPECTED));
    assert_eq!(found.len(), expected.len(), "\n{course}");
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs();
        assert!(error < 1e-6 * expected.abs().max(1.0), "{found} {expected}\n{course}");
    }
}
