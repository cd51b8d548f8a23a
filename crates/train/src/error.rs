//! What can go wrong in a run.

use std::path::PathBuf;

use backslash_data::Error as DataError;
use backslash_model::ModelError;
use backslash_quant::QuantError;

/// An error of this crate; each says what was wrong with which key, file or step.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A configuration that is not TOML of the right types.
    #[error("configuration: {reason}")]
    ConfigSyntax {
        /// What the reader found.
        reason: String,
    },
    /// A key that no configuration has.
    #[error("unknown configuration key `{key}`: did you mean `{nearest}`?")]
    UnknownKey {
        /// The key found.
        key: String,
        /// The most similar known key.
        nearest: String,
    },
    /// A value out of range.
    #[error("{key} = {value}: {expected}")]
    ConfigValue {
        /// The key.
        key: &'static str,
        /// The value found.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// A loss or a gradient that is not a number.
    #[error(
        "step {step}: the {what} is {value}; the run stops here and its last checkpoint is kept (a lower train.learning_rate or rate.lambda may help)"
    )]
    Diverged {
        /// Steps taken so far.
        step: u64,
        /// What is not a number.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// A budget that no file of the model meets.
    #[error(
        "rate.budget = {budget}: the file of this model has {smallest} bytes without any code, so it can be asked for {smallest} to about {largest} bytes (a smaller vocabulary or model takes fewer)"
    )]
    BudgetUnreachable {
        /// Bytes asked for.
        budget: u64,
        /// Bytes of a file whose codes are all zero.
        smallest: u64,
        /// Bytes that no run needs more of.
        largest: u64,
    },
    /// An evaluation on the way that could not be made.
    #[error("step {step}: the evaluation failed: {reason}")]
    Evaluation {
        /// Steps taken so far.
        step: u64,
        /// Why.
        reason: String,
    },
    /// A run folder that is already in use.
    #[error("{path} holds a run already: pass --resume to continue it, or --force to start over")]
    RunExists {
        /// The folder.
        path: PathBuf,
    },
    /// A run folder that another process writes to.
    #[error("{path}: another process trains in this folder: wait for it, or name another folder")]
    InUse {
        /// The file that it holds.
        path: PathBuf,
    },
    /// Nothing to resume.
    #[error("{path} holds no run to resume: start one without --resume")]
    NoCheckpoint {
        /// The folder.
        path: PathBuf,
    },
    /// A checkpoint that does not fit the configuration, or is damaged.
    #[error("{path}: {reason}")]
    Checkpoint {
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
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The compression.
    #[error(transparent)]
    Quant(#[from] QuantError),
}
