//! The networks and their named weights.
//!
//! Two forms of one model live here. [`NamedWeights`] is the plain one: names, shapes and `f32` values on
//! the host, the form in which weights are trained, compressed, written and read. [`Transformer`] is the
//! same weights bound to a device as Burn modules, the form in which a loss is computed. The names are the
//! field paths of the modules, so each form can be made from the other and nothing has to be listed twice.
//!
//! [`Transformer`] is every network as a predictor of tokens: of the next one, or in BERT of those that
//! [`Masking`] has hidden. [`Encoder`] is BERT for its hidden states. [`Pretrained`] reads models that others
//! have trained into the same two forms.
//!
//! ```
//! use backslash_model::{ModelConfig, Transformer, device, initial_weights};
//!
//! let config = ModelConfig { vocabulary_size: 16, width: 8, layers: 1, heads: 2, kv_heads: 1, ..ModelConfig::default() };
//! let weights = initial_weights(&config, 1)?;
//! let network = Transformer::from_weights(&config, &weights, &device())?;
//! let logits = network.logits(&[1, 2, 3, 4], 2); // two rows of two tokens
//! assert_eq!(logits.dims(), [4, 16]);
//! # Ok::<(), backslash_model::ModelError>(())
//! ```

mod bind;
mod checkpoint;
mod classifier;
mod config;
mod device;
mod error;
mod initialise;
mod masking;
mod network;
mod precision;
mod pretrained;
mod weights;

pub use bind::Gradients;
pub use checkpoint::{CheckpointReader, CheckpointTensor, CheckpointWriter};
pub use classifier::as_classifier;
pub use config::{Architecture, Gelu, ModelConfig, SpecialTokens};
pub use device::{DeviceChoice, Interface, device, device_in_use, use_device, wait_for_device};
pub use error::ModelError;
pub use initialise::{UniformStart, initial_weights, uniform_starts};
pub use masking::{MaskedRow, Masking};
pub use network::{
    Encoder, EncoderInput, InputObserver, Loss, MatrixReplacer, MatrixView, SoftTargets,
    Transformer, product_in_bf16, use_composed_operations,
};
pub use precision::Precision;
pub use pretrained::Pretrained;
pub use weights::{NamedTensor, NamedWeights, is_embedding, is_ngram_table};
