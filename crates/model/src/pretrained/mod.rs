//! Models that others have trained: their configuration, their tensors, their file formats.
//!
//! What is read becomes a [`ModelConfig`] and [`NamedWeights`] with the names of Hugging Face checkpoints,
//! and is then like any model of our own.

mod configuration;
mod llama2c;
mod names;
mod shards;

use std::path::Path;

use crate::bind::check_layout;
use crate::{ModelConfig, ModelError, NamedTensor, NamedWeights};

/// A model as found in files.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretrained {
    /// The network.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: NamedWeights,
    /// Tensors of the files that the network does not have: constants, and heads for other tasks.
    pub left_out: Vec<String>,
}

impl Pretrained {
    /// Opens a folder with `config.json` and `model.safetensors` (in one piece, or in several with
    /// `model.safetensors.index.json`), a safetensors file with `config.json` beside it, or a llama2.c
    /// `.bin` file of the first format.
    ///
    /// `config.json` is that of Hugging Face for `llama`, `gpt2` and `bert`, or our own. Every tensor of the
    /// network must be there in its shape, and none may be left that is not known.
    ///
    /// # Errors
    /// If something is missing, damaged, does not belong together, or asks for a variant of the network
    /// that does not exist here; the file, key or tensor is named.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.extension().is_some_and(|extension| extension == "bin") {
            return llama2c::read(path);
        }
        let is_folder = path.is_dir();
        let folder = if is_folder { path } else { path.parent().unwrap_or(Path::new("")) };
        let config = configuration::read(&folder.join("config.json"))?;
        let files = if is_folder { shards::of_folder(path)? } else { vec![path.to_owned()] };
        let (weights, left_out) = names::known_tensors(&config, &files)?;
        Self::checked(config, weights, left_out)
    }

    /// Refuses weights that are not those of the configuration.
    fn checked(
        config: ModelConfig,
        tensors: Vec<NamedTensor>,
        left_out: Vec<String>,
    ) -> Result<Self, ModelError> {
        let weights = NamedWeights::new(tensors);
        check_layout(&config.layout(), &weights)?;
        Ok(Self { config, weights, left_out })
    }
}
