//! The log of a run's training.

use std::path::Path;

use anyhow::Result;
use backslash_eval::plot::{TraceEvaluation, TraceStep, TrainingTrace};
use backslash_eval::prune::Reached;
use backslash_train::{EvaluationRecord, Record, StepRecord};

use super::lines;

/// What `metrics.jsonl` says, in the order of the steps.
pub struct Metrics {
    pub steps: Vec<StepRecord>,
    pub evaluations: Vec<EvaluationRecord>,
}

impl Metrics {
    /// Reads the log in a run's folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut metrics = Self { steps: Vec::new(), evaluations: Vec::new() };
        for record in lines::read(&folder.join("metrics.jsonl"), "record of a training")? {
            match record {
                Record::Step(record) => metrics.steps.push(record),
                Record::Evaluation(record) => metrics.evaluations.push(record),
            }
        }
        Ok(metrics)
    }

    /// As charts take it, under a name.
    pub fn trace(&self, name: &str) -> TrainingTrace {
        let step = |record: &StepRecord| TraceStep {
            step: record.step,
            loss_nats: record.loss,
            estimated_bits_per_weight: record.bits_per_weight,
        };
        let evaluation = |record: &EvaluationRecord| TraceEvaluation {
            step: record.step,
            quality: Reached::recorded(record.bits_per_byte, record.accuracy),
            shape: record.shape,
            coded_bits_per_weight: record.coded_bits_per_weight,
        };
        TrainingTrace {
            name: name.to_owned(),
            steps: self.steps.iter().map(step).collect(),
            evaluations: self.evaluations.iter().map(evaluation).collect(),
        }
    }

    /// Seconds that the steps took at the recorded speeds, each of `tokens` where it does not say of how many; `None` where one has no speed.
    pub fn seconds(&self, tokens: usize) -> Option<f64> {
        let of = |record: &StepRecord| record.tokens.map_or(tokens as f64, |tokens| tokens as f64);
        let seconds = |record: &StepRecord| of(record) / record.tokens_per_second;
        let all: f64 = self.steps.iter().map(seconds).sum();
        (!self.steps.is_empty() && all.is_finite()).then_some(all)
    }
}
