//! What moves the weights.
//!
//! [`Optimizer`] gives each tensor a group by its role (embedding, matrix or vector), with a learning rate and
//! a weight decay of its own. Embeddings and vectors move by [`adamw`], matrices by it or by [`muon`] or one of
//! its relatives, which rest on [`orthogonalize`] or on the leading directions of [`low_rank`]. [`decay`] is
//! what happens to weights besides the step of the loss.

pub(crate) mod adamw;
mod decay;
mod groups;
mod low_rank;
mod matrix;
mod muon;
mod orthogonalize;
mod parameter;
#[cfg(test)]
mod tests;

use backslash_model::{Gradients, NamedTensor, NamedWeights};
use rayon::prelude::*;

use crate::config::OptimizerConfig;
use crate::sensitivity::SquaredGradients;
use crate::{RateConfig, RunConfig, TrainConfig};
use groups::Role;
use parameter::{BASIS, Parameter, Time};

/// The optimizer of a run, with its state.
#[derive(Clone, Debug)]
pub(crate) struct Optimizer {
    config: OptimizerConfig,
    train: TrainConfig,
    rate: RateConfig,
    parameters: Vec<Parameter>,
}

impl Optimizer {
    /// The optimizer at the first step from these weights.
    pub(crate) fn new(config: &RunConfig, weights: &NamedWeights) -> Self {
        let architecture = config.model.architecture;
        let parameter = |tensor: &NamedTensor| {
            let role = Role::of(&tensor.name, &tensor.shape, architecture);
            Parameter::new(role, &config.optimizer, &config.train, tensor)
        };
        Self {
            config: config.optimizer.clone(),
            train: config.train.clone(),
            rate: config.rate.clone(),
            parameters: weights.tensors().iter().map(parameter).collect(),
        }
    }

    /// Whether the rows of a tensor, by its number, belong to tokens or positions.
    pub(crate) fn is_embedding(&self, at: usize) -> bool {
        self.parameters[at].is_embedding
    }

    /// From `step` on there is a rate in bits.
    pub(crate) fn begin_pricing(&mut self, step: u64, weights: &NamedWeights) {
        for (parameter, tensor) in self.parameters.iter_mut().zip(weights.tensors()) {
            parameter.begin_pricing(&self.config, &self.rate, step, tensor.data.len());
        }
    }

    /// The squared gradients of the last steps, which had so many tokens.
    pub(crate) fn squared_gradients(
        &self,
        weights: &NamedWeights,
        tokens: f64,
    ) -> SquaredGradients {
        let memories = self.parameters.iter().map(|parameter| parameter.state.memory());
        SquaredGradients::remembered(weights, memories, tokens)
    }

    /// Moves all weights against their gradients, at `multiplier` times the learning rates; `step` counts
    /// from 0.
    pub(crate) fn update(
        &mut self,
        step: u64,
        multiplier: f64,
        weights: &mut NamedWeights,
        gradients: &Gradients,
    ) {
        let Self { config, train, parameters, .. } = self;
        parameters
            .par_iter_mut()
            .zip(weights.tensors_mut())
            .zip(&gradients.values)
            .enumerate()
            .for_each(|(at, ((parameter, tensor), gradient))| {
                let seed = [u128::from(train.seed) << 64 | u128::from(step), at as u128];
                let time = Time { step, multiplier, seed };
                parameter.update(config, train, time, &mut tensor.data, gradient);
            });
    }

    /// Everything that changes during a run, by names that are all different.
    pub(crate) fn state(&self) -> Vec<(String, &[f32])> {
        let parts = self.parameters.iter().flat_map(|parameter| {
            parameter.state.parts().into_iter().map(|part| (&parameter.name, part))
        });
        parts.map(|(name, (part, values))| (format!("{part}/{name}"), &values[..])).collect()
    }

    /// Takes over a [`Optimizer::state`], whose values `read` gives by their names.
    ///
    /// # Errors
    /// The first name that is missing, or whose values are not of the right number.
    pub(crate) fn restore(
        &mut self,
        mut read: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<(), String> {
        for Parameter { name, layout, state, .. } in &mut self.parameters {
            for (part, values) in state.parts_mut() {
                let name = format!("{part}/{name}");
                let fits = |found: &Vec<f32>| match layout {
                    Some(layout) if part == BASIS => found.len().is_multiple_of(layout.outputs),
                    _ => found.len() == values.len(),
                };
                *values = read(&name).filter(fits).ok_or(name)?;
            }
        }
        Ok(())
    }
}
