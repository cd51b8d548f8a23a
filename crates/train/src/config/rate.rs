//! The price of bits: which rate, its quantiser, and what moves the weights once there is one.

use serde::{Deserialize, Serialize};

use super::rules::{self, Rule, below_one, not_negative, positive, share};
use super::{OptimizerMethod, TrainConfig};
use crate::TrainError;

/// How bits enter the training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateMethod {
    /// Not at all.
    #[default]
    None,
    /// The rate in bits: the code length of the quantised weights under a model that follows them.
    Bits,
    /// The released BackSlash: a decoupled step after the optimizer, not scaled by the learning rate.
    Backslash,
    /// The BackSlash of the paper's Algorithm 1: the same gradient, through the optimizer.
    BackslashInLoss,
    /// A control: the step of `backslash` with the shape fixed at 2, a pull in proportion to θ.
    L2,
    /// A control: the step of `backslash` with the shape fixed at 1, the same pull for all weights.
    L1,
    /// A control: the step of `backslash` with the shape fixed at ½.
    #[serde(rename = "l0.5")]
    LHalf,
    /// A control: θ ← sign(θ)·max(|θ| − λ/N, 0) after the optimizer, which unlike the step of `l1` stops at zero.
    ProximalL1,
}

/// Whether the quantiser's steps move with training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepRule {
    /// The logarithm of each step is a parameter.
    #[default]
    Learned,
    /// Each step stays where it starts.
    Fixed,
}

/// What codes are added to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OriginRule {
    /// What the run has drawn a matrix from, where it has; nothing for all others. The decoder draws it again, so a weight
    /// that stays where it started costs nothing, and the network keeps its random features.
    #[default]
    Initial,
    /// Nothing: a weight of zero costs least.
    Zero,
}

/// How the steps of a matrix's rows and columns are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineScaleRule {
    /// They are that of the matrix.
    #[default]
    None,
    /// By how much the loss minds an error there, as gradients tell at the start of the rate: of the columns of all matrices,
    /// and of the rows of those of linear layers.
    Sensitivity,
    /// As `sensitivity`, of all rows; those of rows then move with the loss, while codes stay as they are.
    Learned,
}

/// The price of bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// Which rate.
    pub method: RateMethod,
    /// `bits`: nats of loss per bit per weight. `backslash` and the controls: λ/N, the λ of the paper over the number of
    /// parameters, which is what the strength of its step depends on.
    pub lambda: f64,
    /// `bits`: most bytes of the finished file, λ then being found on the way; 0 for a fixed λ.
    pub budget: u64,
    /// `bits`: share of the steps after which there is a rate, and a quantiser; until then training is plain.
    pub start: f64,
    /// `bits`: what codes are added to.
    pub origin: OriginRule,
    /// `bits`: whether steps are learned.
    pub step_rule: StepRule,
    /// `bits`: step at the start of the rate, in units of the root mean square of the weights then; 1/√(3·inputs) for a
    /// matrix of zeros.
    pub initial_step: f64,
    /// `bits`: learning rate of the logarithms of steps and of the probability model.
    pub learning_rate: f64,
    /// `bits`: share of the steps after which the quantiser rounds. From the start of the rate until then, if that is
    /// earlier, noise of one step stands for it.
    pub rounding_from: f64,
    /// `bits`: share of the steps with a rate at which the loss sees quantiser steps √2 or 2 times as long, half of it each:
    /// the network then stays better where its file is made coarser than it has learned, at a price where it is not.
    pub step_dropout: f64,
    /// `bits`: share of the weights that the loss sees rounded at the first step that rounds, another draw at each step; it
    /// rises to all of them over four fifths of the steps from there. The others are seen as they are, so that fewer
    /// gradients are those of rounded weights (Quant-Noise, arXiv 2004.07320).
    pub rounded_share: f64,
    /// `bits`: how the steps of a matrix's rows and columns are set, over that of the matrix.
    pub line_scales: LineScaleRule,
    /// `bits`: learning rate of the logarithms of the scales of rows, where these are learned.
    pub scale_learning_rate: f64,
    /// `bits`: what moves the matrices from the start of the rate on, at a learning rate that gives updates of the same
    /// size. An orthogonal update moves all singular directions alike, and forgets what a weight pays for its bits; AdamW
    /// weighs that against the loss weight by weight.
    pub matrix_method: OptimizerMethod,
    /// `bits`: learning rate of the matrices from then on, as a multiple of what it would be.
    pub matrix_learning_rate: f64,
    /// `bits`: the momentum of Muon and its relatives from then on; `optimizer.momentum` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix_momentum: Option<f64>,
    /// `bits`: decay of the singular values of matrices from then on, as a multiple of `optimizer.spectral_decay`.
    pub matrix_spectral_decay: f64,
    /// `bits`: share of the loss that from the start of the rate on is the cross-entropy to what a teacher predicts: the network
    /// as it was at that point, unrounded, or its average since. It makes gradients quieter, so that rounded weights find
    /// their codes in fewer steps, at the price of another forward pass in each.
    pub distillation: f64,
    /// `bits`: what the weights of that teacher keep of themselves at each step; the rest comes from the weights then. At 1 the
    /// teacher stays what it was at the start, which has to be good for that: where the learning rate has come to zero. At
    /// 0.98 it is the average over fifty steps, which needs no such point.
    pub teacher_decay: f64,
    /// `bits`: by how large a share of a step the thresholds of the file's codes of rows for pairs and triples of tokens are
    /// further from zero than where the loss has seen them rounded. Such a row is seldom read, and the rate takes its weights
    /// to zero slowly: many are just above a threshold where training ends.
    #[serde(skip_serializing_if = "is_zero")]
    pub ngram_dead_zone: f64,
    /// `backslash`: ε in (|θ|+ε)^(ν−1).
    pub epsilon: f64,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            method: RateMethod::None,
            lambda: 0.12,
            budget: 0,
            start: 0.6,
            origin: OriginRule::Initial,
            step_rule: StepRule::Learned,
            initial_step: 1.0,
            learning_rate: 0.02,
            rounding_from: 0.6,
            step_dropout: 0.0,
            rounded_share: 1.0,
            line_scales: LineScaleRule::None,
            scale_learning_rate: 0.005,
            matrix_method: OptimizerMethod::Adamw,
            matrix_learning_rate: 1.0,
            matrix_momentum: None,
            matrix_spectral_decay: 1.0,
            distillation: 0.0,
            teacher_decay: 1.0,
            ngram_dead_zone: 0.0,
            epsilon: 1.0,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(zone: &f64) -> bool {
    *zone == 0.0
}

impl RateConfig {
    /// The first step with a rate in bits.
    pub(crate) fn first_step(&self, train: &TrainConfig) -> u64 {
        ((self.start * train.steps as f64).round() as u64).min(train.steps.saturating_sub(1))
    }

    /// Checks every value that a type cannot.
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        let momentum = self.matrix_momentum.unwrap_or_default();
        let rules: [Rule; 15] = [
            ("rate.lambda", self.lambda, not_negative(self.lambda), "must not be negative"),
            ("rate.start", self.start, below_one(self.start), "must be from 0 to below 1"),
            (
                "rate.initial_step",
                self.initial_step,
                positive(self.initial_step),
                "must be positive",
            ),
            (
                "rate.learning_rate",
                self.learning_rate,
                not_negative(self.learning_rate),
                "must not be negative",
            ),
            (
                "rate.rounding_from",
                self.rounding_from,
                share(self.rounding_from),
                "must be from 0 to 1",
            ),
            (
                "rate.scale_learning_rate",
                self.scale_learning_rate,
                not_negative(self.scale_learning_rate),
                "must not be negative",
            ),
            (
                "rate.step_dropout",
                self.step_dropout,
                share(self.step_dropout),
                "must be from 0 to 1",
            ),
            (
                "rate.rounded_share",
                self.rounded_share,
                share(self.rounded_share),
                "must be from 0 to 1",
            ),
            (
                "rate.matrix_learning_rate",
                self.matrix_learning_rate,
                positive(self.matrix_learning_rate),
                "must be positive",
            ),
            ("rate.matrix_momentum", momentum, below_one(momentum), "must be from 0 to below 1"),
            (
                "rate.matrix_spectral_decay",
                self.matrix_spectral_decay,
                not_negative(self.matrix_spectral_decay),
                "must not be negative",
            ),
            (
                "rate.distillation",
                self.distillation,
                share(self.distillation),
                "must be from 0 to 1",
            ),
            (
                "rate.teacher_decay",
                self.teacher_decay,
                share(self.teacher_decay),
                "must be from 0 to 1",
            ),
            (
                "rate.ngram_dead_zone",
                self.ngram_dead_zone,
                (0.0..0.5).contains(&self.ngram_dead_zone),
                "must be from 0 to below 0.5",
            ),
            ("rate.epsilon", self.epsilon, positive(self.epsilon), "must be positive"),
        ];
        rules::check(rules)?;
        if self.budget > 0 && self.method != RateMethod::Bits {
            return Err(TrainError::ConfigValue {
                key: "rate.budget",
                value: self.budget.to_string(),
                expected: "only rate.method = \"bits\" can be steered to a size",
            });
        }
        if self.distillation > 0.0 && self.method != RateMethod::Bits {
            return Err(TrainError::ConfigValue {
                key: "rate.distillation",
                value: self.distillation.to_string(),
                expected: "only a rate in bits has a start at which there is a teacher",
            });
        }
        Ok(())
    }
}
