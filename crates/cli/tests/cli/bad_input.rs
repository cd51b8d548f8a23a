//! Bad input: one clear message, the right exit code, nothing half-written, nothing lost.

use std::collections::HashMap;

use crate::place::{Place, borrowed, bytes, stderr};
use safetensors::tensor::{Dtype, TensorView};

fn trained() -> Place {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=2"])));
    place
}

fn shard(tokens: &[u16], count: usize, magic: i32) -> Vec<u8> {
    let mut words = [0_i32; 256];
    words[..3].copy_from_slice(&[magic, 1, count as i32]);
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    bytes
}

#[test]
fn data_that_cannot_be_trained_on() {
    let place = Place::new();
    let train = |data: &str| {
        let mut arguments = place.train("run", &[]);
        arguments[2] = data.to_owned();
        arguments
    };
    place.fails(&borrowed(&train("missing.txt")), 1, "missing.txt");
    std::fs::write(place.path("empty.txt"), "").unwrap();
    place.fails(&borrowed(&train("empty.txt")), 1, "empty.txt");
    std::fs::write(place.path("short.txt"), "A short text.\nOf two lines.\n").unwrap();
    place.fails(&borrowed(&train("short.txt")), 1, "33");
    std::fs::write(place.path("latin1.txt"), b"caf\xe9 au lait").unwrap();
    place.fails(&borrowed(&train("latin1.txt")), 1, "latin1.txt");

    let tokens: Vec<u16> = (0..600).map(|i| i % 250).collect();
    let broken = [
        ("magic.bin", shard(&tokens, 600, 7), "20240520"),
        ("cut.bin", shard(&tokens[..500], 600, 20_240_520), "cut.bin"),
        ("vocabulary.bin", shard(&[tokens.clone(), vec![777]].concat(), 601, 20_240_520), "777"),
    ];
    for (name, content, message) in broken {
        std::fs::write(place.path(name), content).unwrap();
        place.fails(&borrowed(&train(name)), 1, message);
    }
    assert!(!place.path("run").exists(), "no run was begun");
}

#[test]
fn configurations_that_mean_nothing() {
    let place = Place::new();
    let set = |assignment: &str| place.train("run", &["--set", assignment]);
    place.fails(&borrowed(&set("train.lerning_rate=1")), 2, "did you mean `train.learning_rate`");
    place.fails(&borrowed(&set("train.steps=0")), 2, "train.steps = 0");
    place.fails(&borrowed(&set("model.heads=5")), 2, "model.heads = 5");
    place.fails(&borrowed(&set("rate.lambda=-0.1")), 2, "rate.lambda = -0.1");
    place.fails(&borrowed(&set("train.precision=fp8")), 2, "fp32");
    let unknown = place.train("run", &["--precision", "fp8"]);
    place.fails(&borrowed(&unknown), 2, "expected fp32 or bf16");
    place.fails(&borrowed(&set("rate.budget=100")), 2, "only rate.method = \"bits\"");
    let small = place.train("run", &["--budget", "100"]);
    place.fails(&borrowed(&small), 2, "it can be asked for");
    place.fails(&["train", "--config", "missing.toml"], 1, "missing.toml");
    place.fails(&["train", "--no-such-option"], 2, "--no-such-option");
    place.fails(&["compress", "run", "-o", "x.bsl", "--budget", "3 pints"], 2, "pints");
    assert_eq!(place.files(), ["text.txt"]);
}

/// The tests' own build may have any of the features, but no machine has a hundred such devices.
#[test]
fn devices_that_are_not_there() {
    let place = Place::new();
    for name in ["cuda", "rocm", "metal", "vulkan", "webgpu"] {
        let device = format!("{name}:99");
        place.fails(&["eval", "run", "--data", "text.txt", "--device", &device], 2, &device);
    }
    place.fails(&["train", "--device", "gpu"], 2, "vulkan:1");
    // No network, no device.
    place.fails(&["inspect", "run.bsl", "--device", "cuda:99"], 1, "run.bsl");
}

#[test]
fn weights_of_another_architecture() {
    let place = trained();
    let config = place.path("run/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"layers\": 1", "\"layers\": 2")).unwrap();
    let evaluate = ["eval", "run/model.bsl", "--data", "text.txt"];
    place.fails(&evaluate, 1, "blocks.1.");
    std::fs::write(&config, text.replace("\"decoder\"", "\"golf\"")).unwrap();
    place.fails(&evaluate, 1, "is missing");
}

#[test]
fn damaged_files() {
    let place = trained();
    let whole = bytes(&place.path("run/model.bsl"));
    let decompress = ["decompress", "damaged.bsl", "-o", "out.safetensors"];
    for length in [0, 3, 40, whole.len() / 2, whole.len() - 1] {
        std::fs::write(place.path("damaged.bsl"), &whole[..length]).unwrap();
        place.fails(&decompress, 1, "error: ");
    }
    for position in (0..whole.len()).step_by(whole.len() / 23) {
        let mut flipped = whole.clone();
        flipped[position] ^= 0x10;
        std::fs::write(place.path("damaged.bsl"), flipped).unwrap();
        place.fails(&decompress, 1, "error: ");
    }
    assert!(!place.path("out.safetensors").exists());
    place.fails(&["inspect", "text.txt"], 1, "error: ");
    place.fails(&["inspect", "nothing.bsl"], 1, "nothing.bsl");
}

#[test]
fn weights_that_are_no_numbers() {
    let place = Place::new();
    let mut values = vec![0.25_f32; 64 * 64];
    values[77] = f32::NAN;
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![64, 64], &data).unwrap();
    let content = safetensors::serialize([("layer.weight", view)], None::<HashMap<_, _>>).unwrap();
    std::fs::write(place.path("nan.safetensors"), content).unwrap();
    let compress = ["compress", "nan.safetensors", "-o", "out.bsl"];
    place.fails(&compress, 1, "`layer.weight` holds NaN at index 77");
    assert_eq!(place.files(), ["nan.safetensors", "text.txt"]);
}

#[test]
fn outputs_that_exist_are_kept() {
    let place = trained();
    std::fs::write(place.path("kept"), "precious").unwrap();
    place.fails(&["compress", "run", "-o", "kept"], 2, "kept exists");
    place.fails(&["decompress", "run/model.bsl", "-o", "kept"], 2, "kept exists");
    assert_eq!(bytes(&place.path("kept")), b"precious");
    place.ok(&["compress", "run", "-o", "kept", "--force"]);
    assert_eq!(bytes(&place.path("kept")), bytes(&place.path("run/model.bsl")));
}

/// A limit on the size of files stands in for a full disk: writing fails half-way with an error.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_nothing_behind() {
    let place = trained();
    std::fs::write(place.path("old.bsl"), "the old file").unwrap();
    let before = place.files();
    let binary = env!("CARGO_BIN_EXE_backslash");
    for arguments in [
        "compress run -o new.bsl",
        "compress run -o old.bsl --force",
        "decompress run/model.bsl -o new.safetensors",
    ] {
        let script = format!("trap '' XFSZ; ulimit -f 4; exec {binary} {arguments}");
        let output = std::process::Command::new("bash")
            .args(["-c", &script])
            .current_dir(place.path("."))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("too large"), "{}", stderr(&output));
        assert_eq!(place.files(), before);
        assert_eq!(bytes(&place.path("old.bsl")), b"the old file");
    }
}
