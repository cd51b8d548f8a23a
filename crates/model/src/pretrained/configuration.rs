//! `config.json` of Hugging Face, for the families that exist here.

use std::fmt::Display;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Architecture, Gelu, ModelConfig, ModelError};

/// Reads a configuration of Hugging Face with the names of classes that it has, or, where it names no `model_type`, our own.
pub(super) fn read(path: &Path) -> Result<(ModelConfig, Vec<String>), ModelError> {
    let wrong = |reason: String| ModelError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path)
        .map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("not a model configuration ({error})")))?;
    let class_names = class_names(json.get("id2label")).map_err(wrong)?;
    let config = match json.get("model_type").map(|kind| kind.as_str().unwrap_or_default()) {
        None => parsed::<ModelConfig>(json).map_err(wrong)?,
        Some("llama") => parsed::<Llama>(json).and_then(Llama::config).map_err(wrong)?,
        Some("gpt2") => parsed::<Gpt2>(json).and_then(Gpt2::config).map_err(wrong)?,
        Some("bert") => parsed::<Bert>(json).and_then(Bert::config).map_err(wrong)?,
        Some(other) => {
            return Err(wrong(format!("model_type = {other:?}: must be llama, gpt2 or bert")));
        }
    };
    config.validate().map_err(|error| wrong(error.to_string()))?;
    Ok((config, class_names))
}

/// Names by class from 0 on. Those that are made up, `LABEL_0` and so on, are the numbers of the classes.
fn class_names(id2label: Option<&Value>) -> Result<Vec<String>, String> {
    let Some(Value::Object(names)) = id2label else { return Ok(Vec::new()) };
    let name = |class: usize| {
        let name = names.get(&class.to_string()).and_then(Value::as_str);
        name.ok_or_else(|| format!("id2label has no name for class {class}"))
    };
    let names = (0..names.len()).map(name).collect::<Result<Vec<&str>, String>>()?;
    let made_up = |(class, name): (usize, &&str)| **name == format!("LABEL_{class}");
    let all_made_up = names.iter().enumerate().all(made_up);
    let name = |(class, name): (usize, &&str)| match all_made_up {
        true => class.to_string(),
        false => (*name).to_owned(),
    };
    Ok(names.iter().enumerate().map(name).collect())
}

fn parsed<T: DeserializeOwned>(json: Value) -> Result<T, String> {
    serde_json::from_value(json).map_err(|error| format!("not a model configuration ({error})"))
}

/// Refuses a key whose value asks for something that does not exist here.
fn require<T: PartialEq + Display>(key: &str, found: &T, needed: &T) -> Result<(), String> {
    if found == needed {
        return Ok(());
    }
    Err(format!("{key} = {found}: only {needed} is supported"))
}

/// Refuses a key that is there at all.
fn absent(key: &str, found: Option<&Value>) -> Result<(), String> {
    match found {
        None | Some(Value::Null) => Ok(()),
        Some(value) => Err(format!("{key} = {value}: only null is supported")),
    }
}

/// Keys of `LlamaConfig`; those that are absent have the defaults given here.
#[derive(Deserialize)]
struct Llama {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "llama_context")]
    max_position_embeddings: usize,
    #[serde(default = "llama_epsilon")]
    rms_norm_eps: f32,
    rope_theta: Option<f32>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<RopeParameters>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "silu")]
    hidden_act: String,
}

/// The form in which newer files give the rotary positions.
#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f32>,
    rope_type: Option<String>,
}

fn llama_context() -> usize {
    2048
}

fn llama_epsilon() -> f32 {
    1e-6
}

fn silu() -> String {
    "silu".to_owned()
}

impl Llama {
    fn config(self) -> Result<ModelConfig, String> {
        require("hidden_act", &self.hidden_act, &silu())?;
        require("attention_bias", &self.attention_bias, &false)?;
        require("mlp_bias", &self.mlp_bias, &false)?;
        absent("rope_scaling", self.rope_scaling.as_ref())?;
        if let Some(head_dim) = self.head_dim {
            let heads = self.num_attention_heads.max(1);
            require("head_dim", &head_dim, &(self.hidden_size / heads))?;
        }
        let rope = self.rope_parameters.as_ref();
        if let Some(kind) = rope.and_then(|rope| rope.rope_type.as_ref()) {
            require("rope_parameters.rope_type", kind, &"default".to_owned())?;
        }
        let rope_base = rope.and_then(|rope| rope.rope_theta).or(self.rope_theta);
        let default = ModelConfig::default();
        Ok(ModelConfig {
            architecture: Architecture::Llama,
            vocabulary_size: self.vocab_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            mlp_hidden: Some(self.intermediate_size),
            context: self.max_position_embeddings,
            rope_base: rope_base.unwrap_or(default.rope_base),
            norm_epsilon: self.rms_norm_eps,
            tied_head: self.tie_word_embeddings,
            ..default
        })
    }
}

/// Keys of `GPT2Config`.
#[derive(Deserialize)]
struct Gpt2 {
    vocab_size: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    n_positions: usize,
    #[serde(default = "gpt2_epsilon")]
    layer_norm_epsilon: f32,
    #[serde(default = "gelu_new")]
    activation_function: String,
    #[serde(default = "yes")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

fn gpt2_epsilon() -> f32 {
    1e-5
}

fn gelu_new() -> String {
    "gelu_new".to_owned()
}

fn yes() -> bool {
    true
}

impl Gpt2 {
    fn config(self) -> Result<ModelConfig, String> {
        // Two names of the same formula.
        if self.activation_function != "gelu_pytorch_tanh" {
            require("activation_function", &self.activation_function, &gelu_new())?;
        }
        require("scale_attn_weights", &self.scale_attn_weights, &true)?;
        require("scale_attn_by_inverse_layer_idx", &self.scale_attn_by_inverse_layer_idx, &false)?;
        require("tie_word_embeddings", &self.tie_word_embeddings, &true)?;
        Ok(ModelConfig {
            architecture: Architecture::Gpt2,
            vocabulary_size: self.vocab_size,
            width: self.n_embd,
            layers: self.n_layer,
            heads: self.n_head,
            kv_heads: self.n_head,
            mlp_hidden: self.n_inner,
            context: self.n_positions,
            norm_epsilon: self.layer_norm_epsilon,
            ..ModelConfig::default()
        })
    }
}

/// Keys of `BertConfig`.
#[derive(Deserialize)]
struct Bert {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "bert_epsilon")]
    layer_norm_eps: f32,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    #[serde(default)]
    is_decoder: bool,
}

fn two() -> usize {
    2
}

fn bert_epsilon() -> f32 {
    1e-12
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl Bert {
    fn config(self) -> Result<ModelConfig, String> {
        // Several names of the same two formulas.
        let gelu = match self.hidden_act.as_str() {
            "gelu" | "gelu_python" => Gelu::Exact,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Gelu::Tanh,
            other => {
                return Err(format!("hidden_act = {other}: only gelu and gelu_new are supported"));
            }
        };
        require("position_embedding_type", &self.position_embedding_type, &absolute())?;
        require("is_decoder", &self.is_decoder, &false)?;
        Ok(ModelConfig {
            architecture: Architecture::Bert,
            vocabulary_size: self.vocab_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_attention_heads,
            mlp_hidden: Some(self.intermediate_size),
            context: self.max_position_embeddings,
            norm_epsilon: self.layer_norm_eps,
            token_types: self.type_vocab_size,
            gelu,
            ..ModelConfig::default()
        })
    }
}
