//! Safetensors checkpoints of any size, read and written in ranges with ordinary reads and writes.
//!
//! [`CheckpointReader`] opens one file, or a folder of shards with an index, and reads the headers only;
//! values are read when asked for, a range at a time. [`CheckpointWriter`] takes all names and shapes first and
//! then the values. [`NamedWeights`](crate::NamedWeights) is for models that are to be run: those are in memory
//! anyway.

mod reader;
mod writer;

use std::path::Path;

use safetensors::tensor::Dtype;

use crate::ModelError;

pub use reader::CheckpointReader;
pub use writer::CheckpointWriter;

/// One tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointTensor {
    /// Name of the tensor.
    pub name: String,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Element type by its safetensors name, such as `BF16`.
    pub dtype: String,
}

impl CheckpointTensor {
    /// Number of values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether [`CheckpointReader::read_f32`] reads it: F32, F16 or BF16.
    pub fn is_float(&self) -> bool {
        matches!(self.dtype.as_str(), "F32" | "F16" | "BF16")
    }
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> ModelError + '_ {
    |source| ModelError::Io { path: path.to_owned(), source }
}

fn file_error(path: &Path, reason: String) -> ModelError {
    ModelError::File { path: path.to_owned(), reason }
}

/// The type of that safetensors name.
fn parse_dtype(name: &str) -> Option<Dtype> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}
