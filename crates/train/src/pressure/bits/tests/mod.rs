mod levels;
mod scales;

use super::*;
use crate::{OriginRule, RateConfig, RateMethod, TrainConfig};
use backslash_model::{ModelConfig, NamedTensor, Transformer, device, initial_weights};

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

#[test]
fn files_have_dead_zones_for_rows_of_pairs_and_triples() {
    let data: Vec<f32> = weights().get("w").unwrap().data.clone();
    let names = ["bigram_emb.weight", "tok_emb.weight", "trigram_emb.weight"];
    let tensor =
        |name: &str| NamedTensor { name: name.to_owned(), shape: vec![64, 64], data: data.clone() };
    let weights = NamedWeights::new(names.map(tensor).to_vec());
    let zones = |zone| {
        let mut config = config(0.0, 0.0);
        config.rate.ngram_dead_zone = zone;
        BitsPressure::new(&config, &weights).plan().dead_zones
    };
    assert!(zones(0.0).is_empty());
    let expected = [names[0], names[2]].map(|name| (name.to_owned(), 0.02));
    assert_eq!(zones(0.02), expected.into());
}

fn pressure(rounding_from: f64) -> BitsPressure {
    BitsPressure::new(&config(0.0, rounding_from), &weights())
}

fn step_of(pressure: &BitsPressure) -> f32 {
    pressure.plan().steps["w"]
}

fn perturbed(pressure: &BitsPressure, weights: &NamedWeights, step: u64) -> NamedWeights {
    let mut seen = weights.clone();
    pressure.perturb(weights, step, &mut seen);
    seen
}

fn values(pressure: &mut BitsPressure, weights: &NamedWeights, step: u64) -> (f64, Gradients) {
    let mut gradients =
        Gradients { values: weights.tensors().iter().map(|t| vec![0.0; t.data.len()]).collect() };
    let seen = perturbed(pressure, weights, step);
    (pressure.add_gradient(weights, &seen, step, &mut gradients), gradients)
}

#[test]
fn only_matrices_are_perturbed_by_at_most_half_a_step() {
    let (weights, pressure) = (weights(), pressure(0.5));
    let step = step_of(&pressure);
    for (at, whole) in [(3, false), (70, true)] {
        let seen = perturbed(&pressure, &weights, at);
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

/// At the steps of the dropout points are those of longer steps, and through them the loss moves ln Δ; the code lengths
/// stay those of the codes.
#[test]
fn dropped_steps_show_coarser_points_at_the_same_price() {
    let mut config = config(0.0, 0.0);
    config.rate.step_dropout = 1.0;
    let (weights, mut dropped) = (weights(), BitsPressure::new(&config, &weights()));
    let mut plain = pressure(0.0);
    let step = step_of(&plain);
    let mut factors = Vec::new();
    for at in 0..20 {
        let seen = perturbed(&dropped, &weights, at);
        let points = &seen.get("w").unwrap().data;
        let is_multiple = |factor: f32| {
            let whole =
                |p: &f32| (p / (factor * step) - (p / (factor * step)).round()).abs() < 1e-4;
            points.iter().all(whole)
        };
        let factor = [2.0_f32.sqrt(), 2.0].into_iter().find(|factor| is_multiple(*factor));
        factors.push(factor.expect("neither factor"));

        let zeros = || weights.tensors().iter().map(|t| vec![1e-3; t.data.len()]).collect();
        let mut gradients = [Gradients { values: zeros() }, Gradients { values: zeros() }];
        let bits = dropped.add_gradient(&weights, &seen, at, &mut gradients[0]);
        let rounded = perturbed(&plain, &weights, at);
        assert_eq!(bits, plain.add_gradient(&weights, &rounded, at, &mut gradients[1]));
        assert_eq!(gradients[0].values, gradients[1].values);
        let through = |seen: &NamedWeights| -> f64 {
            let pairs = weights.get("w").unwrap().data.iter().zip(&seen.get("w").unwrap().data);
            let at = weights.position("w").unwrap();
            let terms = gradients[0].values[at].iter().zip(pairs);
            terms.map(|(g, (w, s))| f64::from(*g) * f64::from(s - w)).sum()
        };
        let difference = dropped.tensors[0].gradient[0] - plain.tensors[0].gradient[0];
        let expected = through(&seen) - through(&rounded);
        assert!((difference - expected).abs() < 1e-6 * expected.abs().max(1e-3));
    }
    assert!(factors.contains(&2.0) && factors.iter().any(|factor| *factor < 2.0));
}

/// The share rises to all; prices are those of all codes, and ln Δ moves with the weights that are rounded.
#[test]
fn a_share_of_the_weights_is_rounded_at_first() {
    let mut config = config(0.5, 0.5);
    let weights = weights();
    let mut plain = BitsPressure::new(&config, &weights);
    config.rate.rounded_share = 0.4;
    let mut partly = BitsPressure::new(&config, &weights);
    for pressure in [&mut partly, &mut plain] {
        pressure.prepare(&weights, 50);
    }
    let at = weights.position("w").unwrap();
    for (step, expected) in [(50, 0.4), (70, 0.7), (90, 1.0), (99, 1.0)] {
        let (seen, rounded) =
            (perturbed(&partly, &weights, step), perturbed(&plain, &weights, step));
        let of = |seen: &NamedWeights| seen.tensors()[at].data.clone();
        let (found, all, exact) = (of(&seen), of(&rounded), of(&weights));
        let mut count = 0;
        for ((found, all), exact) in found.iter().zip(&all).zip(&exact) {
            assert!(found == all || found == exact, "{found} {all} {exact}");
            count += usize::from(found == all);
        }
        let share = count as f64 / all.len() as f64;
        assert!((share - expected).abs() < 0.05, "{step}: {share}");

        let zeros = || weights.tensors().iter().map(|t| vec![1e-3; t.data.len()]).collect();
        let mut gradients = [Gradients { values: zeros() }, Gradients { values: zeros() }];
        let bits = partly.add_gradient(&weights, &seen, step, &mut gradients[0]);
        assert_eq!(bits, plain.add_gradient(&weights, &rounded, step, &mut gradients[1]));
        assert_eq!(gradients[0].values, gradients[1].values);
        let terms = gradients[0].values[at].iter().zip(found.iter().zip(&all));
        let expected: f64 =
            terms.map(|(g, (found, all))| f64::from(*g) * f64::from(found - all)).sum();
        let difference = partly.tensors[0].gradient[0] - plain.tensors[0].gradient[0];
        assert!((difference - expected).abs() < 1e-6 * expected.abs().max(1e-3));
    }
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
    late.update(30, 1.0, &mut grown);
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
    assert_eq!(perturbed(&pressure, &weights, 0).get(name), weights.get(name));

    let at = weights.position(name).unwrap();
    let step = plan.steps[name];
    weights.tensors_mut()[at].data.iter_mut().step_by(3).for_each(|w| *w += 1.1 * step);
    let seen = perturbed(&pressure, &weights, 0);
    let artifact = crate::sizing::artifact(&weights, &plan).unwrap();
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
    let mut gradients =
        Gradients { values: weights.tensors().iter().map(|t| vec![0.0; t.data.len()]).collect() };
    pressure.add_gradient(&weights, &seen, 0, &mut gradients);
    let pulls = gradients.values[at].iter();
    assert!(
        pulls.enumerate().all(|(i, g)| (*g > 0.0) == (i % 3 == 0) && (*g == 0.0) == (i % 3 > 0))
    );
}

#[test]
fn a_restored_state_continues_alike() {
    let mut weights = weights();
    let mut first = pressure(0.5);
    for step in 0..5 {
        values(&mut first, &weights, step);
        first.update(step, 1.0, &mut weights);
    }
    let mut second = pressure(0.5);
    assert!(second.restore(&first.state(), 5));
    for step in 5..8 {
        values(&mut first, &weights, step);
        values(&mut second, &weights, step);
        first.update(step, 1.0, &mut weights);
        second.update(step, 1.0, &mut weights);
    }
    assert_eq!(first.tensors, second.tensors);
    assert!(!second.restore(&[0.0; 3], 8));
}

#[test]
fn descending_the_rate_alone_lowers_the_entropy() {
    let mut weights = weights();
    let mut pressure = pressure(0.0);
    pressure.learned = false;
    let entropy = |weights: &NamedWeights, pressure: &BitsPressure| {
        let seen = perturbed(pressure, weights, 99);
        let step = step_of(pressure);
        let codes: Vec<i32> =
            seen.get("w").unwrap().data.iter().map(|s| (s / step).round() as i32).collect();
        backslash_rate::entropy_bits(&codes)
    };
    let before = entropy(&weights, &pressure);
    for step in 0..200 {
        let (_, gradients) = values(&mut pressure, &weights, step);
        pressure.update(step, 1.0, &mut weights);
        let at = weights.position("w").unwrap();
        for (w, g) in weights.tensors_mut()[at].data.iter_mut().zip(&gradients.values[at]) {
            *w -= 3e-3 * 4096.0 * 0.01 * g;
        }
    }
    let after = entropy(&weights, &pressure);
    assert!(after < 0.8 * before, "{before} {after}");
}

/// A model that computes the same with other scales of its layers has the same rate, and its file the same codes.
#[test]
fn rescaled_layers_have_the_same_rate() {
    let model = ModelConfig {
        vocabulary_size: 64,
        width: 32,
        layers: 2,
        heads: 2,
        kv_heads: 2,
        context: 16,
        ..ModelConfig::default()
    };
    let config = RunConfig { model, ..config(0.0, 0.0) };
    let mut weights = initial_weights(&config.model, 1).unwrap();
    for (at, tensor) in weights.tensors_mut().iter_mut().enumerate() {
        // Layers that start at zero are to do something.
        let noise = |i: usize| ((i * 2_654_435_761 + at) % 1009) as f32 / 1009.0 - 0.5;
        tensor.data.iter_mut().enumerate().for_each(|(i, weight)| *weight += 0.1 * noise(i));
    }
    let mut rescaled = weights.clone();
    for tensor in rescaled.tensors_mut() {
        let factor = match &tensor.name {
            // relu(a·x)² = a²·relu(x)², and queries and keys are normalised.
            name if name.ends_with("mlp.fc.weight") => 3.0,
            name if name.ends_with("mlp.proj.weight") => 1.0 / 9.0,
            name if name.ends_with("c_q.weight") => 0.2,
            name if name.ends_with("c_k.weight") => 7.0,
            _ => 1.0,
        };
        tensor.data.iter_mut().for_each(|weight| *weight *= factor);
    }
    let tokens: Vec<u16> = (0..32).map(|i| (i * i * 7 + 3) % 64).collect();
    let of = |weights: &NamedWeights| {
        let network = Transformer::from_weights(&config.model, weights, &device()).unwrap();
        let loss = network.loss(&tokens[..16], &tokens[16..], 16).into_scalar::<f32>();
        let mut pressure = BitsPressure::new(&config, weights);
        let rate = values(&mut pressure, weights, 0).0;
        let artifact = crate::sizing::artifact(weights, &pressure.plan()).unwrap();
        let size = backslash_codec::encoded_size(&artifact).unwrap();
        (f64::from(loss), rate, size.total() as f64)
    };
    let (before, after) = (of(&weights), of(&rescaled));
    assert!((after.0 / before.0 - 1.0).abs() < 1e-4, "another function: {before:?} {after:?}");
    assert!((after.1 / before.1 - 1.0).abs() < 1e-3, "{before:?} {after:?}");
    assert!((after.2 / before.2 - 1.0).abs() < 1e-2, "{before:?} {after:?}");
    assert!(before.1 > 1.0, "{before:?}");
}
