//! `backslash compress`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use backslash_codec::{
    Effort, FileWriter, FloatType, Overwrite, RawTensor, SizeSplit, Tensor, encode_with, inspect,
    write_bytes,
};
use backslash_compress::{Target, fit_plan_to_bytes};
use backslash_eval::{ModelFile, table, views};
use backslash_model::{CheckpointReader, CheckpointTensor, NamedTensor, NamedWeights};
use backslash_quant::{Plan, is_coded, quantize_pieces, store_uncoded};
use serde_json::json;

use super::fit;
use super::train::DEFAULT_RELATIVE_STEP;
use crate::arguments::{self, Compress};
use crate::console::Progress;
use crate::failure::Usage;
use crate::{output, session};

/// Values that are floats in memory at a time.
const PIECE: usize = 1 << 18;

pub fn run(arguments: Compress) -> Result<()> {
    let effort = match arguments.effort {
        arguments::Effort::Smallest => Effort::Smallest,
        arguments::Effort::Fast => Effort::Fast,
    };
    arguments.columns.check(&arguments.text)?;
    // Learned steps are the best there are, as long as nothing but a size is asked for.
    let learned = match arguments.input.is_dir() && !fit::asked_beyond_size(&arguments) {
        true => session::learned_plan(&arguments.input)?,
        false => None,
    };
    if arguments.dry_run {
        return match learned {
            Some(plan) => {
                fit::print_planned(&by_plan(&arguments, &plan, effort)?.0, None, arguments.json)
            }
            None => fit::print_plan(&arguments, effort),
        };
    }
    let missing = || Usage("-o FILE is required (or --dry-run)".to_owned());
    let output = arguments.output.as_deref().ok_or_else(missing)?;
    let overwrite = session::overwrite(output, arguments.force)?;
    let (split, parameters) = match learned {
        Some(plan) => {
            let (bytes, parameters) = by_plan(&arguments, &plan, effort)?;
            write_bytes(output, &bytes, overwrite)?;
            (inspect(&bytes)?.split, parameters)
        }
        None if fit::asked(&arguments) || is_model(&arguments.input) => {
            fit::run(&arguments, output, effort, overwrite)?
        }
        None => {
            let factor = arguments.step.unwrap_or(DEFAULT_RELATIVE_STEP);
            compress_tensor_by_tensor(&arguments.input, output, factor, effort, overwrite)?
        }
    };
    let bytes = split.total();
    let bits_per_weight = 8.0 * bytes as f64 / parameters.max(1) as f64;
    if arguments.json {
        return output::print_json(&json!({
            "file": output,
            "file_bytes": bytes,
            "parameters": parameters,
            "bits_per_weight": bits_per_weight,
            "split": output::split_json(&split),
        }));
    }
    output::print(&format!(
        "{}: {} bytes, {bits_per_weight:.3} bits per weight ({} parameters)",
        output.display(),
        table::grouped(bytes),
        table::grouped(parameters),
    ))
}

/// Whether the input is a model of ours with all that belongs to it, rather than tensors alone.
fn is_model(input: &Path) -> bool {
    input.is_dir() && !CheckpointReader::is_sharded(input)
}

/// Compresses a checkpoint with one tensor's codes in memory at a time.
fn compress_tensor_by_tensor(
    input: &Path,
    output: &Path,
    factor: f32,
    effort: Effort,
    overwrite: Overwrite,
) -> Result<(SizeSplit, u64)> {
    let mut reader = CheckpointReader::open(input)?;
    let mut writer = FileWriter::create(output, effort, overwrite)?;
    let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
    let mut progress = Progress::new("MB", 0, megabytes(reader.data_bytes()));
    let (mut done, mut parameters) = (0, 0);
    for tensor in reader.tensors() {
        progress.at(megabytes(done), &tensor.name);
        let coded = read_tensor(&mut reader, &tensor, factor)
            .with_context(|| input.display().to_string())?;
        writer.tensor(&tensor.name, &coded)?;
        parameters += tensor.elements() as u64;
        done += reader.tensor_bytes(&tensor.name)?;
    }
    progress.finish();
    Ok((writer.finish()?, parameters))
}

/// One tensor as a file will hold it: floats quantised or as BF16, everything else verbatim.
fn read_tensor(
    reader: &mut CheckpointReader,
    tensor: &CheckpointTensor,
    factor: f32,
) -> Result<Tensor> {
    let CheckpointTensor { name, shape, .. } = tensor;
    if tensor.is_float() && is_coded(shape) {
        let pieces = |sink: &mut dyn FnMut(&[f32]) -> Result<()>| reader.pieces(name, PIECE, sink);
        return Ok(Tensor::Quantized(quantize_pieces(name, shape, factor, pieces)?));
    }
    if tensor.is_float() {
        return Ok(Tensor::Raw(store_uncoded(name, shape, &reader.read_all_f32(name)?)?));
    }
    Ok(Tensor::Raw(verbatim(reader, tensor)?))
}

/// The bytes of a tensor as they are.
fn verbatim(reader: &mut CheckpointReader, tensor: &CheckpointTensor) -> Result<RawTensor> {
    let CheckpointTensor { name, shape, dtype } = tensor;
    let dtype = FloatType::from_name(dtype)
        .with_context(|| format!("tensor `{name}` is of type {dtype}, which cannot be stored"))?;
    let mut bytes = vec![0; usize::try_from(reader.tensor_bytes(name)?)?];
    reader.read_bytes(name, 0, &mut bytes)?;
    Ok(RawTensor { shape: shape.clone(), dtype, bytes })
}

/// The file of a model by a plan of steps, and the number of weights.
fn by_plan(arguments: &Compress, plan: &Plan, effort: Effort) -> Result<(Vec<u8>, u64)> {
    let Tensors { weights, metadata, .. } = open_tensors(&arguments.input)?;
    let views = views(&weights);
    let bytes = match arguments.budget {
        Some(budget) => {
            let target = Target { budget, effort };
            fit_plan_to_bytes(plan, &views, &metadata, target, &mut fit::note)?.bytes
        }
        None => {
            let plan = plan.scaled(arguments.step.unwrap_or(1.0));
            encode_with(&plan.artifact(&views, &metadata)?, effort)?
        }
    };
    Ok((bytes, weights.parameters() as u64))
}

/// What is to be compressed, in memory.
pub struct Tensors {
    pub weights: NamedWeights,
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// What is not made of floats.
    pub verbatim: BTreeMap<String, Tensor>,
}

/// Weights and metadata of a run's folder, or the tensors of a checkpoint; all floats of them finite.
pub fn open_tensors(path: &Path) -> Result<Tensors> {
    if !is_model(path) {
        return checkpoint_tensors(path);
    }
    let model = session::open_model(path)?;
    let metadata = ModelFile::metadata(&model.config, &model.tokenizer);
    Ok(Tensors { weights: model.weights, metadata, verbatim: BTreeMap::new() })
}

/// The tensors of a checkpoint, be it one file, a folder of shards, or a folder with model.safetensors; all floats of
/// them finite.
pub fn checkpoint_tensors(path: &Path) -> Result<Tensors> {
    let mut reader = match is_model(path) {
        true => CheckpointReader::open(&path.join("model.safetensors"))?,
        false => CheckpointReader::open(path)?,
    };
    let mut weights = Vec::new();
    let mut others = BTreeMap::new();
    for tensor in reader.tensors() {
        if tensor.is_float() {
            let data = reader.read_all_f32(&tensor.name)?;
            weights.push(NamedTensor { name: tensor.name, shape: tensor.shape, data });
        } else {
            let raw = verbatim(&mut reader, &tensor)?;
            others.insert(tensor.name, Tensor::Raw(raw));
        }
    }
    let weights = NamedWeights::new(weights);
    weights.check_finite()?;
    Ok(Tensors { weights, metadata: BTreeMap::new(), verbatim: others })
}
