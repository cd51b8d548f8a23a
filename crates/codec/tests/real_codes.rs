//! Sizes on the codes of a trained model, `golf/montysteele_qat` of the shared data.

use std::io::Read;
use std::path::{Path, PathBuf};

use backslash_codec::{
    Artifact, Effort, Limits, QuantizedTensor, Reconstruction, Tensor, decode, encode_with,
    encoded_size_with, estimated_size, inspect, round_scale,
};

/// The int8 codes with their row scales, or `None` where the data is absent.
fn real_codes() -> Option<Artifact> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/golf/montysteele_qat.safetensors.gz");
    let Ok(packed) = std::fs::read(&path) else {
        // Not eprintln!, which the test harness keeps to itself where a test passes.
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: {} is absent", path.display());
        return None;
    };
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut artifact = Artifact::default();
    for name in file.names().into_iter().filter_map(|name| name.strip_suffix(".q")) {
        let codes = file.tensor(&format!("{name}.q")).unwrap();
        let scales = file.tensor(&format!("{name}.scale")).unwrap();
        let scales = scales
            .data()
            .chunks_exact(2)
            .map(|scale| half::f16::from_le_bytes([scale[0], scale[1]]).to_f32());
        let tensor = QuantizedTensor {
            shape: codes.shape().to_vec(),
            codes: codes.data().iter().map(|&code| i32::from(code as i8)).collect(),
            step: 1.0,
            row_scales: Some(scales.collect()),
            column_scales: None,
            reconstruction: Reconstruction::Uniform,
            origin: None,
        };
        artifact.tensors.insert(name.to_owned(), Tensor::Quantized(tensor));
    }
    Some(artifact)
}

#[test]
fn real_codes_reach_their_sizes() {
    let Some(artifact) = real_codes() else { return };
    for (effort, bar) in [(Effort::Fast, 3_000_000), (Effort::Smallest, 2_959_500)] {
        let file = encode_with(&artifact, effort).unwrap();
        eprintln!("{effort:?}: {} bytes, {:?}", file.len(), inspect(&file).unwrap().split);
        assert!(file.len() < bar, "{effort:?}: {} bytes", file.len());
        assert_eq!(encoded_size_with(&artifact, effort).unwrap().total(), file.len() as u64);
        assert_eq!(decode(&file, &Limits::default()).unwrap(), artifact);
    }
}

#[test]
fn the_estimate_is_near_the_size() {
    let Some(artifact) = real_codes() else { return };
    let exact = encoded_size_with(&artifact, Effort::Smallest).unwrap().total() as f64;
    let estimate = estimated_size(&artifact).unwrap().total() as f64;
    eprintln!("estimate {estimate}, exact {exact}");
    assert!((estimate / exact - 1.0).abs() < 3e-3, "{estimate} against {exact}");
}

/// Row scales that are f16 values take two bytes before coding, and one on the logarithmic grid.
#[test]
fn real_scales_reach_their_sizes() {
    let Some(mut artifact) = real_codes() else { return };
    let scales = |artifact: &Artifact| {
        let file = encode_with(artifact, Effort::Smallest).unwrap();
        assert_eq!(&decode(&file, &Limits::default()).unwrap(), artifact);
        inspect(&file).unwrap().split.scales
    };
    // Scales only: the codes are another test's.
    for tensor in artifact.tensors.values_mut() {
        let Tensor::Quantized(tensor) = tensor else { continue };
        tensor.codes.fill(0);
    }
    let narrow = scales(&artifact);
    for tensor in artifact.tensors.values_mut() {
        let Tensor::Quantized(tensor) = tensor else { continue };
        tensor.row_scales.iter_mut().flatten().for_each(|scale| *scale = round_scale(*scale));
    }
    let logarithmic = scales(&artifact);
    eprintln!("19,456 scales: {narrow} bytes as f16, {logarithmic} on the logarithmic grid");
    // As f32 they take 427 bytes.
    assert!(narrow < 360 && logarithmic < 180, "{narrow} and {logarithmic} bytes");
}
