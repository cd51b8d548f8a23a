//! Files written and read tensor by tensor: the same bytes and content as in memory, and hostile bytes.

mod common;

use std::io::Cursor;
use std::path::Path;

use backslash_codec::{
    Artifact, CodecError, Effort, FileReader, FileWriter, FloatType, Limits, Origin, Overwrite,
    QuantizedTensor, RawTensor, Reconstruction, SizeSplit, Tensor, decode, encode_with,
    encoded_size_with, reseal, round_scale, verify,
};
use common::codes_of;
use proptest::prelude::*;

fn quantized(shape: &[usize], code: impl Fn(usize) -> i32) -> QuantizedTensor {
    QuantizedTensor {
        shape: shape.to_vec(),
        codes: (0..shape.iter().product()).map(code).collect(),
        step: 0.25,
        row_scales: None,
        column_scales: None,
        reconstruction: Reconstruction::Shrink(9),
        origin: Some(Origin { seed: 1, stream: 2, bound: 0.1 }),
    }
}

/// Small tensors of every kind, scales on both sides, folded and empty shapes.
fn artifact() -> Artifact {
    let mut artifact = Artifact::default();
    artifact.metadata.insert("config.json".into(), b"{\"layers\": 2, \"layers\": 2}".to_vec());
    artifact.metadata.insert("zero".into(), Vec::new());
    let scales = |count: usize, round: bool| {
        let scale = |index: usize| 0.1 + (index % 9) as f32;
        let scale = |index: usize| if round { round_scale(scale(index)) } else { scale(index) };
        Some((0..count).map(scale).collect())
    };
    for (index, shape) in
        [vec![50, 40], vec![3, 5, 7], vec![3000], vec![], vec![0, 4]].into_iter().enumerate()
    {
        let mut tensor = quantized(&shape, |at| (at * at % 7) as i32 - (at % 3) as i32);
        tensor.row_scales = scales(tensor.rows(), true).filter(|_| index % 2 == 0);
        tensor.column_scales = scales(tensor.columns(), false).filter(|_| index > 1);
        artifact.tensors.insert(format!("layer.{index}.weight"), Tensor::Quantized(tensor));
    }
    let mut on_trellis = quantized(&[60, 12], |_| 0);
    let indices: Vec<i32> = (0..720).map(|at| at * at % 7 - at % 3 * 2).collect();
    on_trellis.codes = codes_of(&indices, 60, 12);
    artifact.tensors.insert("layer.trellis.weight".into(), Tensor::Quantized(on_trellis));
    let norm: Vec<f32> = (0..40).map(|index| 1.0 + index as f32 / 64.0).collect();
    let norm = RawTensor::from_f32_as_bf16(vec![40], &norm);
    artifact.tensors.insert("norm.weight".into(), Tensor::Raw(norm));
    let positions = (0..30_i64).flat_map(|position| position.to_le_bytes()).collect();
    let positions = RawTensor { shape: vec![30], dtype: FloatType::I64, bytes: positions };
    artifact.tensors.insert("positions".into(), Tensor::Raw(positions));
    artifact
}

/// More blocks than are in work at once.
fn many_blocks() -> Artifact {
    let mut tensor = quantized(&[20 * 512, 2048], |at| (at % 3) as i32 - (at % 5 / 4) as i32);
    tensor.row_scales = Some((0..tensor.rows()).map(|row| row as f32).collect());
    let mut artifact = Artifact::default();
    artifact.tensors.insert("blocks".into(), Tensor::Quantized(tensor));
    artifact
}

/// Several blocks on the trellis, in which the classes of rows differ.
fn trellis_blocks() -> Artifact {
    let (rows, columns) = (40, 60_000);
    let mut tensor = quantized(&[rows, columns], |_| 0);
    let index = |at: usize| (at * at % 31 % 7) as i32 * if at / columns < 20 { 1 } else { 5 };
    tensor.codes = codes_of(&(0..rows * columns).map(index).collect::<Vec<_>>(), rows, columns);
    let mut artifact = Artifact::default();
    artifact.tensors.insert("blocks".into(), Tensor::Quantized(tensor));
    artifact
}

fn write(path: &Path, artifact: &Artifact, effort: Effort) -> Result<SizeSplit, CodecError> {
    let mut writer = FileWriter::create(path, effort, Overwrite::Replace)?;
    for (key, value) in &artifact.metadata {
        writer.metadata(key, value)?;
    }
    for (name, tensor) in &artifact.tensors {
        writer.tensor(name, tensor)?;
    }
    writer.finish()
}

/// All that a reader gives; the content of a file when it is whole.
fn read_all(file: &[u8], limits: Limits) -> Result<Artifact, CodecError> {
    let mut reader = FileReader::new(Cursor::new(file), Path::new("model.bsl"), limits)?;
    reader.verify_content()?;
    let mut artifact = Artifact::default();
    for key in reader.metadata_keys() {
        artifact.metadata.insert(key.clone(), reader.metadata(&key)?);
    }
    for tensor in reader.tensors() {
        let whole = reader.tensor(&tensor.name)?;
        let mut weights = Vec::new();
        let pieces = reader.weights(&tensor.name, |piece| {
            weights.extend_from_slice(piece);
            Ok::<_, CodecError>(())
        });
        match &whole {
            Tensor::Quantized(whole) => pieces.map(|()| assert_eq!(weights, whole.dequantize()))?,
            Tensor::Raw(whole) if whole.dtype == FloatType::I64 => assert!(pieces.is_err()),
            Tensor::Raw(whole) => {
                pieces.map(|()| assert_eq!(weights, whole.to_f32(&tensor.name).unwrap()))?;
            }
        }
        artifact.tensors.insert(tensor.name, whole);
    }
    Ok(artifact)
}

#[test]
fn streamed_files_have_the_bytes_of_those_made_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bsl");
    for (artifact, efforts) in [
        (artifact(), &[Effort::Fast, Effort::Smallest][..]),
        (Artifact::default(), &[Effort::Fast, Effort::Smallest]),
        (many_blocks(), &[Effort::Fast]),
        (trellis_blocks(), &[Effort::Fast]),
    ] {
        for &effort in efforts {
            let split = write(&path, &artifact, effort).unwrap();
            let bytes = encode_with(&artifact, effort).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "{effort:?}");
            assert_eq!(split, encoded_size_with(&artifact, effort).unwrap());
            assert!(read_all(&bytes, Limits::default()).unwrap() == artifact, "{effort:?}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_writer_that_fails_or_is_dropped_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bsl");
    let create = |overwrite| FileWriter::create(&path, Effort::Fast, overwrite);
    let mut writer = create(Overwrite::Refuse).unwrap();
    let tensor = Tensor::Quantized(quantized(&[64, 64], |at| at as i32 % 3));
    writer.tensor("b", &tensor).unwrap();
    for (name, problem) in [("a", "comes after b"), ("b", "comes after b"), ("", "0 bytes")] {
        let error = match name {
            "" => create(Overwrite::Refuse).unwrap().tensor(name, &tensor).unwrap_err(),
            _ => writer.tensor(name, &tensor).unwrap_err(),
        };
        assert!(error.to_string().contains(problem), "{error}");
    }
    assert!(
        writer.metadata("c", b"late").unwrap_err().to_string().contains("metadata comes first")
    );
    let mut wrong = quantized(&[2, 2], |_| 0);
    wrong.codes.pop();
    assert!(
        writer.tensor("c", &Tensor::Quantized(wrong)).unwrap_err().to_string().contains("c: 3")
    );
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let writer = create(Overwrite::Refuse).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(writer.finish(), Err(CodecError::Exists { .. })));
    assert!(matches!(create(Overwrite::Refuse), Err(CodecError::Exists { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let missing = folder.path().join("missing/model.bsl");
    let error = FileWriter::create(&missing, Effort::Fast, Overwrite::Refuse).err().unwrap();
    assert!(matches!(error, CodecError::Io { .. }));
}

#[test]
fn every_truncation_and_every_bit_flip_is_an_error() {
    let mut artifact = artifact();
    artifact.tensors.remove("layer.2.weight");
    for effort in [Effort::Fast, Effort::Smallest] {
        let file = encode_with(&artifact, effort).unwrap();
        for length in 0..file.len() {
            assert!(read_all(&file[..length], Limits::default()).is_err(), "cut to {length}");
        }
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read_all(&damaged, Limits::default()).is_err(), "bit {bit}");
        }
        let longer = [&file[..], &[0]].concat();
        assert!(matches!(read_all(&longer, Limits::default()), Err(CodecError::Corrupt { .. })));
    }
}

/// Damage that only a section's checksum, or its padding, can tell: the content hash is not looked at.
#[test]
fn damage_is_named_by_file_and_tensor() {
    let artifact = artifact();
    let file = encode_with(&artifact, Effort::Fast).unwrap();
    let mut reader =
        FileReader::new(Cursor::new(&file), Path::new("m.bsl"), Limits::default()).unwrap();
    assert_eq!(reader.file_bytes(), file.len() as u64);
    let message = reader.tensor("config.json").unwrap_err().to_string();
    assert!(message.starts_with("m.bsl: config.json: the file has no tensor"), "{message}");
    let (mut by_checksum, mut by_padding) = (0, 0);
    for position in (64..file.len()).step_by(5) {
        let mut damaged = file.clone();
        damaged[position] ^= 1;
        let Ok(mut reader) =
            FileReader::new(Cursor::new(&damaged), Path::new("m.bsl"), Limits::default())
        else {
            continue;
        };
        let errors: Vec<String> = reader
            .tensors()
            .iter()
            .filter_map(|tensor| {
                let error = reader.tensor(&tensor.name).err()?.to_string();
                assert!(error.starts_with(&format!("m.bsl: {}: ", tensor.name)), "{error}");
                Some(error)
            })
            .collect();
        assert!(errors.len() <= 1);
        by_checksum += errors.iter().filter(|error| error.contains("checksum")).count();
        by_padding += errors.iter().filter(|error| error.contains("padding")).count();
    }
    assert!(by_checksum > 20 && by_padding > 20, "{by_checksum} and {by_padding}");
}

#[test]
fn limits_hold_per_tensor() {
    let artifact = artifact();
    let file = encode_with(&artifact, Effort::Smallest).unwrap();
    // Enough for the directory and each small tensor, not for 2,000 codes.
    let limits = Limits { max_memory: 2000 };
    let mut reader = FileReader::new(Cursor::new(&file), Path::new("m.bsl"), limits).unwrap();
    assert_eq!(reader.tensor("norm.weight").unwrap(), artifact.tensors["norm.weight"]);
    let error = reader.tensor("layer.0.weight").unwrap_err();
    assert!(
        matches!(error, CodecError::LimitExceeded { needed: 8200, limit: 2000, .. }),
        "{error}"
    );
    let limits = Limits { max_memory: 20 };
    let error = FileReader::new(Cursor::new(&file), Path::new("m.bsl"), limits).err().unwrap();
    assert!(matches!(error, CodecError::LimitExceeded { limit: 20, .. }), "{error}");
}

/// A directory that is said to be larger than the file is no reason to allocate it.
#[test]
fn a_directory_longer_than_the_file_is_refused() {
    let mut file = encode_with(&artifact(), Effort::Smallest).unwrap();
    file[20..28].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    let error = read_all(&file, Limits { max_memory: u64::MAX }).unwrap_err();
    assert!(matches!(error, CodecError::Truncated { .. }), "{error}");
}

#[test]
fn verification_tells_canonical_files_from_others() {
    let artifact = artifact();
    let check = |bytes: &[u8]| {
        let source = Cursor::new(bytes);
        let mut reader = FileReader::new(source, Path::new("m.bsl"), Limits::default()).unwrap();
        let mut steps = Vec::new();
        let found = verify(&mut reader, |done, all| steps.push((done, all)));
        found.inspect(|_| assert_eq!(steps.last(), Some(&(10, 10))))
    };
    for effort in [Effort::Fast, Effort::Smallest] {
        let bytes = encode_with(&artifact, effort).unwrap();
        let found = check(&bytes).unwrap();
        assert_eq!((found.tensors, found.metadata, found.canonical), (8, 2, Some(effort)));
        assert_eq!(found.weights, 2000 + 105 + 3000 + 1 + 720 + 40 + 30);
        // Another minor version is whole, but not what this version writes.
        let mut other = bytes.clone();
        assert_eq!(other[10], 2);
        other[10] = 0;
        let directory_bytes = u64::from_le_bytes(other[20..28].try_into().unwrap()) as usize;
        reseal(&mut other, directory_bytes);
        assert_eq!(check(&other).unwrap().canonical, None);
        let last = other.len() - 1;
        other[last] ^= 1;
        assert!(check(&other).unwrap_err().to_string().contains("m.bsl: file: corrupt"));
    }
    // The smallest coders at the alignment of the fast file.
    let mut stored = Artifact::default();
    stored.metadata.insert("text".into(), b"a rose is a rose is a rose".repeat(20));
    let (fast, small) = (
        encode_with(&stored, Effort::Fast).unwrap(),
        encode_with(&stored, Effort::Smallest).unwrap(),
    );
    assert!(small.len() < fast.len());
    let mut mixed = small.clone();
    mixed[12] = 6;
    let directory_bytes = u64::from_le_bytes(mixed[20..28].try_into().unwrap()) as usize;
    let end = 64 + directory_bytes;
    let padding = vec![0; end.next_multiple_of(64) - end];
    mixed.splice(end..end, padding);
    reseal(&mut mixed, directory_bytes);
    let mut reader =
        FileReader::new(Cursor::new(&mixed), Path::new("m.bsl"), Limits::default()).unwrap();
    assert_eq!(verify(&mut reader, |_, _| ()).unwrap().canonical, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Behind right outer checksums, both readers accept the same files and give the same content.
    #[test]
    fn streaming_and_memory_agree_on_damaged_files(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        fast in any::<bool>(),
    ) {
        let mut file = encode_with(&artifact(), if fast { Effort::Fast } else { Effort::Smallest }).unwrap();
        let directory_bytes = u64::from_le_bytes(file[20..28].try_into().unwrap()) as usize;
        for (position, byte) in damage {
            let position = 8 + position.index(file.len() - 8);
            file[position] = byte;
        }
        reseal(&mut file, directory_bytes);
        let limits = Limits { max_memory: 1 << 22 };
        match (decode(&file, &limits), read_all(&file, limits)) {
            (Ok(memory), Ok(streamed)) => prop_assert!(memory == streamed),
            (Err(_), Err(_)) => {}
            // The limit is for the whole file in memory and per tensor in a stream.
            (Err(CodecError::LimitExceeded { .. }), Ok(_)) => {}
            (memory, streamed) => {
                prop_assert!(false, "{:?} against {:?}", memory.err(), streamed.err());
            }
        }
    }
}
