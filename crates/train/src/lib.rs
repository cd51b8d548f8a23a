//! Training with the size of the file in the loss.
//!
//! What is learned is the next token of a text, or the class of labelled texts ([`TrainingSet`]); all else is the same.
//! One step is visible in [`Trainer::step`]: weights are perturbed as the quantiser will perturb them, the
//! network gives a loss and its gradient, the rate adds its own gradient in closed form, the optimizer moves
//! the weights. Weights, moments and the rate's parameters live on the host in plain slices; only the loss and
//! its gradient are computed on a device. [`Run`] is a trainer with a folder: metrics, checkpoints, and the
//! files a finished run leaves behind.

mod batches;
mod budget;
mod checkpoint;
pub mod config;
mod error;
mod metrics;
mod optimizer;
mod pressure;
mod profile;
mod run;
mod schedule;
mod sensitivity;
mod sizing;
mod teacher;
mod trainer;

use optimizer::adamw;

pub use batches::TrainingSet;
pub use budget::Forecast;
pub use config::{
    DataConfig, LineScaleRule, OptimizerConfig, OriginRule, RateConfig, RateMethod, RunConfig,
    StepRule, TrainConfig,
};
pub use error::TrainError;
pub use metrics::{EvaluationRecord, Record, StepRecord};
pub use pressure::fitted_shape;
pub use profile::{Part, Profile};
pub use run::{Observer, Run, Scores, Start, branch, has_checkpoint};
pub use trainer::{Beginning, StepReport, Trainer};
