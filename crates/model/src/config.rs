//! The shape of a network, and the presets.

use serde::{Deserialize, Serialize};

use crate::{Masking, ModelError};

const DEFAULT_POWER: u32 = 2;
const DEFAULT_EPSILON: f32 = 1e-5;
const MOST_CLASSES: usize = 4096;
const MOST_NGRAM_ROWS: usize = 1 << 22;
const MOST_EXPERTS: usize = 1_024;

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
    /// Llama: RMSNorm with gains, rotary positions, grouped-query attention, SwiGLU MLP.
    Llama,
    /// GPT-2: LayerNorm, learned positions, GELU MLP, tied embedding.
    Gpt2,
    /// The BERT encoder: LayerNorm after each branch, learned positions, token types, GELU MLP.
    Bert,
}

/// Which formula of GELU a network was trained with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gelu {
    /// x·Φ(x), with Φ the distribution function of the standard normal distribution.
    #[default]
    Exact,
    /// ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))). Source: arXiv 1606.08415, section 2.
    Tanh,
}

/// The token ids that an encoder needs besides those of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecialTokens {
    /// Stands before a text: `[CLS]`.
    pub start: u16,
    /// Stands after a text: `[SEP]`.
    pub end: u16,
    /// Stands for a token that is to be predicted: `[MASK]`.
    pub mask: u16,
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
    /// Hidden channels of the MLP where they are no multiple of `width`; counts instead of `mlp_ratio`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp_hidden: Option<usize>,
    /// Decoder and golf: the MLP's activation is max(x, 0) to this power.
    #[serde(skip_serializing_if = "is_default_power")]
    pub activation_power: u32,
    /// Golf: how many times the blocks run, one after the other; from 2 on, each run of a block is
    /// followed by a scale and a shift of its own.
    #[serde(skip_serializing_if = "is_one")]
    pub repeats: usize,
    /// Decoder and golf: rows of a second embedding. To the embedding of each token one of them is added, chosen by a hash of
    /// that token and the one before it. They are parameters that take bytes and next to no time; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub bigram_rows: usize,
    /// As `bigram_rows`, chosen by a hash of the token and the two before it.
    #[serde(skip_serializing_if = "is_zero")]
    pub trigram_rows: usize,
    /// Channels of the rows of pairs and triples, whose sum a matrix takes to those of the network; 0 for as many as the
    /// network has, and no matrix.
    #[serde(skip_serializing_if = "is_zero")]
    pub ngram_width: usize,
    /// Decoder and golf: MLPs that each block has beside its own, each of them as wide. A token goes through that of the block
    /// and through one of these, chosen by a hash of its id and the block. They are parameters that take bytes and no more
    /// time than one of them; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub experts: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
    /// Base of the rotary frequencies, where positions are rotary.
    pub rope_base: f32,
    /// Decoder and golf: logits are `cap · tanh(logits / cap)`.
    pub logit_cap: f32,
    /// Llama, GPT-2 and BERT: the ε of their norms.
    #[serde(skip_serializing_if = "is_default_epsilon")]
    pub norm_epsilon: f32,
    /// Llama: whether the embedding is also the output matrix. In the other families it always is.
    #[serde(skip_serializing_if = "is_true")]
    pub tied_head: bool,
    /// BERT: number of token types.
    #[serde(skip_serializing_if = "is_two")]
    pub token_types: usize,
    /// Standard deviation of the embedding at the start.
    pub embedding_std: f32,
    /// BERT: the formula of its activations. GPT-2 always has [`Gelu::Tanh`].
    #[serde(skip_serializing_if = "is_exact")]
    pub gelu: Gelu,
    /// BERT: whether a layer and a bias of their own predict masked tokens. Without them hidden states are
    /// multiplied by the word embedding as they are.
    #[serde(skip_serializing_if = "is_false")]
    pub masked_head: bool,
    /// BERT: labels of the classes of texts, in the order of their logits. With labels the network has a pooler and a
    /// classifier; without it has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// BERT: ids that come from its tokenizer; without them it gives hidden states and predicts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub special_tokens: Option<SpecialTokens>,
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
            mlp_hidden: None,
            activation_power: DEFAULT_POWER,
            repeats: 1,
            bigram_rows: 0,
            trigram_rows: 0,
            ngram_width: 0,
            experts: 0,
            context: 256,
            rope_base: 10_000.0,
            logit_cap: 30.0,
            norm_epsilon: DEFAULT_EPSILON,
            tied_head: true,
            token_types: 2,
            embedding_std: 0.02,
            gelu: Gelu::Exact,
            masked_head: false,
            labels: Vec::new(),
            special_tokens: None,
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
            embedding_std: 0.005,
            ..Self::default()
        }
    }

    /// Channels of one head.
    pub fn head_width(&self) -> usize {
        self.width / self.heads
    }

    /// Hidden channels of the MLP.
    pub fn mlp_width(&self) -> usize {
        self.mlp_hidden.unwrap_or(self.width * self.mlp_ratio)
    }

    /// How many times a block runs: each block once, or in the golf network `repeats` times.
    pub fn runs(&self) -> usize {
        match self.architecture {
            Architecture::Golf => self.layers * self.repeats,
            _ => self.layers,
        }
    }

    /// In the golf network: the number of runs of blocks whose output is kept for a later run, which is
    /// also the number of skip connections.
    pub fn skips(&self) -> usize {
        self.runs() / 2
    }

    /// The cap of the logits, in the families that have one.
    pub fn cap(&self) -> Option<f32> {
        match self.architecture {
            Architecture::Decoder | Architecture::Golf => Some(self.logit_cap),
            Architecture::Llama | Architecture::Gpt2 | Architecture::Bert => None,
        }
    }

    /// Whether a tensor is an embedding that is also the output matrix.
    ///
    /// ```
    /// assert!(backslash_model::ModelConfig::golf().ties("tok_emb.weight"));
    /// ```
    pub fn ties(&self, name: &str) -> bool {
        match self.architecture {
            Architecture::Decoder | Architecture::Golf => name == "tok_emb.weight",
            Architecture::Llama => self.tied_head && name == "model.embed_tokens.weight",
            Architecture::Gpt2 => name == "wte.weight",
            Architecture::Bert => name == "embeddings.word_embeddings.weight",
        }
    }

    /// Whether a tensor is a matrix of a layer with one row per input, as in GPT-2, rather than one per output.
    ///
    /// ```
    /// use backslash_model::{Architecture, ModelConfig};
    ///
    /// let config = ModelConfig { architecture: Architecture::Gpt2, ..ModelConfig::default() };
    /// assert!(config.has_inputs_first("h.0.mlp.c_fc.weight") && !config.has_inputs_first("wte.weight"));
    /// ```
    pub fn has_inputs_first(&self, name: &str) -> bool {
        let layers = ["c_attn.weight", "c_proj.weight", "c_fc.weight"];
        self.architecture == Architecture::Gpt2 && layers.iter().any(|layer| name.ends_with(layer))
    }

    /// How text is masked for the network, if it is one that predicts masked tokens; all others predict the
    /// next token.
    pub fn masking(&self) -> Option<Masking> {
        match self.architecture {
            Architecture::Bert => Some(Masking::new(self.special_tokens?, self.context)),
            _ => None,
        }
    }

    /// Whether the network says which class a text belongs to.
    pub fn is_classifier(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Whether positions are rotary, and not learned.
    fn rotary(&self) -> bool {
        !matches!(self.architecture, Architecture::Gpt2 | Architecture::Bert)
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
            ("mlp_hidden", self.mlp_width(), 1 << 20),
            ("activation_power", self.activation_power as usize, 8),
            ("repeats", self.repeats, 64),
            ("context", self.context, 1 << 20),
            ("token_types", self.token_types, 65_536),
        ] {
            if value == 0 || value > limit {
                return wrong(key, value.to_string(), &format!("must be from 1 to {limit}"));
            }
        }
        if !self.width.is_multiple_of(self.heads) {
            return wrong("heads", self.heads.to_string(), "must divide model.width");
        }
        if self.rotary() && !self.head_width().is_multiple_of(2) {
            return wrong(
                "heads",
                self.heads.to_string(),
                "model.width / model.heads must be even (rotary positions turn pairs of channels)",
            );
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return wrong("kv_heads", self.kv_heads.to_string(), "must divide model.heads");
        }
        let is_ours = matches!(self.architecture, Architecture::Decoder | Architecture::Golf);
        if !is_ours && self.activation_power != DEFAULT_POWER {
            return wrong(
                "activation_power",
                self.activation_power.to_string(),
                "only the decoder and golf have one that can be chosen",
            );
        }
        if self.architecture != Architecture::Golf && self.repeats != 1 {
            return wrong("repeats", self.repeats.to_string(), "only golf can repeat its blocks");
        }
        for (key, value, limit) in [
            ("bigram_rows", self.bigram_rows, MOST_NGRAM_ROWS),
            ("trigram_rows", self.trigram_rows, MOST_NGRAM_ROWS),
            ("ngram_width", self.ngram_width, self.width),
            ("experts", self.experts, MOST_EXPERTS),
        ] {
            if value > limit {
                return wrong(key, value.to_string(), &format!("must be at most {limit}"));
            }
            if value != 0 && !is_ours {
                return wrong(key, value.to_string(), "only the decoder and golf can have some");
            }
        }
        if self.ngram_width != 0 && self.bigram_rows + self.trigram_rows == 0 {
            return wrong(
                "ngram_width",
                self.ngram_width.to_string(),
                "there are no such rows without model.bigram_rows or model.trigram_rows",
            );
        }
        if self.architecture != Architecture::Llama && !self.tied_head {
            return wrong(
                "tied_head",
                "false".to_owned(),
                "only llama can have an output matrix of its own",
            );
        }
        if !self.rotary() && self.kv_heads != self.heads {
            return wrong(
                "kv_heads",
                self.kv_heads.to_string(),
                "must be model.heads: in this architecture every head has its own keys and values",
            );
        }
        if self.architecture == Architecture::Bert && self.context < Masking::LEAST_ROW {
            return wrong(
                "context",
                self.context.to_string(),
                &format!("must be at least {} for an encoder", Masking::LEAST_ROW),
            );
        }
        if let Some(reason) = self.what_is_wrong_with_labels() {
            return wrong("labels", format!("{:?}", self.labels), &reason);
        }
        if let Some(SpecialTokens { start, end, mask }) = self.special_tokens {
            let largest = start.max(end).max(mask);
            if usize::from(largest) >= self.vocabulary_size {
                return wrong("special_tokens", largest.to_string(), "is beyond the vocabulary");
            }
        }
        for (key, value) in [
            ("rope_base", self.rope_base),
            ("logit_cap", self.logit_cap),
            ("norm_epsilon", self.norm_epsilon),
            ("embedding_std", self.embedding_std),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return wrong(key, value.to_string(), "must be a positive number");
            }
        }
        Ok(())
    }
}

impl ModelConfig {
    fn what_is_wrong_with_labels(&self) -> Option<String> {
        let labels = &self.labels;
        let is_new = |at: usize| !labels[..at].contains(&labels[at]) && !labels[at].is_empty();
        match labels.len() {
            0 => None,
            _ if self.architecture != Architecture::Bert => {
                Some("only bert can be a classifier".to_owned())
            }
            2..=MOST_CLASSES if (0..labels.len()).all(is_new) => None,
            _ => Some(format!("must be 2 to {MOST_CLASSES} different words")),
        }
    }
}

// Keys at their defaults are left out of files, so that models that do not use them are stored as before.

fn is_default_power(power: &u32) -> bool {
    *power == DEFAULT_POWER
}

fn is_default_epsilon(epsilon: &f32) -> bool {
    *epsilon == DEFAULT_EPSILON
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

fn is_two(count: &usize) -> bool {
    *count == 2
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_exact(gelu: &Gelu) -> bool {
    *gelu == Gelu::Exact
}

#[cfg(test)]
mod tests;
