//! What a forward pass shows of itself: inputs of linear layers, hidden states and their gradients.

use std::collections::BTreeMap;

use backslash_model::{
    Architecture, ModelConfig, NamedWeights, SpecialTokens, Transformer, device, initial_weights,
};

const TOKENS: [u16; 12] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8];
const ROW: usize = 6;

fn configurations() -> [ModelConfig; 2] {
    let decoder = ModelConfig {
        vocabulary_size: 11,
        width: 16,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        mlp_ratio: 3,
        logit_cap: 1e4,
        embedding_std: 0.3,
        ..ModelConfig::default()
    };
    let golf = ModelConfig { architecture: Architecture::Golf, layers: 3, ..decoder.clone() };
    [decoder, golf]
}

fn classifier() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Bert,
        kv_heads: 4,
        context: 8,
        labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
        special_tokens: Some(SpecialTokens { start: 0, end: 1, mask: 2 }),
        ..configurations()[0].clone()
    }
}

/// Initial weights with every tensor moved away from its special value (zero, one).
fn weights(config: &ModelConfig) -> NamedWeights {
    let mut weights = initial_weights(config, 5).unwrap();
    let mut state = 3_u32;
    for tensor in weights.tensors_mut() {
        for value in &mut tensor.data {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value += ((state >> 16) as f32 / 65_536.0 - 0.5) * 0.4;
        }
    }
    weights
}

/// Inputs by matrix.
fn observed(network: &Transformer) -> BTreeMap<String, (Vec<f32>, usize)> {
    let mut found = BTreeMap::new();
    network.observe_inputs(&TOKENS, ROW, &mut |names, values, inputs| {
        for name in names {
            let earlier = found.insert((*name).to_owned(), (values.to_vec(), inputs));
            assert!(earlier.is_none(), "{name} came twice");
        }
    });
    found
}

/// Inputs of a classifier's matrices.
fn class_inputs(
    network: &Transformer,
    tokens: &[u16],
    lengths: &[usize],
) -> BTreeMap<String, (Vec<f32>, usize)> {
    let mut found = BTreeMap::new();
    network.observe_class_inputs(tokens, lengths, &mut |names, values, inputs| {
        for name in names {
            let earlier = found.insert((*name).to_owned(), (values.to_vec(), inputs));
            assert!(earlier.is_none(), "{name} came twice");
        }
    });
    found
}

/// Σ over positions of x·xᵀ.
fn second_moment(x: &[f32], channels: usize) -> Vec<Vec<f64>> {
    let mut moment = vec![vec![0.0; channels]; channels];
    for row in x.chunks_exact(channels) {
        for (a, sums) in row.iter().zip(&mut moment) {
            for (b, sum) in row.iter().zip(sums) {
                *sum += f64::from(*a) * f64::from(*b);
            }
        }
    }
    moment
}

#[test]
fn every_matrix_of_the_layout_and_nothing_else_is_shown_with_its_inputs() {
    for config in configurations() {
        let network = Transformer::from_weights(&config, &weights(&config), &device()).unwrap();
        let matrices: BTreeMap<String, usize> = Transformer::layout(&config)
            .into_iter()
            .filter(|(name, _)| name.ends_with(".weight"))
            .map(|(name, shape)| (name, shape[1]))
            .collect();
        let found = observed(&network);
        let shown: BTreeMap<String, usize> =
            found.iter().map(|(name, (_, inputs))| (name.clone(), *inputs)).collect();
        assert_eq!(shown, matrices);
        assert!(found.values().all(|(x, inputs)| x.len() == TOKENS.len() * inputs));
    }
}

/// W·C·Wᵀ, C being the second moment of what was shown, is the second moment of what the layer puts out:
/// here of the logits, whose cap is too high to be felt.
#[test]
fn the_second_moment_of_the_inputs_makes_that_of_the_outputs() {
    for config in configurations() {
        let weights = weights(&config);
        let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
        let found = observed(&network);
        let (x, inputs) = &found["tok_emb.weight"];
        let covariance = second_moment(x, *inputs);
        let logits: Vec<f32> = network.logits(&TOKENS, ROW).into_data().try_into_vec().unwrap();
        let outputs = second_moment(&logits, config.vocabulary_size);
        let matrix = &weights.get("tok_emb.weight").unwrap().data;
        let row = |i: usize| &matrix[i * inputs..][..*inputs];
        for (i, expected) in outputs.iter().enumerate() {
            for (j, expected) in expected.iter().enumerate() {
                let mut sum = 0.0;
                for (a, covariance) in row(i).iter().zip(&covariance) {
                    for (b, covariance) in row(j).iter().zip(covariance) {
                        sum += f64::from(*a) * covariance * f64::from(*b);
                    }
                }
                assert!((sum - expected).abs() < 1e-4 * outputs[i][i].max(1.0), "{sum} {expected}");
            }
        }
    }
}

#[test]
fn an_input_times_its_matrix_is_the_next_input() {
    for config in configurations() {
        let weights = weights(&config);
        let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
        let found = observed(&network);
        for block in 0..config.layers {
            let (x, inputs) = &found[&format!("blocks.{block}.mlp.fc.weight")];
            let (hidden, channels) = &found[&format!("blocks.{block}.mlp.proj.weight")];
            let matrix = &weights.get(&format!("blocks.{block}.mlp.fc.weight")).unwrap().data;
            for (x, hidden) in x.chunks_exact(*inputs).zip(hidden.chunks_exact(*channels)) {
                for (weights, hidden) in matrix.chunks_exact(*inputs).zip(hidden) {
                    let z: f32 = x.iter().zip(weights).map(|(x, w)| x * w).sum();
                    assert!((z.max(0.0).powi(2) - hidden).abs() < 1e-4, "{z} {hidden}");
                }
            }
        }
    }
}

#[test]
fn the_hidden_states_are_the_input_of_the_output_matrix() {
    for config in configurations() {
        let network = Transformer::from_weights(&config, &weights(&config), &device()).unwrap();
        let hidden: Vec<f32> = network.hidden(&TOKENS, ROW).into_data().try_into_vec().unwrap();
        assert_eq!(hidden, observed(&network)["tok_emb.weight"].0);
    }
}

#[test]
fn gradients_of_chosen_hidden_states_agree_with_finite_differences() {
    for config in configurations() {
        let weights = weights(&config);
        let mut directions = vec![0.0; TOKENS.len() * config.width];
        for (i, direction) in directions[2 * config.width..9 * config.width].iter_mut().enumerate()
        {
            *direction = (i % 7) as f32 - 2.5;
        }
        let value_at = |weights: &NamedWeights| -> f64 {
            let network = Transformer::from_weights(&config, weights, &device()).unwrap();
            let hidden: Vec<f32> = network.hidden(&TOKENS, ROW).into_data().try_into_vec().unwrap();
            hidden.iter().zip(&directions).map(|(h, d)| f64::from(*h) * f64::from(*d)).sum()
        };
        let network = Transformer::from_weights(&config, &weights, &device().autodiff()).unwrap();
        let gradients = network.hidden_gradients(&TOKENS, ROW, &directions, &weights);
        for (at, gradient) in gradients.values.iter().enumerate() {
            // Along the gradient itself, the difference is as large as it can be beside the rounding.
            let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
            let nudge = 2e-3 / square.sqrt();
            let moved = |sign: f64| {
                let mut moved = weights.clone();
                for (value, slope) in moved.tensors_mut()[at].data.iter_mut().zip(gradient) {
                    *value += (sign * nudge * f64::from(*slope)) as f32;
                }
                value_at(&moved)
            };
            let finite = (moved(1.0) - moved(-1.0)) / (2.0 * nudge);
            let name = &weights.tensors()[at].name;
            assert!((finite / square - 1.0).abs() < 1e-2, "{name}: {finite} {square}");
        }
    }
}

/// Rows of six tokens and of four, with padding, show what each shows alone.
#[test]
fn a_classifier_shows_text_and_no_padding() {
    let config = classifier();
    let weights = weights(&config);
    let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
    let together = class_inputs(&network, &TOKENS, &[6, 4]);
    let alone =
        [class_inputs(&network, &TOKENS[..6], &[6]), class_inputs(&network, &TOKENS[6..10], &[4])];
    assert_eq!(together.len(), 6 * config.layers + 2);
    for (name, (values, inputs)) in &together {
        let expected = [&alone[0][name].0[..], &alone[1][name].0].concat();
        let positions = if name.contains("layer.") { 10 } else { 2 };
        assert_eq!((values.len(), expected.len()), (positions * inputs, positions * inputs));
        for (found, expected) in values.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{name}: {found} {expected}");
        }
    }
    // The last of them, times its matrix, makes the logits.
    let logits = network.class_logits(&TOKENS, &[6, 4]).into_data().try_into_vec::<f32>().unwrap();
    let (pooled, inputs) = &together["classifier.weight"];
    let data = |name| &weights.get(name).unwrap().data;
    let (matrix, bias) = (data("classifier.weight"), data("classifier.bias"));
    let expected = pooled.chunks(*inputs).flat_map(|x| {
        matrix
            .chunks(*inputs)
            .zip(bias)
            .map(move |(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + bias)
    });
    for (found, expected) in logits.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

/// What is put in the place of a matrix is what the layers behind it see.
#[test]
fn matrices_of_a_classifier_are_replaced_on_the_way() {
    let config = classifier();
    let network = Transformer::from_weights(&config, &weights(&config), &device()).unwrap();
    let pooler = "pooler.dense.weight";
    let mut pooled = Vec::new();
    network.replace_class_matrices(&TOKENS, &[6, 4], &mut |names, values, _| match names[0] {
        "pooler.dense.weight" => vec![vec![0.0; config.width * config.width]],
        "classifier.weight" => {
            pooled = values.to_vec();
            Vec::new()
        }
        _ => Vec::new(),
    });
    let changed = {
        let mut weights = weights(&config);
        let at = weights.position(pooler).unwrap();
        weights.tensors_mut()[at].data.fill(0.0);
        Transformer::from_weights(&config, &weights, &device()).unwrap()
    };
    let expected = class_inputs(&changed, &TOKENS, &[6, 4]);
    assert_eq!(pooled, expected["classifier.weight"].0);
}
