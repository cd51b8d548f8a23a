//! What pulls the weights towards a small file.

mod bits;

use backslash_model::{Gradients, NamedWeights};
use backslash_rate::backslash::Pull;
use backslash_rate::{Moments, published_shape};
use rayon::prelude::*;

use crate::adamw::CHUNK;
use crate::{RateConfig, RateMethod, TrainConfig};

pub(crate) use bits::BitsPressure;

/// The rate of a run, with its state.
#[derive(Clone, Debug)]
pub(crate) enum Pressure {
    None,
    Bits(BitsPressure),
    Backslash { lambda_per_parameter: f64, epsilon: f64, in_loss: bool },
}

impl Pressure {
    pub(crate) fn new(rate: &RateConfig, train: &TrainConfig, weights: &NamedWeights) -> Self {
        let backslash = |in_loss| Self::Backslash {
            lambda_per_parameter: rate.lambda,
            epsilon: rate.epsilon,
            in_loss,
        };
        match rate.method {
            RateMethod::None => Self::None,
            RateMethod::Bits => Self::Bits(BitsPressure::new(rate, train, weights)),
            RateMethod::Backslash => backslash(false),
            RateMethod::BackslashInLoss => backslash(true),
        }
    }

    /// The weights the loss is computed with at a step, where they differ from the real ones.
    pub(crate) fn perturbed(&self, weights: &NamedWeights, step: u64) -> Option<NamedWeights> {
        match self {
            Self::Bits(bits) => Some(bits.perturbed(weights, step)),
            _ => None,
        }
    }

    /// Adds the gradient of the rate to that of the loss; the bits per weight, where they are known.
    ///
    /// `seen` are the weights that the loss was computed with.
    pub(crate) fn add_gradient(
        &mut self,
        weights: &NamedWeights,
        seen: &NamedWeights,
        gradients: &mut Gradients,
    ) -> Option<f64> {
        match self {
            Self::Bits(bits) => Some(bits.add_gradient(weights, seen, gradients)),
            Self::Backslash { lambda_per_parameter, epsilon, in_loss: true } => {
                let pull = pull(*lambda_per_parameter, *epsilon, weights);
                for (tensor, gradient) in weights.tensors().iter().zip(&mut gradients.values) {
                    gradient
                        .par_chunks_mut(CHUNK)
                        .zip(tensor.data.par_chunks(CHUNK))
                        .for_each(|(gradient, weights)| pull.add_gradient(weights, gradient));
                }
                None
            }
            _ => None,
        }
    }

    /// What happens after the optimizer's step; `multiplier` is the learning rate over its peak.
    pub(crate) fn after_step(&mut self, weights: &mut NamedWeights, step: u64, multiplier: f64) {
        match self {
            Self::Bits(bits) => bits.update(step + 1, multiplier),
            Self::Backslash { lambda_per_parameter, epsilon, in_loss: false } => {
                let pull = pull(*lambda_per_parameter, *epsilon, weights);
                for tensor in weights.tensors_mut() {
                    tensor.data.par_chunks_mut(CHUNK).for_each(|weights| pull.step(weights));
                }
            }
            _ => {}
        }
    }
}

/// One step of BackSlash: the shape is fitted to all weights as they are now.
fn pull(lambda_per_parameter: f64, epsilon: f64, weights: &NamedWeights) -> Pull {
    let mut moments = Moments::default();
    for tensor in weights.tensors() {
        let parts: Vec<Moments> = tensor.data.par_chunks(CHUNK).map(Moments::of).collect();
        parts.into_iter().for_each(|part| moments += part);
    }
    let parameters = moments.count;
    Pull {
        lambda: lambda_per_parameter * parameters as f64,
        shape: moments.ratio().map_or(2.0, published_shape),
        epsilon,
        parameters,
    }
}
