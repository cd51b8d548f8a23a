//! A file that is written tensor by tensor.

use backslash_codec::{FileWriter, Tensor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors;
use crate::input::{Given, Input};
use crate::inspection::split_to_python;
use crate::save::Options;

/// An unfinished file, which is gone unless it is finished.
#[pyclass]
pub(crate) struct Writer {
    writer: Option<FileWriter>,
}

#[pymethods]
impl Writer {
    #[new]
    fn new(options: Options) -> PyResult<Self> {
        Ok(Self { writer: Some(options.create()?) })
    }

    /// Adds a tensor whose step is `factor` times its root mean square. Names have to increase.
    fn by_factor(&mut self, py: Python<'_>, tensor: Given<'_>, factor: f32) -> PyResult<()> {
        let input = Input::of(&tensor)?;
        self.add(py, &input, |input| input.by_factor(factor))
    }

    /// Adds a tensor whose codes are multiples of `step`; one that is not coded has none.
    fn by_step(&mut self, py: Python<'_>, tensor: Given<'_>, step: Option<f32>) -> PyResult<()> {
        let input = Input::of(&tensor)?;
        self.add(py, &input, |input| input.by_step(step))
    }

    /// Completes the file, and tells its bytes by purpose.
    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let writer = self.writer.take().ok_or_else(finished)?;
        let split = py.detach(|| writer.finish()).map_err(errors::codec)?;
        split_to_python(py, &split)
    }

    /// Gives up: nothing stays behind.
    fn abandon(&mut self) {
        self.writer = None;
    }
}

impl Writer {
    fn add(
        &mut self,
        py: Python<'_>,
        input: &Input<'_>,
        code: impl FnOnce(&Input<'_>) -> PyResult<Tensor> + Send,
    ) -> PyResult<()> {
        let writer = self.writer.as_mut().ok_or_else(finished)?;
        py.detach(|| writer.tensor(input.name, &code(input)?).map(drop).map_err(errors::codec))
    }
}

fn finished() -> PyErr {
    PyValueError::new_err("the file is finished")
}
