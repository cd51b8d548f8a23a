//! Golden files of format versions 1.0 to 1.2: they must decode to the same content for ever, and
//! `docs/decoder/bsl_decode.py` must decode them to the same codes and weights.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use backslash_codec::{
    Artifact, Effort, Limits, Origin, QuantizedTensor, RawTensor, Reconstruction, Tensor, decode,
    encode_with, round_scale,
};
use common::codes_of;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The bf16 number below or at a positive value, widened.
fn bf16(value: f32) -> f32 {
    f32::from_bits(value.to_bits() & 0xffff_0000)
}

/// Deterministic noise of 24 bits.
fn noise(mut state: u64) -> impl FnMut() -> i32 {
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as i32
    }
}

/// The content of the golden files of version 1.0: every coder, shape and feature once.
fn content() -> Artifact {
    let mut random = noise(11);
    let mut artifact = Artifact::default();
    artifact
        .metadata
        .insert("config.json".into(), br#"{"layers": 2, "width": 64, "heads": 4}"#.repeat(3));
    artifact.metadata.insert("empty".into(), Vec::new());
    let mut insert = |name: &str, shape: &[usize], code: &mut dyn FnMut(usize) -> i32| {
        let count = shape.iter().product();
        let mut tensor = QuantizedTensor {
            shape: shape.to_vec(),
            codes: (0..count).map(code).collect(),
            step: 0.01 + count as f32 / 1e6,
            row_scales: None,
            column_scales: None,
            reconstruction: if count % 3 == 0 {
                Reconstruction::Shrink(17)
            } else {
                Reconstruction::Uniform
            },
            origin: None,
        };
        let scale = |index: usize| match name {
            _ if name.contains("bfloat") => bf16(1e30 * index as f32),
            _ if name.contains("float") => 0.1 + index as f32,
            _ if name.contains("equal") => round_scale(0.7),
            _ if name.contains("octaves") => round_scale(2_f32.powi(index as i32 - 40)),
            _ if name.contains("logarithmic") => round_scale(0.1 + (index % 13) as f32 / 16.0),
            _ => 1.0 + (index % 5) as f32 / 8.0,
        };
        let scales = |count: usize| (0..count).map(scale).collect();
        tensor.row_scales = name.contains("rows").then(|| scales(tensor.rows()));
        tensor.column_scales = name.contains("columns").then(|| scales(tensor.columns()));
        artifact.tensors.insert(name.into(), Tensor::Quantized(tensor));
    };
    insert("blocks.0.narrow.weight", &[40, 60], &mut |_| random() % 3 + random() % 2 - 1);
    insert("blocks.0.rows.weight", &[64, 48], &mut |index| {
        random() % (2 + index as i32 / 48 % 4 * 6) - 3
    });
    insert("blocks.0.columns.weight", &[80, 32], &mut |index| {
        random() % (2 + index as i32 % 32 % 3 * 9) - 2
    });
    insert("blocks.1.predicted.weight", &[96, 64], &mut |index| {
        (index as i32 / 64 % 13 - 6) * (index as i32 % 64 % 9 - 4) / 2 + random() % 5 - 2
    });
    insert("blocks.1.logarithmic.rows.columns", &[50, 20], &mut |_| random() % 5 - 2);
    insert("blocks.1.equal.rows", &[30, 3], &mut |_| random() % 3 - 1);
    insert("blocks.1.octaves.rows", &[90, 3], &mut |_| random() % 3 - 1);
    insert("blocks.1.bfloat.rows", &[8, 3], &mut |_| random() % 3 - 1);
    insert("blocks.1.float.columns", &[8, 30], &mut |_| random() % 3 - 1);
    // Every third row is small and repeats itself, the others are not.
    insert("embedding.quiet.weight", &[120, 64], &mut |index| {
        let (row, column) = (index as i32 / 64, index as i32 % 64);
        if row % 3 == 0 {
            column * column % 3 - 1 + i32::from(random() % 16 == 0)
        } else {
            random() % 15 + random() % 15 - 14 + column % 5 * 3
        }
    });
    // Sums of uniform numbers are nearly Gaussian, with a scale by row.
    insert("blocks.1.gaussian.weight", &[128, 64], &mut |index| {
        (0..8).map(|_| random() % 9 - 4).sum::<i32>() * (4 + index as i32 / 64 % 5) / 40
    });
    insert("blocks.1.wide.weight", &[20, 30], &mut |_| random() % 4001 - random() % 2001);
    insert("extremes", &[7], &mut |index| [i32::MIN, i32::MAX, 0, 1, -1, 300, -300][index]);
    insert("vector", &[1500], &mut |_| i32::from(random() % 9 == 0));
    insert("constant", &[9, 9], &mut |_| 5);
    insert("cube", &[3, 4, 5], &mut |_| random() % 7 - 3);
    insert("scalar", &[], &mut |_| -2);
    insert("empty", &[0, 3], &mut |_| 0);
    let norm: Vec<f32> = (0..200).map(|index| 1.0 + index as f32 / 300.0).collect();
    artifact
        .tensors
        .insert("norm.weight".into(), Tensor::Raw(RawTensor::from_f32_as_bf16(vec![200], &norm)));
    artifact
        .tensors
        .insert("norm.bias".into(), Tensor::Raw(RawTensor::from_f32(vec![2, 50], &norm[..100])));
    artifact
}

/// The content of the golden files of version 1.1: tensors on the trellis, one that is not, and whatever else.
fn trellis_content() -> Artifact {
    let mut random = noise(12);
    let mut artifact = Artifact::default();
    let mut insert = |name: &str, shape: &[usize], index: &mut dyn FnMut(usize, usize) -> i32| {
        let columns = shape[1..].iter().product();
        let indices: Vec<i32> =
            (0..shape[0] * columns).map(|place| index(place / columns, place % columns)).collect();
        let mut tensor = QuantizedTensor {
            shape: shape.to_vec(),
            codes: codes_of(&indices, shape[0], columns),
            step: 0.03,
            row_scales: None,
            column_scales: None,
            reconstruction: Reconstruction::Uniform,
            origin: None,
        };
        if name.contains("scaled") {
            tensor.row_scales = Some((0..shape[0]).map(|row| round_scale(row as f32)).collect());
            tensor.column_scales = Some(vec![0.75; columns]);
            tensor.reconstruction = Reconstruction::Shrink(9);
        }
        artifact.tensors.insert(name.into(), Tensor::Quantized(tensor));
    };
    // Sums of uniform numbers are nearly Gaussian.
    let mut gaussian = |scale: i32| (0..8).map(|_| random() % 9 - 4).sum::<i32>() * scale / 40;
    insert("sparse", &[128, 64], &mut |_, _| gaussian(3));
    insert("scaled", &[96, 64], &mut |_, _| gaussian(9));
    insert("rows", &[96, 48], &mut |row, _| gaussian(1 + 9 * (row as i32 % 4)));
    insert("columns", &[80, 48], &mut |_, column| gaussian(1 + 9 * (column as i32 % 3)));
    insert("wide", &[40, 60], &mut |row, _| gaussian(if row < 30 { 300 } else { 9000 }));
    insert("predicted", &[96, 64], &mut |row, column| {
        (row as i32 % 13 - 6) * (column as i32 % 9 - 4) / 2 + gaussian(3)
    });
    // Every third row is quiet.
    insert("embedding", &[120, 64], &mut |row, _| gaussian(if row % 3 == 0 { 2 } else { 60 }));
    insert("cube", &[12, 5, 4], &mut |_, _| gaussian(12));
    insert("escapes", &[30, 40], &mut |row, column| match (row * 40 + column) % 300 {
        0 => 1 << 20,
        1 => -(1 << 30),
        _ => gaussian(3),
    });
    let off = Tensor::Quantized(QuantizedTensor {
        shape: vec![30, 40],
        codes: (0..1200).map(|index| index * index % 7 - 3).collect(),
        step: 0.5,
        row_scales: None,
        column_scales: None,
        reconstruction: Reconstruction::Uniform,
        origin: None,
    });
    artifact.tensors.insert("off".into(), off);
    artifact
}

/// The same, and a tensor of two blocks, for which the Python decoder would take too long under the mixing coder.
fn trellis_content_in_blocks() -> Artifact {
    let mut artifact = trellis_content();
    let (rows, columns) = (17, 65_536);
    let indices: Vec<i32> = (0..rows * columns)
        .map(|place| i32::from(place % 5003 == 7) - i32::from(place % 7001 == 9))
        .collect();
    let blocks = Tensor::Quantized(QuantizedTensor {
        shape: vec![rows, columns],
        codes: codes_of(&indices, rows, columns),
        step: 0.5,
        row_scales: None,
        column_scales: None,
        reconstruction: Reconstruction::Uniform,
        origin: None,
    });
    artifact.tensors.insert("blocks".into(), blocks);
    artifact
}

/// The content of the golden files of version 1.2: tensors with an origin, and whatever else.
fn origin_content() -> Artifact {
    let mut random = noise(13);
    let mut artifact = Artifact::default();
    let origins = [(1337, 3, 0.072_168_78), (0, 0, 1.0), (u64::MAX, u64::MAX, 1e-3)];
    for (index, (seed, stream, bound)) in origins.into_iter().enumerate() {
        let shape = [vec![64, 48], vec![500], vec![6, 5, 4]][index].clone();
        let mut tensor = QuantizedTensor {
            codes: (0..shape.iter().product()).map(|_| random() % 3 - 1).collect(),
            shape,
            step: 0.1,
            row_scales: None,
            column_scales: None,
            reconstruction: Reconstruction::Shrink(40),
            origin: Some(Origin { seed, stream, bound }),
        };
        tensor.row_scales =
            (index == 2).then(|| (0..6).map(|row| round_scale(1.0 + row as f32)).collect());
        artifact.tensors.insert(format!("moved.{index}"), Tensor::Quantized(tensor));
    }
    let mut on_trellis = trellis_content().tensors.remove("scaled").unwrap();
    if let Tensor::Quantized(tensor) = &mut on_trellis {
        tensor.origin = Some(Origin { seed: 7, stream: 9, bound: 0.5 });
    }
    artifact.tensors.insert("trellis".into(), on_trellis);
    artifact
}

/// Name of a file, how it was encoded, and its content.
type Golden = (&'static str, Effort, fn() -> Artifact);

const FILES: [Golden; 6] = [
    ("v1_smallest.bsl", Effort::Smallest, content),
    ("v1_fast.bsl", Effort::Fast, content),
    ("v1_1_smallest.bsl", Effort::Smallest, trellis_content),
    ("v1_1_fast.bsl", Effort::Fast, trellis_content_in_blocks),
    ("v1_2_smallest.bsl", Effort::Smallest, origin_content),
    ("v1_2_fast.bsl", Effort::Fast, origin_content),
];

/// Writes the golden files whose names begin with the environment variable `BSL_WRITE_GOLDEN`: only for a new
/// version of the format.
#[test]
fn golden_files_decode_to_the_same_content() {
    for (name, effort, content) in FILES {
        let path = folder().join(name);
        if std::env::var("BSL_WRITE_GOLDEN").is_ok_and(|prefix| name.starts_with(&prefix)) {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, encode_with(&content(), effort).unwrap()).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(decode(&bytes, &Limits::default()).unwrap(), content(), "{name}");
        assert!(encode_with(&content(), effort).unwrap() == bytes, "{name}: the encoder changed");
    }
}

#[test]
fn the_python_decoder_gives_the_same_codes_and_weights() {
    let python = ["python3", "python"].into_iter().find(|python| {
        Command::new(python)
            .args(["-c", "import numpy"])
            .output()
            .is_ok_and(|output| output.status.success())
    });
    let Some(python) = python else {
        // Not eprintln!, which the test harness keeps to itself where a test passes.
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: no Python with NumPy");
        return;
    };
    let decoder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/decoder/bsl_decode.py");
    for (name, _, content) in FILES {
        let output = Command::new(python).arg(&decoder).arg(folder().join(name)).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        for (tensor, value) in content().tensors {
            let (codes, weights): (Vec<u8>, Vec<u8>) = match value {
                Tensor::Quantized(value) => (
                    value.codes.iter().flat_map(|code| code.to_le_bytes()).collect(),
                    value.dequantize().iter().flat_map(|weight| weight.to_le_bytes()).collect(),
                ),
                Tensor::Raw(value) => (value.bytes.clone(), value.bytes),
            };
            let line = printed.lines().find(|line| line.starts_with(&format!("{tensor} (")));
            let expected = format!(" {} {}", crc32fast::hash(&codes), crc32fast::hash(&weights));
            assert!(
                line.is_some_and(|line| line.ends_with(&expected)),
                "{name}: {tensor}: {line:?} without{expected}"
            );
        }
    }
}
