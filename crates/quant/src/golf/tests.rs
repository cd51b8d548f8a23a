use std::io::{Read, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::*;

/// Values of a fixed linear congruential sequence, uniform in ±`bound`.
fn noise(count: usize, bound: f32) -> Vec<f32> {
    let mut state = 7_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / 8_388_608.0 - 1.0) * bound
    };
    (0..count).map(next).collect()
}

fn deflate(inflated: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(inflated).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn baseline_model_has_the_published_payload() {
    // golf.md 6.1: 17,059,912 parameters, payload 17,178,912 bytes.
    let mut shapes: Vec<(String, Vec<usize>)> =
        vec![("tok_emb.weight".into(), vec![1024, 512]), ("skip_weights".into(), vec![4, 512])];
    for block in 0..9 {
        let mut add = |name: &str, shape: &[usize]| {
            shapes.push((format!("blocks.{block}.{name}"), shape.to_vec()))
        };
        add("attn_scale", &[512]);
        add("mlp_scale", &[512]);
        add("resid_mix", &[2, 512]);
        add("attn.q_gain", &[8]);
        add("attn.c_q.weight", &[512, 512]);
        add("attn.c_k.weight", &[256, 512]);
        add("attn.c_v.weight", &[256, 512]);
        add("attn.proj.weight", &[512, 512]);
        add("mlp.fc.weight", &[1024, 512]);
        add("mlp.proj.weight", &[512, 1024]);
    }
    let zeros = vec![0.0; 1024 * 512];
    let tensors: Vec<FloatTensor<'_>> = shapes
        .iter()
        .map(|(name, shape)| FloatTensor { name, shape, values: &zeros[..shape.iter().product()] })
        .collect();
    assert_eq!(tensors.iter().map(|tensor| tensor.values.len()).sum::<usize>(), 17_059_912);
    assert_eq!(export_int8_zlib(&tensors).unwrap().payload_bytes, 17_178_912);
}

#[test]
fn clip_interpolates_between_the_two_largest() {
    // Rank of the percentile in 101 values: 99.99984; the weight of the largest is 0.99984.
    let mut values: Vec<f32> = (0..101).map(|value| value as f32).collect();
    values.reverse();
    let clip = clip_magnitude(&mut values);
    assert!((clip - 99.999_84).abs() < 1e-5, "{clip}");
    assert_eq!(clip_magnitude(&mut [3.5]), 3.5);
}

#[test]
fn rows_below_one_share_the_floor_step() {
    let values: Vec<f32> =
        [0.5, 1.5, 2.5, -0.5, -1.5, 0.49].iter().map(|code| code / 127.0).collect();
    let tensor = FloatTensor { name: "w", shape: &[1, 6], values: &values };
    let Stored::Rows { codes, scales } = quantise(&tensor).unwrap() else {
        panic!("a matrix has row scales")
    };
    assert_eq!(scales, [f16::from_f32(1.0 / 127.0)]);
    // The clip lies a hair below 2.5 steps; the ties go to even.
    assert_eq!(codes, [0, 2, 2, 0, -2, 0]);
}

#[test]
fn decoding_uses_the_half_precision_scale() {
    let values = noise(300 * 300, 3.0);
    let export =
        export_int8_zlib(&[FloatTensor { name: "w", shape: &[300, 300], values: &values }])
            .unwrap();
    let decoded = import_int8_zlib(&export.bytes).unwrap();
    for (row, decoded) in values.chunks(300).zip(decoded[0].values.chunks(300)) {
        let largest = row.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let scale = f16::from_f32(largest / 127.0).to_f32();
        for (value, decoded) in row.iter().zip(decoded) {
            let code = decoded / scale;
            assert!((code - code.round()).abs() < 1e-3, "{decoded} is no multiple of {scale}");
            assert!(
                (value - decoded).abs() <= 0.57 * scale,
                "{value} became {decoded}, step {scale}"
            );
        }
    }
}

#[test]
fn small_and_control_tensors_are_kept_and_matrices_can_be_included() {
    let values = noise(64 * 64, 0.2);
    let control = noise(2 * 64, 1.0);
    let tensors = [
        FloatTensor { name: "blocks.0.attn.c_q.weight", shape: &[64, 64], values: &values },
        FloatTensor { name: "blocks.0.resid_mix", shape: &[2, 64], values: &control },
        FloatTensor { name: "norm.weight", shape: &[64], values: &values[..64] },
    ];
    let kept = export_int8_zlib(&tensors).unwrap();
    assert_eq!(kept.payload_bytes, 2 * 4096 + 4 * 128 + 2 * 64);
    let decoded = import_int8_zlib(&kept.bytes).unwrap();
    assert_eq!(decoded[0].values[5], f16::from_f32(values[5]).to_f32());
    assert_eq!(decoded[1].values, control);

    let all = export_int8_zlib_all_matrices(&tensors).unwrap();
    assert_eq!(all.payload_bytes, 4096 + 2 * 64 + 4 * 128 + 2 * 64);
    let decoded = import_int8_zlib(&all.bytes).unwrap();
    assert_eq!(decoded[1].values, control);
    assert_eq!(decoded[0].shape, [64, 64]);
    let worst =
        values.iter().zip(&decoded[0].values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 1e-3 && worst <= 0.51 / 127.0, "{worst}");
}

#[test]
fn other_large_tensors_have_one_scale() {
    let values = noise(2 * 40_000, 2.0);
    let tensors = [
        FloatTensor { name: "cube", shape: &[2, 200, 200], values: &values },
        FloatTensor { name: "zeros", shape: &[70_000], values: &[0.0; 70_000] },
        FloatTensor { name: "empty", shape: &[3, 0], values: &[] },
        FloatTensor { name: "scalar", shape: &[], values: &[0.25] },
    ];
    let export = export_int8_zlib_all_matrices(&tensors).unwrap();
    assert_eq!(export.payload_bytes, 80_000 + 4 + 70_000 + 4 + 2);
    let decoded = import_int8_zlib(&export.bytes).unwrap();
    let worst =
        values.iter().zip(&decoded[0].values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 1e-3 && worst <= 0.51 * 2.0 / 127.0, "{worst}");
    assert_eq!(decoded[1].values, [0.0; 70_000]);
    assert_eq!((decoded[2].shape.as_slice(), decoded[2].values.len()), ([3, 0].as_slice(), 0));
    assert_eq!((decoded[3].shape.len(), decoded[3].values[0]), (0, 0.25));
}

#[test]
fn bad_tensors_are_refused() {
    let export = |name, shape: &[usize], values: &[f32]| {
        export_int8_zlib(&[FloatTensor { name, shape, values }])
    };
    assert!(matches!(export("w", &[2, 2], &[0.0; 3]), Err(GolfError::Shape { count: 3, .. })));
    assert!(matches!(export("w", &[usize::MAX, 2], &[0.0; 3]), Err(GolfError::Shape { .. })));
    assert!(matches!(
        export("w", &[2], &[0.0, f32::NAN]),
        Err(GolfError::NotFinite { index: 1, .. })
    ));
    assert!(matches!(export("w", &[1], &[1e6]), Err(GolfError::BeyondHalf { .. })));
    assert!(matches!(export(&"w".repeat(5000), &[1], &[0.0]), Err(GolfError::TooLarge { .. })));
    let twice = FloatTensor { name: "w", shape: &[1], values: &[1.0] };
    assert!(matches!(export_int8_zlib(&[twice, twice]), Err(GolfError::Duplicate(_))));
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed_or_harmless() {
    let values = noise(12 * 9, 0.3);
    let tensors = [
        FloatTensor { name: "w", shape: &[12, 9], values: &values },
        FloatTensor { name: "q_gain", shape: &[4], values: &values[..4] },
    ];
    let bytes = export_int8_zlib_all_matrices(&tensors).unwrap().bytes;
    let decoded = import_int8_zlib(&bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(import_int8_zlib(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    let mut harmless = 0;
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(flipped) = import_int8_zlib(&flipped) {
            harmless += 1;
            assert_eq!(flipped, decoded, "bit {bit}");
        }
    }
    // The bits that pad the last byte of a deflate stream before its checksum mean nothing.
    assert!(harmless < 8, "{harmless}");
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(import_int8_zlib(&longer), Err(GolfError::Corrupt(_))));
}

#[test]
fn hostile_directories_are_refused_without_the_memory_they_ask_for() {
    let directory = |count: u32, shape: &[u32], scheme: u8| {
        let mut inflated = b"GOLFINT8".to_vec();
        inflated.extend(count.to_le_bytes());
        inflated.extend([1, 0, b'w', shape.len() as u8]);
        inflated.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        inflated.push(scheme);
        import_int8_zlib(&deflate(&inflated))
    };
    assert!(matches!(directory(u32::MAX, &[1], 0), Err(GolfError::TooLarge { .. })));
    assert!(matches!(directory(1, &[u32::MAX; 8], 2), Err(GolfError::TooLarge { .. })));
    assert!(matches!(directory(1, &[1 << 27], 0), Err(GolfError::Corrupt(_))));
    // Many rows without a single element would ask for scales without end.
    assert!(matches!(directory(1, &[u32::MAX, 0], 2), Err(GolfError::Corrupt(_))));
    assert!(matches!(directory(1, &[4], 2), Err(GolfError::Corrupt(_))));
    assert!(matches!(directory(1, &[4], 9), Err(GolfError::Corrupt(_))));
    assert!(import_int8_zlib(&deflate(b"GOLFINT8")).is_err());
    assert!(import_int8_zlib(b"").is_err());
}

#[test]
fn reproduces_a_published_export() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/golf");
    let (Ok(float_file), Ok(published)) = (
        std::fs::read(folder.join("nolanvild.safetensors")),
        std::fs::read(folder.join("nolanvild.int8.ptz")),
    ) else {
        // Not eprintln!, which the test harness keeps to itself where a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: {} does not hold nolanvild.safetensors and nolanvild.int8.ptz",
            folder.display()
        );
        return;
    };
    let mut inflated = Vec::new();
    ZlibDecoder::new(published.as_slice()).read_to_end(&mut inflated).unwrap();

    let parsed = safetensors::SafeTensors::deserialize(&float_file).unwrap();
    let named: Vec<(String, Vec<usize>, Vec<f32>)> = parsed
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let values =
                view.data().as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
            (name, view.shape().to_vec(), values)
        })
        .collect();
    let tensors: Vec<FloatTensor<'_>> =
        named.iter().map(|(name, shape, values)| FloatTensor { name, shape, values }).collect();

    let mut kept_as_half = 0;
    for tensor in &tensors {
        let large = tensor.values.len() > MAX_KEPT_ELEMENTS;
        assert_eq!(large, tensor.name == "tok_emb.weight");
        let stored = if large { quantise(tensor) } else { keep(tensor) }.unwrap();
        match stored {
            Stored::Rows { codes, scales } => {
                let codes: Vec<u8> = codes.iter().map(|code| code.cast_unsigned()).collect();
                assert_eq!(
                    mismatches_at_best_place(&inflated, &codes),
                    Some(0),
                    "codes of {}",
                    tensor.name
                );
                assert_contains(
                    &inflated,
                    scales.iter().flat_map(|scale| scale.to_le_bytes()),
                    tensor.name,
                );
            }
            Stored::Half(values) => {
                kept_as_half += 1;
                assert_contains(
                    &inflated,
                    values.iter().flat_map(|value| value.to_le_bytes()),
                    tensor.name,
                );
            }
            Stored::Float(values) => {
                assert_contains(
                    &inflated,
                    values.iter().flat_map(|value| value.to_le_bytes()),
                    tensor.name,
                );
            }
            Stored::Whole { .. } => panic!("no tensor of this model has one scale"),
        }
    }
    assert_eq!((tensors.len(), kept_as_half), (32, 18));

    let export = export_int8_zlib(&tensors).unwrap();
    let ratio = export.bytes.len() as f64 / published.len() as f64;
    eprintln!("our file {} bytes, theirs {}, {ratio:.4}", export.bytes.len(), published.len());
    assert!((0.98..1.0).contains(&ratio), "{ratio}");
    assert_eq!(import_int8_zlib(&export.bytes).unwrap().len(), 32);
}

/// Fewest mismatches of `needle` at any position of `haystack`, if at most one.
fn mismatches_at_best_place(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mismatches = |window: &[u8]| {
        window.iter().zip(needle).filter(|(found, wanted)| found != wanted).take(2).count()
    };
    haystack.windows(needle.len()).map(mismatches).min().filter(|&count| count < 2)
}

fn assert_contains(haystack: &[u8], needle: impl Iterator<Item = u8>, name: &str) {
    let needle: Vec<u8> = needle.collect();
    assert!(
        haystack.windows(needle.len()).any(|window| window == needle),
        "{name} is not in the published file"
    );
}
