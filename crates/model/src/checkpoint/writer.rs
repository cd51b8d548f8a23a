//! One safetensors file, written in order.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use tempfile::NamedTempFile;

use super::{CheckpointTensor, file_error, io_error, parse_dtype};
use crate::ModelError;

/// Writes a safetensors file whose tensors are known beforehand and whose values come in pieces: the bytes
/// that [`NamedWeights::write`](crate::NamedWeights::write) makes, under a temporary name until complete.
///
/// ```
/// use backslash_model::{CheckpointTensor, CheckpointWriter, NamedWeights};
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("model.safetensors");
/// let tensor = CheckpointTensor { name: "w".into(), shape: vec![3], dtype: "F32".into() };
/// let mut writer = CheckpointWriter::create(&path, vec![tensor])?;
/// writer.write_f32(&[1.0, 2.0])?;
/// writer.write_f32(&[3.0])?;
/// writer.finish()?;
/// assert_eq!(NamedWeights::read(&path)?.get("w").unwrap().data, [1.0, 2.0, 3.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CheckpointWriter {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
    tensors: Vec<CheckpointTensor>,
    /// Bytes of values that are still to come.
    missing: u64,
}

impl CheckpointWriter {
    /// Begins a file that is to take the name `path`, with its header.
    ///
    /// # Errors
    /// If the file cannot be written, two tensors have one name, or a type is none that fills whole bytes.
    pub fn create(path: &Path, tensors: Vec<CheckpointTensor>) -> Result<Self, ModelError> {
        let mut typed = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let dtype = parse_dtype(&tensor.dtype).filter(|dtype| dtype.bitsize() % 8 == 0);
            let dtype = dtype.ok_or_else(|| {
                let CheckpointTensor { name, dtype, .. } = &tensor;
                file_error(
                    path,
                    format!("tensor `{name}` is of type {dtype}, which cannot be written"),
                )
            })?;
            typed.push((dtype, tensor));
        }
        // The order of the safetensors library: the widest types first, so that all are aligned.
        typed.sort_by(|(a_type, a), (b_type, b)| b_type.cmp(a_type).then(a.name.cmp(&b.name)));
        let mut end = 0;
        let mut infos = Vec::with_capacity(typed.len());
        for (dtype, tensor) in &typed {
            let begin = end;
            end += tensor.elements() * dtype.bitsize() / 8;
            let (shape, data_offsets) = (tensor.shape.clone(), (begin, end));
            infos.push((tensor.name.clone(), TensorInfo { dtype: *dtype, shape, data_offsets }));
        }
        let tensors: Vec<_> = typed.into_iter().map(|(_, tensor)| tensor).collect();
        let mut names: Vec<_> = tensors.iter().map(|tensor| &tensor.name).collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(file_error(path, format!("two tensors have the name `{}`", pair[0])));
        }
        let metadata = Metadata::new(None, infos);
        let header = metadata.map(|metadata| serde_json::to_vec(&metadata));
        let mut header = match header {
            Ok(Ok(header)) => header,
            Ok(Err(error)) => return Err(file_error(path, error.to_string())),
            Err(error) => return Err(file_error(path, error.to_string())),
        };
        header.resize(header.len().next_multiple_of(8), b' ');
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = NamedTempFile::new_in(folder).map_err(io_error(path))?;
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            tensors,
            missing: end as u64,
        };
        writer.put(&(header.len() as u64).to_le_bytes())?;
        writer.put(&header)?;
        Ok(writer)
    }

    /// The tensors in the order in which their values must come.
    pub fn order(&self) -> Vec<CheckpointTensor> {
        self.tensors.clone()
    }

    /// Adds bytes of values, little endian.
    ///
    /// # Errors
    /// If they are more than the tensors have, or cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        let left = self.missing.checked_sub(bytes.len() as u64);
        self.missing = left.ok_or_else(|| {
            file_error(&self.path, "more values than the shapes of the tensors have".to_owned())
        })?;
        self.put(bytes)
    }

    /// Adds values of F32 tensors.
    ///
    /// # Errors
    /// As [`CheckpointWriter::write`].
    pub fn write_f32(&mut self, values: &[f32]) -> Result<(), ModelError> {
        let mut bytes = [0; 4096];
        for values in values.chunks(bytes.len() / 4) {
            for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
            self.write(&bytes[..4 * values.len()])?;
        }
        Ok(())
    }

    /// Completes the file and gives it its name; an existing file is replaced.
    ///
    /// # Errors
    /// If values are missing, or the file cannot be written.
    pub fn finish(self) -> Result<(), ModelError> {
        let Self { path, file, missing, .. } = self;
        if missing > 0 {
            return Err(file_error(&path, format!("{missing} bytes of values are missing")));
        }
        let file = file.into_inner().map_err(|error| io_error(&path)(error.into_error()))?;
        file.as_file().sync_all().map_err(io_error(&path))?;
        file.persist(&path).map_err(|error| io_error(&path)(error.error))?;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ModelError> {
        self.file.write_all(bytes).map_err(io_error(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NamedTensor, NamedWeights};

    fn tensor(name: &str, shape: &[usize], dtype: &str) -> CheckpointTensor {
        CheckpointTensor { name: name.into(), shape: shape.to_vec(), dtype: dtype.into() }
    }

    #[test]
    fn the_bytes_are_those_of_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, pieces) = (folder.path().join("whole"), folder.path().join("pieces"));
        let shapes =
            [("b", vec![3, 500]), ("a.weight", vec![2]), ("empty", vec![0, 2]), ("scalar", vec![])];
        let data = |name: &str, count: usize| -> Vec<f32> {
            (0..count).map(|at| at as f32 / 7.0 - name.len() as f32).collect()
        };
        let named = shapes.clone().map(|(name, shape)| NamedTensor {
            name: name.to_owned(),
            data: data(name, shape.iter().product()),
            shape,
        });
        NamedWeights::new(named.to_vec()).write(&whole).unwrap();
        let tensors = shapes.iter().map(|(name, shape)| tensor(name, shape, "F32")).collect();
        let mut writer = CheckpointWriter::create(&pieces, tensors).unwrap();
        for tensor in writer.order() {
            for piece in data(&tensor.name, tensor.elements()).chunks(1300) {
                writer.write_f32(piece).unwrap();
            }
        }
        writer.finish().unwrap();
        assert_eq!(std::fs::read(whole).unwrap(), std::fs::read(pieces).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn mixed_types_are_valid_and_mistakes_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mixed.safetensors");
        let tensors =
            vec![tensor("a", &[3], "U8"), tensor("b", &[2], "F32"), tensor("c", &[1], "I64")];
        let mut writer = CheckpointWriter::create(&path, tensors.clone()).unwrap();
        let names: Vec<_> = writer.order().into_iter().map(|tensor| tensor.name).collect();
        assert_eq!(names, ["c", "b", "a"]);
        writer.write(&[7; 18]).unwrap();
        assert!(writer.write(&[7; 2]).unwrap_err().to_string().contains("more values"));
        assert!(writer.finish().unwrap_err().to_string().contains("1 bytes of values are missing"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut writer = CheckpointWriter::create(&path, tensors).unwrap();
        writer.write(&[7; 19]).unwrap();
        writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("a").unwrap().data(), [7; 3]);
        for (wrong, message) in [
            (vec![tensor("a", &[2], "F4")], "`a` is of type F4"),
            (vec![tensor("a", &[2], "I64"), tensor("a", &[2], "U8")], "two tensors"),
        ] {
            let error = CheckpointWriter::create(&path, wrong).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
