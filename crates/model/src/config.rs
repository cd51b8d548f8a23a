//! The shape of a network, and the presets.

use serde::{Deserialize, Serialize};

use crate::ModelError;

/// Which network is built from a [`ModelConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// The plain decoder: RMSNorm without gain, rotary positions, per-head query–key normalisation,
    /// grouped-query attention, ReLU² MLP, tied embedding, soft-capped logits.
    #[default]
    Decoder,
    /// The Parameter Golf baseline: the decoder with U-net skips, a residual mix with the embedded
    /// input, per-channel scales on both branches and a gain per query head.
    Golf,
}

/// Everything that fixes the shapes and the arithmetic of a network.
///
/// Unknown keys are refused when this is read from a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Which network.
    pub architecture: Architecture,
    /// Number of token ids; set from the tokenizer when 0.
    pub vocabulary_size: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// Blocks of attention and MLP.
    pub layers: usize,
    /// Query heads; `width / heads` channels each.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` neighbouring query heads.
    pub kv_heads: usize,
    /// Hidden channels of the MLP, as a multiple of `width`.
    pub mlp_ratio: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
    /// Logits are `cap · tanh(logits / cap)`.
    pub logit_cap: f32,
    /// Standard deviation of the embedding at the start.
    pub embedding_std: f32,
}

impl Default for ModelConfig {
    /// About 1 M parameters with a vocabulary of 1,024.
    fn default() -> Self {
        Self {
            architecture: Architecture::Decoder,
            vocabulary_size: 0,
            width: 128,
            layers: 4,
            heads: 4,
            kv_heads: 2,
            mlp_ratio: 4,
            context: 256,
            rope_base: 10_000.0,
            logit_cap: 30.0,
            embedding_std: 0.02,
        }
    }
}

impl ModelConfig {
    /// The Parameter Golf baseline: 17,059,912 parameters.
    pub fn golf() -> Self {
        Self {
            architecture: Architecture::Golf,
            vocabulary_size: 1024,
            width: 512,
            layers: 9,
            heads: 8,
            kv_heads: 4,
            mlp_ratio: 2,
            context: 1024,
            rope_base: 10_000.0,
            logit_cap: 30.0,
            embedding_std: 0.005,
        }
    }

    /// Channels of one head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Hidden channels of the MLP.
    pub fn mlp_width(&self) -> usize {
        self.width * self.mlp_ratio
    }

    /// In the golf network: the number of blocks whose output is kept for a later block, which is also
    /// the number of skip connections.
    pub fn skips(&self) -> usize {
        self.layers / 2
    }

    /// Number of parameters.
    ///
    /// ```
    /// assert_eq!(backslash_model::ModelConfig::golf().parameters(), 17_059_912);
    /// ```
    pub fn parameters(&self) -> usize {
        let kv_width = self.kv_heads * self.head_width();
        let attention = 2 * self.width * self.width + 2 * kv_width * self.width;
        let mlp = 2 * self.width * self.mlp_width();
        let (controls, skips) = match self.architecture {
            Architecture::Decoder => (0, 0),
            Architecture::Golf => (4 * self.width + self.heads, self.skips() * self.width),
        };
        self.vocabulary_size * self.width + self.layers * (attention + mlp + controls) + skips
    }

    /// Checks that a network can be built.
    ///
    /// # Errors
    /// [`ModelError::Config`] names the first key that does not fit.
    pub fn validate(&self) -> Result<(), ModelError> {
        let wrong = |key: &'static str, value: String, expected: &str| {
            Err(ModelError::Config { key, value, expected: expected.to_owned() })
        };
        for (key, value, limit) in [
            ("vocabulary_size", self.vocabulary_size, 65_536),
            ("width", self.width, 16_384),
            ("layers", self.layers, 512),
            ("heads", self.heads, 1_024),
            ("kv_heads", self.kv_heads, 1_024),
            ("mlp_ratio", self.mlp_ratio, 64),
            ("context", self.context, 1 << 20),
        ] {
            if value == 0 || value > limit {
                return wrong(key, value.to_string(), &format!("must be from 1 to {limit}"));
            }
        }
        if !self.width.is_multiple_of(self.heads) {
            return wrong("heads", self.heads.to_string(), "must divide model.width");
        }
        if !self.head_width().is_multiple_of(2) {
            return wrong(
                "heads",
                self.heads.to_string(),
                "model.width / model.heads must be even (rotary positions turn pairs of channels)",
            );
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return wrong("kv_heads", self.kv_heads.to_string(), "must divide model.heads");
        }
        for (key, value) in [
            ("rope_base", self.rope_base),
            ("logit_cap", self.logit_cap),
            ("embedding_std", self.embedding_std),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return wrong(key, value.to_string(), "must be a positive number");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> ModelConfig {
        ModelConfig { vocabulary_size: 1024, ..ModelConfig::default() }
    }

    #[test]
    fn the_presets_are_valid() {
        small().validate().unwrap();
        ModelConfig::golf().validate().unwrap();
    }

    #[test]
    fn each_wrong_key_is_named() {
        let cases = [
            (ModelConfig { heads: 3, ..small() }, "model.heads"),
            (ModelConfig { heads: 128, ..small() }, "model.heads"),
            (ModelConfig { kv_heads: 3, ..small() }, "model.kv_heads"),
            (ModelConfig { layers: 0, ..small() }, "model.layers"),
            (ModelConfig { vocabulary_size: 100_000, ..small() }, "model.vocabulary_size"),
            (ModelConfig { rope_base: f32::NAN, ..small() }, "model.rope_base"),
            (ModelConfig { logit_cap: 0.0, ..small() }, "model.logit_cap"),
        ];
        for (config, key) in cases {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(key), "{message}");
        }
    }
}
