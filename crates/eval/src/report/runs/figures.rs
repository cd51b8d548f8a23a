//! The charts of the page of runs.

use super::groups::{Group, groups};
use super::{RunRecord, RunsReport};
use crate::EvalError;
use crate::plot::{
    Figure, TrainingTrace, accuracy_curves, prune_curves, rate_distortion, tensor_bytes,
    training_bits, training_loss, training_shape, weight_histogram,
};

/// The charts of a group that show all of its runs, each with its name.
pub(super) fn shared(group: &Group<'_>) -> Result<Vec<(&'static str, Figure)>, EvalError> {
    let traces: Vec<TrainingTrace> = group.runs.iter().map(|run| run.trace.clone()).collect();
    let quality = match group.setup.is_of_classifiers() {
        true => accuracy_curves(&group.plotted_accuracies())?,
        false => rate_distortion(&group.plotted(), &[])?,
    };
    let figures = [
        (SIZE_AND_QUALITY, quality),
        ("training-loss", training_loss(&traces)?),
        ("training-bits", training_bits(&traces)?),
        ("training-shape", training_shape(&traces)?),
    ];
    let present = figures.into_iter().filter_map(|(name, figure)| Some((name, figure?)));
    Ok(present.collect())
}

/// Name of the chart of bits per byte against bytes, or of accuracy against bits per weight.
pub(super) const SIZE_AND_QUALITY: &str = "size-and-quality";

/// The charts of one run.
pub(super) struct OfRun {
    pub tensors: Option<Figure>,
    pub weights: Option<Figure>,
}

impl OfRun {
    pub(super) fn new(run: &RunRecord) -> Result<Self, EvalError> {
        Ok(Self {
            tensors: tensor_bytes(&run.tensors),
            weights: run.all_matrices.as_ref().map(weight_histogram).transpose()?,
        })
    }
}

/// Every chart with a name for its file: those of the first group have plain names, those of others a number.
pub(super) fn all(report: &RunsReport) -> Result<Vec<(String, Figure)>, EvalError> {
    let mut figures = Vec::new();
    for (index, group) in groups(report).iter().enumerate() {
        let prefix = match index {
            0 => String::new(),
            index => format!("{}-", index + 1),
        };
        let shared = shared(group)?.into_iter();
        figures.extend(shared.map(|(name, figure)| (format!("{prefix}{name}"), figure)));
        for run in &group.runs {
            let OfRun { tensors, weights } = OfRun::new(run)?;
            let named = [("tensors", tensors), ("weights", weights)];
            let name = file_name(&run.name);
            figures.extend(
                named
                    .into_iter()
                    .filter_map(|(kind, figure)| Some((format!("{prefix}{kind}-{name}"), figure?))),
            );
        }
    }
    for (index, pruned) in report.pruned.iter().enumerate() {
        let name = if index == 0 { "pruning".to_owned() } else { format!("pruning-{}", index + 1) };
        figures.extend(prune_curves(&pruned.kinds)?.map(|figure| (name, figure)));
    }
    Ok(figures)
}

/// A run's name with nothing in it that a file system could take for something else.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    name.chars().map(plain).collect()
}
