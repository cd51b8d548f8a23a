//! `backslash verify`.

use std::fs::File;

use anyhow::{Result, bail};
use backslash_codec::{Effort, FileReader, Limits, Tensor, TensorInfo, verify};
use backslash_eval::table::grouped;
use backslash_model::{CheckpointReader, CheckpointTensor};
use serde_json::json;

use crate::arguments::Verify;
use crate::console::Progress;
use crate::output;

/// Names of differing tensors that are listed.
const LISTED: usize = 5;
/// Values that are compared at a time.
const PIECE: usize = 1 << 16;

pub fn run(arguments: Verify) -> Result<()> {
    let file = arguments.file.display();
    let mut reader = FileReader::open(&arguments.file, Limits::default())?;
    let entries = (reader.tensors().len() + reader.metadata_keys().len()) as u64;
    let mut progress = Progress::new("entry", 0, entries);
    let found = verify(&mut reader, |done, _| progress.at(done, "decoded and encoded again"))?;
    progress.finish();
    if let Some(path) = &arguments.against {
        let mut checkpoint = CheckpointReader::open(path)?;
        let different = differences(&mut reader, &mut checkpoint)?;
        if !different.is_empty() {
            let names: Vec<&str> = different.iter().take(LISTED).map(String::as_str).collect();
            bail!(
                "{file} does not hold the weights of {}: {} of {} tensors differ or are missing ({})",
                path.display(),
                different.len(),
                found.tensors.max(checkpoint.tensors().len()),
                names.join(", ")
            );
        }
    }
    let canonical = found.canonical.map(|effort| match effort {
        Effort::Smallest => "smallest",
        Effort::Fast => "fast",
    });
    if arguments.json {
        return output::print_json(&json!({
            "file": arguments.file,
            "file_bytes": reader.file_bytes(),
            "tensors": found.tensors,
            "metadata": found.metadata,
            "weights": found.weights,
            "canonical": canonical,
            "equal": arguments.against.is_some(),
        }));
    }
    let form = canonical.map_or_else(
        || "not the bytes this version would write".to_owned(),
        |effort| format!("the bytes this version writes with effort `{effort}`"),
    );
    let equal = match &arguments.against {
        Some(path) => format!("\nequal to {} after dequantisation", path.display()),
        None => String::new(),
    };
    output::print(&format!(
        "{file}: whole; {} tensors, {} weights, {} metadata values; {form}{equal}",
        found.tensors,
        grouped(found.weights),
        found.metadata,
    ))
}

/// Names of the tensors that differ, or that only one side has.
fn differences(
    reader: &mut FileReader<File>,
    checkpoint: &mut CheckpointReader,
) -> Result<Vec<String>> {
    let mut different = Vec::new();
    let tensors = reader.tensors();
    for tensor in &tensors {
        let same = match checkpoint.tensor(&tensor.name) {
            Some(other) if other.shape == tensor.shape => {
                is_same(reader, tensor, checkpoint, &other)?
            }
            _ => false,
        };
        if !same {
            different.push(tensor.name.clone());
        }
    }
    let is_missing =
        |name: &String| tensors.binary_search_by(|tensor| tensor.name.cmp(name)).is_err();
    let names = checkpoint.tensors().into_iter().map(|tensor| tensor.name);
    different.extend(names.filter(is_missing));
    Ok(different)
}

/// Whether two tensors of one shape are the same: bit for bit where both are of one type, otherwise as F32.
fn is_same(
    reader: &mut FileReader<File>,
    tensor: &TensorInfo,
    checkpoint: &mut CheckpointReader,
    other: &CheckpointTensor,
) -> Result<bool> {
    let (name, mut same) = (&tensor.name, true);
    if tensor.dtype.is_some_and(|dtype| dtype.name() == other.dtype) {
        let Tensor::Raw(raw) = reader.tensor(name)? else { return Ok(false) };
        let mut buffer = Vec::new();
        for (index, bytes) in raw.bytes.chunks(PIECE).enumerate() {
            buffer.resize(bytes.len(), 0);
            checkpoint.read_bytes(name, (index * PIECE) as u64, &mut buffer)?;
            same &= buffer == bytes;
        }
        return Ok(same);
    }
    if !other.is_float() {
        return Ok(false);
    }
    let (mut position, mut buffer) = (0, Vec::new());
    reader.weights(name, |weights| {
        for weights in weights.chunks(PIECE) {
            buffer.resize(weights.len(), 0.0);
            checkpoint.read_f32(name, position, &mut buffer)?;
            position += weights.len();
            let pairs = buffer.iter().zip(weights);
            same &= pairs.into_iter().all(|(left, right)| left.to_bits() == right.to_bits());
        }
        anyhow::Ok(())
    })?;
    Ok(same)
}
