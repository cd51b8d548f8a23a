//! Folders of the BERT family: compressed with text, decoded, evaluated.

use std::collections::BTreeSet;
use std::path::Path;

use backslash_model::{Architecture, ModelConfig, NamedTensor, NamedWeights};

use crate::place::{Place, bytes, json};

const CONFIG: &str = r#"{
    "architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 64, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 32, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"
}"#;

/// Words of the text of a [`Place`], its digits, and unused ids up to 64.
fn vocabulary() -> String {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let words = [",", ";", "green", "bottles", "on", "the", "wall"];
    let digits = (0..10).flat_map(|digit| [digit.to_string(), format!("##{digit}")]);
    let known = special.iter().chain(&words).map(ToString::to_string).chain(digits);
    let tokens = known.chain((0..).map(|id| format!("[unused{id}]"))).take(64);
    tokens.map(|token| token + "\n").collect()
}

fn config(masked_head: bool) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Bert,
        vocabulary_size: 64,
        width: 32,
        layers: 2,
        heads: 4,
        kv_heads: 4,
        mlp_hidden: Some(64),
        context: 32,
        masked_head,
        ..ModelConfig::default()
    }
}

/// Random tensors with the names of a checkpoint: matrices in ±0.3, gains around 1, biases around 0.
fn tensors(masked_head: bool) -> Vec<NamedTensor> {
    let mut state = 7_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0.6 * ((state >> 16) as f32 / 65_536.0 - 0.5)
    };
    let layout = config(masked_head).layout().into_iter();
    let mut tensors: Vec<NamedTensor> = layout
        .map(|(name, shape)| {
            let gain = shape.len() == 1 && name.ends_with("weight");
            let data = (0..shape.iter().product()).map(|_| f32::from(u8::from(gain)) + random());
            NamedTensor { data: data.collect(), name, shape }
        })
        .collect();
    for tensor in tensors.iter_mut().filter(|tensor| !tensor.name.starts_with("cls.")) {
        tensor.name.insert_str(0, "bert.");
    }
    tensors
}

fn write(folder: &Path, tensors: Vec<NamedTensor>) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), CONFIG).unwrap();
    std::fs::write(folder.join("vocab.txt"), vocabulary()).unwrap();
    NamedWeights::new(tensors).write(&folder.join("model.safetensors")).unwrap();
}

#[test]
fn an_encoder_is_compressed_with_text_decoded_and_evaluated() {
    let place = Place::new();
    let mut stored = tensors(true);
    stored.push(NamedTensor {
        name: "bert.pooler.dense.weight".to_owned(),
        shape: vec![32, 32],
        data: vec![0.5; 32 * 32],
    });
    write(&place.path("bert"), stored);
    let compress = |output: &str| {
        let arguments = ["compress", "bert", "-o", output, "--budget", "16kB"];
        let text = ["--text", "text.txt", "--calibration-tokens", "3000"];
        let run = place.run(&[&arguments[..], &text].concat());
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.success(), "{said}");
        assert!(said.contains("left out") && said.contains("`pooler.dense.weight`"), "{said}");
        bytes(&place.path(output))
    };
    let file = compress("bert/model.bsl");
    assert!((15_900..=16_000).contains(&file.len()), "{}", file.len());
    assert_eq!(compress("again.bsl"), file, "the same masks, the same file");

    place.ok(&["decompress", "again.bsl", "-o", "decoded.safetensors"]);
    let decoded = bytes(&place.path("decoded.safetensors"));
    let decoded = safetensors::SafeTensors::deserialize(&decoded).unwrap();
    let names: BTreeSet<String> = decoded.names().into_iter().map(str::to_owned).collect();
    assert_eq!(names, config(true).layout().into_iter().map(|(name, _)| name).collect());

    // Masked tokens are what it is scored on: 15 % of the text, with no bits per byte.
    let evaluate = ["eval", "bert", "--data", "text.txt", "--tokens", "2000"];
    let evaluated = json(&place.ok(&[&evaluate[..], &["--json"]].concat()));
    let nats = |key: &str| evaluated[key]["nats_per_token"].as_f64().unwrap();
    assert!((nats("decoded") - nats("float")).abs() < 0.3, "{evaluated}");
    assert_eq!(evaluated["decoded"]["tokens"], evaluated["float"]["tokens"]);
    let scored = evaluated["decoded"]["tokens"].as_u64().unwrap();
    assert!((50..=300).contains(&scored), "{evaluated}");
    assert!(evaluated["decoded"]["bits_per_byte"].is_null(), "{evaluated}");
    assert!(place.ok(&evaluate).contains("nats per masked token"));
    // A file in the working folder is found beside its float model as well.
    let bare = ["eval", "model.bsl", "--data", "../text.txt", "--tokens", "2000", "--json"];
    let bare = place.command(&bare).current_dir(place.path("bert")).output().unwrap();
    let bare = json(&String::from_utf8(bare.stdout).unwrap());
    assert_eq!(bare["float"], evaluated["float"]);
    place.fails(&["generate", "again.bsl", "--prompt", "green"], 1, "an encoder cannot write");

    // Slopes are measured on masked tokens that calibration has not seen.
    let measured = ["compress", "bert", "-o", "m.bsl", "--budget", "12kB", "--allocation"];
    let text = ["measured", "--text", "text.txt", "--calibration-tokens", "2000"];
    place.ok(&[&measured[..], &text].concat());
    let size = bytes(&place.path("m.bsl")).len();
    assert!((11_900..=12_000).contains(&size), "{size}");
}

#[test]
fn an_encoder_without_a_head_has_a_ladder() {
    let place = Place::new();
    write(&place.path("mini"), tensors(false));
    let ladder = ["ladder", "mini", "--text", "text.txt", "--data", "text.txt", "--results"];
    let more = ["points.jsonl", "--calibration-tokens", "1500", "--tokens", "1000", "--rungs"];
    let last = ["watersic-rate", "--allocations", "rows", "--bits", "5", "--json"];
    let points = json(&place.ok(&[&ladder[..], &more, &last].concat()));
    let points = points.as_array().unwrap();
    assert!(points.iter().any(|point| point["method"] == "watersic-rate"), "{points:?}");
    for point in points {
        let loss = |key: &str| point[key].as_f64().unwrap();
        assert!((loss("nats") - loss("float_nats")).abs() < 0.5, "{point}");
        assert!(point["bits_per_byte"].is_null(), "{point}");
    }
}

#[test]
fn what_is_wrong_with_an_encoder_is_said() {
    let place = Place::new();
    let folder = place.path("bert");
    let compress = ["compress", "bert", "-o", "x.bsl", "--text", "text.txt", "--budget", "16kB"];
    let query = "encoder.layer.1.attention.self.query.weight";
    let without = tensors(true).into_iter().filter(|tensor| !tensor.name.ends_with(query));
    write(&folder, without.collect());
    place.fails(&compress, 1, &format!("model.safetensors: tensor `{query}` of shape [32, 32]"));
    write(&folder, tensors(true));
    let vocabulary = vocabulary().replace("[MASK]", "[mask]");
    std::fs::write(folder.join("vocab.txt"), vocabulary).unwrap();
    place.fails(&compress, 1, "no [CLS], [SEP] and [MASK]");
    std::fs::remove_file(folder.join("vocab.txt")).unwrap();
    place.fails(&compress, 1, "tokenizer.json, tokenizer.model or vocab.txt");
    assert_eq!(place.files(), ["bert", "text.txt"]);
}
