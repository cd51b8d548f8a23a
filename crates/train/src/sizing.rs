//! When the controller of a budget looks at real sizes, and how they are found.

use std::collections::BTreeMap;

use backslash_codec::{Artifact, SizeSplit, encoded_size, estimated_size};
use backslash_model::NamedWeights;
use backslash_quant::{Plan, QuantError, Weights};

use crate::TrainError;

/// Shares of the steps with a rate at which a size is looked at: early, since what code lengths are worth depends on the
/// model, and not often, since the coder takes the time of a step or two. Only the coder of the file will do: a fast one takes
/// a few percent more for codes, stores tables, and leaves the tokenizer as long as it is.
const LOOKS_AT: [f64; 5] = [0.05, 0.3, 0.6, 0.9, 0.97];

/// Whether a size is looked at when so many of the steps with a rate have been taken.
pub(crate) fn is_looked_at(taken: u64, steps: u64) -> bool {
    LOOKS_AT.iter().any(|share| ((share * steps as f64).round() as u64).max(1) == taken)
}

/// The content of the file of weights by a plan, without metadata.
pub(crate) fn artifact(weights: &NamedWeights, plan: &Plan) -> Result<Artifact, TrainError> {
    let views: Vec<Weights<'_>> = weights
        .tensors()
        .iter()
        .map(|tensor| Weights { name: &tensor.name, shape: &tensor.shape, data: &tensor.data })
        .collect();
    Ok(plan.artifact(&views, &BTreeMap::new())?)
}

/// The size of a file, by purpose, within a fraction of a percent and in a fifth of the time that making it takes.
pub(crate) fn estimate(artifact: &Artifact) -> Result<SizeSplit, TrainError> {
    Ok(estimated_size(artifact).map_err(QuantError::from)?)
}

/// Bytes of the metadata of a file, which stay the same while its weights are trained.
pub(crate) fn metadata_bytes(metadata: BTreeMap<String, Vec<u8>>) -> Result<u64, TrainError> {
    let size = |metadata| {
        let alone = Artifact { metadata, ..Artifact::default() };
        Ok::<_, TrainError>(encoded_size(&alone).map_err(QuantError::from)?.total())
    };
    Ok(size(metadata)? - size(BTreeMap::new())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_looked_at_early_and_seldom() {
        for (steps, first) in [(1, 1), (7, 1), (405, 20), (10_000, 500)] {
            let looks: Vec<u64> = (1..=steps).filter(|taken| is_looked_at(*taken, steps)).collect();
            assert_eq!(looks[0], first, "{steps}");
            assert!(looks.len() <= 5, "{steps}");
        }
    }
}
