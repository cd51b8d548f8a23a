//! `metrics.jsonl`: one JSON object per line, in the order of the steps.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// A training step.
    Step(StepRecord),
    /// An evaluation on the validation data.
    Evaluation(EvaluationRecord),
}

/// A training step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Number of the step, from 1 on.
    pub step: u64,
    /// Training loss in nats per token, of a classifier per example.
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
    /// Tokens of the step without padding, where steps differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Bytes that the finished file is expected to have, where it has a budget.
    #[serde(default)]
    pub forecast_bytes: Option<u64>,
    /// Tokens per second since the run was started or resumed.
    pub tokens_per_second: f64,
}

/// An evaluation on the validation data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Steps taken.
    pub step: u64,
    /// Validation loss of the float weights in nats per token, of a classifier per example.
    pub nats_per_token: f64,
    /// Bits per byte of text of the float weights, of a network that predicts the next token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// Share of the examples whose class the float weights of a classifier find.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Bits per coded weight that the codec spends at the learned steps.
    #[serde(default)]
    pub coded_bits_per_weight: Option<f64>,
    /// Shape of the generalised Gaussian with the moments of all weights.
    #[serde(default)]
    pub shape: Option<f64>,
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
    /// Opens the file, for this process alone.
    pub(crate) fn open(path: &Path) -> Result<Self, TrainError> {
        let io = |source| TrainError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        let file = options.create(true).read(true).append(true).open(path).map_err(io)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => TrainError::InUse { path: path.to_owned() },
            TryLockError::Error(source) => io(source),
        })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Drops what stands in the file about steps after `step`, and a line cut by a kill.
    pub(crate) fn keep_until(&mut self, step: u64) -> Result<(), TrainError> {
        let io = |source| TrainError::Io { path: self.path.clone(), source };
        let mut old = Vec::new();
        self.file.read_to_end(&mut old).map_err(io)?;
        let is_kept = |line: &&[u8]| {
            line.ends_with(b"\n")
                && serde_json::from_slice::<Record>(line).is_ok_and(|record| record.step() <= step)
        };
        let kept: Vec<u8> =
            old.split_inclusive(|byte| *byte == b'\n').filter(is_kept).flatten().copied().collect();
        self.file.set_len(0).map_err(io)?;
        self.file.write_all(&kept).map_err(io)
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
            bits_per_byte: Some(2.0),
            accuracy: None,
            coded_bits_per_weight: None,
            shape: None,
        })
    }

    #[test]
    fn later_steps_and_cut_lines_are_dropped_on_opening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::open(&path).unwrap();
        for step in [1, 2, 3] {
            metrics.write(&evaluation(step)).unwrap();
        }
        let in_use = Metrics::open(&path).err().unwrap().to_string();
        assert!(in_use.contains("another process"), "{in_use}");
        drop(metrics);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"kind\":\"evalu");
        std::fs::write(&path, text).unwrap();

        let mut metrics = Metrics::open(&path).unwrap();
        metrics.keep_until(2).unwrap();
        metrics.write(&evaluation(9)).unwrap();
        let steps: Vec<u64> = std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Record>(line).unwrap().step())
            .collect();
        assert_eq!(steps, [1, 2, 9]);
    }
}
