//! Models that others have trained: their configuration, their tensors, their file formats.
//!
//! What is read becomes a [`ModelConfig`] and [`NamedWeights`] with the names of Hugging Face checkpoints,
//! and is then like any model of our own.

mod configuration;
mod llama2c;
mod names;
mod shards;

use std::collections::BTreeMap;
use std::path::Path;

use crate::bind::check_layout;
use crate::{Architecture, ModelConfig, ModelError, NamedTensor, NamedWeights};

/// A model as found in files.
#[derive(Clone, Debug, PartialEq)]
pub struct Pretrained {
    /// The network.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: NamedWeights,
    /// Tensors of the files that the network does not have: constants, and heads for other tasks.
    pub left_out: Vec<String>,
    /// Of a BERT that is no classifier, the pooler of its files, which one would read; its tensors are left out too.
    pub pooler: Vec<NamedTensor>,
}

impl Pretrained {
    /// Opens a folder with `config.json` and `model.safetensors` (in one piece, or in several with
    /// `model.safetensors.index.json`), a safetensors file with `config.json` beside it, or a llama2.c
    /// `.bin` file of the first format.
    ///
    /// `config.json` is that of Hugging Face for `llama`, `gpt2` and `bert`, or our own. A BERT whose files
    /// have tensors of a head for masked tokens gets that head
    /// ([`masked_head`](ModelConfig::masked_head)); its special tokens are its tokenizer's to say. With a pooler and a
    /// classifier of two classes or more it is a [classifier](ModelConfig::is_classifier), whose labels are those of
    /// `id2label`, or numbers from 0 on where these have no names. Every tensor of the
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
        let (config, class_names) = configuration::read(&folder.join("config.json"))?;
        let files = if is_folder { shards::of_folder(path)? } else { vec![path.to_owned()] };
        let (found, left_out) = names::known_tensors(config.architecture, &files)?;
        // What is wrong with the set of tensors is wrong with the file, or with all files of the folder.
        let place = if let [file] = &files[..] { file } else { path };
        Self::assembled((config, class_names), found, left_out, place)
    }

    /// The model of tensors that were decoded elsewhere, from `file` in a folder with `config.json`; as [`Pretrained::open`].
    ///
    /// # Errors
    /// Those of [`Pretrained::open`].
    pub fn of_tensors(file: &Path, tensors: Vec<NamedTensor>) -> Result<Self, ModelError> {
        let folder = file.parent().unwrap_or(Path::new(""));
        let (config, class_names) = configuration::read(&folder.join("config.json"))?;
        let (found, left_out) = names::known_of(config.architecture, tensors, file)?;
        Self::assembled((config, class_names), found, left_out, file)
    }

    /// Puts tensors and configuration together; `place` is where the tensors are from.
    fn assembled(
        (mut config, class_names): (ModelConfig, Vec<String>),
        mut found: BTreeMap<String, NamedTensor>,
        mut left_out: Vec<String>,
        place: &Path,
    ) -> Result<Self, ModelError> {
        let mut pooler = Vec::new();
        if config.architecture == Architecture::Bert {
            match names::classes(&found) {
                Some(classes) if !config.is_classifier() => {
                    config.labels = match class_names.is_empty() {
                        true => (0..classes).map(|class| class.to_string()).collect(),
                        false => class_names,
                    };
                }
                _ => {}
            }
            if !config.is_classifier() {
                let head = names::take_class_head(&mut found);
                left_out.extend(head.iter().map(|tensor| tensor.name.clone()));
                pooler = head;
                pooler.retain(|tensor| tensor.name.starts_with(names::POOLER));
            }
            // Hugging Face's configuration does not say: the tensors do.
            config.masked_head |= names::has_masked_head(&found);
        }
        let wrong = |error: ModelError| ModelError::File {
            path: place.to_owned(),
            reason: error.to_string(),
        };
        left_out.extend(names::without_copies(&config, &mut found).map_err(wrong)?);
        let found = found.into_values().collect();
        let model = Self::checked(config, found, left_out).map_err(wrong)?;
        Ok(Self { pooler, ..model })
    }

    /// Refuses weights that are not those of the configuration.
    fn checked(
        config: ModelConfig,
        tensors: Vec<NamedTensor>,
        left_out: Vec<String>,
    ) -> Result<Self, ModelError> {
        let weights = NamedWeights::new(tensors);
        check_layout(&config.layout(), &weights)?;
        Ok(Self { config, weights, left_out, pooler: Vec::new() })
    }
}
