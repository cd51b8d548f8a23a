//! Folders of GPT-2, whose matrices have one row per input.

use backslash_model::{Architecture, ModelConfig, NamedTensor, NamedWeights};

use crate::place::{Place, borrowed, bytes};

const CONFIG: &str = r#"{
    "model_type": "gpt2", "vocab_size": 256, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": null,
    "n_positions": 32, "n_ctx": 32, "layer_norm_epsilon": 1e-05, "activation_function": "gelu_new"
}"#;

fn config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Gpt2,
        vocabulary_size: 256,
        width: 32,
        layers: 2,
        heads: 4,
        kv_heads: 4,
        context: 32,
        ..ModelConfig::default()
    }
}

/// Random matrices in ±0.3, and gains of 1.
fn tensors() -> Vec<NamedTensor> {
    let mut state = 11_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        0.6 * ((state >> 16) as f32 / 65_536.0 - 0.5)
    };
    let layout = config().layout().into_iter().map(|(name, shape)| {
        let gain = shape.len() == 1 && name.ends_with("weight");
        let data = (0..shape.iter().product()).map(|_| if gain { 1.0 } else { random() });
        NamedTensor { data: data.collect(), name, shape }
    });
    layout.collect()
}

#[test]
fn matrices_that_are_stored_the_other_way_are_compressed_with_text() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=1"])));
    let folder = place.path("gpt2");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), CONFIG).unwrap();
    NamedWeights::new(tensors()).write(&folder.join("model.safetensors")).unwrap();
    let run = std::fs::read_dir(place.path("run")).unwrap().flatten();
    let tokenizer = run.map(|entry| entry.file_name().into_string().unwrap());
    let tokenizer = tokenizer.into_iter().find(|name| name.starts_with("tokenizer.")).unwrap();
    std::fs::copy(place.path("run").join(&tokenizer), folder.join(&tokenizer)).unwrap();

    for rung in ["rtn", "rdoq", "watersic-rate"] {
        let output = format!("{rung}.bsl");
        let compress = ["compress", "gpt2", "-o", &output, "--budget", "14kB", "--rung", rung];
        let text = ["--text", "text.txt", "--calibration-tokens", "4000"];
        place.ok(&[&compress[..], &text].concat());
        let size = bytes(&place.path(&output)).len();
        assert!((13_900..=14_000).contains(&size), "{rung}: {size}");
        place.ok(&["eval", &output, "--data", "text.txt", "--tokens", "2000"]);
    }
    place.ok(&["decompress", "watersic-rate.bsl", "-o", "decoded.safetensors"]);
    let (decoded, original) =
        (bytes(&place.path("decoded.safetensors")), bytes(&place.path("gpt2/model.safetensors")));
    let of = |file| safetensors::SafeTensors::deserialize(file).unwrap();
    let (decoded, original) = (of(&decoded), of(&original));
    let (mut power, mut error) = (0.0, 0.0);
    for (name, tensor) in original.iter() {
        let found = decoded.tensor(name).unwrap();
        assert_eq!(found.shape(), tensor.shape(), "{name}");
        let floats = |data: &[u8]| -> Vec<f32> {
            data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        let (found, tensor) = (floats(found.data()), floats(tensor.data()));
        power += tensor.iter().map(|x| x * x).sum::<f32>();
        error += tensor.iter().zip(&found).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    }
    assert!(error < 0.2 * power, "{error} of {power}");
}
