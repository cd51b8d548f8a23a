//! Distillation from the network that a run was before its rate.

use backslash_model::{NamedWeights, Transformer, device};

use crate::{RunConfig, TrainError};

/// The network at the start of the rate, which does not change any more.
pub(crate) struct Teacher {
    pub(crate) weights: NamedWeights,
    pub(crate) network: Transformer,
    /// Share of the loss that follows it.
    pub(crate) share: f32,
}

impl Teacher {
    /// # Errors
    /// If the weights are not those of the network.
    pub(crate) fn new(config: &RunConfig, weights: NamedWeights) -> Result<Self, TrainError> {
        let network = Transformer::from_weights(&config.model, &weights, &device())?
            .in_precision(config.train.precision);
        Ok(Self { weights, network, share: config.rate.distillation as f32 })
    }

    /// # Errors
    /// If a run would take its teacher from weights that have learned nothing.
    pub(crate) fn check(config: &RunConfig) -> Result<(), TrainError> {
        if !Self::is_needed(config, 0) || !config.train.from.is_empty() {
            return Ok(());
        }
        Err(TrainError::ConfigValue {
            key: "rate.distillation",
            value: config.rate.distillation.to_string(),
            expected: "needs a model that has learned: one to go on from (--from, train.from), or a rate.start above 0",
        })
    }

    /// Whether a run has a teacher at a step.
    pub(crate) fn is_needed(config: &RunConfig, step: u64) -> bool {
        let first = config.first_step_in_bits();
        config.rate.distillation > 0.0 && first.is_some_and(|first| step >= first)
    }
}
