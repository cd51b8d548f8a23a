//! `backslash decompress`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use backslash_codec::{FileReader, FloatType, Limits, Tensor, TensorInfo};
use backslash_eval::table;
use backslash_model::{CheckpointTensor, CheckpointWriter};
use serde_json::json;

use crate::arguments::Decompress;
use crate::console::Progress;
use crate::{output, session};

pub fn run(arguments: Decompress) -> Result<()> {
    session::overwrite(&arguments.output, arguments.force)?;
    let mut reader = FileReader::open(&arguments.input, Limits::default())?;
    reader.verify_content()?;
    let tensors: BTreeMap<String, CheckpointTensor> =
        reader.tensors().into_iter().map(|tensor| (tensor.name.clone(), decoded(tensor))).collect();
    let mut writer =
        CheckpointWriter::create(&arguments.output, tensors.values().cloned().collect())?;
    let parameters: u64 = tensors.values().map(|tensor| tensor.elements() as u64).sum();
    let mut progress = Progress::new("M weights", 0, parameters.div_ceil(1_000_000));
    let mut done = 0;
    for tensor in writer.order() {
        progress.at(done / 1_000_000, &tensor.name);
        if tensor.dtype == FloatType::F32.name() {
            reader.weights(&tensor.name, |weights| anyhow::Ok(writer.write_f32(weights)?))?;
        } else {
            match reader.tensor(&tensor.name)? {
                Tensor::Raw(raw) => writer.write(&raw.bytes)?,
                Tensor::Quantized(_) => bail!("{}: a quantised tensor is F32", tensor.name),
            }
        }
        done += tensor.elements() as u64;
    }
    writer.finish()?;
    progress.finish();
    if arguments.json {
        return output::print_json(&json!({
            "file": arguments.output,
            "tensors": tensors.len(),
            "parameters": parameters,
        }));
    }
    output::print(&format!(
        "{}: {} tensors, {} parameters",
        arguments.output.display(),
        tensors.len(),
        table::grouped(parameters),
    ))
}

/// The tensor that is written: floats of all kinds as F32, everything else as it is.
fn decoded(tensor: TensorInfo) -> CheckpointTensor {
    let dtype = match tensor.dtype {
        None | Some(FloatType::F16 | FloatType::BF16 | FloatType::F64) => FloatType::F32,
        Some(other) => other,
    };
    CheckpointTensor { name: tensor.name, shape: tensor.shape, dtype: dtype.name().to_owned() }
}
