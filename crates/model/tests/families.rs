//! Llama, GPT-2 and BERT against slow statements of the same definitions in double precision, with the
//! names and shapes of Hugging Face checkpoints.

mod host;

use std::collections::BTreeMap;

use backslash_model::{
    Architecture, Encoder, EncoderInput, Gelu, ModelConfig, NamedTensor, NamedWeights,
    SpecialTokens, Transformer, device, use_composed_operations,
};
use host::{Host, Matrix};

const TOKENS: [u16; 12] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8];
const TARGETS: [u16; 12] = [1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 10];
const ROW: usize = 6;

fn llama() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocabulary_size: 11,
        width: 16,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        mlp_hidden: Some(23),
        context: ROW,
        rope_base: 500.0,
        norm_epsilon: 1e-3,
        tied_head: false,
        ..ModelConfig::default()
    }
}

fn gpt2() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Gpt2,
        kv_heads: 4,
        mlp_hidden: None,
        mlp_ratio: 3,
        tied_head: true,
        ..llama()
    }
}

fn bert() -> ModelConfig {
    ModelConfig { architecture: Architecture::Bert, token_types: 3, ..gpt2() }
}

const EMBEDDING: &str = "embeddings.word_embeddings.weight";
const MASK: u16 = 10;
const MASKED: [u16; 12] = [3, 1, MASK, 1, 5, 9, MASK, 6, MASK, 3, 5, 8];
const HIDDEN: [u16; 3] = [4, 2, 5];

/// BERT as a predictor of masked tokens: without a head, and with one and the other formula of GELU.
fn masked() -> [ModelConfig; 2] {
    let special_tokens = Some(SpecialTokens { start: 3, end: 8, mask: MASK });
    let bare = ModelConfig { special_tokens, ..bert() };
    [bare.clone(), ModelConfig { masked_head: true, gelu: Gelu::Tanh, ..bare }]
}

fn causal() -> [ModelConfig; 3] {
    [llama(), ModelConfig { tied_head: true, ..llama() }, gpt2()]
}

/// Values in ±0.5 for every tensor of a layout; gains of norms around 1.
fn weights(config: &ModelConfig) -> NamedWeights {
    let mut state = 7_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as f32 / 65_536.0 - 0.5
    };
    let tensors = config.layout().into_iter().map(|(name, shape)| {
        let gain = shape.len() == 1 && name.ends_with("weight");
        let data = (0..shape.iter().product()).map(|_| f32::from(u8::from(gain)) + random());
        NamedTensor { data: data.collect(), name, shape }
    });
    NamedWeights::new(tensors.collect())
}

fn values<const D: usize>(tensor: burn::tensor::Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn assert_close(found: &[f32], exact: &Matrix, tolerance: f64) {
    let exact: Vec<f64> = exact.concat();
    assert_eq!(found.len(), exact.len());
    for (at, (found, exact)) in found.iter().zip(&exact).enumerate() {
        assert!((f64::from(*found) - exact).abs() < tolerance, "{at}: {found} {exact}");
    }
}

#[test]
fn the_layouts_are_those_of_hugging_face() {
    let layer = |config: &ModelConfig, tail: &[(&str, &[usize])]| {
        let one = ModelConfig { layers: 1, ..config.clone() };
        let layout: BTreeMap<String, Vec<usize>> = one.layout().into_iter().collect();
        let expected: BTreeMap<String, Vec<usize>> =
            tail.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        assert_eq!(layout, expected);
    };
    layer(
        &llama(),
        &[
            ("model.embed_tokens.weight", &[11, 16]),
            ("model.layers.0.input_layernorm.weight", &[16]),
            ("model.layers.0.self_attn.q_proj.weight", &[16, 16]),
            ("model.layers.0.self_attn.k_proj.weight", &[8, 16]),
            ("model.layers.0.self_attn.v_proj.weight", &[8, 16]),
            ("model.layers.0.self_attn.o_proj.weight", &[16, 16]),
            ("model.layers.0.post_attention_layernorm.weight", &[16]),
            ("model.layers.0.mlp.gate_proj.weight", &[23, 16]),
            ("model.layers.0.mlp.up_proj.weight", &[23, 16]),
            ("model.layers.0.mlp.down_proj.weight", &[16, 23]),
            ("model.norm.weight", &[16]),
            ("lm_head.weight", &[11, 16]),
        ],
    );
    layer(
        &gpt2(),
        &[
            ("wte.weight", &[11, 16]),
            ("wpe.weight", &[6, 16]),
            ("h.0.ln_1.weight", &[16]),
            ("h.0.ln_1.bias", &[16]),
            ("h.0.attn.c_attn.weight", &[16, 48]),
            ("h.0.attn.c_attn.bias", &[48]),
            ("h.0.attn.c_proj.weight", &[16, 16]),
            ("h.0.attn.c_proj.bias", &[16]),
            ("h.0.ln_2.weight", &[16]),
            ("h.0.ln_2.bias", &[16]),
            ("h.0.mlp.c_fc.weight", &[16, 48]),
            ("h.0.mlp.c_fc.bias", &[48]),
            ("h.0.mlp.c_proj.weight", &[48, 16]),
            ("h.0.mlp.c_proj.bias", &[16]),
            ("ln_f.weight", &[16]),
            ("ln_f.bias", &[16]),
        ],
    );
    layer(
        &bert(),
        &[
            ("embeddings.word_embeddings.weight", &[11, 16]),
            ("embeddings.position_embeddings.weight", &[6, 16]),
            ("embeddings.token_type_embeddings.weight", &[3, 16]),
            ("embeddings.LayerNorm.weight", &[16]),
            ("embeddings.LayerNorm.bias", &[16]),
            ("encoder.layer.0.attention.self.query.weight", &[16, 16]),
            ("encoder.layer.0.attention.self.query.bias", &[16]),
            ("encoder.layer.0.attention.self.key.weight", &[16, 16]),
            ("encoder.layer.0.attention.self.key.bias", &[16]),
            ("encoder.layer.0.attention.self.value.weight", &[16, 16]),
            ("encoder.layer.0.attention.self.value.bias", &[16]),
            ("encoder.layer.0.attention.output.dense.weight", &[16, 16]),
            ("encoder.layer.0.attention.output.dense.bias", &[16]),
            ("encoder.layer.0.attention.output.LayerNorm.weight", &[16]),
            ("encoder.layer.0.attention.output.LayerNorm.bias", &[16]),
            ("encoder.layer.0.intermediate.dense.weight", &[48, 16]),
            ("encoder.layer.0.intermediate.dense.bias", &[48]),
            ("encoder.layer.0.output.dense.weight", &[16, 48]),
            ("encoder.layer.0.output.dense.bias", &[16]),
            ("encoder.layer.0.output.LayerNorm.weight", &[16]),
            ("encoder.layer.0.output.LayerNorm.bias", &[16]),
        ],
    );
    let names = |config: &ModelConfig| config.layout().into_iter().collect::<Vec<_>>();
    let (bare, with_head) = (names(&bert()), names(&masked()[1]));
    let head: Vec<_> = with_head.iter().filter(|tensor| !bare.contains(tensor)).collect();
    let named = |name: &str, shape: &[usize]| (format!("cls.predictions.{name}"), shape.to_vec());
    assert_eq!(
        head,
        [
            &named("bias", &[11]),
            &named("transform.dense.weight", &[16, 16]),
            &named("transform.dense.bias", &[16]),
            &named("transform.LayerNorm.weight", &[16]),
            &named("transform.LayerNorm.bias", &[16]),
        ]
    );
}

#[test]
fn logits_and_loss_are_those_of_the_definition() {
    for config in causal() {
        let weights = weights(&config);
        let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
        let host = Host { config: &config, weights: &weights };
        let exact: Matrix = TOKENS.chunks(ROW).flat_map(|row| host.logits(row)).collect();
        assert_close(&values(network.logits(&TOKENS, ROW)), &exact, 2e-5);
        let exact = host.loss(&TOKENS, &TARGETS, ROW);
        let loss: f32 = network.loss(&TOKENS, &TARGETS, ROW).into_scalar();
        assert!((f64::from(loss) / exact - 1.0).abs() < 1e-5, "{loss} {exact}");
        let losses = values(network.losses(&TOKENS, &TARGETS, ROW));
        let mean = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len() as f64;
        assert!((mean / exact - 1.0).abs() < 1e-5, "{mean} {exact}");
    }
}

#[test]
fn hidden_states_of_bert_are_those_of_the_definition() {
    let config = bert();
    let weights = weights(&config);
    let network = Encoder::from_weights(&config, &weights, &device()).unwrap();
    let types = [0, 0, 1, 1, 2, 2, 0, 0, 0, 0, 1, 1];
    let lengths = [6, 4];
    let input = EncoderInput { tokens: &TOKENS, types: &types, lengths: &lengths };
    let found = values(network.hidden(input));
    let host = Host { config: &config, weights: &weights };
    assert_close(&found[..6 * 16], &host.bert(&TOKENS[..6], &types[..6]), 2e-5);
    // What is padded away has no influence.
    assert_close(&found[6 * 16..10 * 16], &host.bert(&TOKENS[6..10], &types[6..10]), 2e-5);
}

#[test]
fn predictions_of_masked_tokens_are_those_of_the_definition() {
    for config in masked() {
        let weights = weights(&config);
        let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
        let host = Host { config: &config, weights: &weights };
        let exact: Matrix = MASKED.chunks(ROW).flat_map(|row| host.masked_logits(row)).collect();
        assert_eq!(exact.len(), HIDDEN.len());
        assert_close(&values(network.logits(&MASKED, ROW)), &exact, 2e-5);
        let exact = host.masked_loss(&MASKED, &HIDDEN, ROW);
        let loss: f32 = network.loss(&MASKED, &HIDDEN, ROW).into_scalar();
        assert!((f64::from(loss) / exact - 1.0).abs() < 1e-5, "{loss} {exact}");
        let losses = values(network.losses(&MASKED, &HIDDEN, ROW));
        let mean = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / 3.0;
        assert!((mean / exact - 1.0).abs() < 1e-5, "{mean} {exact}");
    }
}

/// Compares gradients with differences of the definition's value, along a direction through each tensor.
fn check_gradients(
    weights: &NamedWeights,
    gradients: &[Vec<f32>],
    value: impl Fn(&NamedWeights) -> f64,
) {
    for (at, tensor) in weights.tensors().iter().enumerate() {
        let direction: Vec<f32> =
            (0..tensor.data.len()).map(|i| ((i * 7 + at) % 5) as f32 - 1.5).collect();
        let value_at = |offset: f32| {
            let mut moved = weights.clone();
            for (value, direction) in moved.tensors_mut()[at].data.iter_mut().zip(&direction) {
                *value += offset * direction;
            }
            value(&moved)
        };
        // Halves of powers of two, so that adding them to a weight rounds next to nothing.
        let nudge = 2.0_f32.powi(-13);
        let finite = (value_at(nudge) - value_at(-nudge)) / (2.0 * f64::from(nudge));
        let slopes = gradients[at].iter().zip(&direction);
        let closed: f64 = slopes.map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
        let error = (closed - finite).abs();
        assert!(error < 2e-3 * finite.abs() + 2e-5, "{}: {closed} {finite}", tensor.name);
    }
}

#[test]
fn the_gradient_of_every_tensor_agrees_with_finite_differences() {
    for config in causal() {
        let weights = weights(&config);
        let network = Transformer::from_weights(&config, &weights, &device().autodiff()).unwrap();
        let loss = network.loss(&TOKENS, &TARGETS, ROW);
        let gradients = network.gradients(&loss, &weights);
        check_gradients(&weights, &gradients.values, |weights| {
            Host { config: &config, weights }.loss(&TOKENS, &TARGETS, ROW)
        });
    }
}

#[test]
fn the_gradient_of_the_masked_loss_agrees_with_finite_differences() {
    for config in masked() {
        let weights = weights(&config);
        let network = Transformer::from_weights(&config, &weights, &device().autodiff()).unwrap();
        let gradients = network.gradients(&network.loss(&MASKED, &HIDDEN, ROW), &weights);
        check_gradients(&weights, &gradients.values, |weights| {
            Host { config: &config, weights }.masked_loss(&MASKED, &HIDDEN, ROW)
        });
    }
}

#[test]
fn the_gradient_of_every_tensor_of_bert_agrees_with_finite_differences() {
    let config = bert();
    let weights = weights(&config);
    let network = Encoder::from_weights(&config, &weights, &device().autodiff()).unwrap();
    let (tokens, types) = (&TOKENS[..6], [0, 0, 0, 1, 1, 2]);
    let hidden = network.hidden(EncoderInput { tokens, types: &types, lengths: &[6] });
    let gradients = network.gradients(&hidden.powi_scalar(2).sum().mul_scalar(0.01), &weights);
    // Σ h² is nearly constant after a norm of gain 1; the gains here are random.
    check_gradients(&weights, &gradients.values, |weights| {
        let hidden = Host { config: &config, weights }.bert(tokens, &types);
        0.01 * hidden.concat().iter().map(|h| h * h).sum::<f64>()
    });
}

/// A classifier of three classes, with two rows, the second of them short.
fn classifier() -> ModelConfig {
    let labels = ["dull", "fair", "fine"].map(str::to_owned).to_vec();
    ModelConfig { labels, ..masked()[0].clone() }
}

const LENGTHS: [usize; 2] = [6, 4];
const CLASSES: [u16; 2] = [2, 0];

#[test]
fn classes_are_those_of_the_definition_whatever_the_padding() {
    let config = classifier();
    let weights = weights(&config);
    let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
    let host = Host { config: &config, weights: &weights };
    let expected: Matrix = vec![host.class_logits(&TOKENS[..6]), host.class_logits(&TOKENS[6..10])];
    assert_close(&values(network.class_logits(&TOKENS, &LENGTHS)), &expected, 2e-5);
    let mut other = TOKENS;
    other[10..].fill(0);
    assert_close(&values(network.class_logits(&other, &LENGTHS)), &expected, 2e-5);
    let loss = f64::from(network.class_loss(&TOKENS, &LENGTHS, &CLASSES).into_scalar::<f32>());
    let exact = host.class_loss(&[&TOKENS[..6], &TOKENS[6..10]], &CLASSES);
    assert!((loss / exact - 1.0).abs() < 1e-5, "{loss} {exact}");
}

/// (1 − s)·(−ln q(class)) + s·(−Σ p·ln q), with p the softmax of the teacher's logits.
#[test]
fn classes_of_a_teacher_are_targets_too() {
    let config = classifier();
    let weights = weights(&config);
    let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
    let host = Host { config: &config, weights: &weights };
    let teacher = [0.5_f32, -1.0, 2.0, 0.0, 1.5, -0.25];
    let log_softmax = |logits: &[f64]| -> Vec<f64> {
        let sum: f64 = logits.iter().map(|z| z.exp()).sum();
        logits.iter().map(|z| z - sum.ln()).collect()
    };
    let share = 0.3;
    let mut exact = 0.0;
    for (row, (text, class)) in [&TOKENS[..6], &TOKENS[6..10]].into_iter().zip(CLASSES).enumerate()
    {
        let own = log_softmax(&host.class_logits(text));
        let theirs: Vec<f64> = teacher[3 * row..][..3].iter().map(|z| f64::from(*z)).collect();
        let soft: f64 = log_softmax(&theirs).iter().zip(&own).map(|(p, q)| -p.exp() * q).sum();
        exact += 0.5 * ((1.0 - share) * -own[usize::from(class)] + share * soft);
    }
    let loss = network.class_distillation_loss(&TOKENS, &LENGTHS, &CLASSES, &teacher, share as f32);
    let loss = f64::from(loss.into_scalar::<f32>());
    assert!((loss / exact - 1.0).abs() < 1e-5, "{loss} {exact}");
}

#[test]
fn the_gradient_of_the_loss_of_a_classifier_agrees_with_finite_differences() {
    let config = classifier();
    let weights = weights(&config);
    let network = Transformer::from_weights(&config, &weights, &device().autodiff()).unwrap();
    let loss = network.class_loss(&TOKENS, &LENGTHS, &CLASSES);
    let gradients = network.gradients(&loss, &weights);
    check_gradients(&weights, &gradients.values, |weights| {
        let host = Host { config: &config, weights };
        host.class_loss(&[&TOKENS[..6], &TOKENS[6..10]], &CLASSES)
    });
}

#[test]
fn every_matrix_is_shown_with_its_inputs_and_tables_are_not() {
    let inputs_of = |config: &ModelConfig, name: &str, shape: &[usize]| {
        let table = name.contains("embed") || name.starts_with("wpe");
        let head = name == "wte.weight" || config.tied_head && name == "model.embed_tokens.weight";
        let matrix = shape.len() == 2 && (!table || head);
        let transposed = config.architecture == Architecture::Gpt2 && !head;
        matrix.then(|| shape[usize::from(!transposed)])
    };
    let expected = |config: &ModelConfig| -> BTreeMap<String, usize> {
        let layout = config.layout().into_iter();
        layout
            .filter_map(|(name, shape)| Some((name.clone(), inputs_of(config, &name, &shape)?)))
            .collect()
    };
    for config in causal() {
        let network = Transformer::from_weights(&config, &weights(&config), &device()).unwrap();
        let mut shown = BTreeMap::new();
        network.observe_inputs(&TOKENS, ROW, &mut |names, values, inputs| {
            assert_eq!(values.len(), TOKENS.len() * inputs);
            shown.extend(names.iter().map(|name| ((*name).to_owned(), inputs)));
        });
        assert_eq!(shown, expected(&config));
    }
    for config in masked() {
        let network = Transformer::from_weights(&config, &weights(&config), &device()).unwrap();
        let mut shown = BTreeMap::new();
        network.observe_inputs(&MASKED, ROW, &mut |names, values, inputs| {
            let of_head = ["cls.predictions.transform.dense.weight", EMBEDDING].contains(&names[0]);
            assert_eq!(values.len() / inputs, if of_head { HIDDEN.len() } else { MASKED.len() });
            shown.extend(names.iter().map(|name| ((*name).to_owned(), inputs)));
        });
        let mut expected = expected(&config);
        expected.insert(EMBEDDING.to_owned(), config.width);
        assert_eq!(shown, expected);
    }
    let config = bert();
    let network = Encoder::from_weights(&config, &weights(&config), &device()).unwrap();
    let input = EncoderInput { tokens: &TOKENS, types: &[0; 12], lengths: &[6, 6] };
    let mut shown = BTreeMap::new();
    network.observe_inputs(input, &mut |names, _, inputs| {
        shown.extend(names.iter().map(|name| ((*name).to_owned(), inputs)));
    });
    assert_eq!(shown, expected(&config));
}

#[test]
fn the_composed_operations_give_the_same_logits() {
    for config in causal() {
        let network = Transformer::from_weights(&config, &weights(&config), &device()).unwrap();
        let fused = values(network.logits(&TOKENS, ROW));
        use_composed_operations(true);
        let composed = values(network.logits(&TOKENS, ROW));
        use_composed_operations(false);
        assert!(fused.iter().zip(&composed).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn an_encoder_predicts_with_special_tokens_only_and_others_are_no_encoders() {
    let config = bert();
    let error = Transformer::from_weights(&config, &weights(&config), &device()).unwrap_err();
    assert!(error.to_string().starts_with("model.special_tokens = none"), "{error}");
    let config = gpt2();
    let error = Encoder::from_weights(&config, &weights(&config), &device()).unwrap_err();
    assert!(error.to_string().starts_with("model.architecture = gpt2"), "{error}");
}
