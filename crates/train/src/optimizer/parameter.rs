//! One tensor with its group, its state, and its update.

use backslash_model::NamedTensor;

use super::adamw::{AdamW, TensorMoments};
use super::decay::{ConstantNorm, decayed, spectral_decay};
use super::groups::{Layout, Role};
use super::low_rank::scheduled_rank;
use super::muon;
use super::orthogonalize::{Polar, orthogonalize};
use crate::config::{OptimizerConfig, OptimizerMethod};
use crate::sensitivity::Memory;
use crate::{RateConfig, TrainConfig};

/// The name of the one part of a state whose length changes during a run.
pub(super) const BASIS: &str = "basis";

/// Root mean square of the updates of AdamW over its learning rate: 0.2 to 0.4 (arXiv 2502.16982), of which this gave the
/// best files.
const ADAMW_SIZE: f64 = 0.28;

/// How one tensor is moved.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) is_embedding: bool,
    /// Present for the matrices of linear layers.
    pub(super) layout: Option<Layout>,
    pub(super) state: State,
    /// The step from which that is remembered.
    since: u64,
    pub(super) learning_rate: f64,
    pub(super) weight_decay: f64,
    /// Strength of the decay of singular values, times the learning rate.
    spectral_decay: f64,
    /// That of Muon and its relatives, where it is not that of the optimizer.
    momentum: Option<f64>,
    norm: Option<ConstantNorm>,
}

/// What an optimizer remembers of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    AdamW(TensorMoments),
    Muon {
        momentum: Vec<f32>,
    },
    MuonEqR {
        momentum: Vec<f32>,
    },
    NorMuon {
        momentum: Vec<f32>,
        /// Mean squared entry of the orthogonalised momentum, by output.
        second: Vec<f32>,
    },
    NuMuon {
        momentum: Vec<f32>,
        /// Leading vectors of the last update, one after the other, each with as many values as there are
        /// outputs; none before the first update below full rank.
        basis: Vec<f32>,
    },
}

/// When an update takes place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    /// The number of the step, from 0 on.
    pub(super) step: u64,
    /// The learning rate over its peak.
    pub(super) multiplier: f64,
    /// Different for every step and tensor of a run.
    pub(super) seed: [u128; 2],
}

impl State {
    /// Nothing remembered yet of `count` values.
    fn new(method: OptimizerMethod, layout: Option<Layout>, count: usize) -> Self {
        let momentum = vec![0.0; count];
        let Some(layout) = layout else { return Self::AdamW(TensorMoments::zeros(count)) };
        match method {
            OptimizerMethod::Adamw => Self::AdamW(TensorMoments::zeros(count)),
            OptimizerMethod::Muon => Self::Muon { momentum },
            OptimizerMethod::MuoneqR => Self::MuonEqR { momentum },
            OptimizerMethod::Normuon => {
                Self::NorMuon { momentum, second: vec![0.0; layout.outputs] }
            }
            OptimizerMethod::Numuon => Self::NuMuon { momentum, basis: Vec::new() },
        }
    }

    /// What is remembered of the gradients.
    pub(super) fn memory(&self) -> Memory<'_> {
        match self {
            Self::AdamW(TensorMoments { second, .. }) => Memory::Squares(second),
            Self::Muon { momentum }
            | Self::MuonEqR { momentum }
            | Self::NorMuon { momentum, .. }
            | Self::NuMuon { momentum, .. } => Memory::Means(momentum),
        }
    }

    /// All values with what they are called in a checkpoint.
    pub(super) fn parts(&self) -> Vec<(&'static str, &Vec<f32>)> {
        match self {
            Self::AdamW(TensorMoments { first, second }) => {
                vec![("first", first), ("second", second)]
            }
            Self::Muon { momentum } | Self::MuonEqR { momentum } => vec![("momentum", momentum)],
            Self::NorMuon { momentum, second } => {
                vec![("momentum", momentum), ("row-second", second)]
            }
            Self::NuMuon { momentum, basis } => vec![("momentum", momentum), (BASIS, basis)],
        }
    }

    /// [`State::parts`], to be restored.
    pub(super) fn parts_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        match self {
            Self::AdamW(TensorMoments { first, second }) => {
                vec![("first", first), ("second", second)]
            }
            Self::Muon { momentum } | Self::MuonEqR { momentum } => vec![("momentum", momentum)],
            Self::NorMuon { momentum, second } => {
                vec![("momentum", momentum), ("row-second", second)]
            }
            Self::NuMuon { momentum, basis } => vec![("momentum", momentum), (BASIS, basis)],
        }
    }
}

impl Parameter {
    pub(super) fn new(
        role: Role,
        config: &OptimizerConfig,
        train: &TrainConfig,
        tensor: &NamedTensor,
    ) -> Self {
        let (group, layout) = match role {
            Role::Embedding => (config.embedding, None),
            Role::Matrix(layout) => (config.matrix, Some(layout)),
            Role::Vector => (config.vector, None),
        };
        let inherited_decay = if tensor.shape.len() >= 2 { train.weight_decay } else { 0.0 };
        Self {
            name: tensor.name.clone(),
            is_embedding: role == Role::Embedding,
            layout,
            state: State::new(config.method, layout, tensor.data.len()),
            since: 0,
            learning_rate: group.learning_rate.or(train.learning_rate),
            weight_decay: group.weight_decay.or(inherited_decay),
            spectral_decay: config.spectral_decay,
            momentum: None,
            norm: layout
                .filter(|_| config.constant_norm)
                .map(|layout| ConstantNorm::of(layout, &tensor.data)),
        }
    }

    /// From `step` on a matrix is moved by the method for runs with a rate, at a multiple of the learning rate that gives
    /// updates of the size that they have had. What was remembered is forgotten, unless the methods are the same.
    pub(super) fn begin_pricing(
        &mut self,
        config: &OptimizerConfig,
        rate: &RateConfig,
        step: u64,
        count: usize,
    ) {
        let Some(layout) = self.layout else { return };
        self.learning_rate *= rate.matrix_learning_rate;
        self.spectral_decay *= rate.matrix_spectral_decay;
        self.momentum = rate.matrix_momentum;
        if rate.matrix_method == config.method {
            return;
        }
        self.state = State::new(rate.matrix_method, Some(layout), count);
        self.since = step;
        let size = |method| match method {
            OptimizerMethod::Adamw => {
                ADAMW_SIZE * (layout.outputs.max(layout.inputs) as f64).sqrt()
            }
            _ => muon::update_scale(config.update_scale, layout),
        };
        self.learning_rate *= size(config.method) / size(rate.matrix_method);
    }

    /// The step of the loss with weight decay, then what only matrices have: spectral decay and the norm.
    pub(super) fn update(
        &mut self,
        config: &OptimizerConfig,
        train: &TrainConfig,
        time: Time,
        weights: &mut [f32],
        gradient: &[f32],
    ) {
        let rate = time.multiplier * self.learning_rate;
        if let State::AdamW(moments) = &mut self.state {
            let adamw = AdamW { beta1: train.beta1, beta2: train.beta2, epsilon: train.epsilon };
            let (count, cautious) = (time.step + 1 - self.since, config.cautious_decay);
            adamw.update(count, rate, self.weight_decay, cautious, weights, gradient, moments);
        }
        let Some(layout) = self.layout else { return };
        let momentum = self.momentum.unwrap_or_else(|| muon::momentum_at(config, time.step));
        let direction = self.state.direction(config, train, momentum, layout, time, gradient);
        if let Some(update) = direction {
            let keep = (1.0 - rate * self.weight_decay) as f32;
            let length = (rate * muon::update_scale(config.update_scale, layout)) as f32;
            for (weight, update) in weights.iter_mut().zip(update) {
                *weight = decayed(*weight, length * update, keep, config.cautious_decay);
            }
        }
        if self.spectral_decay > 0.0 && time.step.is_multiple_of(config.spectral_decay_interval) {
            let amount = config.spectral_decay_interval as f64 * rate * self.spectral_decay;
            spectral_decay(config, layout, amount, time.seed, weights);
        }
        if let Some(norm) = self.norm {
            norm.keep(weights);
        }
    }
}

impl State {
    /// The update of a matrix by Muon or one of its relatives, whose sum of gradients decays by `decay`, before its scale;
    /// `None` for AdamW.
    fn direction(
        &mut self,
        config: &OptimizerConfig,
        train: &TrainConfig,
        decay: f64,
        layout: Layout,
        time: Time,
        gradient: &[f32],
    ) -> Option<Vec<f32>> {
        let polar =
            Polar { polynomials: config.orthogonalization, precision: train.precision.on_host() };
        let accumulate = |momentum: &mut [f32], nesterov| {
            muon::accumulate(decay, nesterov, layout, momentum, gradient)
        };
        let update = match self {
            Self::AdamW(_) => return None,
            Self::Muon { momentum } => {
                orthogonalize(accumulate(momentum, config.nesterov).as_ref(), polar)
            }
            Self::MuonEqR { momentum } => {
                muon::row_equalised(accumulate(momentum, config.nesterov), polar)
            }
            Self::NorMuon { momentum, second } => {
                let matrix = accumulate(momentum, config.nesterov);
                muon::row_normalised(matrix.as_ref(), polar, config.row_beta2, second)
            }
            Self::NuMuon { momentum, basis } => {
                let progress = time.step as f64 / train.steps as f64;
                let rank = scheduled_rank(config, progress, layout.full_rank());
                let matrix = accumulate(momentum, false);
                muon::low_rank(matrix.as_ref(), polar, rank, basis, time.seed)
            }
        };
        Some(layout.store(update.as_ref()))
    }
}
