//! When the controller of a budget looks at real sizes, and how they are found.

use std::collections::BTreeMap;

use backslash_codec::{Artifact, Effort, SizeSplit, encoded_size_with};
use backslash_model::NamedWeights;
use backslash_quant::{Plan, QuantError, Weights};

use crate::TrainError;

/// Share of the steps between two looks at the fast coder's file.
const FAST_EVERY: f64 = 0.05;
/// Shares of the steps at which the slow coder runs too.
const SMALLEST_AT: [f64; 2] = [0.4, 0.8];

/// Whether a step is one after which a size is looked at, and with how much effort.
pub(crate) fn effort_at(step: u64, steps: u64) -> Option<Effort> {
    let at = |share: f64| (share * steps as f64).round() as u64;
    if SMALLEST_AT.iter().any(|share| at(*share) == step) {
        return Some(Effort::Smallest);
    }
    step.is_multiple_of(at(FAST_EVERY).max(1)).then_some(Effort::Fast)
}

/// The content of the file of weights by a plan.
pub(crate) fn artifact(
    weights: &NamedWeights,
    plan: &Plan,
    metadata: &BTreeMap<String, Vec<u8>>,
) -> Result<Artifact, TrainError> {
    let views: Vec<Weights<'_>> = weights
        .tensors()
        .iter()
        .map(|tensor| Weights { name: &tensor.name, shape: &tensor.shape, data: &tensor.data })
        .collect();
    Ok(plan.artifact(&views, metadata)?)
}

/// The size of a file, by purpose.
pub(crate) fn size(artifact: &Artifact, effort: Effort) -> Result<SizeSplit, TrainError> {
    Ok(encoded_size_with(artifact, effort).map_err(QuantError::from)?)
}
