//! Tensors to a file, by a factor on the steps, by given steps, or by a number of bytes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use backslash_codec::{
    Artifact, Effort, FileWriter, Overwrite, SizeSplit, Tensor, inspect, write_bytes,
};
use backslash_compress::{
    Allocation, Calibration, CalibrationIndex, CompressError, Fitted, Goal, Recipe, Target,
    fit_trained_to_bytes,
};
use backslash_quant::{Gain, LadderOptions, Plan, QuantError, Rung, Weights, is_coded};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors;
use crate::input::{Given, Input, sorted};
use crate::inspection::split_to_python;
use crate::progress::{Progress, Trials};

/// What all ways of saving are told.
#[derive(FromPyObject)]
pub(crate) struct Options {
    path: PathBuf,
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
    fast: bool,
    overwrite: bool,
    progress: Option<Py<PyAny>>,
}

impl Options {
    pub(crate) fn effort(&self) -> Effort {
        if self.fast { Effort::Fast } else { Effort::Smallest }
    }

    fn overwrite(&self) -> Overwrite {
        if self.overwrite { Overwrite::Replace } else { Overwrite::Refuse }
    }

    /// An existing file is refused before it is worked for.
    fn refuse_existing(&self) -> PyResult<()> {
        if !self.overwrite && self.path.symlink_metadata().is_ok() {
            let path = self.path.clone();
            return Err(errors::codec(backslash_codec::CodecError::Exists { path }));
        }
        Ok(())
    }

    /// A file to which tensors are added one by one.
    pub(crate) fn create(&self) -> PyResult<FileWriter> {
        let writer = FileWriter::create(&self.path, self.effort(), self.overwrite());
        let mut writer = writer.map_err(errors::codec)?;
        for (key, value) in &self.metadata {
            writer.metadata(key, value).map_err(errors::codec)?;
        }
        Ok(writer)
    }

    pub(crate) fn progress(&mut self) -> Progress {
        Progress::new(self.progress.take())
    }
}

/// The step of a tensor is `factor` times its root mean square. One tensor's codes are in memory at a time.
#[pyfunction]
pub(crate) fn save_by_factor<'py>(
    py: Python<'py>,
    tensors: Vec<Given<'py>>,
    factor: f32,
    mut options: Options,
) -> PyResult<Bound<'py, PyDict>> {
    let inputs = sorted(&tensors)?;
    let progress = options.progress();
    let split = write_each(py, &inputs, &options, &progress, |input| input.by_factor(factor))?;
    split_to_python(py, &split)
}

/// Codes are multiples of the given steps, by tensor name: the steps that a training with rounding has seen.
#[pyfunction]
pub(crate) fn save_by_steps<'py>(
    py: Python<'py>,
    tensors: Vec<Given<'py>>,
    steps: BTreeMap<String, f32>,
    mut options: Options,
) -> PyResult<Bound<'py, PyDict>> {
    options.refuse_existing()?;
    let inputs = sorted(&tensors)?;
    refuse_steps_of_others(&inputs, &steps)?;
    let progress = options.progress();
    let split = write_each(py, &inputs, &options, &progress, |input| {
        input.by_step(steps.get(input.name).copied())
    })?;
    split_to_python(py, &split)
}

/// Codes are multiples of the given steps, or where their file has more than `budget` bytes or less than 98 % of them, of
/// these steps times the least factor with which it fits.
#[pyfunction]
pub(crate) fn save_by_scaled_steps<'py>(
    py: Python<'py>,
    tensors: Vec<Given<'py>>,
    steps: BTreeMap<String, f32>,
    budget: u64,
    mut options: Options,
) -> PyResult<Bound<'py, PyDict>> {
    options.refuse_existing()?;
    let inputs = sorted(&tensors)?;
    refuse_steps_of_others(&inputs, &steps)?;
    let progress = options.progress();
    let split = py.detach(|| -> PyResult<SizeSplit> {
        let (floats, verbatim) = (floats(&inputs), verbatim(&inputs));
        let (weights, plan) = (views(&floats), Plan::learned(steps));
        let mut make = |log_factor: f64| -> Result<Artifact, CompressError> {
            let plan = plan.scaled(log_factor.exp() as f32);
            let mut artifact = plan.artifact(&weights, &options.metadata)?;
            artifact.tensors.extend(verbatim.clone());
            Ok(artifact)
        };
        let mut trials = Trials::new(&progress);
        let target = Target { budget, effort: options.effort() };
        let fitted = fit_trained_to_bytes(&mut make, target, &mut |trial| trials.tell(trial))
            .map_err(errors::compress)?;
        trials.outcome?;
        write_fitted(&options, &fitted)
    })?;
    split_to_python(py, &split)
}

/// A size that is asked for, in one of two ways.
#[derive(FromPyObject)]
pub(crate) struct Size {
    budget: Option<u64>,
    bits_per_weight: Option<f64>,
}

impl Size {
    fn goal(&self, recipe: &Recipe<'_>) -> Goal {
        let bits = |bits: f64| (bits * recipe.parameters() as f64 / 8.0) as u64;
        Goal::Bytes(self.budget.or(self.bits_per_weight.map(bits)).unwrap_or_default())
    }
}

/// The finest file of a size, without text.
#[pyfunction]
pub(crate) fn save_by_budget<'py>(
    py: Python<'py>,
    tensors: Vec<Given<'py>>,
    size: Size,
    mut options: Options,
) -> PyResult<Bound<'py, PyDict>> {
    options.refuse_existing()?;
    let inputs = sorted(&tensors)?;
    let progress = options.progress();
    let split = py.detach(|| -> PyResult<SizeSplit> {
        let floats = floats(&inputs);
        let weights = views(&floats);
        refuse_not_finite(&weights)?;
        let ladder = LadderOptions { gain: Gain::Unbiased, ..LadderOptions::default() };
        let recipe = Recipe {
            metadata: options.metadata.clone(),
            verbatim: verbatim(&inputs),
            ..Recipe::of_weights(weights, Rung::Trellis, ladder)
        };
        write_recipe(&recipe, &size, &options, &progress)
    })?;
    split_to_python(py, &split)
}

/// The finest file of a size of a model that has been run elsewhere: `gathered` are the tensors of a calibration, and
/// `index` its [`CalibrationIndex`] as JSON.
#[pyfunction]
pub(crate) fn save_by_calibration<'py>(
    py: Python<'py>,
    tensors: Vec<Given<'py>>,
    gathered: Vec<Given<'py>>,
    index: &str,
    rung: &str,
    size: Size,
    mut options: Options,
) -> PyResult<Bound<'py, PyDict>> {
    options.refuse_existing()?;
    let rung: Rung = rung.parse().map_err(errors::configuration)?;
    let index: CalibrationIndex = serde_json::from_str(index).map_err(errors::configuration)?;
    let (inputs, gathered) = (sorted(&tensors)?, sorted(&gathered)?);
    let progress = options.progress();
    let split = py.detach(|| -> PyResult<SizeSplit> {
        let floats = floats(&inputs);
        let weights = views(&floats);
        refuse_not_finite(&weights)?;
        let gathered = gathered.iter().map(|tensor| {
            let values = tensor.weights().into_owned();
            (tensor.name.to_owned(), (tensor.shape.to_vec(), values))
        });
        let calibration = Calibration::gathered(&index, &gathered.collect(), &weights)
            .map_err(errors::compress)?;
        let metadata = options.metadata.clone();
        let recipe = Recipe::calibrated(weights, metadata, calibration, rung, Allocation::Rows)
            .map_err(errors::compress)?;
        let recipe = Recipe { verbatim: verbatim(&inputs), ..recipe };
        write_recipe(&recipe, &size, &options, &progress)
    })?;
    split_to_python(py, &split)
}

/// Searches the file of a size and writes it.
fn write_recipe(
    recipe: &Recipe<'_>,
    size: &Size,
    options: &Options,
    progress: &Progress,
) -> PyResult<SizeSplit> {
    let mut trials = Trials::new(progress);
    let mut no_loss = |_: &Artifact| unreachable!("no loss is asked for");
    let (goal, effort) = (size.goal(recipe), options.effort());
    let fitted = recipe
        .fit(goal, effort, &mut no_loss, &mut |trial| trials.tell(trial))
        .map_err(errors::compress)?;
    trials.outcome?;
    write_fitted(options, &fitted)
}

/// Writes a file with one tensor's codes in memory at a time.
fn write_each(
    py: Python<'_>,
    inputs: &[Input<'_>],
    options: &Options,
    progress: &Progress,
    code: impl Fn(&Input<'_>) -> PyResult<Tensor> + Sync,
) -> PyResult<SizeSplit> {
    py.detach(|| {
        let mut writer = options.create()?;
        let total = inputs.iter().map(|input| input.bytes.len() as u64).sum();
        let mut done = 0;
        for input in inputs {
            progress.tell(done, Some(total), input.name)?;
            writer.tensor(input.name, &code(input)?).map_err(errors::codec)?;
            done += input.bytes.len() as u64;
        }
        progress.tell(done, Some(total), "writing")?;
        writer.finish().map_err(errors::codec)
    })
}

pub(crate) fn refuse_steps_of_others(
    inputs: &[Input<'_>],
    steps: &BTreeMap<String, f32>,
) -> PyResult<()> {
    let coded = inputs.iter().filter(|input| input.is_float() && is_coded(input.shape));
    let coded: BTreeSet<&str> = coded.map(|input| input.name).collect();
    match steps.keys().find(|name| !coded.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(errors::InvalidTensorError::new_err(format!(
            "there is a step for `{name}`, which is not among the tensors that are coded"
        ))),
    }
}

fn write_fitted(options: &Options, fitted: &Fitted) -> PyResult<SizeSplit> {
    write_bytes(&options.path, &fitted.bytes, options.overwrite()).map_err(errors::codec)?;
    Ok(inspect(&fitted.bytes).map_err(errors::codec)?.split)
}

/// The tensors that are made of weights.
pub(crate) fn floats<'a>(inputs: &'a [Input<'_>]) -> Vec<(&'a Input<'a>, Cow<'a, [f32]>)> {
    let floats = inputs.iter().filter(|input| input.is_float());
    floats.map(|input| (input, input.weights())).collect()
}

pub(crate) fn views<'a>(floats: &'a [(&'a Input<'a>, Cow<'a, [f32]>)]) -> Vec<Weights<'a>> {
    let view = |(input, data): &'a (&'a Input<'a>, Cow<'a, [f32]>)| Weights {
        name: input.name,
        shape: input.shape,
        data,
    };
    floats.iter().map(view).collect()
}

pub(crate) fn verbatim(inputs: &[Input<'_>]) -> BTreeMap<String, Tensor> {
    let others = inputs.iter().filter(|input| !input.is_float());
    others.map(|input| (input.name.to_owned(), input.verbatim())).collect()
}

pub(crate) fn refuse_not_finite(weights: &[Weights<'_>]) -> PyResult<()> {
    for tensor in weights {
        if let Some(index) = tensor.data.iter().position(|value| !value.is_finite()) {
            let (name, value) = (tensor.name.to_owned(), tensor.data[index]);
            return Err(errors::quant(QuantError::NotFinite { name, index, value }));
        }
    }
    Ok(())
}
