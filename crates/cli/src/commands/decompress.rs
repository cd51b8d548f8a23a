//! `backslash decompress`.

use anyhow::Result;
use backslash_codec::{Limits, read_file};
use backslash_eval::{decoded_weights, table};
use serde_json::json;

use crate::arguments::Decompress;
use crate::{output, session};

pub fn run(arguments: Decompress) -> Result<()> {
    session::overwrite(&arguments.output, arguments.force)?;
    let artifact = read_file(&arguments.input, &Limits::default())?;
    let weights = decoded_weights(&artifact)?;
    weights.write(&arguments.output)?;
    let (tensors, parameters) = (weights.tensors().len(), weights.parameters());
    if arguments.json {
        return output::print_json(&json!({
            "file": arguments.output,
            "tensors": tensors,
            "parameters": parameters,
        }));
    }
    output::print(&format!(
        "{}: {tensors} tensors, {} parameters",
        arguments.output.display(),
        table::grouped(parameters as u64),
    ))
}
