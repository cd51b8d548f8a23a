//! One step of training.

use std::collections::BTreeMap;

use backslash_data::Sampler;
use backslash_model::{Gradients, NamedWeights, Transformer, device, initial_weights};
use rayon::prelude::*;

use crate::adamw::CHUNK;
use crate::optimizer::Optimizer;
use crate::pressure::Pressure;
use crate::{RunConfig, TrainError, schedule};

/// Everything that changes while a model is trained.
pub struct Trainer {
    pub(crate) config: RunConfig,
    pub(crate) weights: NamedWeights,
    pub(crate) optimizer: Optimizer,
    pub(crate) pressure: Pressure,
    pub(crate) sampler: Sampler,
    pub(crate) step: u64,
}

/// What one step was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The number of the step, from 1 on.
    pub step: u64,
    /// Mean loss of the batch in nats per token, of the weights as the quantiser perturbs them.
    pub loss: f64,
    /// Learning rate of the groups of parameters that have none of their own.
    pub learning_rate: f64,
    /// Global norm of the gradient of the loss, before clipping.
    pub gradient_norm: f64,
    /// Code length of the coded weights under the model, in bits per weight: a proxy of the file's size.
    pub bits_per_weight: Option<f64>,
}

impl Trainer {
    /// A trainer at step 0 for `tokens` training tokens.
    ///
    /// # Errors
    /// If the configuration is not valid or there are not enough tokens for one sequence.
    pub fn new(config: &RunConfig, tokens: usize) -> Result<Self, TrainError> {
        config.validate()?;
        let weights = initial_weights(&config.model, config.train.seed)?;
        let train = &config.train;
        Ok(Self {
            optimizer: Optimizer::new(config, &weights),
            pressure: Pressure::new(&config.rate, train, &weights),
            sampler: Sampler::new(tokens, config.model.context, train.batch_size, train.seed)?,
            step: 0,
            weights,
            config: config.clone(),
        })
    }

    /// Steps taken so far.
    pub fn steps_taken(&self) -> u64 {
        self.step
    }

    /// Whether all steps have been taken.
    pub fn finished(&self) -> bool {
        self.step >= self.config.train.steps
    }

    /// The weights as they are, in full precision.
    pub fn weights(&self) -> &NamedWeights {
        &self.weights
    }

    /// The learned step of every coded tensor; `None` where the rate is not in bits.
    pub fn learned_steps(&self) -> Option<BTreeMap<String, f32>> {
        match &self.pressure {
            Pressure::Bits(bits) => Some(bits.steps()),
            _ => None,
        }
    }

    /// Takes one step on the next batch of `tokens`.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if the loss or the gradient is not a number; the weights are then as they
    /// were before the step.
    pub fn step(&mut self, tokens: &[u16]) -> Result<StepReport, TrainError> {
        let batch = self.sampler.next(tokens);
        let perturbed = self.pressure.perturbed(&self.weights, self.step);
        let seen = perturbed.as_ref().unwrap_or(&self.weights);
        let network = Transformer::from_weights(&self.config.model, seen, &device().autodiff())?;
        let loss = network.loss(&batch.inputs, &batch.targets, batch.sequence_length);
        let mut gradients = network.gradients(&loss, seen);
        let loss = f64::from(loss.into_scalar::<f32>());

        let gradient_norm = norm(&gradients);
        for (what, value) in [("loss", loss), ("gradient", gradient_norm)] {
            if !value.is_finite() {
                return Err(TrainError::Diverged { step: self.step, what, value });
            }
        }
        let clip = (self.config.train.clip_norm / gradient_norm.max(1e-30)).min(1.0);
        scale(&mut gradients, clip as f32);
        let bits_per_weight = self.pressure.add_gradient(&self.weights, seen, &mut gradients);

        let multiplier = schedule::multiplier(&self.config.train, self.step);
        let learning_rate = multiplier * self.config.train.learning_rate;
        self.optimizer.update(self.step, multiplier, &mut self.weights, &gradients);
        self.pressure.after_step(&mut self.weights, self.step, multiplier);
        self.step += 1;
        Ok(StepReport { step: self.step, loss, learning_rate, gradient_norm, bits_per_weight })
    }
}

/// Euclidean norm over all tensors, the same for any number of threads.
fn norm(gradients: &Gradients) -> f64 {
    let square = |chunk: &[f32]| chunk.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
    let parts: Vec<f64> = gradients
        .values
        .iter()
        .flat_map(|g| g.par_chunks(CHUNK).map(square).collect::<Vec<_>>())
        .collect();
    parts.into_iter().sum::<f64>().sqrt()
}

fn scale(gradients: &mut Gradients, factor: f32) {
    if factor < 1.0 {
        let tensors = gradients.values.iter_mut();
        tensors.for_each(|tensor| tensor.par_iter_mut().for_each(|g| *g *= factor));
    }
}
