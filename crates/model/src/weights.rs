//! Weights on the host: names, shapes and values, and the safetensors files they come from and go to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::ModelError;

/// Last part of the names of embeddings and output matrices, of all families.
const EMBEDDINGS: [&str; 10] = [
    "tok_emb",
    "bigram_emb",
    "trigram_emb",
    "embed_tokens",
    "wte",
    "wpe",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "lm_head",
];

/// Whether a tensor of that name is an embedding, or the matrix that makes logits: each of its rows belongs to one token or
/// position.
///
/// ```
/// use backslash_model::is_embedding;
/// assert!(is_embedding("tok_emb.weight") && is_embedding("model.embed_tokens.weight"));
/// assert!(!is_embedding("blocks.0.attn.c_q.weight"));
/// ```
pub fn is_embedding(name: &str) -> bool {
    let module = name.strip_suffix(".weight");
    module.is_some_and(|module| EMBEDDINGS.contains(&module.rsplit('.').next().unwrap_or(module)))
}

/// Whether a tensor of that name has rows for pairs or triples of tokens.
pub fn is_ngram_table(name: &str) -> bool {
    ["bigram_emb.weight", "trigram_emb.weight"].contains(&name)
}

/// One tensor: its name, its shape and its values in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Name, as the architecture calls it.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// `shape.product()` values, row-major.
    pub data: Vec<f32>,
}

/// All tensors of a model, sorted by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedWeights {
    tensors: Vec<NamedTensor>,
}

impl NamedWeights {
    /// Weights from tensors in any order.
    ///
    /// # Panics
    /// If two tensors have one name or a tensor's length is not the product of its shape.
    pub fn new(mut tensors: Vec<NamedTensor>) -> Self {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        for pair in tensors.windows(2) {
            assert_ne!(pair[0].name, pair[1].name, "two tensors of one name");
        }
        for tensor in &tensors {
            assert_eq!(
                tensor.shape.iter().product::<usize>(),
                tensor.data.len(),
                "{}",
                tensor.name
            );
        }
        Self { tensors }
    }

    /// The tensors, sorted by name.
    pub fn tensors(&self) -> &[NamedTensor] {
        &self.tensors
    }

    /// The tensors, sorted by name; lengths and names must stay as they are.
    pub fn tensors_mut(&mut self) -> &mut [NamedTensor] {
        &mut self.tensors
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&NamedTensor> {
        self.position(name).map(|at| &self.tensors[at])
    }

    /// Where the tensor of that name stands.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name)).ok()
    }

    /// Number of values in all tensors.
    pub fn parameters(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.data.len()).sum()
    }

    /// Checks that every value is a finite number.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] names the first tensor and position that is not.
    pub fn check_finite(&self) -> Result<(), ModelError> {
        for tensor in &self.tensors {
            if let Some(index) = tensor.data.iter().position(|value| !value.is_finite()) {
                return Err(ModelError::NotFinite {
                    name: tensor.name.clone(),
                    index,
                    value: tensor.data[index],
                });
            }
        }
        Ok(())
    }

    /// Reads a safetensors file; F16 and BF16 values are widened, which is exact.
    ///
    /// # Errors
    /// If the file cannot be read, is no safetensors file, or holds a tensor that is not of a float type.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let (tensors, _) = read_tensors(path, |_| true)?;
        Ok(Self::new(tensors))
    }

    /// Writes a safetensors file of F32 tensors: to a temporary file first, which takes the name when it
    /// is complete, so that a failure leaves nothing behind. An existing file is replaced.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ModelError> {
        let views = self.tensors.iter().map(|tensor| (tensor.name.as_str(), View(tensor)));
        let bytes =
            safetensors::serialize(views, None::<HashMap<String, String>>).map_err(|error| {
                ModelError::File { path: path.to_owned(), reason: error.to_string() }
            })?;
        write_atomically(path, &bytes)
    }
}

/// The tensors of a safetensors file that are wanted, and the names of the others.
///
/// # Errors
/// If the file cannot be read, is no safetensors file, or a wanted tensor is not of a float type.
pub(crate) fn read_tensors(
    path: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<(Vec<NamedTensor>, Vec<String>), ModelError> {
    let bytes =
        std::fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| ModelError::File {
        path: path.to_owned(),
        reason: format!("not a valid safetensors file ({error})"),
    })?;
    let (mut tensors, mut others) = (Vec::with_capacity(file.len()), Vec::new());
    for (name, view) in file.iter() {
        if !wanted(name) {
            others.push(name.to_owned());
            continue;
        }
        tensors.push(NamedTensor {
            name: name.to_owned(),
            shape: view.shape().to_vec(),
            data: widen(name, &view)?,
        });
    }
    Ok((tensors, others))
}

/// Writes a file under a temporary name beside it and renames it when complete.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

/// The values of a float tensor as `f32`.
fn widen(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, ModelError> {
    let bytes = view.data();
    Ok(match view.dtype() {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => {
            bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
        }
        Dtype::BF16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| half::bf16::from_le_bytes(*b).to_f32())
            .collect(),
        other => {
            return Err(ModelError::ElementType {
                name: name.to_owned(),
                found: format!("{other:?}"),
            });
        }
    })
}

/// A tensor as the safetensors writer wants to see it.
struct View<'a>(&'a NamedTensor);

impl safetensors::View for View<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.data.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        4 * self.0.data.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, data: Vec<f32>) -> NamedTensor {
        NamedTensor { name: name.to_owned(), shape: vec![data.len()], data }
    }

    #[test]
    fn a_file_gives_back_the_same_weights() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let weights = NamedWeights::new(vec![
            tensor("b", vec![1.5, -0.0, f32::MIN_POSITIVE]),
            tensor("a", vec![]),
        ]);
        weights.write(&path).unwrap();
        let again = NamedWeights::read(&path).unwrap();
        assert_eq!(again, weights);
        assert_eq!(again.get("b").unwrap().data[1].to_bits(), (-0.0_f32).to_bits());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn values_that_are_no_numbers_are_named_with_their_place() {
        let weights = NamedWeights::new(vec![tensor("layer.weight", vec![0.0, f32::NAN])]);
        let message = weights.check_finite().unwrap_err().to_string();
        assert!(message.contains("`layer.weight` holds NaN at index 1"), "{message}");
    }

    #[test]
    fn a_cut_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.safetensors");
        NamedWeights::new(vec![tensor("a", vec![1.0; 64])]).write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let message = NamedWeights::read(&path).unwrap_err().to_string();
        assert!(
            message.contains("cut.safetensors") && message.contains("safetensors"),
            "{message}"
        );
    }
}
