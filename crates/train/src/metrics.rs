//! `metrics.jsonl`: one JSON object per line, in the order of the steps.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// A training step.
    Step(StepRecord),
    /// An evaluation on the validation tokens.
    Evaluation(EvaluationRecord),
}

/// A training step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Number of the step, from 1 on.
    pub step: u64,
    /// Training loss in nats per token.
    pub loss: f64,
    /// Learning rate of the groups of parameters that have none of their own.
    pub learning_rate: f64,
    /// Norm of the loss's gradient before clipping.
    pub gradient_norm: f64,
    /// Estimated bits per coded weight.
    pub bits_per_weight: Option<f64>,
    /// Price of a bit, in nats of loss per bit per weight.
    #[serde(default)]
    pub lambda: Option<f64>,
    /// Bytes that the finished file is expected to have, where it has a budget.
    #[serde(default)]
    pub forecast_bytes: Option<u64>,
    /// Tokens per second since the run was started or resumed.
    pub tokens_per_second: f64,
}

/// An evaluation on the validation tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Steps taken.
    pub step: u64,
    /// Validation loss of the float weights, nats per token.
    pub nats_per_token: f64,
    /// Bits per byte of text of the float weights.
    pub bits_per_byte: f64,
    /// Bits per coded weight that the codec spends at the learned steps.
    #[serde(default)]
    pub coded_bits_per_weight: Option<f64>,
}

impl Record {
    fn step(&self) -> u64 {
        match self {
            Self::Step(record) => record.step,
            Self::Evaluation(record) => record.step,
        }
    }
}

/// The open file.
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens the file and drops what stands in it about steps after `step`, and a line cut by a kill.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let io = |source| TrainError::Io { path: path.to_owned(), source };
        let old = std::fs::read_to_string(path).unwrap_or_default();
        let kept: String = old
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .filter(|line| serde_json::from_str::<Record>(line).is_ok_and(|r| r.step() <= step))
            .collect();
        std::fs::write(path, kept).map_err(io)?;
        let file = OpenOptions::new().append(true).open(path).map_err(io)?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(crate) fn write(&mut self, record: &Record) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(record).expect("records are plain data");
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| TrainError::Io { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(step: u64) -> Record {
        Record::Evaluation(EvaluationRecord {
            step,
            nats_per_token: 3.5,
            bits_per_byte: 2.0,
            coded_bits_per_weight: None,
        })
    }

    #[test]
    fn later_steps_and_cut_lines_are_dropped_on_opening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path, 0).unwrap();
        for step in [1, 2, 3] {
            metrics.write(&evaluation(step)).unwrap();
        }
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"kind\":\"evalu");
        std::fs::write(&path, text).unwrap();

        let mut metrics = Metrics::open(&path, 2).unwrap();
        metrics.write(&evaluation(9)).unwrap();
        let steps: Vec<u64> = std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Record>(line).unwrap().step())
            .collect();
        assert_eq!(steps, [1, 2, 9]);
    }
}
