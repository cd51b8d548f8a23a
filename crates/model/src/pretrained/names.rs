//! From the tensors of files to those of the network: names without the prefixes that some checkpoints
//! have, and without the tensors that are no weights of the network.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::weights::read_tensors;
use crate::{Architecture, ModelConfig, ModelError, NamedTensor};

/// All tensors of the network that the files hold, and the names of those left out.
pub(super) fn known_tensors(
    config: &ModelConfig,
    files: &[PathBuf],
) -> Result<(Vec<NamedTensor>, Vec<String>), ModelError> {
    let mut found = BTreeMap::new();
    let mut left_out = Vec::new();
    for path in files {
        let wanted = |name: &str| network_name(config.architecture, name).is_some();
        let (tensors, others) = read_tensors(path, wanted)?;
        left_out.extend(others);
        for mut tensor in tensors {
            if let Some(name) = network_name(config.architecture, &tensor.name) {
                tensor.name = name;
            }
            let name = tensor.name.clone();
            if found.insert(name.clone(), tensor).is_some() {
                return Err(ModelError::File {
                    path: path.clone(),
                    reason: format!("a second tensor `{name}`"),
                });
            }
        }
    }
    if let Some((head, embedding)) = tied(config)
        && let Some(copy) = found.remove(head)
    {
        if found.get(embedding).is_none_or(|embedding| embedding.data != copy.data) {
            return Err(ModelError::UnknownTensor { name: head.to_owned() });
        }
        left_out.push(head.to_owned());
    }
    Ok((found.into_values().collect(), left_out))
}

/// The output matrix and the embedding it must be a copy of, where there is only one matrix.
fn tied(config: &ModelConfig) -> Option<(&'static str, &'static str)> {
    match config.architecture {
        Architecture::Llama if config.tied_head => {
            Some(("lm_head.weight", "model.embed_tokens.weight"))
        }
        Architecture::Gpt2 => Some(("lm_head.weight", "wte.weight")),
        _ => None,
    }
}

/// What the network calls a tensor, or `None` for a constant or a head of another task.
fn network_name(architecture: Architecture, name: &str) -> Option<String> {
    match architecture {
        Architecture::Decoder | Architecture::Golf => Some(name.to_owned()),
        Architecture::Llama => (!name.ends_with(".rotary_emb.inv_freq")).then(|| name.to_owned()),
        Architecture::Gpt2 => {
            let name = name.strip_prefix("transformer.").unwrap_or(name);
            let mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
            (!mask).then(|| name.to_owned())
        }
        Architecture::Bert => {
            let name = name.strip_prefix("bert.").unwrap_or(name);
            let part = name.split('.').next();
            let other = matches!(part, Some("pooler" | "cls" | "classifier"))
                || name == "embeddings.position_ids";
            // The names that the gains and biases of norms had in the first checkpoints.
            let name = match name.rsplit_once(".LayerNorm.") {
                Some((layer, "gamma")) => format!("{layer}.LayerNorm.weight"),
                Some((layer, "beta")) => format!("{layer}.LayerNorm.bias"),
                _ => name.to_owned(),
            };
            (!other).then_some(name)
        }
    }
}
