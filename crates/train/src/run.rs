//! A run: a trainer with a folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use backslash_model::NamedWeights;

use crate::checkpoint;
use crate::metrics::{EvaluationRecord, Metrics, Record, StepRecord};
use crate::{
    Beginning, Part, RunConfig, StepReport, TrainError, Trainer, TrainingSet, fitted_shape,
};

/// Who watches a run.
pub trait Observer {
    /// Called after every step, with the tokens per second since the run was started or resumed.
    fn step(&mut self, report: &StepReport, tokens_per_second: f64);

    /// Evaluates float weights on the validation data. `bits` are those per weight
    /// of the rate term, and those that the codec spends on the same weights, where there are any.
    ///
    /// # Errors
    /// Whatever keeps the evaluation from being made ends the run.
    fn evaluate(
        &mut self,
        step: u64,
        weights: &NamedWeights,
        bits: Option<(f64, f64)>,
    ) -> Result<Scores, TrainError>;
}

/// What float weights reach on the validation data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Loss in nats per token, of a classifier per example.
    pub nats: f64,
    /// Bits per byte of text, of a network that predicts the next token.
    pub bits_per_byte: Option<f64>,
    /// Share of the examples whose class a classifier finds, 0 to 1.
    pub accuracy: Option<f64>,
}

/// Lets the run in `folder`, which has taken no step yet, go on from where the run in `from` was after `step` steps. Its
/// configuration must be one of which that is true ([`RunConfig::is_same_until`]): opening it fails otherwise.
///
/// # Errors
/// If there is no checkpoint of that step, or the folder cannot be written.
pub fn branch(from: &Path, step: u64, folder: &Path) -> Result<(), TrainError> {
    let copy = |from: &Path, to: &Path| {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Io { path, source }
        };
        let unfinished = to.with_extension("tmp");
        std::fs::copy(from, &unfinished).map_err(io(from))?;
        std::fs::rename(&unfinished, to).map_err(io(to))
    };
    let checkpoints = folder.join("checkpoints");
    std::fs::create_dir_all(&checkpoints)
        .map_err(|source| TrainError::Io { path: checkpoints.clone(), source })?;
    copy(&from.join("metrics.jsonl"), &folder.join("metrics.jsonl"))?;
    let checkpoint = |folder: &Path| checkpoint::path_of(&folder.join("checkpoints"), step);
    copy(&checkpoint(from), &checkpoint(folder))
}

/// Whether the run in a folder has a checkpoint, of that many steps if any are named.
pub fn has_checkpoint(folder: &Path, step: Option<u64>) -> bool {
    let checkpoints = folder.join("checkpoints");
    match step {
        Some(step) => checkpoint::path_of(&checkpoints, step).exists(),
        None => !checkpoint::list(&checkpoints).is_empty(),
    }
}

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// In a folder that holds no run.
    Fresh,
    /// In any folder; a run in it is removed.
    Replace,
    /// From the newest checkpoint, or from the start where there is none yet.
    Resume,
}

/// A trainer whose progress is written to a folder.
///
/// The folder holds `config.toml`, `metrics.jsonl` and `checkpoints/`; what a finished run leaves behind is
/// written by the caller.
pub struct Run {
    /// The trainer.
    pub trainer: Trainer,
    folder: PathBuf,
    data_hash: String,
    metrics: Metrics,
}

impl Run {
    /// Opens a run in a folder, for the given training data.
    ///
    /// # Errors
    /// If the folder holds a run and `start` is [`Start::Fresh`]; if it holds none, or its checkpoint was made
    /// with another configuration or other data, and `start` is [`Start::Resume`]; if another process trains in it; if it
    /// cannot be written.
    pub fn open(
        folder: &Path,
        config: &RunConfig,
        data: TrainingSet<'_>,
        beginning: Beginning,
        start: Start,
    ) -> Result<Self, TrainError> {
        match (start, folder.join("config.toml").exists()) {
            (Start::Fresh, true) => return Err(TrainError::RunExists { path: folder.to_owned() }),
            (Start::Resume, false) => {
                return Err(TrainError::NoCheckpoint { path: folder.to_owned() });
            }
            _ => (),
        }
        let mut trainer = Trainer::new(config, data, beginning)?;
        let checkpoints = folder.join("checkpoints");
        let data_hash = data.hash();
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Io { path, source }
        };
        std::fs::create_dir_all(&checkpoints).map_err(io(&checkpoints))?;
        let mut metrics = Metrics::open(&folder.join("metrics.jsonl"))?;
        match start {
            Start::Fresh | Start::Replace => {
                for old in checkpoint::list(&checkpoints) {
                    std::fs::remove_file(&old).map_err(io(&old))?;
                }
                let path = folder.join("config.toml");
                std::fs::write(&path, config.to_toml()).map_err(io(&path))?;
            }
            Start::Resume => {
                checkpoint::remove_unfinished(&checkpoints);
                // A run killed before its first checkpoint has lost nothing by starting again.
                if let Some(newest) = checkpoint::list(&checkpoints).first() {
                    checkpoint::load(&mut trainer, &data_hash, newest)?;
                }
            }
        }
        metrics.keep_until(trainer.steps_taken())?;
        Ok(Self { trainer, folder: folder.to_owned(), data_hash, metrics })
    }

    /// Takes all steps that are left, with metrics, evaluations and checkpoints on the way.
    ///
    /// # Errors
    /// As [`Trainer::step`], and if the folder cannot be written. The last checkpoint stays usable.
    pub fn train(
        &mut self,
        data: TrainingSet<'_>,
        observer: &mut impl Observer,
    ) -> Result<(), TrainError> {
        self.steps_until(u64::MAX, data, observer)
    }

    /// Takes the steps up to that many in all, and leaves a checkpoint of where it stopped.
    ///
    /// # Errors
    /// As [`Run::train`].
    pub fn train_until(
        &mut self,
        step: u64,
        data: TrainingSet<'_>,
        observer: &mut impl Observer,
    ) -> Result<(), TrainError> {
        self.steps_until(step, data, observer)?;
        checkpoint::save(&self.trainer, &self.data_hash, &self.folder.join("checkpoints"))
    }

    fn steps_until(
        &mut self,
        last: u64,
        data: TrainingSet<'_>,
        observer: &mut impl Observer,
    ) -> Result<(), TrainError> {
        let started = Instant::now();
        let mut tokens = 0;
        let config = self.trainer.config.clone();
        let due = |every: u64, step: u64| every > 0 && step.is_multiple_of(every);
        while !self.trainer.finished() && self.trainer.steps_taken() < last {
            let report = self.trainer.step(data)?;
            tokens += report.tokens;
            let tokens_per_second = tokens as f64 / started.elapsed().as_secs_f64();
            self.metrics.write(&Record::Step(StepRecord {
                step: report.step,
                loss: report.loss,
                learning_rate: report.learning_rate,
                gradient_norm: report.gradient_norm,
                bits_per_weight: report.bits_per_weight,
                lambda: report.lambda,
                tokens: config.model.is_classifier().then_some(report.tokens as u64),
                forecast_bytes: report.forecast.map(|forecast| forecast.bytes.round() as u64),
                tokens_per_second,
            }))?;
            observer.step(&report, tokens_per_second);
            // Save before evaluating: an evaluation that fails must not cost the steps.
            if due(config.train.checkpoint_every, report.step) && !self.trainer.finished() {
                checkpoint::save(&self.trainer, &self.data_hash, &self.folder.join("checkpoints"))?;
            }
            self.trainer.profile.ends(Part::Writing);
            if due(config.train.evaluate_every, report.step) || self.trainer.finished() {
                let coded_bits_per_weight = self.trainer.coded_bits_per_weight()?;
                let proxy = report.bits_per_weight.zip(coded_bits_per_weight);
                let scores = observer.evaluate(report.step, self.trainer.weights(), proxy)?;
                self.metrics.write(&Record::Evaluation(EvaluationRecord {
                    step: report.step,
                    nats_per_token: scores.nats,
                    bits_per_byte: scores.bits_per_byte,
                    accuracy: scores.accuracy,
                    coded_bits_per_weight,
                    shape: fitted_shape(self.trainer.weights()),
                }))?;
                self.trainer.profile.ends(Part::Evaluation);
            }
        }
        Ok(())
    }
}
