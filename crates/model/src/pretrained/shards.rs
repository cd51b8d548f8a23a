//! Which files hold the tensors of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::ModelError;

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The index of a model in several files.
#[derive(Deserialize)]
struct Index {
    /// Tensor to file name.
    weight_map: BTreeMap<String, String>,
}

/// `model.safetensors`, or all files that the index names.
pub(super) fn of_folder(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let whole = folder.join(WHOLE);
    if whole.exists() {
        return Ok(vec![whole]);
    }
    let index = folder.join(INDEX);
    let wrong = |reason: String| ModelError::File { path: index.clone(), reason };
    let text = std::fs::read_to_string(&index).map_err(|error| ModelError::File {
        path: folder.to_owned(),
        reason: format!("has neither {WHOLE} nor a readable {INDEX} ({error})"),
    })?;
    let Index { weight_map } = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("not an index of tensors ({error})")))?;
    let files: BTreeSet<&String> = weight_map.values().collect();
    files
        .into_iter()
        .map(|name| {
            // An index must not lead out of its folder.
            let mut parts = Path::new(name).components();
            match (parts.next(), parts.next()) {
                (Some(Component::Normal(file)), None) => Ok(folder.join(file)),
                _ => Err(wrong(format!("{name:?} is not the name of a file in this folder"))),
            }
        })
        .collect()
}
