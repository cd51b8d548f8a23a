//! How large a file would be that is not written.

use std::collections::BTreeMap;

use backslash_codec::{Artifact, Tensor, encoded_size_with};
use backslash_compress::{Goal, Recipe};
use backslash_quant::{LadderOptions, Rung};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors;
use crate::input::{Given, Input, sorted};
use crate::inspection::split_to_python;
use crate::progress::Trials;
use crate::save::{Options, floats, refuse_not_finite, refuse_steps_of_others, verbatim, views};

/// Bytes by purpose of the file of [`crate::save::save_by_factor`].
#[pyfunction]
pub(crate) fn size_by_factor<'py>(
    py: Python<'py>,
    tensors: Vec<Given<'py>>,
    factor: f32,
    options: Options,
) -> PyResult<Bound<'py, PyDict>> {
    exact(py, &sorted(&tensors)?, options, |input| input.by_factor(factor))
}

/// Bytes by purpose of the file of [`crate::save::save_by_steps`].
#[pyfunction]
pub(crate) fn size_by_steps<'py>(
    py: Python<'py>,
    tensors: Vec<Given<'py>>,
    steps: BTreeMap<String, f32>,
    options: Options,
) -> PyResult<Bound<'py, PyDict>> {
    let inputs = sorted(&tensors)?;
    refuse_steps_of_others(&inputs, &steps)?;
    exact(py, &inputs, options, |input| input.by_step(steps.get(input.name).copied()))
}

/// About the bytes of the smallest file of [`crate::save::save_by_factor`]: by the fast coder, and by the ratio of both
/// for a million weights.
#[pyfunction]
pub(crate) fn estimate_by_factor<'py>(
    py: Python<'py>,
    tensors: Vec<Given<'py>>,
    factor: f32,
    mut options: Options,
) -> PyResult<u64> {
    let inputs = sorted(&tensors)?;
    let progress = options.progress();
    py.detach(|| {
        let floats = floats(&inputs);
        let weights = views(&floats);
        refuse_not_finite(&weights)?;
        let recipe = Recipe {
            metadata: options.metadata.clone(),
            verbatim: verbatim(&inputs),
            ..Recipe::of_weights(weights, Rung::Rtn, LadderOptions::default())
        };
        let mut trials = Trials::new(&progress);
        let mut no_loss = |_: &Artifact| unreachable!("no loss is asked for");
        let goal = Goal::Kappa(f64::from(factor));
        let estimate = recipe
            .estimate(goal, &mut no_loss, &mut |trial| trials.tell(trial))
            .map_err(errors::compress)?;
        trials.outcome?;
        Ok(estimate.bytes)
    })
}

fn exact<'py>(
    py: Python<'py>,
    inputs: &[Input<'_>],
    mut options: Options,
    code: impl Fn(&Input<'_>) -> PyResult<Tensor> + Sync,
) -> PyResult<Bound<'py, PyDict>> {
    let progress = options.progress();
    let split = py.detach(|| {
        let mut tensors = BTreeMap::new();
        for (done, input) in inputs.iter().enumerate() {
            progress.tell(done as u64, Some(inputs.len() as u64), input.name)?;
            tensors.insert(input.name.to_owned(), code(input)?);
        }
        progress.tell(inputs.len() as u64, Some(inputs.len() as u64), "coding")?;
        let artifact = Artifact { metadata: options.metadata.clone(), tensors };
        encoded_size_with(&artifact, options.effort()).map_err(errors::codec)
    })?;
    split_to_python(py, &split)
}
