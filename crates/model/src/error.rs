//! What can be wrong with a model, its weights or its files.

use std::path::PathBuf;

use crate::DeviceChoice;

/// An error of this crate; each names the tensor, key or file and says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A device that cannot be used.
    #[error("device {choice}: {reason}")]
    Device {
        /// What was asked for.
        choice: DeviceChoice,
        /// What stands against it.
        reason: String,
    },
    /// A configuration value that no network can be built with.
    #[error("model.{key} = {value}: {expected}")]
    Config {
        /// The configuration key.
        key: &'static str,
        /// The value found.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// A tensor that the architecture has and the weights do not.
    #[error(
        "tensor `{name}` of shape {expected:?} is missing: these weights are of another architecture, or incomplete"
    )]
    MissingTensor {
        /// The tensor's name.
        name: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A tensor that was asked for by name and is not in a checkpoint.
    #[error("the checkpoint has no tensor `{name}`")]
    NotInCheckpoint {
        /// The tensor's name.
        name: String,
    },
    /// A tensor that the architecture does not know.
    #[error(
        "tensor `{name}` is not part of this architecture: these weights belong to another model"
    )]
    UnknownTensor {
        /// The tensor's name.
        name: String,
    },
    /// A tensor of another shape than the configuration asks for.
    #[error(
        "tensor `{name}` has shape {found:?}, and the model's configuration asks for {expected:?}"
    )]
    Shape {
        /// The tensor's name.
        name: String,
        /// The shape found.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A value that is not a number, or infinite.
    #[error("tensor `{name}` holds {value} at index {index}: weights must be finite numbers")]
    NotFinite {
        /// The tensor's name.
        name: String,
        /// The row-major position.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// A tensor whose element type is not one of the float types that can be read as weights.
    #[error("tensor `{name}` is of type {found}: weights must be F32, F16 or BF16")]
    ElementType {
        /// The tensor's name.
        name: String,
        /// The type found.
        found: String,
    },
    /// A file that is not what it should be.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused to read or write.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}
