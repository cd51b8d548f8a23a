//! A model with all that is needed to run it.

use std::collections::BTreeMap;
use std::path::Path;

use backslash_codec::{Artifact, Limits, Tensor, read_file};
use backslash_data::{EncoderTokens, Tokenizer};
use backslash_model::{
    Architecture, CheckpointReader, ModelConfig, NamedTensor, NamedWeights, Pretrained,
    SpecialTokens, Transformer, device,
};
use backslash_quant::Weights;

use crate::EvalError;

/// Name of the configuration in a folder.
const CONFIG_FILE: &str = "config.json";
/// Metadata key of the model's configuration, as JSON.
const CONFIG_KEY: &str = "model";
/// Metadata key of the tokenizer, in the form of [`Tokenizer::to_bytes`].
const TOKENIZER_KEY: &str = "tokenizer";

/// Configuration, tokenizer and weights.
#[derive(Debug)]
pub struct ModelFile {
    /// The network.
    pub config: ModelConfig,
    /// From text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The weights, as floats.
    pub weights: NamedWeights,
    /// Tensors of a folder that are not among them, since the network does not have them: constants, copies, and
    /// heads for other tasks.
    pub left_out: Vec<String>,
    /// Of the folder of a BERT that is no classifier, the pooler that one would read.
    pub pooler: Vec<NamedTensor>,
}

impl ModelFile {
    /// Opens a `.bsl` file, or a folder with `model.safetensors`, `config.json` (ours, or that of a Llama, GPT-2 or BERT
    /// from Hugging Face) and a tokenizer: `tokenizer.json`, `tokenizer.model`, the `tokenizer.bin` of llama2.c or
    /// `vocab.txt`. An encoder gets its special tokens from the tokenizer. A folder without `model.safetensors` may have a
    /// `model.bsl`, and a `.bsl` file of tensors alone takes configuration and tokenizer from its folder.
    ///
    /// # Errors
    /// If something is missing, damaged, or does not belong together.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        if path.is_dir() {
            return Self::open_folder(path);
        }
        let artifact = read_file(path, &Limits::default())?;
        let folder = path.parent().unwrap_or(Path::new(""));
        if !artifact.metadata.contains_key(CONFIG_KEY) && folder.join(CONFIG_FILE).exists() {
            let pretrained = || Ok(Pretrained::of_tensors(path, float_tensors(&artifact)?)?);
            return Self::beside(folder, pretrained);
        }
        Self::from_artifact(path, &artifact)
    }

    /// The model in the decoded content of a file; `path` is named in errors.
    ///
    /// # Errors
    /// If the content is a set of tensors without a model's configuration or tokenizer.
    pub fn from_artifact(path: &Path, artifact: &Artifact) -> Result<Self, EvalError> {
        let problem = |problem: String| EvalError::ModelFile { path: path.to_owned(), problem };
        let entry = |key: &str| {
            artifact.metadata.get(key).ok_or_else(|| {
                problem(format!(
                    "holds tensors but no `{key}`, so it can be decompressed but not run"
                ))
            })
        };
        let config = serde_json::from_slice(entry(CONFIG_KEY)?)
            .map_err(|error| problem(format!("its model configuration is not valid: {error}")))?;
        let tokenizer = Tokenizer::from_bytes(entry(TOKENIZER_KEY)?)?;
        let weights = decoded_weights(artifact)?;
        Self { config, tokenizer, weights, left_out: Vec::new(), pooler: Vec::new() }.checked(path)
    }

    /// Metadata to be stored with the tensors, so that [`ModelFile::open`] finds all it needs.
    pub fn metadata(config: &ModelConfig, tokenizer: &Tokenizer) -> BTreeMap<String, Vec<u8>> {
        let config = serde_json::to_vec(config).expect("a configuration is plain data");
        BTreeMap::from([
            (CONFIG_KEY.to_owned(), config),
            (TOKENIZER_KEY.to_owned(), tokenizer.to_bytes()),
        ])
    }

    /// The network on the device that models run on.
    ///
    /// # Errors
    /// If the weights do not fit the configuration.
    pub fn network(&self) -> Result<Transformer, EvalError> {
        Ok(Transformer::from_weights(&self.config, &self.weights, &device())?)
    }

    fn open_folder(folder: &Path) -> Result<Self, EvalError> {
        let compressed = folder.join("model.bsl");
        let has_floats =
            folder.join("model.safetensors").exists() || CheckpointReader::is_sharded(folder);
        if compressed.exists() && !has_floats {
            return Self::open(&compressed);
        }
        Self::beside(folder, || Ok(Pretrained::open(folder)?))
    }

    /// Weights with the configuration and the tokenizer of their folder; `pretrained` opens them once both are there.
    fn beside(
        folder: &Path,
        pretrained: impl FnOnce() -> Result<Pretrained, EvalError>,
    ) -> Result<Self, EvalError> {
        let problem = |problem: String| EvalError::ModelFile { path: folder.to_owned(), problem };
        if !folder.join(CONFIG_FILE).exists() {
            return Err(problem("has no config.json; a folder needs model.safetensors, config.json and tokenizer.json, tokenizer.model or vocab.txt".to_owned()));
        }
        let tokenizer = ["tokenizer.json", "tokenizer.model", "tokenizer.bin", "vocab.txt"]
            .map(|name| folder.join(name))
            .into_iter()
            .find(|path| path.exists())
            .ok_or_else(|| {
                problem("has no tokenizer.json, tokenizer.model or vocab.txt".to_owned())
            })?;
        let tokenizer = Tokenizer::open(&tokenizer)?;
        let Pretrained { mut config, weights, left_out, pooler } = pretrained()?;
        if config.architecture == Architecture::Bert {
            let EncoderTokens { start, end, mask } = tokenizer.encoder_tokens().ok_or_else(|| {
                problem("its tokenizer has no [CLS], [SEP] and [MASK], which an encoder needs; use the WordPiece tokenizer it was trained with".to_owned())
            })?;
            config.special_tokens = Some(SpecialTokens { start, end, mask });
        }
        Self { config, tokenizer, weights, left_out, pooler }.checked(folder)
    }

    /// Refuses parts that do not fit together.
    fn checked(self, path: &Path) -> Result<Self, EvalError> {
        self.config.validate()?;
        let (pieces, rows) = (self.tokenizer.vocabulary_size(), self.config.vocabulary_size);
        if pieces > rows {
            return Err(EvalError::ModelFile {
                path: path.to_owned(),
                problem: format!("its tokenizer has {pieces} pieces and its model {rows}"),
            });
        }
        self.weights.check_finite()?;
        Ok(self)
    }
}

/// All tensors of a file as floats.
///
/// # Errors
/// If a tensor is neither quantised nor of a float type.
pub fn decoded_weights(artifact: &Artifact) -> Result<NamedWeights, EvalError> {
    let tensors = artifact.tensors.iter().map(|(name, tensor)| decoded(name, tensor));
    Ok(NamedWeights::new(tensors.collect::<Result<_, EvalError>>()?))
}

/// The tensors of a file that are made of floats, decoded.
fn float_tensors(artifact: &Artifact) -> Result<Vec<NamedTensor>, EvalError> {
    let is_float = |tensor: &Tensor| match tensor {
        Tensor::Quantized(_) => true,
        Tensor::Raw(raw) => raw.dtype.is_of_weights(),
    };
    let floats = artifact.tensors.iter().filter(|(_, tensor)| is_float(tensor));
    floats.map(|(name, tensor)| decoded(name, tensor)).collect()
}

fn decoded(name: &str, tensor: &Tensor) -> Result<NamedTensor, EvalError> {
    let data = tensor.to_f32(name)?;
    Ok(NamedTensor { name: name.to_owned(), shape: tensor.shape().to_vec(), data })
}

/// Views of all weights, as the quantiser takes them.
pub fn views(weights: &NamedWeights) -> Vec<Weights<'_>> {
    weights
        .tensors()
        .iter()
        .map(|tensor| Weights { name: &tensor.name, shape: &tensor.shape, data: &tensor.data })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_codec::{FloatType, Overwrite, RawTensor, write_file};
    use backslash_model::initial_weights;
    use backslash_quant::Plan;

    fn small() -> (ModelConfig, NamedWeights) {
        let config =
            ModelConfig { vocabulary_size: 256, width: 32, layers: 1, ..ModelConfig::default() };
        let weights = initial_weights(&config, 5).unwrap();
        (config, weights)
    }

    #[test]
    fn a_file_runs_as_the_weights_it_was_made_of() {
        let (config, weights) = small();
        let metadata = ModelFile::metadata(&config, &Tokenizer::bytes());
        let views = views(&weights);
        let artifact = Plan::relative(&views, 0.2).artifact(&views, &metadata).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bsl");
        write_file(&path, &artifact, Overwrite::Refuse).unwrap();

        let model = ModelFile::open(&path).unwrap();
        assert_eq!(model.config, config);
        assert_eq!(model.weights, decoded_weights(&artifact).unwrap());
        assert_eq!(model.network().unwrap().logits(&[1, 2], 2).dims(), [2, 256]);
    }

    #[test]
    fn a_folder_opens_and_what_it_lacks_is_named() {
        let (config, weights) = small();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let message = || ModelFile::open(folder.path()).unwrap_err().to_string();
        assert!(message().contains("config.json"), "{}", message());
        std::fs::write(at("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        assert!(message().contains("no tokenizer.json"), "{}", message());
        Tokenizer::bytes().save(&at("tokenizer.json")).unwrap();
        assert!(message().contains("model.safetensors"), "{}", message());
        weights.write(&at("model.safetensors")).unwrap();
        assert_eq!(ModelFile::open(folder.path()).unwrap().weights, weights);
    }

    #[test]
    fn tensors_alone_take_configuration_and_tokenizer_from_their_folder() {
        let (config, weights) = small();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let views = views(&weights);
        let plan = Plan::relative(&views, 0.2);
        let mut artifact = plan.artifact(&views, &BTreeMap::new()).unwrap();
        let positions = RawTensor { shape: vec![1], dtype: FloatType::I64, bytes: vec![0; 8] };
        write_file(&at("model.bsl"), &artifact, Overwrite::Refuse).unwrap();
        let message = |path: &Path| ModelFile::open(path).unwrap_err().to_string();
        assert!(message(&at("model.bsl")).contains("decompressed but not run"));
        std::fs::write(at("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        assert!(message(&at("model.bsl")).contains("no tokenizer.json"));
        Tokenizer::bytes().save(&at("tokenizer.json")).unwrap();
        for path in [folder.path().to_owned(), at("model.bsl")] {
            let model = ModelFile::open(&path).unwrap();
            assert_eq!(model.weights, decoded_weights(&artifact).unwrap());
            assert_eq!(model.config, config);
        }
        // A tensor of whole numbers is none of a network.
        artifact.tensors.insert("positions".to_owned(), Tensor::Raw(positions));
        write_file(&at("model.bsl"), &artifact, Overwrite::Replace).unwrap();
        assert!(ModelFile::open(folder.path()).is_ok());
        // Float weights come first, and what does not fit is named with its file.
        weights.write(&at("model.safetensors")).unwrap();
        assert_eq!(ModelFile::open(folder.path()).unwrap().weights, weights);
        let other = ModelConfig { width: 48, ..config };
        std::fs::write(at("config.json"), serde_json::to_vec(&other).unwrap()).unwrap();
        assert!(message(&at("model.bsl")).contains("model.bsl"), "{}", message(&at("model.bsl")));
    }

    #[test]
    fn tensors_alone_are_not_a_model() {
        let error = ModelFile::from_artifact(Path::new("x.bsl"), &Artifact::default()).unwrap_err();
        assert!(error.to_string().contains("decompressed but not run"), "{error}");
    }
}
