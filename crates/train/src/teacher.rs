//! Distillation from the network that a run was before its rate, or from the average of those since.

use backslash_model::{NamedWeights, Transformer, device};
use rayon::prelude::*;

use crate::adamw::CHUNK;
use crate::{RunConfig, TrainError};

/// A network whose predictions the loss follows, unrounded.
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

    /// Moves towards the weights after a step, θ̄ ← d·θ̄ + (1−d)·θ with d the `rate.teacher_decay`: an average over the last
    /// 1/(1−d) steps (Tarvainen and Valpola, arXiv 1703.01780). Nothing changes at d = 1.
    ///
    /// # Errors
    /// If the weights are not those of the network.
    pub(crate) fn follow(
        self,
        config: &RunConfig,
        weights: &NamedWeights,
    ) -> Result<Self, TrainError> {
        let share = 1.0 - config.rate.teacher_decay as f32;
        if share == 0.0 {
            return Ok(self);
        }
        let mut average = self.weights;
        for (average, now) in average.tensors_mut().iter_mut().zip(weights.tensors()) {
            let chunks = average.data.par_chunks_mut(CHUNK).zip(now.data.par_chunks(CHUNK));
            chunks.for_each(|(average, now)| {
                average.iter_mut().zip(now).for_each(|(a, w)| *a += share * (w - *a));
            });
        }
        Self::new(config, average)
    }
}
