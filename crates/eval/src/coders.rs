//! The same codes under every code of the BackSlash paper and under ours.

use std::collections::BTreeMap;

use backslash_codec::{Artifact, Limits, Tensor, decode, encode};
use backslash_model::NamedWeights;
use backslash_quant::{export_as_published, quantize};
use serde::{Deserialize, Serialize};

use crate::{EvalError, decoded_weights, views};

/// Bits per weight of all weights of a model, vectors too, at one step. The paper's codes are of the whole model with one table,
/// which is not counted, as in the paper; ours is a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoderBits {
    /// Exponential Golomb of order 0 of the ranks, which the paper recommends.
    pub golomb: f64,
    /// The same of the best order.
    pub golomb_best: f64,
    /// That order.
    pub golomb_order: usize,
    /// Huffman.
    pub huffman: f64,
    /// ⌈log2 of the number of different values⌉.
    pub fixed_length: f64,
    /// Empirical entropy of the values: no code that takes them one by one needs less.
    pub entropy: f64,
    /// Our file, tables and directory included.
    pub ours: f64,
}

/// A model whose tensors all have the same step, as in the paper, where it is 2⁻⁸.
#[derive(Clone, Debug)]
pub struct AtOneStep {
    /// Sizes by code.
    pub coders: CoderBits,
    /// Bytes of our file.
    pub bytes: u64,
    /// What it decodes to.
    pub weights: NamedWeights,
}

impl AtOneStep {
    /// Rounds all tensors of a model, makes our file and decodes it.
    ///
    /// ```
    /// use backslash_eval::AtOneStep;
    /// use backslash_model::{NamedTensor, NamedWeights};
    ///
    /// let data = (0..1000).map(|i| if i % 4 == 0 { 0.5 } else { 0.001 }).collect();
    /// let tensor = NamedTensor { name: "w".into(), shape: vec![1000], data };
    /// let coded = AtOneStep::of(&NamedWeights::new(vec![tensor]), 1.0 / 256.0)?;
    /// assert_eq!((coded.coders.huffman, coded.coders.fixed_length), (1.0, 1.0));
    /// assert_eq!(coded.coders.golomb, 0.75 + 3.0 * 0.25);
    /// assert_eq!(coded.weights.get("w").unwrap().data[..2], [0.5, 0.0]);
    /// # Ok::<(), backslash_eval::EvalError>(())
    /// ```
    ///
    /// # Errors
    /// If a weight is not finite or too large for the step.
    pub fn of(weights: &NamedWeights, step: f32) -> Result<Self, EvalError> {
        let views = views(weights);
        let bits = export_as_published(&views, step)?.bits;
        let quantized = views.iter().map(|tensor| {
            let codes = quantize(tensor.name, tensor.shape, tensor.data, step)?;
            Ok((tensor.name.to_owned(), Tensor::Quantized(codes)))
        });
        let tensors = quantized.collect::<Result<BTreeMap<String, Tensor>, EvalError>>()?;
        let file = encode(&Artifact { tensors, ..Artifact::default() })?;
        let parameters = weights.parameters().max(1) as f64;
        let orders = bits.exponential_golomb.iter().enumerate();
        let (golomb_order, best) =
            orders.min_by_key(|(_, bits)| **bits).expect("there is an order 0");
        let coders = CoderBits {
            golomb: bits.exponential_golomb[0] as f64 / parameters,
            golomb_best: *best as f64 / parameters,
            golomb_order,
            huffman: bits.huffman as f64 / parameters,
            fixed_length: bits.fixed_length as f64 / parameters,
            entropy: bits.entropy / parameters,
            ours: 8.0 * file.len() as f64 / parameters,
        };
        let weights = decoded_weights(&decode(&file, &Limits::default())?)?;
        Ok(Self { coders, bytes: file.len() as u64, weights })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_model::{ModelConfig, initial_weights};
    use backslash_quant::PAPER_STEP;

    #[test]
    fn every_code_has_its_place_and_the_file_decodes_to_the_rounded_weights() {
        let config =
            ModelConfig { vocabulary_size: 256, width: 64, layers: 2, ..ModelConfig::default() };
        let weights = initial_weights(&config, 5).unwrap();
        let coded = AtOneStep::of(&weights, PAPER_STEP).unwrap();
        let CoderBits { golomb, golomb_best, huffman, fixed_length, entropy, ours, .. } =
            coded.coders;
        assert!(entropy <= huffman && huffman < entropy + 1.0 && huffman <= fixed_length);
        assert!(golomb_best < golomb && entropy < golomb_best, "{:?}", coded.coders);
        // Tensors of different spread have tables of their own in our file.
        assert!(ours < entropy, "{:?}", coded.coders);
        assert_eq!(ours, 8.0 * coded.bytes as f64 / weights.parameters() as f64);
        let finer = AtOneStep::of(&weights, PAPER_STEP / 2.0).unwrap();
        for (coded, per_unit) in [(&coded, 256.0), (&finer, 512.0)] {
            for (rounded, tensor) in coded.weights.tensors().iter().zip(weights.tensors()) {
                let is_rounded = |(rounded, exact): (&f32, &f32)| {
                    (rounded * per_unit).fract() == 0.0 && (rounded - exact).abs() <= 0.5 / per_unit
                };
                assert!(rounded.data.iter().zip(&tensor.data).all(is_rounded), "{}", tensor.name);
            }
        }
        // At half the step a weight takes a bit more, but for those that are alike in all of their tensor.
        let varies = |data: &[f32]| data.iter().any(|value| *value != data[0]);
        let varying = weights.tensors().iter().filter(|tensor| varies(&tensor.data));
        let varying: usize = varying.map(|tensor| tensor.data.len()).sum();
        let expected = varying as f64 / weights.parameters() as f64;
        assert!((finer.coders.entropy - entropy - expected).abs() < 0.05, "{:?}", finer.coders);
    }
}
