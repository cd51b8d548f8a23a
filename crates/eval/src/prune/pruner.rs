//! A model whose smallest weights become zero.

use std::collections::BTreeMap;

use backslash_codec::{Artifact, Effort, QuantizedTensor, Tensor};
use backslash_compress::{Target, fit_plan_to_bytes};
use backslash_model::{NamedWeights, is_embedding};
use backslash_quant::{Plan, is_coded};

use super::mask::{Scope, smallest};
use crate::{EvalError, decoded_weights, views};

/// Which matrices are pruned; vectors never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrices {
    /// Those of linear layers, not embeddings and output matrices.
    OfLayers,
    /// All, as where embeddings hold most of what a small model knows.
    All,
}

impl Matrices {
    /// Whether a tensor is one of them.
    pub fn include(self, name: &str, shape: &[usize]) -> bool {
        is_coded(shape) && (self == Self::All || !is_embedding(name))
    }
}

/// A model to be pruned.
pub struct Pruner {
    matrices: Matrices,
    content: Content,
}

/// What is pruned, and how its file is made.
enum Content {
    /// The codes of a file.
    Codes(Artifact),
    /// Float weights with the steps that they are coded at.
    Floats {
        /// The weights.
        weights: NamedWeights,
        /// Their steps, whatever is pruned.
        plan: Plan,
    },
}

/// A pruned model.
#[derive(PartialEq)]
pub struct Pruned {
    /// The content of its file, of weights alone.
    pub artifact: Artifact,
    /// The pruned weights before they are coded; of codes, what they decode to.
    pub weights: NamedWeights,
    /// Share of the weights of all pruned matrices that are zero in the file, or, where codes count from numbers that the
    /// decoder draws, that are those.
    pub zeros: f64,
}

impl Pruner {
    /// Of the codes of a file: they, their steps and their scales stay as they are but for those that become zero.
    ///
    /// Where codes count from numbers that the decoder draws, a weight is as large as it is far from its number, and pruned it
    /// goes back to it: that is the weight that costs nothing.
    pub fn of_codes(mut artifact: Artifact, matrices: Matrices) -> Self {
        artifact.metadata.clear();
        Self { matrices, content: Content::Codes(artifact) }
    }

    /// Of float weights, coded at the nearest codes of steps in proportion to the root mean square of each tensor; the file of
    /// the model before anything is pruned has at most so many bits per weight, and nearly as many.
    ///
    /// # Errors
    /// If no step gives a file of that size.
    pub fn of_floats(
        weights: NamedWeights,
        bits_per_weight: f64,
        matrices: Matrices,
    ) -> Result<Self, EvalError> {
        let views = views(&weights);
        let budget = (bits_per_weight * weights.parameters() as f64 / 8.0) as u64;
        let plan = Plan::relative(&views, 1.0);
        let target = Target { budget, effort: Effort::Smallest };
        let fitted = fit_plan_to_bytes(&plan, &views, &BTreeMap::new(), target, &mut |_| ())?;
        let plan = plan.scaled(fitted.log_kappa.exp() as f32);
        Ok(Self { matrices, content: Content::Floats { weights, plan } })
    }

    /// The model without the `share` (0 to 1) of smallest weights of its [`Matrices`].
    ///
    /// # Errors
    /// If weights cannot be coded at their steps.
    pub fn at(&self, share: f64, scope: Scope) -> Result<Pruned, EvalError> {
        let matrices = self.matrices;
        let (artifact, weights) = match &self.content {
            Content::Codes(artifact) => {
                let artifact = without_smallest_codes(artifact, share, scope, matrices);
                let weights = decoded_weights(&artifact)?;
                (artifact, weights)
            }
            Content::Floats { weights, plan } => {
                let weights = without_smallest(weights, share, scope, matrices);
                (plan.artifact(&views(&weights), &BTreeMap::new())?, weights)
            }
        };
        Ok(Pruned { zeros: zero_codes(&artifact, matrices), artifact, weights })
    }
}

fn without_smallest(
    weights: &NamedWeights,
    share: f64,
    scope: Scope,
    matrices: Matrices,
) -> NamedWeights {
    let mut weights = weights.clone();
    let mut matrices: Vec<&mut Vec<f32>> = weights
        .tensors_mut()
        .iter_mut()
        .filter(|tensor| matrices.include(&tensor.name, &tensor.shape))
        .map(|tensor| &mut tensor.data)
        .collect();
    let magnitudes: Vec<Vec<f32>> =
        matrices.iter().map(|data| data.iter().map(|weight| weight.abs()).collect()).collect();
    let masks = smallest(&magnitudes, share, scope);
    for (data, mask) in matrices.iter_mut().zip(masks) {
        data.iter_mut().zip(mask).filter(|pair| pair.1).for_each(|pair| *pair.0 = 0.0);
    }
    weights
}

fn without_smallest_codes(
    artifact: &Artifact,
    share: f64,
    scope: Scope,
    matrices: Matrices,
) -> Artifact {
    let mut artifact = artifact.clone();
    let mut matrices = quantized_mut(&mut artifact, matrices);
    let magnitudes: Vec<Vec<f32>> = matrices.iter().map(|tensor| distances(tensor)).collect();
    let masks = smallest(&magnitudes, share, scope);
    for (tensor, mask) in matrices.iter_mut().zip(masks) {
        tensor.codes.iter_mut().zip(mask).filter(|pair| pair.1).for_each(|pair| *pair.0 = 0);
    }
    artifact
}

fn quantized_mut(artifact: &mut Artifact, matrices: Matrices) -> Vec<&mut QuantizedTensor> {
    let found = artifact.tensors.iter_mut().filter_map(|(name, tensor)| match tensor {
        Tensor::Quantized(tensor) if matrices.include(name, &tensor.shape) => Some(tensor),
        _ => None,
    });
    found.collect()
}

/// How far weights are from what they are at a code of zero.
fn distances(tensor: &QuantizedTensor) -> Vec<f32> {
    let from_zero = QuantizedTensor { origin: None, ..tensor.clone() };
    from_zero.dequantize().into_iter().map(f32::abs).collect()
}

/// Share of the codes of pruned matrices that are zero.
fn zero_codes(artifact: &Artifact, matrices: Matrices) -> f64 {
    let (mut zeros, mut all) = (0, 0);
    for (name, tensor) in &artifact.tensors {
        if let Tensor::Quantized(tensor) = tensor
            && matrices.include(name, &tensor.shape)
        {
            zeros += tensor.codes.iter().filter(|code| **code == 0).count();
            all += tensor.codes.len();
        }
    }
    zeros as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_codec::Origin;
    use backslash_model::{ModelConfig, NamedTensor, initial_weights};

    fn weights() -> NamedWeights {
        let config =
            ModelConfig { vocabulary_size: 256, width: 32, layers: 1, ..ModelConfig::default() };
        initial_weights(&config, 5).unwrap()
    }

    fn zeros(weights: &NamedWeights, of: impl Fn(&NamedTensor) -> bool) -> f64 {
        let tensors = weights.tensors().iter().filter(|tensor| of(tensor));
        let data: Vec<f32> = tensors.flat_map(|tensor| tensor.data.clone()).collect();
        data.iter().filter(|weight| **weight == 0.0).count() as f64 / data.len() as f64
    }

    #[test]
    fn matrices_lose_their_smallest_weights_and_embeddings_none() {
        let pruner = Pruner::of_floats(weights(), 6.0, Matrices::OfLayers).unwrap();
        for scope in [Scope::Global, Scope::PerTensor] {
            let pruned = pruner.at(0.75, scope).unwrap();
            let decoded = decoded_weights(&pruned.artifact).unwrap();
            for weights in [&pruned.weights, &decoded] {
                let of_matrices =
                    |tensor: &NamedTensor| Matrices::OfLayers.include(&tensor.name, &tensor.shape);
                assert!(zeros(weights, of_matrices) >= 0.75, "{scope:?}");
                assert!(zeros(weights, |tensor| tensor.name == "tok_emb.weight") < 0.3);
            }
            assert!(pruned.zeros >= 0.75, "{}", pruned.zeros);
        }
        let whole = pruner.at(0.0, Scope::Global).unwrap();
        assert_eq!(whole.weights, weights());
        let bytes = |pruned: &Pruned| backslash_codec::encode(&pruned.artifact).unwrap().len();
        let most = bytes(&pruner.at(0.95, Scope::Global).unwrap());
        assert!((most as f64) < 0.9 * bytes(&whole) as f64, "{most}");
    }

    #[test]
    fn embeddings_lose_theirs_where_all_matrices_do() {
        let pruner = Pruner::of_floats(weights(), 6.0, Matrices::All).unwrap();
        let pruned = pruner.at(0.5, Scope::PerTensor).unwrap();
        let vectors = |tensor: &NamedTensor| !is_coded(&tensor.shape);
        assert!(zeros(&pruned.weights, |tensor| tensor.name == "tok_emb.weight") >= 0.5);
        assert!(zeros(&pruned.weights, |tensor| !vectors(tensor)) >= 0.5);
        let untouched = zeros(&weights(), vectors);
        assert!(zeros(&pruned.weights, vectors) == untouched, "{untouched}");
        assert!(pruned.zeros >= 0.5, "{}", pruned.zeros);
    }

    #[test]
    fn codes_that_count_from_drawn_numbers_go_back_to_these() {
        let weights = weights();
        let views = views(&weights);
        let artifact = Plan::relative(&views, 0.3).artifact(&views, &BTreeMap::new()).unwrap();
        let mut with_origin = artifact.clone();
        for tensor in quantized_mut(&mut with_origin, Matrices::OfLayers) {
            tensor.origin = Some(Origin { seed: 1, stream: 0, bound: 0.1 });
        }
        let pruner = Pruner::of_codes(with_origin.clone(), Matrices::OfLayers);
        assert_eq!(pruner.at(0.0, Scope::Global).unwrap().artifact, with_origin);
        let pruned = pruner.at(1.0, Scope::Global).unwrap();
        assert_eq!(pruned.zeros, 1.0);
        let name = "blocks.0.attn.c_q.weight";
        let weights = pruned.weights.get(name).unwrap();
        let mut start = vec![0.0; weights.data.len()];
        Origin { seed: 1, stream: 0, bound: 0.1 }.draw(0, &mut start);
        assert_eq!(weights.data, start);
        assert_eq!(pruned.artifact.tensors["tok_emb.weight"], artifact.tensors["tok_emb.weight"]);
    }
}
