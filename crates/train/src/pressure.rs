//! What pulls the weights towards a small file.

mod bits;

use backslash_model::{Gradients, NamedWeights};
use backslash_rate::backslash::Pull;
use backslash_rate::{Moments, published_shape};
use rayon::prelude::*;

use crate::adamw::CHUNK;
use crate::{RateMethod, RunConfig};

pub(crate) use bits::BitsPressure;

/// The rate of a run, with its state.
#[derive(Clone, Debug)]
pub(crate) enum Pressure {
    None,
    Bits(BitsPressure),
    Backslash {
        lambda_per_parameter: f64,
        epsilon: f64,
        shape: Shape,
        in_loss: bool,
    },
    /// Moves every weight by that much towards zero, and no further.
    SoftThreshold(f64),
}

/// The exponent of the BackSlash rate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// That of a generalised Gaussian of all weights, before every step.
    Fitted,
    /// The same at all times.
    Fixed(f64),
}

impl Pressure {
    pub(crate) fn new(config: &RunConfig, weights: &NamedWeights) -> Self {
        let RunConfig { rate, .. } = config;
        let backslash = |shape, in_loss| Self::Backslash {
            lambda_per_parameter: rate.lambda,
            epsilon: rate.epsilon,
            shape,
            in_loss,
        };
        match rate.method {
            RateMethod::None => Self::None,
            RateMethod::Bits => Self::Bits(BitsPressure::new(config, weights)),
            RateMethod::Backslash => backslash(Shape::Fitted, false),
            RateMethod::BackslashInLoss => backslash(Shape::Fitted, true),
            RateMethod::L2 => backslash(Shape::Fixed(2.0), false),
            RateMethod::L1 => backslash(Shape::Fixed(1.0), false),
            RateMethod::LHalf => backslash(Shape::Fixed(0.5), false),
            RateMethod::ProximalL1 => Self::SoftThreshold(rate.lambda),
        }
    }

    /// What has to be known of the weights before a step.
    pub(crate) fn prepare(&mut self, weights: &NamedWeights, step: u64) {
        if let Self::Bits(bits) = self {
            bits.prepare(weights, step);
        }
    }

    /// The weights the loss is computed with at a step: the real ones, or others in `buffer`.
    pub(crate) fn seen<'a>(
        &self,
        weights: &'a NamedWeights,
        step: u64,
        buffer: &'a mut Option<NamedWeights>,
    ) -> &'a NamedWeights {
        match self {
            Self::Bits(bits) if bits.acts_at(step) => {
                let buffer = buffer.get_or_insert_with(|| weights.clone());
                bits.perturb(weights, step, buffer);
                buffer
            }
            _ => weights,
        }
    }

    /// Adds the gradient of the rate to that of the loss; the bits per weight, where they are known.
    ///
    /// `seen` are the weights that the loss was computed with.
    pub(crate) fn add_gradient(
        &mut self,
        weights: &NamedWeights,
        seen: &NamedWeights,
        step: u64,
        gradients: &mut Gradients,
    ) -> Option<f64> {
        match self {
            Self::Bits(bits) if bits.acts_at(step) => {
                Some(bits.add_gradient(weights, seen, step, gradients))
            }
            Self::Backslash { lambda_per_parameter, epsilon, shape, in_loss: true } => {
                let pull = pull(*lambda_per_parameter, *epsilon, *shape, weights);
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
            Self::Bits(bits) if bits.acts_at(step) => bits.update(step, multiplier, weights),
            Self::Backslash { lambda_per_parameter, epsilon, shape, in_loss: false } => {
                let pull = pull(*lambda_per_parameter, *epsilon, *shape, weights);
                for tensor in weights.tensors_mut() {
                    tensor.data.par_chunks_mut(CHUNK).for_each(|weights| pull.step(weights));
                }
            }
            Self::SoftThreshold(threshold) => {
                for tensor in weights.tensors_mut() {
                    tensor
                        .data
                        .par_chunks_mut(CHUNK)
                        .for_each(|weights| soft_threshold(weights, *threshold as f32));
                }
            }
            _ => {}
        }
    }
}

/// One step of BackSlash, at the shape of all weights as they are now.
fn pull(lambda_per_parameter: f64, epsilon: f64, shape: Shape, weights: &NamedWeights) -> Pull {
    let parameters = weights.parameters() as u64;
    let shape = match shape {
        Shape::Fixed(shape) => shape,
        Shape::Fitted => fitted_shape(weights).unwrap_or(2.0),
    };
    Pull { lambda: lambda_per_parameter * parameters as f64, shape, epsilon, parameters }
}

/// Shape of the generalised Gaussian with the moments of all weights together, by the published table; `None` where all are
/// zero.
///
/// ```
/// use backslash_model::{NamedTensor, NamedWeights};
/// let data = (1..1000).map(|i| -(1.0 - i as f32 / 1000.0).ln() * if i % 2 == 0 { 1.0 } else { -1.0 });
/// let weights = NamedTensor { name: "laplace".into(), shape: vec![999], data: data.collect() };
/// let shape = backslash_train::fitted_shape(&NamedWeights::new(vec![weights])).unwrap();
/// assert!((shape - 1.0).abs() < 0.05, "{shape}");
/// ```
pub fn fitted_shape(weights: &NamedWeights) -> Option<f64> {
    let mut moments = Moments::default();
    for tensor in weights.tensors() {
        let parts: Vec<Moments> = tensor.data.par_chunks(CHUNK).map(Moments::of).collect();
        parts.into_iter().for_each(|part| moments += part);
    }
    moments.ratio().map(published_shape)
}

/// θ ← sign(θ)·max(|θ| − t, 0), the proximal operator of t·|θ|.
fn soft_threshold(weights: &mut [f32], threshold: f32) {
    for weight in weights {
        *weight = weight.signum() * (weight.abs() - threshold).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RateConfig;
    use backslash_model::NamedTensor;

    fn after_a_step(method: RateMethod, data: &[f32]) -> Vec<f32> {
        let tensor =
            NamedTensor { name: "w".to_owned(), shape: vec![data.len()], data: data.to_vec() };
        let mut weights = NamedWeights::new(vec![tensor]);
        let rate = RateConfig { method, lambda: 0.01, ..RateConfig::default() };
        let config = RunConfig { rate, ..RunConfig::default() };
        let mut pressure = Pressure::new(&config, &weights);
        pressure.after_step(&mut weights, 0, 1.0);
        weights.tensors()[0].data.clone()
    }

    /// λ/N·∂|θ|^p/∂θ for the controls, p(|θ|+ε)^(p−1) with the released ε of 1.
    #[test]
    fn controls_pull_by_their_own_gradient() {
        let data = [0.5_f32, -0.25, 0.004, 0.0];
        for (method, power) in
            [(RateMethod::L2, 2.0), (RateMethod::L1, 1.0), (RateMethod::LHalf, 0.5)]
        {
            for (before, after) in data.iter().zip(after_a_step(method, &data)) {
                let force = 0.01 * power * (before.abs() + 1.0).powf(power - 1.0);
                let expected = if *before == 0.0 { 0.0 } else { before - before.signum() * force };
                assert!((after - expected).abs() < 1e-6, "{method:?} {before}: {after}");
            }
        }
        let thresholded = after_a_step(RateMethod::ProximalL1, &data);
        let expected = [0.49, -0.24, 0.0, 0.0];
        assert!(thresholded.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7));
    }
}
