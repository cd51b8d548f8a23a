//! Progress, told to a Python function.

use backslash_compress::Trial;
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

/// Tells of the trials of a search, until what is told raises something.
pub(crate) struct Trials<'a> {
    progress: &'a Progress,
    pub(crate) outcome: PyResult<()>,
}

impl<'a> Trials<'a> {
    pub(crate) fn new(progress: &'a Progress) -> Self {
        Self { progress, outcome: Ok(()) }
    }

    pub(crate) fn tell(&mut self, trial: Trial) {
        if self.outcome.is_ok() {
            let what = format!("file {}, {} bytes", trial.file, trial.bytes);
            self.outcome = self.progress.tell(trial.trial as u64, None, &what);
        }
    }
}
