//! From an encoder to a classifier.

use crate::{ModelConfig, ModelError, NamedTensor, NamedWeights, initial_weights};

/// An encoder as a classifier of these labels, to be fine-tuned: its embeddings and blocks as they are, its pooler where it has
/// one or `pooler` holds one, and what is missing as [`initial_weights`] draws it. A head for masked tokens is left out, and a
/// classifier of other labels.
///
/// ```
/// use backslash_model::{Architecture, ModelConfig, as_classifier, initial_weights};
///
/// let encoder = ModelConfig { architecture: Architecture::Bert, vocabulary_size: 16, kv_heads: 4, ..ModelConfig::default() };
/// let weights = initial_weights(&encoder, 1)?;
/// let labels = ["dull", "fine"].map(str::to_owned);
/// let (config, classifier) = as_classifier(&encoder, &weights, &[], &labels, 2)?;
/// assert_eq!(classifier.get("classifier.weight").unwrap().shape, [2, 128]);
/// let embedding = "embeddings.word_embeddings.weight";
/// assert_eq!(classifier.get(embedding), weights.get(embedding));
/// # Ok::<(), backslash_model::ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::Config`] if the network is no encoder, or the labels are fewer than two or not different.
pub fn as_classifier(
    config: &ModelConfig,
    weights: &NamedWeights,
    pooler: &[NamedTensor],
    labels: &[String],
    seed: u64,
) -> Result<(ModelConfig, NamedWeights), ModelError> {
    let same_labels = config.labels == labels;
    let config = ModelConfig { labels: labels.to_vec(), masked_head: false, ..config.clone() };
    let mut classifier = initial_weights(&config, seed)?;
    for tensor in classifier.tensors_mut() {
        if tensor.name.starts_with("classifier.") && !same_labels {
            continue;
        }
        let of_pooler = pooler.iter().find(|known| known.name == tensor.name);
        if let Some(known) = weights.get(&tensor.name).or(of_pooler) {
            tensor.data.clone_from(&known.data);
        }
    }
    Ok((config, classifier))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Architecture;

    #[test]
    fn what_an_encoder_has_is_kept_and_what_it_lacks_is_drawn() {
        let words = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        let encoder = ModelConfig {
            architecture: Architecture::Bert,
            vocabulary_size: 16,
            width: 8,
            layers: 1,
            heads: 2,
            kv_heads: 2,
            masked_head: true,
            ..ModelConfig::default()
        };
        let weights = initial_weights(&encoder, 1).unwrap();
        let of = |name: &str, shape: &[usize]| NamedTensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data: vec![0.5; shape.iter().product()],
        };
        let pooler = [of("pooler.dense.weight", &[8, 8]), of("pooler.dense.bias", &[8])];
        let (config, first) =
            as_classifier(&encoder, &weights, &pooler, &words(["a", "b"]), 2).unwrap();
        assert!(!config.masked_head && first.get("cls.predictions.bias").is_none());
        assert_eq!(first.get("pooler.dense.weight"), Some(&pooler[0]));
        for tensor in weights.tensors().iter().filter(|tensor| !tensor.name.starts_with("cls.")) {
            assert_eq!(first.get(&tensor.name), Some(tensor));
        }
        // The same labels go on, others begin anew, and the pooler stays.
        let again = as_classifier(&config, &first, &[], &words(["a", "b"]), 3).unwrap();
        assert_eq!(again, (config.clone(), first.clone()));
        let (_, other) = as_classifier(&config, &first, &[], &words(["c", "d"]), 3).unwrap();
        assert_ne!(other.get("classifier.weight"), first.get("classifier.weight"));
        assert_eq!(other.get("pooler.dense.weight"), Some(&pooler[0]));
        assert!(as_classifier(&config, &first, &[], &words(["a", "a"]), 3).is_err());
    }
}
