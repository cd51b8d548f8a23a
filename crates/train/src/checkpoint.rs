//! The state of a run between two steps, in one file.
//!
//! A safetensors file: `weights/…`, `teacher/…` where the loss follows one, and the optimizer's state, such as
//! `first/…` and `second/…` or `momentum/…`, in F32, the rate's numbers as F64 in `rate` and `budget`, and step,
//! sampler position, configuration and the hash of the data as metadata. Everything a step depends on is in it, so
//! a resumed run takes the same steps as one left alone.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use backslash_model::NamedWeights;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::pressure::Pressure;
use crate::teacher::Teacher;
use crate::trainer::Trainer;
use crate::{TrainError, config};

/// Checkpoints kept in a folder, newest first.
const KEPT: usize = 2;

/// What the names of weights begin with, and those of the teacher.
const WEIGHTS: &str = "weights";
const TEACHER: &str = "teacher";

/// How the name of a checkpoint begins while it is written.
const UNFINISHED: &str = ".step-";

/// Removes what a killed run left half-written.
pub(crate) fn remove_unfinished(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = std::fs::remove_file(entry.path()); // it is never read, so it does no harm
        }
    }
}

/// Writes the state to `folder/step-NNNNNNNN.safetensors` and removes all but the newest checkpoints.
pub(crate) fn save(trainer: &Trainer, data_hash: &str, folder: &Path) -> Result<(), TrainError> {
    let path = path_of(folder, trainer.step);
    let io = |source| TrainError::Io { path: path.clone(), source };
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .suffix(".tmp")
        .tempfile_in(folder)
        .map_err(io)?;
    file.write_all(&serialize(trainer, data_hash)).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(&path).map_err(|error| io(error.error))?;
    for old in list(folder).into_iter().skip(KEPT) {
        let _ = std::fs::remove_file(old); // an old file that stays does no harm
    }
    Ok(())
}

/// Path of the checkpoint after a number of steps, in a folder of checkpoints.
pub(crate) fn path_of(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step-{step:08}.safetensors"))
}

/// Checkpoints of a folder, newest first.
pub(crate) fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("step-") && name.ends_with(".safetensors")
        })
        .collect();
    paths.sort();
    paths.reverse();
    paths
}

/// Puts a saved state into a fresh trainer of the same data, and of a configuration by which it would have come to the same
/// state.
pub(crate) fn load(trainer: &mut Trainer, data_hash: &str, path: &Path) -> Result<(), TrainError> {
    let wrong =
        |reason: &str| TrainError::Checkpoint { path: path.to_owned(), reason: reason.to_owned() };
    let bytes =
        std::fs::read(path).map_err(|source| TrainError::Io { path: path.to_owned(), source })?;
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| wrong(&format!("not a valid checkpoint ({error})")))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| wrong(&format!("not a valid checkpoint ({error})")))?;
    let entry = |key: &str| metadata.get(key).ok_or_else(|| wrong(&format!("has no `{key}`")));

    let step = entry("step")?.parse().map_err(|_| wrong("`step` is not a number"))?;
    let made_with = config::parse(entry("config")?, &[]);
    if !made_with.is_ok_and(|made_with| trainer.config.is_same_until(step, &made_with)) {
        return Err(wrong("was made with another configuration"));
    }
    if entry("data")? != data_hash {
        return Err(wrong("was made with other training data"));
    }
    let values = |name: &str| -> Option<Vec<f32>> {
        let view = file.tensor(name).ok().filter(|view| view.dtype() == Dtype::F32)?;
        Some(view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    let missing = |name: String| wrong(&format!("`{name}` is missing or of another shape"));
    let read = |weights: &mut NamedWeights, of: &str| -> Result<(), TrainError> {
        for tensor in weights.tensors_mut() {
            let name = format!("{of}/{}", tensor.name);
            let found = values(&name).filter(|found| found.len() == tensor.data.len());
            tensor.data = found.ok_or_else(|| missing(name))?;
        }
        Ok(())
    };
    read(&mut trainer.weights, WEIGHTS)?;
    // A run that is at the start of its rate has its teacher in its weights.
    let has_rate = trainer.config.first_step_in_bits().is_some_and(|first| first < step);
    if has_rate && Teacher::is_needed(&trainer.config, step) {
        let mut teacher = trainer.weights.clone();
        read(&mut teacher, TEACHER)?;
        trainer.teacher = Some(Teacher::new(&trainer.config, teacher)?);
    }
    // The state of a step that has been taken with a rate is that of the method for such steps.
    if let Some(first) = trainer.config.first_step_in_bits().filter(|first| *first < step) {
        trainer.optimizer.begin_pricing(first, &trainer.weights);
    }
    trainer.optimizer.restore(values).map_err(missing)?;
    let numbers = |name: &str| -> Vec<f64> {
        let view = file.tensor(name).ok().filter(|view| view.dtype() == Dtype::F64);
        let bytes = view.map_or(Vec::new(), |view| view.data().as_chunks::<8>().0.to_vec());
        bytes.into_iter().map(f64::from_le_bytes).collect()
    };
    // Before there is a rate there is no state of it.
    if let Pressure::Bits(bits) = &mut trainer.pressure
        && bits.has_begun(step)
    {
        if !bits.restore(&numbers("rate"), step) {
            return Err(wrong(
                "the steps, models and levels of the rate are missing or of another model",
            ));
        }
        if let Some(budget) = &mut trainer.budget {
            let state = numbers("budget").try_into();
            budget.restore(&state.map_err(|_| wrong("the λ of the budget is missing"))?);
            bits.set_lambda(budget.lambda());
        }
    }
    if !trainer.batches.restore(entry("sampler")?)? {
        return Err(wrong("`sampler` is not a sampler's position"));
    }
    trainer.step = step;
    Ok(())
}

fn serialize(trainer: &Trainer, data_hash: &str) -> Vec<u8> {
    let rate = match &trainer.pressure {
        Pressure::Bits(bits) => bits.state(),
        _ => Vec::new(),
    };
    let budget = trainer.budget.as_ref().map_or(Vec::new(), |budget| budget.state().to_vec());
    let bytes_of =
        |numbers: &[f64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let (rate_bytes, budget_bytes): (Vec<u8>, Vec<u8>) = (bytes_of(&rate), bytes_of(&budget));
    let teacher = trainer.teacher.as_ref().map(|teacher| (TEACHER, &teacher.weights));
    let weights = std::iter::once((WEIGHTS, &trainer.weights)).chain(teacher);
    let weights = weights.flat_map(|(of, weights)| {
        let tensors = weights.tensors().iter();
        tensors.map(move |tensor| (format!("{of}/{}", tensor.name), &tensor.data[..]))
    });
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let named: Vec<(String, Vec<u8>)> = weights
        .chain(trainer.optimizer.state())
        .map(|(name, values)| (name, bytes(values)))
        .collect();
    let view = |dtype, width: usize, bytes| {
        let count = <[u8]>::len(bytes) / width;
        TensorView::new(dtype, vec![count], bytes).expect("whole numbers of values")
    };
    let mut views: Vec<(&str, TensorView<'_>)> =
        named.iter().map(|(name, bytes)| (name.as_str(), view(Dtype::F32, 4, bytes))).collect();
    views.push(("rate", view(Dtype::F64, 8, &rate_bytes)));
    views.push(("budget", view(Dtype::F64, 8, &budget_bytes)));
    let metadata = HashMap::from([
        ("step".to_owned(), trainer.step.to_string()),
        ("sampler".to_owned(), trainer.batches.state()),
        ("config".to_owned(), trainer.config.to_toml()),
        ("data".to_owned(), data_hash.to_owned()),
    ]);
    safetensors::serialize(views, Some(metadata)).expect("names and shapes are our own")
}
