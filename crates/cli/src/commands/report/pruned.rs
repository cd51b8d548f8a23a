//! What `prune-curve --json` has printed.

use std::path::Path;

use anyhow::{Context, Result, bail};
use backslash_eval::prune::{PruneCurve, PruneCurves};
use backslash_eval::report::PrunedModels;
use serde::Deserialize;

use crate::commands::prune_curve;

/// The printed document, as far as a page shows it.
#[derive(Deserialize)]
struct Printed {
    embeddings: bool,
    scope: String,
    /// Of each kind, as many models as follow of it in `curves`.
    kinds: Vec<Kind>,
    curves: Vec<PruneCurve>,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
    models: Vec<String>,
}

/// Reads the curves of a file.
///
/// # Errors
/// If the file cannot be read, is another document, or mixes classifiers and others.
pub fn read(path: &Path) -> Result<PrunedModels> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let printed: Printed = serde_json::from_str(&text)
        .with_context(|| format!("{} is not what prune-curve --json prints", path.display()))?;
    let named: usize = printed.kinds.iter().map(|kind| kind.models.len()).sum();
    if named != printed.curves.len() {
        bail!("{}: its kinds and its curves do not fit together", path.display());
    }
    let mut curves = printed.curves.into_iter();
    let kinds: Vec<PruneCurves> = printed
        .kinds
        .into_iter()
        .map(|Kind { kind, models }| PruneCurves {
            name: kind,
            curves: curves.by_ref().take(models.len()).collect(),
        })
        .collect();
    let all = || kinds.iter().flat_map(|kind| &kind.curves);
    if all().any(PruneCurve::is_of_classes) && !all().all(PruneCurve::is_of_classes) {
        bail!("{}: classifiers and decoders have no figure in common", path.display());
    }
    let what = prune_curve::pruned(printed.embeddings);
    let scope = match printed.scope.as_str() {
        "global" => "the smallest weights of all of them together",
        _ => "the smallest weights of each",
    };
    Ok(PrunedModels { note: format!("{what} Zero became {scope}. {}", prune_curve::NOTE), kinds })
}
