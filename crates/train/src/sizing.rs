//! When the controller of a budget looks at real sizes, and how they are found.

use std::collections::BTreeMap;

use backslash_codec::{Artifact, Effort, SizeSplit, encoded_size_with};
use backslash_model::NamedWeights;
use backslash_quant::{Plan, QuantError, Weights};

use crate::TrainError;

/// Share of the steps with a rate between two looks at the fast coder's file.
const FAST_EVERY: f64 = 0.05;
/// Shares of these steps at which the slow coder runs too: from the first look on, since where rows have scales of their own
/// it saves a fifth.
const SMALLEST_AT: [f64; 3] = [FAST_EVERY, 0.4, 0.8];

/// Whether a size is looked at when so many of the steps with a rate have been taken, and with how much effort.
pub(crate) fn effort_at(taken: u64, steps: u64) -> Option<Effort> {
    let at = |share: f64| ((share * steps as f64).round() as u64).max(1);
    if SMALLEST_AT.iter().any(|share| at(*share) == taken) {
        return Some(Effort::Smallest);
    }
    taken.is_multiple_of(at(FAST_EVERY)).then_some(Effort::Fast)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_look_is_at_both_coders_however_few_steps_there_are() {
        for steps in [1, 7, 405, 10_000] {
            let looks: Vec<Effort> =
                (1..=steps).filter_map(|step| effort_at(step, steps)).collect();
            assert_eq!(looks[0], Effort::Smallest, "{steps}");
            assert!(looks.len() as u64 >= steps.min(20), "{steps}");
            let smallest = looks.iter().filter(|effort| **effort == Effort::Smallest).count();
            assert!(smallest <= 3, "{steps}");
        }
    }
}
