//! From the tensors of files to those of the network: names without the prefixes that some checkpoints
//! have, and without the tensors that are no weights of the network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::weights::read_tensors;
use crate::{Architecture, ModelConfig, ModelError, NamedTensor};

/// What the network calls each tensor of the files that it has, and the names of those left out.
pub(super) fn known_tensors(
    architecture: Architecture,
    files: &[PathBuf],
) -> Result<(BTreeMap<String, NamedTensor>, Vec<String>), ModelError> {
    let mut found = BTreeMap::new();
    let mut left_out = Vec::new();
    for path in files {
        let wanted = |name: &str| network_name(architecture, name).is_some();
        let (tensors, others) = read_tensors(path, wanted)?;
        left_out.extend(others);
        add(architecture, tensors, path, &mut found)?;
    }
    Ok((found, left_out))
}

/// [`known_tensors`] of tensors that are in memory; `path` is where they are from.
pub(super) fn known_of(
    architecture: Architecture,
    tensors: Vec<NamedTensor>,
    path: &Path,
) -> Result<(BTreeMap<String, NamedTensor>, Vec<String>), ModelError> {
    let is_known = |tensor: &NamedTensor| network_name(architecture, &tensor.name).is_some();
    let (known, others): (Vec<_>, Vec<_>) = tensors.into_iter().partition(is_known);
    let mut found = BTreeMap::new();
    add(architecture, known, path, &mut found)?;
    Ok((found, others.into_iter().map(|tensor| tensor.name).collect()))
}

/// Adds tensors of a file under the names that the network has for them.
fn add(
    architecture: Architecture,
    tensors: Vec<NamedTensor>,
    path: &Path,
    found: &mut BTreeMap<String, NamedTensor>,
) -> Result<(), ModelError> {
    for mut tensor in tensors {
        if let Some(name) = network_name(architecture, &tensor.name) {
            tensor.name = name;
        }
        let name = tensor.name.clone();
        if found.insert(name.clone(), tensor).is_some() {
            return Err(ModelError::File {
                path: path.to_owned(),
                reason: format!("a second tensor `{name}`"),
            });
        }
    }
    Ok(())
}

/// Whether there are tensors of BERT's head for masked tokens.
pub(super) fn has_masked_head(found: &BTreeMap<String, NamedTensor>) -> bool {
    found.keys().any(|name| name.starts_with("cls.predictions."))
}

/// How the names of a pooler's tensors begin.
pub(super) const POOLER: &str = "pooler.";

/// How many classes BERT's classifier of whole texts has; `None` where there is none. One that reads single tokens has no
/// pooler, and one of a single output is a score.
pub(super) fn classes(found: &BTreeMap<String, NamedTensor>) -> Option<usize> {
    found.get("pooler.dense.weight")?;
    found.get("classifier.weight")?.shape.first().copied().filter(|classes| *classes >= 2)
}

/// Takes out the tensors of a pooler and of a classifier.
pub(super) fn take_class_head(found: &mut BTreeMap<String, NamedTensor>) -> Vec<NamedTensor> {
    let is_head = |name: &String| name.starts_with(POOLER) || name.starts_with("classifier.");
    let names: Vec<String> = found.keys().filter(|name| is_head(name)).cloned().collect();
    names.iter().filter_map(|name| found.remove(name)).collect()
}

/// Takes out the tensors that must be copies of others, and names them. Where only the copy was stored, it
/// takes the other's place.
pub(super) fn without_copies(
    config: &ModelConfig,
    found: &mut BTreeMap<String, NamedTensor>,
) -> Result<Vec<String>, ModelError> {
    let mut left_out = Vec::new();
    for (copy, original) in tied(config) {
        let Some(tensor) = found.remove(*copy) else { continue };
        match found.get(*original) {
            Some(other) if other.data != tensor.data => {
                return Err(ModelError::UnknownTensor { name: (*copy).to_owned() });
            }
            Some(_) => left_out.push((*copy).to_owned()),
            None => {
                let name = (*original).to_owned();
                found.insert(name.clone(), NamedTensor { name, ..tensor });
            }
        }
    }
    Ok(left_out)
}

/// Names that checkpoints may have for a tensor of another name.
fn tied(config: &ModelConfig) -> &'static [(&'static str, &'static str)] {
    match config.architecture {
        Architecture::Llama if config.tied_head => {
            &[("lm_head.weight", "model.embed_tokens.weight")]
        }
        Architecture::Gpt2 => &[("lm_head.weight", "wte.weight")],
        Architecture::Bert => &[
            ("cls.predictions.decoder.weight", "embeddings.word_embeddings.weight"),
            ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ],
        _ => &[],
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
            let other =
                name.starts_with("cls.seq_relationship.") || name == "embeddings.position_ids";
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
