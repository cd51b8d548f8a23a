//! How much the loss minds an error in each tensor and in each of its rows.

use std::collections::BTreeMap;

use backslash_model::{ModelConfig, NamedWeights, Transformer, device};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use rayon::prelude::*;

use crate::{CalibrationText, CompressError, Sensitivity};

/// Fisher information of all matrices, from gradients of the loss against targets that the model itself
/// draws, tokens or classes.
///
/// With g the gradient of the mean loss over T tokens whose targets are drawn from the model's own
/// predictions, gradients of different tokens are uncorrelated, so T·E\[g_i²\] is the i-th diagonal element of
/// the Fisher matrix, which is the curvature of the Kullback–Leibler divergence from the model to its quantised
/// copy. One backward pass per batch gives all tensors at once. `progress` is called after each batch with the
/// number of batches done.
///
/// # Errors
/// If the weights do not fit the configuration.
pub fn sensitivities(
    config: &ModelConfig,
    weights: &NamedWeights,
    text: &CalibrationText,
    seed: u64,
    mut progress: impl FnMut(usize),
) -> Result<BTreeMap<String, Sensitivity>, CompressError> {
    let mut random = Pcg64::seed_from_u64(seed);
    let plain = Transformer::from_weights(config, weights, &device())?;
    let network = Transformer::from_weights(config, weights, &device().autodiff())?;
    let mut sums: BTreeMap<String, Sensitivity> = weights
        .tensors()
        .iter()
        .filter(|tensor| tensor.shape.len() >= 2)
        .map(|tensor| {
            let rows = tensor.shape[0];
            let columns = tensor.data.len() / rows.max(1);
            (tensor.name.clone(), Sensitivity { rows: vec![0.0; rows], columns })
        })
        .collect();
    let batches = text.batches().len();
    for (index, batch) in text.batches().enumerate() {
        let logits = batch.logits(&plain);
        let scored = batch.targets();
        let draws: Vec<f64> = scored.iter().map(|_| random.random()).collect();
        let targets: Vec<u16> = logits
            .par_chunks(logits.len() / scored.len())
            .zip(draws)
            .map(|(logits, draw)| drawn(logits, draw))
            .collect();
        let loss = batch.loss(&network, &targets);
        let gradients = network.gradients(&loss, weights);
        for (tensor, gradient) in weights.tensors().iter().zip(&gradients.values) {
            let Some(sensitivity) = sums.get_mut(&tensor.name) else { continue };
            let columns = sensitivity.columns;
            let scale = scored.len() as f64 / (columns * batches) as f64;
            for (sum, row) in sensitivity.rows.iter_mut().zip(gradient.chunks(columns.max(1))) {
                *sum += scale * row.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
            }
        }
        progress(index + 1);
    }
    Ok(sums)
}

/// The token at which the cumulative distribution of softmax(logits) passes `draw`.
fn drawn(logits: &[f32], draw: f64) -> u16 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: &f32| f64::from(logit - largest).exp();
    let mut left = draw * logits.iter().map(weight).sum::<f64>();
    for (token, logit) in logits.iter().enumerate() {
        left -= weight(logit);
        if left < 0.0 {
            return token as u16;
        }
    }
    (logits.len() - 1) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_data::Example;
    use backslash_model::{Architecture, SpecialTokens, initial_weights};

    fn small() -> (ModelConfig, NamedWeights) {
        let config = ModelConfig {
            vocabulary_size: 24,
            width: 16,
            layers: 1,
            heads: 2,
            kv_heads: 1,
            context: 16,
            embedding_std: 0.5,
            ..ModelConfig::default()
        };
        let mut weights = initial_weights(&config, 3).unwrap();
        // Output projections start at zero, which nothing before them would feel.
        let mut random = Pcg64::seed_from_u64(4);
        for tensor in weights.tensors_mut() {
            tensor.data.iter_mut().for_each(|w| *w += 0.2 * (random.random::<f32>() - 0.5));
        }
        (config, weights)
    }

    /// An encoder of about that size.
    fn encoder(masked_head: bool) -> (ModelConfig, NamedWeights) {
        let config = ModelConfig {
            architecture: Architecture::Bert,
            kv_heads: 2,
            masked_head,
            special_tokens: Some(SpecialTokens { start: 0, end: 1, mask: 2 }),
            ..small().0
        };
        let weights = initial_weights(&config, 3).unwrap();
        (config, weights)
    }

    fn probabilities(
        config: &ModelConfig,
        weights: &NamedWeights,
        text: &CalibrationText,
    ) -> Vec<f64> {
        let network = Transformer::from_weights(config, weights, &device()).unwrap();
        let logits: Vec<f32> = text.batches().flat_map(|batch| batch.logits(&network)).collect();
        let softmax = |row: &[f32]| {
            let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            row.iter().map(|x| f64::from(*x).exp() / sum).collect::<Vec<_>>()
        };
        logits.chunks(logits.len() / text.tokens()).flat_map(softmax).collect()
    }

    #[test]
    fn noise_costs_what_the_sensitivity_says() {
        let names = ["blocks.0.attn.c_v.weight", "blocks.0.mlp.fc.weight", "tok_emb.weight"];
        check_noise(small(), 16 * 96 + 1, &names);
    }

    #[test]
    fn noise_in_an_encoder_costs_what_the_sensitivity_says() {
        let value = "encoder.layer.0.attention.self.value.weight";
        let mlp = "encoder.layer.0.intermediate.dense.weight";
        let embedding = "embeddings.word_embeddings.weight";
        check_noise(encoder(false), 14 * 600, &[value, mlp, embedding]);
        let head = "cls.predictions.transform.dense.weight";
        check_noise(encoder(true), 14 * 600, &[value, mlp, embedding, head]);
    }

    fn check_noise(model: (ModelConfig, NamedWeights), count: usize, names: &[&str]) {
        let mut random = Pcg64::seed_from_u64(5);
        let tokens: Vec<u16> = (0..count).map(|_| random.random_range(0..24)).collect();
        let text = CalibrationText::new(&model.0, &tokens, tokens.len()).unwrap();
        check_noise_on(model, &text, names);
    }

    #[test]
    fn noise_in_a_classifier_costs_what_the_sensitivity_says() {
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        let config = ModelConfig { labels, ..encoder(false).0 };
        let mut weights = initial_weights(&config, 3).unwrap();
        let mut random = Pcg64::seed_from_u64(4);
        for tensor in weights.tensors_mut() {
            tensor.data.iter_mut().for_each(|w| *w += 0.4 * (random.random::<f32>() - 0.5));
        }
        let example = |_| {
            let length = random.random_range(3..=16);
            let tokens = (0..length).map(|_| random.random_range(0..24)).collect();
            Example { tokens, class: random.random_range(0..3) }
        };
        let examples: Vec<Example> = (0..1500).map(example).collect();
        let text = CalibrationText::of_examples(&config, &examples, usize::MAX).unwrap();
        let value = "encoder.layer.0.attention.self.value.weight";
        let embedding = "embeddings.word_embeddings.weight";
        let names = [value, embedding, "pooler.dense.weight", "classifier.weight"];
        check_noise_on((config, weights), &text, &names);
    }

    /// Compares with the Kullback–Leibler divergence that small random errors in one tensor really cause.
    fn check_noise_on(
        (config, weights): (ModelConfig, NamedWeights),
        text: &CalibrationText,
        names: &[&str],
    ) {
        let mut random = Pcg64::seed_from_u64(5);
        // Each batch is one sample of a trace: average over draws.
        let draws: Vec<_> = (0..12)
            .map(|seed| sensitivities(&config, &weights, text, seed, |_| ()).unwrap())
            .collect();
        let before = probabilities(&config, &weights, text);
        let deviation = 0.004;
        for name in names.iter().copied() {
            let mean = draws.iter().map(|draw| draw[name].loss_increase(deviation * deviation));
            let expected = mean.sum::<f64>() / draws.len() as f64;
            let mut measured = 0.0;
            let trials = 48;
            for _ in 0..trials {
                let mut noisy = weights.clone();
                let at = noisy.position(name).unwrap();
                for weight in &mut noisy.tensors_mut()[at].data {
                    let sign = if random.random::<bool>() { 1.0 } else { -1.0 };
                    *weight += sign * deviation as f32;
                }
                let after = probabilities(&config, &noisy, text);
                let divergence = before.iter().zip(&after).map(|(p, q)| p * (p / q).ln());
                measured += divergence.sum::<f64>() / text.tokens() as f64 / f64::from(trials);
            }
            let ratio = measured / expected;
            assert!((0.75..1.33).contains(&ratio), "{name}: {measured} against {expected}");
        }
    }

    #[test]
    fn targets_are_drawn_from_the_distribution() {
        let logits = [0.0, 2.0_f32.ln(), f32::NEG_INFINITY, 1.0_f32.ln()];
        let draw = |at: f64| drawn(&logits, at);
        assert_eq!([0.0, 0.24, 0.26, 0.74, 0.76, 0.999_999].map(draw), [0, 0, 1, 1, 3, 3]);
    }
}
