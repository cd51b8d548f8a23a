//! Checkpoints with a calibration that was gathered where the model runs.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::place::{Place, bytes};

const ROWS: usize = 96;
const COLUMNS: usize = 64;

/// Numbers between −1 and 1 that look random.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// E[x²] of each input: those of the second half are next to nothing.
fn moment(input: usize) -> f32 {
    if input < COLUMNS / 2 { 1.0 } else { 0.01 }
}

fn write(path: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)], index: Option<&str>) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let index = index.map(|index| ("backslash_calibration".to_owned(), index.to_owned()));
    let metadata = index.map(|entry| HashMap::from([entry]));
    std::fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

const INDEX: &str = r#"{"tokens": 1000, "inputs": {"layer.weight": "layer.weight"},
    "samples": {"layer.weight": 1000}, "tied": [], "inputs_first": []}"#;

/// A checkpoint and its calibration, in which the rows of the matrix matter alike.
fn checkpoint(place: &Place) -> Vec<f32> {
    let weights = noise(ROWS * COLUMNS, 1);
    let bias = ("layer.bias", vec![ROWS], noise(ROWS, 2));
    let tensors = [("layer.weight", vec![ROWS, COLUMNS], weights.clone()), bias];
    std::fs::create_dir(place.path("model")).unwrap();
    write(&place.path("model/model.safetensors"), &tensors, None);
    let mut moments = vec![0.0; COLUMNS * COLUMNS];
    (0..COLUMNS).for_each(|input| moments[input * (COLUMNS + 1)] = moment(input));
    let calibration = [
        ("moments/layer.weight", vec![COLUMNS, COLUMNS], moments),
        ("sensitivity/layer.weight", vec![ROWS], vec![0.5; ROWS]),
    ];
    write(&place.path("c.safetensors"), &calibration, Some(INDEX));
    weights
}

/// Squared error of the outputs of the layer whose weights a file holds.
fn error(place: &Place, file: &str, weights: &[f32]) -> f64 {
    place.ok(&["decompress", file, "-o", "back.safetensors", "--force"]);
    let back = bytes(&place.path("back.safetensors"));
    let back = SafeTensors::deserialize(&back).unwrap();
    let values = back.tensor("layer.weight").unwrap().data().to_vec();
    let values = values.chunks(4).map(|value| f32::from_le_bytes(value.try_into().unwrap()));
    let squares = values.zip(weights).enumerate().map(|(at, (value, weight))| {
        f64::from(moment(at % COLUMNS)) * f64::from(value - weight).powi(2)
    });
    squares.sum()
}

#[test]
fn a_calibration_spends_bytes_where_layers_look() {
    let place = Place::new();
    let weights = checkpoint(&place);
    let size = ["--bits-per-weight", "3", "--force", "-o"];
    let calibrated = ["compress", "model", "--calibration", "c.safetensors"];
    place.ok(&[&calibrated[..], &size, &["with.bsl"]].concat());
    place.ok(&[&["compress", "model/model.safetensors"], &size[..], &["without.bsl"]].concat());
    let [with, without] = ["with.bsl", "without.bsl"].map(|file| error(&place, file, &weights));
    assert!(with < 0.5 * without, "{with} {without}");
    let budget = 3 * (ROWS * COLUMNS + ROWS) / 8;
    let length = bytes(&place.path("with.bsl")).len();
    assert!((budget * 97 / 100..=budget).contains(&length), "{length} of {budget}");

    // A file alone is the same checkpoint as a folder with it.
    let alone = ["compress", "model/model.safetensors", "--calibration", "c.safetensors"];
    place.ok(&[&alone[..], &size, &["alone.bsl"]].concat());
    assert_eq!(bytes(&place.path("alone.bsl")), bytes(&place.path("with.bsl")));
    place.ok(&[&calibrated[..], &["--kappa", "0.1", "-o", "kappa.bsl"]].concat());
    let planned = place.ok(&[&calibrated[..], &["--bits-per-weight", "3", "--dry-run"]].concat());
    assert!(planned.contains("layer.weight"), "{planned}");
}

#[test]
fn what_is_wrong_with_a_calibration_is_named() {
    let place = Place::new();
    checkpoint(&place);
    let compress = |calibration: &str, more: &[&str], code: i32, message: &str| {
        let start = ["compress", "model", "-o", "x.bsl", "--calibration", calibration];
        place.fails(&[&start[..], more].concat(), code, message);
    };
    let files = place.files();
    compress("text.txt", &[], 1, "text.txt: not a valid safetensors file");
    compress("none.safetensors", &[], 1, "none.safetensors");
    compress("model/model.safetensors", &[], 1, "no `backslash_calibration` in its metadata");
    for (index, message) in [
        ("{", "`backslash_calibration` cannot be read"),
        (&INDEX.replace("tokens", "words"), "unknown field `words`"),
        (&INDEX.replace("layer.weight\"}", "y\"}"), "has no tensor `moments/y`"),
        (&INDEX.replace("{\"layer.weight\": \"", "{\"other\": \""), "knows `other`"),
        (&INDEX.replace("1000},", "0},"), "the mean of no samples"),
    ] {
        let identity = (0..COLUMNS * COLUMNS).map(|at| f32::from(at % (COLUMNS + 1) == 0));
        let tensors = [
            ("moments/layer.weight", vec![COLUMNS, COLUMNS], identity.collect()),
            ("sensitivity/layer.weight", vec![ROWS], vec![0.5; ROWS]),
        ];
        write(&place.path("bad.safetensors"), &tensors, Some(index));
        compress("bad.safetensors", &[], 1, message);
        compress("bad.safetensors", &[], 1, "bad.safetensors");
    }
    std::fs::remove_file(place.path("bad.safetensors")).unwrap();
    compress("c.safetensors", &["--text", "text.txt"], 2, "cannot be used with");
    compress("c.safetensors", &["--step", "1"], 2, "cannot be used with");
    compress("c.safetensors", &["--max-loss-increase", "0.1"], 2, "pass --text");
    compress("c.safetensors", &["--allocation", "measured"], 2, "pass --text");
    compress("c.safetensors", &["--sequential"], 2, "pass --text");
    assert_eq!(place.files(), files);
}
