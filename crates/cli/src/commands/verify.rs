//! `backslash verify`.

use anyhow::{Result, bail};
use backslash_codec::{Effort, Limits, differences, read_bytes, verify};
use backslash_eval::table::grouped;
use backslash_model::NamedWeights;
use serde_json::json;

use crate::arguments::Verify;
use crate::output;

/// Names of differing tensors that are listed.
const LISTED: usize = 5;

pub fn run(arguments: Verify) -> Result<()> {
    let limits = Limits::default();
    let file = arguments.file.display();
    let bytes = read_bytes(&arguments.file, &limits)?;
    let found = verify(&bytes, &limits)?;
    if let Some(path) = &arguments.against {
        let weights = NamedWeights::read(path)?;
        let expected = |name: &str| weights.get(name).map(|tensor| tensor.data.clone());
        let different = differences(&bytes, &limits, expected)?;
        let missing = weights.tensors().len() > found.tensors;
        if !different.is_empty() || missing {
            let names: Vec<&str> = different.iter().take(LISTED).map(String::as_str).collect();
            bail!(
                "{file} does not hold the weights of {}: {} of {} tensors differ or are missing ({})",
                path.display(),
                different.len(),
                found.tensors.max(weights.tensors().len()),
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
            "file_bytes": bytes.len(),
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
