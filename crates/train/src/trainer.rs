//! One step of training.

use std::collections::BTreeMap;

use backslash_model::{Gradients, NamedWeights, Transformer, device};
use backslash_quant::Plan;
use rayon::prelude::*;

use crate::adamw::CHUNK;
use crate::batches::{Batches, TrainingSet};
use crate::budget::{Budget, Forecast};
use crate::optimizer::Optimizer;
use crate::pressure::Pressure;
use crate::sensitivity::SquaredGradients;
use crate::teacher::Teacher;
use crate::{Part, Profile, RunConfig, TrainError, schedule, sizing};

/// Everything that changes while a model is trained.
pub struct Trainer {
    pub(crate) config: RunConfig,
    pub(crate) weights: NamedWeights,
    pub(crate) optimizer: Optimizer,
    pub(crate) pressure: Pressure,
    pub(crate) batches: Batches,
    pub(crate) step: u64,
    /// Where the time goes.
    pub profile: Profile,
    pub(crate) budget: Option<Budget>,
    /// What the loss follows beside the data, from the start of the rate on, where it does.
    pub(crate) teacher: Option<Teacher>,
    /// Bytes of what a file with a budget will hold beside the tensors.
    metadata_bytes: u64,
    /// Room for the weights that the loss is computed with.
    perturbed: Option<NamedWeights>,
}

/// What a run begins with.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// The weights before the first step.
    pub weights: NamedWeights,
    /// What the file will hold beside the tensors.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// What one step was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The number of the step, from 1 on.
    pub step: u64,
    /// Mean loss of the batch in nats per token, of a classifier per example, of the weights as the quantiser perturbs them.
    pub loss: f64,
    /// Tokens of the batch, without padding.
    pub tokens: usize,
    /// Learning rate of the groups of parameters that have none of their own.
    pub learning_rate: f64,
    /// Global norm of the gradient of the loss, before clipping.
    pub gradient_norm: f64,
    /// Code length of the coded weights under the model, in bits per weight: a proxy of the file's size.
    pub bits_per_weight: Option<f64>,
    /// The price of a bit, in nats of loss per bit per weight.
    pub lambda: Option<f64>,
    /// What the file is expected to be at the end, where it has a budget.
    pub forecast: Option<Forecast>,
}

impl Trainer {
    /// A trainer at step 0.
    ///
    /// # Errors
    /// If the configuration is not valid, the network does not learn from such data or there is not enough of it, the
    /// weights are not those of the network, or no file of the model is as small as its budget.
    pub fn new(
        config: &RunConfig,
        data: TrainingSet<'_>,
        beginning: Beginning,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        Teacher::check(config)?;
        let Beginning { weights, metadata } = beginning;
        Transformer::from_weights(&config.model, &weights, &device())?;
        let train = &config.train;
        let mut pressure = Pressure::new(config, &weights);
        let mut metadata_bytes = 0;
        let budget = match (&mut pressure, config.rate.budget) {
            (Pressure::Bits(bits), bytes) if bytes > 0 => {
                metadata_bytes = sizing::metadata_bytes(metadata)?;
                let fixed = bytes_without_codes(&weights, &bits.plan(), metadata_bytes, bytes)?;
                let budget = Budget::new(bytes, fixed, bits.coded(), &config.rate, train);
                bits.scale_initial_steps(budget.initial_step_factor(), &weights);
                bits.set_lambda(budget.lambda());
                Some(budget)
            }
            _ => None,
        };
        Ok(Self {
            optimizer: Optimizer::new(config, &weights),
            pressure,
            budget,
            teacher: None,
            metadata_bytes,
            perturbed: None,
            batches: Batches::new(config, data)?,
            step: 0,
            profile: Profile::default(),
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

    /// The learned step of every coded tensor, and what its codes are added to; `None` where the rate is not in bits, or
    /// has not begun.
    pub fn learned_plan(&self) -> Option<Plan> {
        match &self.pressure {
            Pressure::Bits(bits) if bits.has_begun(self.step) => Some(bits.plan()),
            _ => None,
        }
    }

    /// Takes one step on the next batch of `data`.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if the loss or the gradient is not a number; the weights are then as they
    /// were before the step.
    pub fn step(&mut self, data: TrainingSet<'_>) -> Result<StepReport, TrainError> {
        let batch = self.batches.next(data);
        self.profile.ends(Part::Data);
        self.pressure.prepare(&self.weights, self.step);
        self.scale_lines(data, batch.tokens())?;
        if self.config.first_step_in_bits() == Some(self.step) {
            self.optimizer.begin_pricing(self.step, &self.weights);
        }
        if self.teacher.is_none() && Teacher::is_needed(&self.config, self.step) {
            self.teacher = Some(Teacher::new(&self.config, self.weights.clone())?);
        }
        let seen = self.pressure.seen(&self.weights, self.step, &mut self.perturbed);
        self.profile.ends(Part::Rate);
        let network = Transformer::from_weights(&self.config.model, seen, &device().autodiff())?
            .in_precision(self.config.train.precision);
        let loss = match &self.teacher {
            Some(teacher) => batch.distillation_loss(&network, teacher),
            None => batch.loss(&network),
        };
        self.profile.ends(Part::Forward);
        let mut gradients = network.gradients(&loss, seen);
        let loss = f64::from(loss.into_scalar::<f32>());
        self.profile.ends(Part::Backward);

        let gradient_norm = norm(&gradients);
        for (what, value) in [("loss", loss), ("gradient", gradient_norm)] {
            if !value.is_finite() {
                return Err(TrainError::Diverged { step: self.step, what, value });
            }
        }
        let clip = (self.config.train.clip_norm / gradient_norm.max(1e-30)).min(1.0);
        scale(&mut gradients, clip as f32);
        self.profile.ends(Part::Optimizer);
        let bits_per_weight =
            self.pressure.add_gradient(&self.weights, seen, self.step, &mut gradients);
        self.profile.ends(Part::Rate);

        let multiplier = schedule::multiplier(&self.config.train, self.step);
        let learning_rate = multiplier * self.config.train.learning_rate;
        self.optimizer.update(self.step, multiplier, &mut self.weights, &gradients);
        self.profile.ends(Part::Optimizer);
        let cycle = schedule::cycle(&self.config.train, self.step);
        self.pressure.after_step(&mut self.weights, self.step, cycle);
        if let Some(teacher) = self.teacher.take() {
            self.teacher = Some(teacher.follow(&self.config, &self.weights)?);
        }
        self.step += 1;
        if let Some(bits_per_weight) = bits_per_weight {
            self.steer(bits_per_weight, cycle)?;
        }
        self.profile.ends(Part::Rate);
        Ok(StepReport {
            step: self.step,
            loss,
            tokens: batch.tokens(),
            learning_rate,
            gradient_norm,
            bits_per_weight,
            lambda: bits_per_weight.map(|_| self.lambda()),
            forecast: self.budget.as_ref().map(Budget::forecast),
        })
    }

    /// Where rows and columns have steps of their own these are set, at the first step with a rate, by the gradients that
    /// the optimizer remembers, or by those of the next batches where these are too few. A batch has about `tokens` tokens.
    fn scale_lines(&mut self, data: TrainingSet<'_>, tokens: usize) -> Result<(), TrainError> {
        let remembered = (1.0 / (1.0 - self.config.train.beta2)).min(self.step as f64);
        let squares = match &self.pressure {
            Pressure::Bits(bits) if bits.scales_lines_at(self.step) => {
                match remembered >= SquaredGradients::LEAST_BATCHES as f64 {
                    true => {
                        self.optimizer.squared_gradients(&self.weights, remembered * tokens as f64)
                    }
                    false => self.squared_gradients(data)?,
                }
            }
            _ => return Ok(()),
        };
        if let Pressure::Bits(bits) = &mut self.pressure {
            let rows_are_tokens = |at| self.optimizer.is_embedding(at);
            bits.scale_lines(&squares, rows_are_tokens, &self.weights);
        }
        Ok(())
    }

    /// Squared gradients of the next batches, which are not used up.
    fn squared_gradients(&self, data: TrainingSet<'_>) -> Result<SquaredGradients, TrainError> {
        let (config, batches) = (&self.config, self.batches.clone());
        let network =
            Transformer::from_weights(&config.model, &self.weights, &device().autodiff())?;
        let steps = config.train.steps - config.first_priced_step();
        Ok(SquaredGradients::gather(&network, &self.weights, batches, data, steps))
    }

    /// Bits per coded weight that the codec spends on the weights at their learned steps, payload and tables, where it looks
    /// for its models on a part of the rows: at most a fraction of a percent more than in the file. `None` where there are
    /// no steps.
    ///
    /// # Errors
    /// If a weight is not finite.
    pub fn coded_bits_per_weight(&self) -> Result<Option<f64>, TrainError> {
        let (Pressure::Bits(bits), Some(plan)) = (&self.pressure, self.learned_plan()) else {
            return Ok(None);
        };
        let artifact = sizing::artifact(&self.weights, &plan)?;
        let split = sizing::estimate(&artifact)?;
        Ok(Some(8.0 * (split.payload + split.tables) as f64 / bits.coded()))
    }

    /// Moves λ towards the budget, if there is one.
    fn steer(&mut self, bits_per_weight: f64, multiplier: f64) -> Result<(), TrainError> {
        if !bits_per_weight.is_finite() {
            let what = "code length of the weights";
            return Err(TrainError::Diverged { step: self.step, what, value: bits_per_weight });
        }
        let (Some(budget), Pressure::Bits(bits)) = (&mut self.budget, &mut self.pressure) else {
            return Ok(());
        };
        if bits.rounding_begins(self.step - 1) {
            budget.break_trend();
        }
        let first = self.config.first_priced_step();
        if sizing::is_looked_at(self.step - first, self.config.train.steps - first) {
            let artifact = sizing::artifact(&self.weights, &bits.plan())?;
            let mut size = sizing::estimate(&artifact)?;
            size.uncoded += self.metadata_bytes;
            budget.measured(&size, bits_per_weight * bits.coded());
        }
        budget.step(bits_per_weight, multiplier);
        bits.set_lambda(budget.lambda());
        Ok(())
    }

    /// The price of a bit, in nats of loss per bit per weight.
    fn lambda(&self) -> f64 {
        self.budget.as_ref().map_or(self.config.rate.lambda, Budget::lambda)
    }
}

/// Bytes of a file of these weights that are no codes.
///
/// # Errors
/// If a file whose codes are all zero has more bytes than the budget.
fn bytes_without_codes(
    weights: &NamedWeights,
    plan: &Plan,
    metadata_bytes: u64,
    budget: u64,
) -> Result<u64, TrainError> {
    let tensors = plan.steps.keys().filter_map(|name| weights.get(name));
    let coded: usize = tensors.map(|tensor| tensor.data.len()).sum();
    let wide = plan.scaled(COARSE);
    let empty = sizing::estimate(&sizing::artifact(weights, &wide)?)?;
    let smallest = empty.total() + metadata_bytes;
    if budget <= smallest {
        // A byte for every weight is more than any run has needed.
        let largest = smallest + coded as u64;
        return Err(TrainError::BudgetUnreachable { budget, smallest, largest });
    }
    Ok(smallest - empty.payload)
}

/// Factor on steps that makes every code zero.
const COARSE: f32 = 1e4;

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
