//! The weights a training run starts from.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_distr::{Distribution, Normal};
use rand_pcg::Pcg64;

use crate::{Architecture, ModelConfig, ModelError, NamedTensor, NamedWeights};

/// Initial weights for a configuration, the same for the same seed on every machine.
///
/// As in the Parameter Golf baseline: embeddings are drawn from N(0, `embedding_std`²), linear layers
/// uniformly from ±1/√(inputs), and the matrices that write to the residual stream start at zero, as do rows for
/// pairs and triples of tokens. Scales and gains of norms start at 1, biases and shifts at 0, the residual mix at (1, 0), query gains at 1.5.
/// Each tensor has a random stream of its own.
///
/// # Errors
/// [`ModelError::Config`] if the configuration is not valid.
pub fn initial_weights(config: &ModelConfig, seed: u64) -> Result<NamedWeights, ModelError> {
    config.validate()?;
    let tensors = config
        .layout()
        .into_iter()
        .enumerate()
        .map(|(stream, (name, shape))| {
            let mut random = Pcg64::new(u128::from(seed), stream as u128);
            let data = initial_values(config, &name, &shape, &mut random);
            NamedTensor { name, shape, data }
        })
        .collect();
    Ok(NamedWeights::new(tensors))
}

/// How [`initial_weights`] draws a matrix uniformly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UniformStart {
    /// Stream of the generator, PCG XSL RR 128/64 with the seed as its state.
    pub stream: u64,
    /// Values are uniform in ±`bound`.
    pub bound: f32,
}

/// The matrices that [`initial_weights`] draws uniformly, by name.
///
/// # Panics
/// If the configuration is not [valid](ModelConfig::validate).
pub fn uniform_starts(config: &ModelConfig) -> BTreeMap<String, UniformStart> {
    let tensors = config.layout().into_iter().zip(0..);
    let starts = tensors.filter_map(|((name, shape), stream)| {
        let bound = match value_at_start(config, &name, &shape) {
            AtStart::Uniform(bound) => bound,
            _ => return None,
        };
        Some((name, UniformStart { stream, bound }))
    });
    starts.collect()
}

/// What a tensor starts as.
enum AtStart {
    Constant(f32),
    /// The residual mix: ones, then zeros.
    OnesThenZeros,
    /// With the deviation of embeddings.
    Normal,
    Uniform(f32),
}

fn value_at_start(config: &ModelConfig, name: &str, shape: &[usize]) -> AtStart {
    let last = name.strip_suffix(".weight").unwrap_or(name).rsplit('.').next().unwrap_or(name);
    match last {
        "tok_emb"
        | "embed_tokens"
        | "wte"
        | "wpe"
        | "word_embeddings"
        | "position_embeddings"
        | "token_type_embeddings" => AtStart::Normal,
        "bigram_emb" | "trigram_emb" | "proj" | "o_proj" | "down_proj" | "c_proj" | "bias"
        | "repeat_shifts" => AtStart::Constant(0.0),
        "q_gain" => AtStart::Constant(1.5),
        "resid_mix" => AtStart::OnesThenZeros,
        "attn_scale" | "mlp_scale" | "skip_weights" | "repeat_scales" => AtStart::Constant(1.0),
        _ if shape.len() == 1 => AtStart::Constant(1.0),
        _ => {
            let inputs = match config.architecture {
                Architecture::Gpt2 => shape[0],
                _ => shape[1],
            };
            AtStart::Uniform(1.0 / (inputs as f32).sqrt())
        }
    }
}

fn initial_values(
    config: &ModelConfig,
    name: &str,
    shape: &[usize],
    random: &mut Pcg64,
) -> Vec<f32> {
    let count = shape.iter().product();
    match value_at_start(config, name, shape) {
        AtStart::Constant(value) => vec![value; count],
        AtStart::OnesThenZeros => {
            let mut values = vec![1.0; count];
            values[count / 2..].fill(0.0);
            values
        }
        AtStart::Normal => {
            let normal = Normal::new(0.0, config.embedding_std).expect("a validated deviation");
            normal.sample_iter(random).take(count).collect()
        }
        AtStart::Uniform(bound) => (0..count).map(|_| random.random_range(-bound..bound)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golf_preset_has_its_published_number_of_parameters() {
        let weights = initial_weights(&ModelConfig::golf(), 1337).unwrap();
        assert_eq!(weights.parameters(), 17_059_912);
        assert_eq!(weights.get("skip_weights").unwrap().shape, [4, 512]);
        assert_eq!(weights.get("blocks.8.attn.c_k.weight").unwrap().shape, [256, 512]);
    }

    #[test]
    fn the_values_are_drawn_as_stated() {
        let config = ModelConfig::golf();
        let weights = initial_weights(&config, 7).unwrap();
        let embedding = &weights.get("tok_emb.weight").unwrap().data;
        let rms = (embedding.iter().map(|x| x * x).sum::<f32>() / embedding.len() as f32).sqrt();
        assert!((rms / 0.005 - 1.0).abs() < 0.01, "{rms}");
        let up = &weights.get("blocks.3.mlp.fc.weight").unwrap().data;
        let largest = up.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        let bound = 1.0 / 512.0_f32.sqrt();
        assert!(largest <= bound && largest > 0.999 * bound, "{largest}");
        assert!(weights.get("blocks.3.mlp.proj.weight").unwrap().data.iter().all(|x| *x == 0.0));
        let mix = &weights.get("blocks.0.resid_mix").unwrap().data;
        assert!(mix[..512].iter().all(|x| *x == 1.0) && mix[512..].iter().all(|x| *x == 0.0));
    }

    #[test]
    fn other_families_start_with_neutral_norms_and_silent_branches() {
        for (architecture, gain, silent, drawn) in [
            (
                Architecture::Llama,
                "model.layers.1.input_layernorm.weight",
                "model.layers.1.self_attn.o_proj.weight",
                "model.embed_tokens.weight",
            ),
            (Architecture::Gpt2, "h.1.ln_2.weight", "h.1.mlp.c_fc.bias", "wpe.weight"),
            (
                Architecture::Bert,
                "embeddings.LayerNorm.weight",
                "encoder.layer.1.output.LayerNorm.bias",
                "embeddings.token_type_embeddings.weight",
            ),
        ] {
            let config = ModelConfig {
                architecture,
                vocabulary_size: 64,
                kv_heads: 4,
                ..ModelConfig::default()
            };
            let weights = initial_weights(&config, 2).unwrap();
            let data = |name: &str| &weights.get(name).unwrap().data;
            assert!(data(gain).iter().all(|x| *x == 1.0));
            assert!(data(silent).iter().all(|x| *x == 0.0));
            let drawn = data(drawn);
            let rms = (drawn.iter().map(|x| x * x).sum::<f32>() / drawn.len() as f32).sqrt();
            assert!((rms / 0.02 - 1.0).abs() < 0.15, "{rms}");
        }
    }

    #[test]
    fn a_seed_fixes_the_weights() {
        let config = ModelConfig { vocabulary_size: 32, ..ModelConfig::default() };
        let first = initial_weights(&config, 3).unwrap();
        assert_eq!(first, initial_weights(&config, 3).unwrap());
        assert_ne!(first, initial_weights(&config, 4).unwrap());
    }
}
