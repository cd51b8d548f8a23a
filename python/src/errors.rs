//! Errors of the crates as the exceptions of `backslash.errors`, and those of Python where it has one.

use std::fmt::Display;
use std::path::Path;

use backslash_codec::CodecError;
use backslash_compress::CompressError;
use backslash_quant::QuantError;
use pyo3::exceptions::{PyFileExistsError, PyKeyError};
use pyo3::prelude::*;

mod python {
    #![allow(missing_docs)]
    use pyo3::import_exception;

    import_exception!(backslash.errors, BackslashError);
    import_exception!(backslash.errors, BudgetError);
    import_exception!(backslash.errors, ConfigurationError);
    import_exception!(backslash.errors, CorruptFileError);
    import_exception!(backslash.errors, FutureVersionError);
    import_exception!(backslash.errors, InvalidTensorError);
    import_exception!(backslash.errors, MemoryLimitError);
}

pub(crate) use python::InvalidTensorError;
use python::{
    BackslashError, BudgetError, ConfigurationError, CorruptFileError, FutureVersionError,
    MemoryLimitError,
};

/// The exception for an error met while reading `path`.
pub(crate) fn reading(path: &Path, error: CodecError) -> PyErr {
    match error {
        CodecError::Corrupt { .. } | CodecError::Truncated { .. } => {
            CorruptFileError::new_err(naming(path, &error))
        }
        CodecError::UnsupportedVersion { .. } => FutureVersionError::new_err(naming(path, &error)),
        CodecError::LimitExceeded { .. } => MemoryLimitError::new_err(naming(path, &error)),
        CodecError::InvalidArgument { .. } => BackslashError::new_err(naming(path, &error)),
        other => codec(other),
    }
}

/// A key that a file does not have.
pub(crate) fn missing(path: &Path, kind: &str, name: &str) -> PyErr {
    PyKeyError::new_err(format!("{} has no {kind} `{name}`", path.display()))
}

/// The exception for an error of the codec while writing.
pub(crate) fn codec(error: CodecError) -> PyErr {
    let message = error.to_string();
    match error {
        CodecError::InvalidArgument { .. } => InvalidTensorError::new_err(message),
        CodecError::Exists { .. } => {
            PyFileExistsError::new_err(format!("{message} (overwrite=True)"))
        }
        // Of that kind Python makes FileNotFoundError, PermissionError and the like.
        CodecError::Io { source, .. } => std::io::Error::new(source.kind(), message).into(),
        _ => BackslashError::new_err(message),
    }
}

/// The exception for an error of a quantiser.
pub(crate) fn quant(error: QuantError) -> PyErr {
    match error {
        QuantError::Codec(error) => codec(error),
        QuantError::Unreachable { .. } => BudgetError::new_err(error.to_string()),
        other => InvalidTensorError::new_err(other.to_string()),
    }
}

/// The exception for something that was asked for and does not exist.
pub(crate) fn configuration(error: impl Display) -> PyErr {
    ConfigurationError::new_err(error.to_string())
}

/// The exception for an error of the search.
pub(crate) fn compress(error: CompressError) -> PyErr {
    match error {
        CompressError::Codec(error) => codec(error),
        CompressError::Quant(error) => quant(error),
        other => BackslashError::new_err(other.to_string()),
    }
}

/// The message, with the file in front unless it is there already.
fn naming(path: &Path, error: &CodecError) -> String {
    let (path, message) = (path.display().to_string(), error.to_string());
    if message.starts_with(&path) { message } else { format!("{path}: {message}") }
}
