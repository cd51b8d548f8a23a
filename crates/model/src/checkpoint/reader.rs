//! Ranges of tensors out of one file or several.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

use super::{CheckpointTensor, file_error, io_error};
use crate::ModelError;

/// Bytes before the header: its length.
const LENGTH_BYTES: u64 = 8;
/// Longest header, as the format has it.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Name of the index in a folder of shards.
const INDEX: &str = "model.safetensors.index.json";

/// An open checkpoint: one safetensors file, or a folder with `model.safetensors.index.json` and the shards
/// that it lists.
///
/// ```
/// use backslash_model::{CheckpointReader, NamedTensor, NamedWeights};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.safetensors");
/// let tensor = NamedTensor { name: "w".into(), shape: vec![2, 2], data: vec![1.0, 2.0, 3.0, 4.0] };
/// NamedWeights::new(vec![tensor]).write(&path)?;
/// let mut reader = CheckpointReader::open(&path)?;
/// let mut row = [0.0; 2];
/// reader.read_f32("w", 2, &mut row)?;
/// assert_eq!(row, [3.0, 4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CheckpointReader {
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Place>,
    /// Free text in the headers, by key.
    metadata: BTreeMap<String, String>,
    /// Bytes on their way to being floats.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
}

/// Where the values of a tensor lie.
#[derive(Clone, Debug)]
struct Place {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Offset in the file.
    start: u64,
    bytes: u64,
}

impl CheckpointReader {
    /// Whether a path is a folder of shards with an index.
    pub fn is_sharded(path: &Path) -> bool {
        path.join(INDEX).is_file()
    }

    /// Opens a safetensors file, or a folder with `model.safetensors.index.json`.
    ///
    /// # Errors
    /// If a file cannot be read, is no safetensors file or is cut short, or if index and shards disagree.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let mut reader = Self {
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            buffer: Vec::new(),
        };
        if !path.is_dir() {
            reader.tensors = reader.open_shard(path)?;
            return Ok(reader);
        }
        let index = path.join(INDEX);
        for (file, names) in read_index(&index)? {
            let shard = path.join(&file);
            let mut found = reader.open_shard(&shard)?;
            for name in names {
                let place = found.remove(&name).ok_or_else(|| {
                    file_error(&shard, format!("lacks tensor `{name}`, which {INDEX} places there"))
                })?;
                reader.tensors.insert(name, place);
            }
        }
        Ok(reader)
    }

    /// The tensors, sorted by name.
    pub fn tensors(&self) -> Vec<CheckpointTensor> {
        let info = |(name, place): (&String, &Place)| CheckpointTensor {
            name: name.clone(),
            shape: place.shape.clone(),
            dtype: place.dtype.to_string(),
        };
        self.tensors.iter().map(info).collect()
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<CheckpointTensor> {
        self.tensors.get(name).map(|place| CheckpointTensor {
            name: name.to_owned(),
            shape: place.shape.clone(),
            dtype: place.dtype.to_string(),
        })
    }

    /// Reads values from `position` on, row-major, until `values` is full; F16 and BF16 are widened, which is
    /// exact.
    ///
    /// # Errors
    /// If the tensor is missing, of another type, ends before `values` is full, or cannot be read.
    pub fn read_f32(
        &mut self,
        name: &str,
        position: usize,
        values: &mut [f32],
    ) -> Result<(), ModelError> {
        let dtype = self.place(name)?.dtype;
        let width = match dtype {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            other => {
                let (name, found) = (name.to_owned(), other.to_string());
                return Err(ModelError::ElementType { name, found });
            }
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(values.len() * width, 0);
        self.read_bytes(name, (position * width) as u64, &mut buffer)?;
        let pairs = || buffer.as_chunks::<2>().0.iter();
        match dtype {
            Dtype::F32 => {
                let words = buffer.as_chunks::<4>().0.iter();
                values.iter_mut().zip(words).for_each(|(v, w)| *v = f32::from_le_bytes(*w));
            }
            Dtype::F16 => {
                let words = pairs().map(|word| half::f16::from_le_bytes(*word));
                values.iter_mut().zip(words).for_each(|(value, word)| *value = word.to_f32());
            }
            _ => {
                let words = pairs().map(|word| half::bf16::from_le_bytes(*word));
                values.iter_mut().zip(words).for_each(|(value, word)| *value = word.to_f32());
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    /// All values of a tensor, row-major.
    ///
    /// # Errors
    /// As [`CheckpointReader::read_f32`].
    pub fn read_all_f32(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let mut values = vec![0.0; self.place(name)?.shape.iter().product()];
        self.read_f32(name, 0, &mut values)?;
        Ok(values)
    }

    /// Gives all values of a tensor to `sink` as f32, in order, at most `most` at a time.
    ///
    /// # Errors
    /// As [`CheckpointReader::read_f32`], and those of `sink`.
    pub fn pieces<E: From<ModelError>>(
        &mut self,
        name: &str,
        most: usize,
        mut sink: impl FnMut(&[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let elements = self.place(name)?.shape.iter().product::<usize>();
        let mut values = vec![0.0; elements.min(most)];
        for position in (0..elements).step_by(most.max(1)) {
            let values = &mut values[..most.min(elements - position)];
            self.read_f32(name, position, values)?;
            sink(values)?;
        }
        Ok(())
    }

    /// Reads bytes of a tensor from `offset` on until `bytes` is full.
    ///
    /// # Errors
    /// If the tensor is missing, ends before `bytes` is full, or cannot be read.
    pub fn read_bytes(
        &mut self,
        name: &str,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), ModelError> {
        let place = self.place(name)?.clone();
        let Shard { path, file } = &mut self.shards[place.shard];
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= place.bytes);
        if end.is_none() {
            let reason = format!(
                "tensor `{name}` has {} bytes, {} were asked for from byte {offset}",
                place.bytes,
                bytes.len()
            );
            return Err(file_error(path, reason));
        }
        file.seek(SeekFrom::Start(place.start + offset)).map_err(io_error(path))?;
        file.read_exact(bytes).map_err(io_error(path))
    }

    /// What the `__metadata__` of a header holds at a key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Bytes of all tensors.
    pub fn data_bytes(&self) -> u64 {
        self.tensors.values().map(|place| place.bytes).sum()
    }

    /// Bytes of one tensor.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn tensor_bytes(&self, name: &str) -> Result<u64, ModelError> {
        Ok(self.place(name)?.bytes)
    }

    fn place(&self, name: &str) -> Result<&Place, ModelError> {
        self.tensors.get(name).ok_or_else(|| ModelError::NotInCheckpoint { name: name.to_owned() })
    }

    /// Adds a file and tells what is in it.
    fn open_shard(&mut self, path: &Path) -> Result<BTreeMap<String, Place>, ModelError> {
        let mut file = File::open(path).map_err(io_error(path))?;
        let (metadata, start) = read_header(&mut file, path)?;
        self.metadata.extend(metadata.metadata().clone().unwrap_or_default());
        let shard = self.shards.len();
        self.shards.push(Shard { path: path.to_owned(), file });
        let place = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
            let (begin, end) = info.data_offsets;
            let place = Place {
                shard,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: start + begin as u64,
                bytes: (end - begin) as u64,
            };
            (name, place)
        };
        Ok(metadata.tensors().into_iter().map(place).collect())
    }
}

/// The header of a safetensors file and the offset of its data, after checking that the file is complete.
fn read_header(file: &mut File, path: &Path) -> Result<(Metadata, u64), ModelError> {
    let invalid =
        |reason: String| file_error(path, format!("not a valid safetensors file ({reason})"));
    let length = file.metadata().map_err(io_error(path))?.len();
    if length < LENGTH_BYTES {
        return Err(invalid(format!("{length} bytes are less than a header")));
    }
    let mut prefix = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut prefix).map_err(io_error(path))?;
    let header_bytes = u64::from_le_bytes(prefix);
    if header_bytes > MAX_HEADER_BYTES.min(length - LENGTH_BYTES) {
        return Err(invalid(format!(
            "a header of {header_bytes} bytes in a file of {length}; at most {MAX_HEADER_BYTES} are allowed"
        )));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(io_error(path))?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| invalid(error.to_string()))?;
    let start = LENGTH_BYTES + header_bytes;
    if start + metadata.data_len() as u64 != length {
        return Err(invalid(format!(
            "header and tensors need {} bytes, the file has {length}",
            start + metadata.data_len() as u64
        )));
    }
    Ok((metadata, start))
}

/// The tensors of each shard.
fn read_index(path: &Path) -> Result<BTreeMap<String, BTreeSet<String>>, ModelError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read(path).map_err(io_error(path))?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|error| file_error(path, format!("not an index of shards ({error})")))?;
    let mut shards: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in index.weight_map {
        // Shards lie beside their index; a path out of the folder is not followed.
        if Path::new(&file).file_name() != Some(file.as_ref()) {
            return Err(file_error(path, format!("`{file}` is not the name of a file beside it")));
        }
        shards.entry(file).or_default().insert(tensor);
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NamedTensor, NamedWeights};

    fn weights(prefix: &str, count: usize) -> NamedWeights {
        let tensor = |index: usize| NamedTensor {
            name: format!("{prefix}.{index}"),
            shape: vec![index, 7],
            data: (0..index * 7).map(|at| at as f32 - index as f32 / 3.0).collect(),
        };
        NamedWeights::new((0..count).map(tensor).collect())
    }

    fn collect(reader: &mut CheckpointReader, name: &str, most: usize) -> Vec<f32> {
        let mut values = Vec::new();
        let sink = |piece: &[f32]| {
            assert!(piece.len() <= most);
            values.extend_from_slice(piece);
            Ok::<_, ModelError>(())
        };
        reader.pieces(name, most, sink).unwrap();
        values
    }

    #[test]
    fn ranges_are_those_of_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        weights("layer", 5).write(&path).unwrap();
        let mut reader = CheckpointReader::open(&path).unwrap();
        for tensor in weights("layer", 5).tensors() {
            for most in [1, 5, 1000] {
                assert_eq!(collect(&mut reader, &tensor.name, most), tensor.data);
            }
            assert_eq!(reader.tensor(&tensor.name).unwrap().shape, tensor.shape);
        }
        assert_eq!(reader.data_bytes(), 4 * 7 * 10);
        let message = reader.read_f32("layer.2", 10, &mut [0.0; 5]).unwrap_err().to_string();
        assert!(message.contains("w.safetensors") && message.contains("`layer.2`"), "{message}");
        let message = reader.read_f32("x", 0, &mut []).unwrap_err().to_string();
        assert!(message.contains("no tensor `x`"), "{message}");
    }

    #[test]
    fn sixteen_bits_are_widened_and_other_types_are_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let halves: Vec<u8> =
            [1.5_f32, -2.0].iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
        let brains: Vec<u8> =
            [0.5_f32, 3.0].iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect();
        let views = [
            ("f16", Dtype::F16, &halves),
            ("bf16", Dtype::BF16, &brains),
            ("i8", Dtype::I8, &halves),
        ]
        .map(|(name, dtype, bytes)| {
            let shape = vec![bytes.len() * 8 / dtype.bitsize()];
            (name, safetensors::tensor::TensorView::new(dtype, shape, bytes).unwrap())
        });
        let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
        std::fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
        let mut reader = CheckpointReader::open(&path).unwrap();
        assert_eq!((reader.metadata("format"), reader.metadata("f16")), (Some("pt"), None));
        assert_eq!(collect(&mut reader, "f16", 9), [1.5, -2.0]);
        assert_eq!(collect(&mut reader, "bf16", 1), [0.5, 3.0]);
        assert!(!reader.tensor("i8").unwrap().is_float());
        let message = reader.read_f32("i8", 0, &mut [0.0]).unwrap_err().to_string();
        assert!(message.contains("`i8` is of type I8"), "{message}");
        let mut bytes = [0; 3];
        reader.read_bytes("i8", 1, &mut bytes).unwrap();
        assert_eq!(bytes, halves[1..]);
    }

    #[test]
    fn shards_are_one_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        weights("a", 3).write(&at("model-1.safetensors")).unwrap();
        weights("b", 2).write(&at("model-2.safetensors")).unwrap();
        let index = |map: serde_json::Value| {
            std::fs::write(at(INDEX), serde_json::json!({"weight_map": map}).to_string()).unwrap();
        };
        let (one, two) = ("model-1.safetensors", "model-2.safetensors");
        assert!(!CheckpointReader::is_sharded(folder.path()));
        index(serde_json::json!({"a.1": one, "a.2": one, "b.0": two, "b.1": two}));
        assert!(CheckpointReader::is_sharded(folder.path()));
        let mut reader = CheckpointReader::open(folder.path()).unwrap();
        let names: Vec<_> = reader.tensors().into_iter().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["a.1", "a.2", "b.0", "b.1"]);
        assert_eq!(collect(&mut reader, "b.1", 3), weights("b", 2).get("b.1").unwrap().data);

        let message = || CheckpointReader::open(folder.path()).unwrap_err().to_string();
        index(serde_json::json!({"a.1": two}));
        assert!(message().contains("model-2.safetensors: lacks tensor `a.1`"), "{}", message());
        index(serde_json::json!({"a.1": "model-3.safetensors"}));
        assert!(message().contains("model-3.safetensors"), "{}", message());
        for outside in ["../x.safetensors", "/etc/passwd", "..", "sub/x"] {
            index(serde_json::json!({"a.1": outside}));
            assert!(message().contains("beside it"), "{}", message());
        }
        std::fs::write(at(INDEX), "{}").unwrap();
        assert!(message().contains("not an index"), "{}", message());
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.safetensors");
        weights("layer", 3).write(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let message = CheckpointReader::open(&path).unwrap_err().to_string();
            assert!(message.contains("cut.safetensors: not a valid"), "{message}");
        }
        let mut huge = whole.clone();
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&path, huge).unwrap();
        assert!(CheckpointReader::open(&path).is_err());
        std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(CheckpointReader::open(&path).is_err());
    }
}
