//! Where the bytes of a file go, as dictionaries that `backslash.inspection` makes classes of.

use std::path::PathBuf;

use backslash_codec::{Limits, SizeSplit, read_bytes};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::errors;

/// Bytes by purpose.
pub(crate) fn split_to_python<'py>(
    py: Python<'py>,
    split: &SizeSplit,
) -> PyResult<Bound<'py, PyDict>> {
    let dictionary = PyDict::new(py);
    dictionary.set_item("payload", split.payload)?;
    dictionary.set_item("tables", split.tables)?;
    dictionary.set_item("scales", split.scales)?;
    dictionary.set_item("corrections", split.corrections)?;
    dictionary.set_item("uncoded", split.uncoded)?;
    dictionary.set_item("directory", split.directory)?;
    Ok(dictionary)
}

/// The split of the file, its tensors, and the keys of its metadata with stored and decoded bytes.
type Inspected<'py> = (Bound<'py, PyDict>, Bound<'py, PyList>, Vec<(String, u64, u64)>);

/// Reads directory and tables.
#[pyfunction]
pub(crate) fn inspect<'py>(
    py: Python<'py>,
    path: PathBuf,
    max_memory: u64,
) -> PyResult<Inspected<'py>> {
    let limits = Limits { max_memory };
    let inspection = py
        .detach(|| backslash_codec::inspect(&read_bytes(&path, &limits)?))
        .map_err(|error| errors::reading(&path, error))?;
    let tensors = PyList::empty(py);
    for report in &inspection.tensors {
        let dictionary = PyDict::new(py);
        dictionary.set_item("name", &report.name)?;
        dictionary.set_item("shape", &report.shape)?;
        dictionary.set_item("coder", &report.coder)?;
        dictionary.set_item("step", report.step)?;
        dictionary.set_item("bits_per_weight", report.bits_per_weight)?;
        dictionary.set_item("split", split_to_python(py, &report.split)?)?;
        tensors.append(dictionary)?;
    }
    Ok((split_to_python(py, &inspection.split)?, tensors, inspection.metadata))
}
