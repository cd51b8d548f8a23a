//! The public face of the container: round trips, determinism, hostile bytes.

mod common;
mod tensors;

use backslash_codec::{
    Artifact, CodecError, Effort, Limits, Origin, QuantizedTensor, RawTensor, Reconstruction,
    Tensor, decode, decode_tensor, encode, encode_with, encoded_size, encoded_size_with,
    estimated_size, inspect,
};

use common::codes_of;
use tensors::tensor;

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
            origin: None,
        };
        tensor.row_scales = (index % 2 == 0).then(|| vec![0.5; tensor.rows()]);
        tensor.column_scales = (index == 1).then(|| vec![2.0; tensor.columns()]);
        tensor.origin = (index % 2 == 1).then_some(Origin { seed: 300, stream: 4, bound: 0.75 });
        artifact.tensors.insert(format!("layer.{index}.weight"), Tensor::Quantized(tensor));
    }
    let on_trellis = QuantizedTensor {
        shape: vec![48, 20],
        codes: codes_of(&codes(48 * 20, 9), 48, 20),
        step: 0.125,
        row_scales: None,
        column_scales: None,
        reconstruction: Reconstruction::Uniform,
        origin: None,
    };
    artifact.tensors.insert("layer.trellis.weight".into(), Tensor::Quantized(on_trellis));
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
    assert_eq!(inspection.tensors.len(), 7);
    let trellis = inspection.tensors.iter().filter(|tensor| tensor.coder.starts_with("trellis"));
    assert_eq!(trellis.count(), 1);
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

#[test]
fn fast_files_are_aligned_and_come_back() {
    let artifact = artifact();
    let bytes = encode_with(&artifact, Effort::Fast).unwrap();
    assert_eq!(decode(&bytes, &Limits::default()).unwrap(), artifact);
    assert_eq!(encoded_size_with(&artifact, Effort::Fast).unwrap().total(), bytes.len() as u64);
    assert_eq!(inspect(&bytes).unwrap().split, encoded_size_with(&artifact, Effort::Fast).unwrap());
    assert_eq!(bytes[12], 6);
}

#[test]
fn huge_declared_shapes_are_refused_before_allocating() {
    // A valid empty file whose directory is replaced by one that declares 2^60 codes.
    for shape in [
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
        &[0x80, 0x80, 0x80, 0x80, 0x10],
    ] {
        let mut directory = vec![1, 0, 1, b'a', 2, 0, 0, 0, 0, 0, 0, 1];
        directory.extend(shape);
        directory.extend([0; 200]);
        let file = with_directory(&directory);
        let error = decode(&file, &Limits { max_memory: 1 << 20 }).unwrap_err();
        assert!(
            matches!(
                error,
                CodecError::Corrupt { .. }
                    | CodecError::LimitExceeded { .. }
                    | CodecError::Truncated { .. }
            ),
            "{error}"
        );
    }
}

/// Equal scales take three bytes however many they are, so only elements may vouch for their number.
#[test]
fn scales_of_a_tensor_without_elements_are_few() {
    let side = [0, 0, 0, 3 << 2, 0, 0];
    let file = |rows: &[u8]| {
        let mut directory = vec![1, 0, 1, b'a', 2, 1, 0, 0, 0, 0x80, 0x3f, 2];
        directory.extend(rows);
        directory.extend([0, side.len() as u8]);
        directory.extend(crc32fast::hash(&side).to_le_bytes());
        let mut file = with_directory(&directory);
        file.extend(side);
        backslash_codec::reseal(&mut file, directory.len());
        file
    };
    let error = decode(&file(&[0x81, 0x80, 0x40]), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("scales"), "{error}");
    let tensor = |rows: usize| {
        Tensor::Quantized(QuantizedTensor {
            shape: vec![rows, 0],
            codes: Vec::new(),
            step: 1.0,
            row_scales: Some(vec![1.0; rows]),
            column_scales: None,
            reconstruction: Reconstruction::Uniform,
            origin: None,
        })
    };
    for (rows, fits) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let mut artifact = Artifact::default();
        artifact.tensors.insert("a".into(), tensor(rows));
        assert_eq!(encode(&artifact).is_ok(), fits);
    }
}

#[test]
fn wrong_directories_are_refused() {
    let empty = |name: &[u8]| [&[0, name.len() as u8], name, &[0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let file = |entries: &[Vec<u8>]| {
        with_directory(&[vec![entries.len() as u8], entries.concat()].concat())
    };
    assert!(decode(&file(&[empty(b"a"), empty(b"b")]), &Limits::default()).is_ok());
    for (entries, why) in [
        (vec![empty(b"a"), empty(b"a")], "duplicate name"),
        (vec![empty(b"b"), empty(b"a")], "out of order"),
        (vec![empty(b"")], "empty name"),
        (vec![empty(&[0xff])], "not UTF-8"),
        (vec![vec![5, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 0]], "shares more than there is"),
        (vec![vec![0, 1, b'a', 9, 0, 0, 0, 0, 0, 0, 0]], "unknown kind"),
        (vec![vec![0, 1, b'a', 0, 0, 0, 9, 0, 0, 0, 0]], "section beyond the end"),
    ] {
        assert!(decode(&file(&entries), &Limits::default()).is_err(), "{why}");
    }
}

/// A file of this directory and no sections, with right checksums.
fn with_directory(directory: &[u8]) -> Vec<u8> {
    let mut file = b"\x89BSL\r\n\x1a\n\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend((directory.len() as u64).to_le_bytes());
    let checksum = crc32fast::hash(&[&file, directory].concat());
    let hash = blake3::hash(&[&file, directory].concat());
    file.extend(checksum.to_le_bytes());
    file.extend(hash.as_bytes());
    file.extend(directory);
    file
}

/// Bytes changed behind right checksums must still be refused or decoded, quickly and without a panic.
#[test]
fn mutations_behind_right_checksums_are_safe() {
    let mut state = 7_u64;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % bound
    };
    for effort in [Effort::Smallest, Effort::Fast] {
        let original = encode_with(&artifact(), effort).unwrap();
        let directory_bytes = u64::from_le_bytes(original[20..28].try_into().unwrap()) as usize;
        for _ in 0..400 {
            let mut file = original.clone();
            for _ in 0..1 + random(3) {
                let position = 64 + random(file.len() - 64);
                file[position] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
            }
            if random(4) == 0 {
                file.truncate(64 + random(file.len() - 64));
            }
            backslash_codec::reseal(&mut file, directory_bytes);
            let _ = decode(&file, &Limits { max_memory: 1 << 22 });
            let _ = inspect(&file);
        }
    }
}

#[test]
fn one_tensor_is_read_without_the_rest() {
    let artifact = artifact();
    let bytes = encode(&artifact).unwrap();
    for (name, tensor) in &artifact.tensors {
        assert_eq!(&decode_tensor(&bytes, name, &Limits::default()).unwrap(), tensor);
    }
    assert!(matches!(
        decode_tensor(&bytes, "config.json", &Limits::default()),
        Err(CodecError::InvalidArgument { .. })
    ));
}

/// A tensor of two blocks, of which each starts the trellis anew, by both coders and in parts.
#[test]
fn codes_on_a_trellis_come_back_and_take_the_bits_of_their_indices() {
    let shape = [700, 2000];
    assert!(backslash_codec::trellis::rows_per_run(&shape).unwrap() < 700);
    let mut random = 9_u64;
    let mut index = || {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        [-1, 0, 0, 1][(random >> 62) as usize]
    };
    let indices: Vec<i32> = (0..700 * 2000).map(|_| index()).collect();
    let codes = codes_of(&indices, 700, 2000);
    let tensor = tensor(&shape, codes);
    assert!((tensor.entropy_bits() - 1.5).abs() < 0.01, "{}", tensor.entropy_bits());
    let mut artifact = Artifact::default();
    artifact.tensors.insert("w".into(), Tensor::Quantized(tensor));
    let estimate = estimated_size(&artifact).unwrap().total();
    for effort in [Effort::Smallest, Effort::Fast] {
        let file = encode_with(&artifact, effort).unwrap();
        assert!(decode(&file, &Limits::default()).unwrap() == artifact, "{effort:?}");
        let coder = &inspect(&file).unwrap().tensors[0].coder;
        assert!(coder.starts_with("trellis"), "{coder}");
        let bits = 8.0 * file.len() as f64 / 1.4e6;
        assert!(bits < 1.51, "{effort:?}: {bits}");
        assert!((estimate as f64 / file.len() as f64 - 1.0).abs() < 0.01, "{estimate}");
    }
}

#[test]
fn an_origin_that_is_no_number_is_corrupt() {
    let good = encode(&artifact()).unwrap();
    let bytes = 0.75_f32.to_le_bytes();
    let at = good.windows(4).position(|window| window == bytes).unwrap();
    let directory = u64::from_le_bytes(good[20..28].try_into().unwrap()) as usize;
    for bound in [f32::NAN, f32::INFINITY, f32::MAX, -0.75] {
        let mut file = good.clone();
        file[at..at + 4].copy_from_slice(&bound.to_le_bytes());
        backslash_codec::reseal(&mut file, directory);
        let error = decode(&file, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("layer.1.weight: an origin"), "{error}");
    }
    let mut file = good.clone();
    file[at..at + 4].copy_from_slice(&0.5_f32.to_le_bytes());
    backslash_codec::reseal(&mut file, directory);
    assert!(decode(&file, &Limits::default()).is_ok());
}
