//! `backslash compress`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use backslash_codec::{encode, inspect, write_bytes};
use backslash_eval::{ModelFile, table, views};
use backslash_model::NamedWeights;
use backslash_quant::{Plan, fit_to_bytes};
use serde_json::json;

use super::train::DEFAULT_RELATIVE_STEP;
use crate::arguments::Compress;
use crate::console::say;
use crate::{output, session};

pub fn run(arguments: Compress) -> Result<()> {
    let overwrite = session::overwrite(&arguments.output, arguments.force)?;
    let (weights, metadata) = open(&arguments.input)?;
    weights.check_finite()?;
    let views = views(&weights);
    let learned = match arguments.input.is_dir() {
        true => session::learned_steps(&arguments.input)?,
        false => None,
    };
    let (plan, default) = match learned {
        Some(steps) => (Plan::learned(steps), 1.0),
        None => (Plan::relative(&views, 1.0), DEFAULT_RELATIVE_STEP),
    };
    let plan = match arguments.budget {
        Some(budget) => {
            let note = |file| {
                let budget = table::grouped(budget);
                say(&format!("making file {file} of at most 8 in search of {budget} bytes"));
            };
            fit_to_bytes(&plan, &views, &metadata, budget, note)?
        }
        None => plan.scaled(arguments.step.unwrap_or(default)),
    };
    let artifact = plan.artifact(&views, &metadata)?;
    let file = encode(&artifact)?;
    let split = inspect(&file)?.split;
    let bytes = write_bytes(&arguments.output, &file, overwrite)?;
    let bits_per_weight = 8.0 * bytes as f64 / weights.parameters().max(1) as f64;
    if arguments.json {
        return output::print_json(&json!({
            "file": arguments.output,
            "file_bytes": bytes,
            "parameters": weights.parameters(),
            "bits_per_weight": bits_per_weight,
            "split": output::split_json(&split),
        }));
    }
    output::print(&format!(
        "{}: {} bytes, {bits_per_weight:.3} bits per weight ({} parameters)",
        arguments.output.display(),
        table::grouped(bytes),
        table::grouped(weights.parameters() as u64),
    ))
}

/// Weights and metadata of a run's folder or of a safetensors file.
fn open(path: &Path) -> Result<(NamedWeights, BTreeMap<String, Vec<u8>>)> {
    if path.is_dir() {
        let model = ModelFile::open(path)?;
        let metadata = ModelFile::metadata(&model.config, &model.tokenizer);
        return Ok((model.weights, metadata));
    }
    Ok((NamedWeights::read(path)?, BTreeMap::new()))
}
