//! The public face of the container: round trips, determinism, hostile bytes.

use backslash_codec::{
    Artifact, CodecError, Limits, QuantizedTensor, RawTensor, Reconstruction, Tensor, decode,
    encode, encoded_size, inspect,
};

/// A deterministic sequence of small codes, peaked at zero.
fn codes(count: usize, seed: u64) -> Vec<i32> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as i32
    };
    (0..count).map(|_| (next() % 7 + next() % 7 + next() % 5 - 8) / 2).collect()
}

fn artifact() -> Artifact {
    let mut artifact = Artifact::default();
    artifact
        .metadata
        .insert("config.json".into(), br#"{"layers": 2, "layers": 2, "layers": 2}"#.to_vec());
    artifact.metadata.insert("empty".into(), Vec::new());
    for (index, shape) in
        [vec![64, 96], vec![3, 5, 7], vec![9], vec![], vec![0, 4]].into_iter().enumerate()
    {
        let mut tensor = QuantizedTensor {
            codes: codes(shape.iter().product(), index as u64),
            shape,
            step: 0.125,
            row_scales: None,
            column_scales: None,
            reconstruction: Reconstruction::Shrink(20),
        };
        tensor.row_scales = (index % 2 == 0).then(|| vec![0.5; tensor.rows()]);
        tensor.column_scales = (index == 1).then(|| vec![2.0; tensor.columns()]);
        artifact.tensors.insert(format!("layer.{index}.weight"), Tensor::Quantized(tensor));
    }
    let norm = RawTensor::from_f32_as_bf16(vec![40], &[1.0; 40]);
    artifact.tensors.insert("norm.weight".into(), Tensor::Raw(norm));
    artifact
}

#[test]
fn content_comes_back() {
    let artifact = artifact();
    let bytes = encode(&artifact).unwrap();
    assert_eq!(decode(&bytes, &Limits::default()).unwrap(), artifact);
    assert_eq!(encoded_size(&artifact).unwrap().total(), bytes.len() as u64);
    let inspection = inspect(&bytes).unwrap();
    assert_eq!(inspection.split, encoded_size(&artifact).unwrap());
    assert_eq!(inspection.tensors.len(), 6);
}

#[test]
fn one_and_two_threads_give_the_same_bytes() {
    let artifact = artifact();
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| encode(&artifact).unwrap())
    };
    assert_eq!(with_threads(1), with_threads(2));
}

#[test]
fn every_truncation_and_every_bit_flip_is_an_error() {
    let bytes = encode(&artifact()).unwrap();
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length], &Limits::default()).is_err(), "cut to {length}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        // The minor version is free, but the content hash covers it.
        assert!(decode(&damaged, &Limits::default()).is_err(), "bit {bit}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(decode(&longer, &Limits::default()), Err(CodecError::Corrupt { .. })));
}

#[test]
fn the_memory_limit_holds() {
    let bytes = encode(&artifact()).unwrap();
    let error = decode(&bytes, &Limits { max_memory: 1000 }).unwrap_err();
    assert!(matches!(error, CodecError::LimitExceeded { limit: 1000, .. }), "{error}");
}

#[test]
fn kinds_of_damage_are_told_apart() {
    let bytes = encode(&artifact()).unwrap();
    let mut future = bytes.clone();
    future[8] = 9;
    assert!(matches!(
        decode(&future, &Limits::default()),
        Err(CodecError::UnsupportedVersion { major: 9, .. })
    ));
    assert!(matches!(decode(&bytes[..20], &Limits::default()), Err(CodecError::Truncated { .. })));
    let mut other = bytes;
    other[0] = b'P';
    assert!(matches!(decode(&other, &Limits::default()), Err(CodecError::Corrupt { .. })));
}
