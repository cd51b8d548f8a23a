//! `backslash generate`.

use anyhow::{Result, bail};
use backslash_eval::{ModelFile, Sampling, generate};
use serde_json::json;

use crate::arguments::Generate;
use crate::failure::Usage;
use crate::output;

pub fn run(arguments: Generate) -> Result<()> {
    if !(arguments.temperature.is_finite() && arguments.temperature >= 0.0) {
        bail!(Usage("--temperature must be 0 or more".to_owned()));
    }
    let model = ModelFile::open(&arguments.model)?;
    let text = continuation(
        &model,
        &arguments.prompt,
        arguments.tokens,
        Sampling { temperature: arguments.temperature, top: arguments.top, seed: arguments.seed },
    )?;
    if arguments.json {
        return output::print_json(&json!({ "prompt": arguments.prompt, "text": text }));
    }
    output::print(&format!("{}{text}", arguments.prompt))
}

/// The text a model writes after a prompt.
pub fn continuation(
    model: &ModelFile,
    prompt: &str,
    tokens: usize,
    sampling: Sampling,
) -> Result<String> {
    let network = model.network()?;
    let mut start: Vec<u16> = model.tokenizer.start_token().into_iter().collect();
    start.extend(model.tokenizer.encode(prompt)?);
    let mut written = Vec::new();
    // Ids that pad the model's vocabulary beyond the tokenizer's stand for no text.
    let pieces = model.tokenizer.vocabulary_size();
    generate(&network, &start, tokens, sampling, |token| {
        if usize::from(token) < pieces {
            written.push(token);
        }
    })?;
    Ok(model.tokenizer.decode_lossy(&written)?)
}
