//! Progress, told to a Python function.

use pyo3::prelude::*;

/// A function `(done, total, what)`, or nobody to tell.
pub(crate) struct Progress(Option<Py<PyAny>>);

impl Progress {
    pub(crate) fn new(callback: Option<Py<PyAny>>) -> Self {
        Self(callback)
    }

    /// Calls the function, and lets Python see to signals: an exception of either ends the work.
    pub(crate) fn tell(&self, done: u64, total: Option<u64>, what: &str) -> PyResult<()> {
        Python::attach(|py| {
            py.check_signals()?;
            match &self.0 {
                Some(callback) => callback.call1(py, (done, total, what)).map(drop),
                None => Ok(()),
            }
        })
    }
}
