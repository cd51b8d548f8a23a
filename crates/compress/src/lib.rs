//! Trained weights to the best file of a size.
//!
//! The quantisers of `backslash-quant` know matrices; this crate knows the model they belong to. It runs
//! the model on text to learn what each layer sees and how much the loss minds an error in each tensor
//! ([`Calibration`]), turns that into steps at equal slopes of loss against bits ([`step_rules`]), and finds the one
//! κ at which the file has the size that was asked for ([`fit_to_bytes`]). The [`ledger`] then measures what a byte
//! buys in each tensor, and [`measured_rules`] corrects steps by it.
//!
//! What runs a model is the cargo feature `model`, on by default. Without it a [`Recipe`] is made of the weights alone, or
//! of a calibration that was gathered elsewhere ([`Calibration::gathered`]).

mod allocation;
#[cfg(feature = "model")]
mod batch;
mod calibration;
mod error;
mod estimate;
mod gathered;
mod goal;
#[cfg(feature = "model")]
mod json_lines;
#[cfg(feature = "model")]
pub mod ledger;
#[cfg(feature = "model")]
mod measured;
mod recipe;
mod search;
#[cfg(feature = "model")]
mod sensitivity;
#[cfg(feature = "model")]
mod sequential;
mod solver;
#[cfg(feature = "model")]
mod text;

pub use allocation::{Allocation, StepRule, equal_rules, relative_rules, step_rules};
#[cfg(feature = "model")]
pub use batch::CalibrationBatch;
#[cfg(feature = "model")]
pub use calibration::covariances;
pub use calibration::{Calibration, Sensitivity};
pub use error::CompressError;
pub use estimate::Estimate;
pub use gathered::{CalibrationIndex, GatheredTensor};
pub use goal::{Goal, LossIncrease};
#[cfg(feature = "model")]
pub use json_lines::JsonLines;
#[cfg(feature = "model")]
pub use measured::{Judge, MeasuredRules, MeasuredStep, Slope, corrections, measured_rules};
pub use recipe::Recipe;
pub use search::Trial;
#[cfg(feature = "model")]
pub use sensitivity::sensitivities;
#[cfg(feature = "model")]
pub use sequential::Sequential;
pub use solver::{Fitted, Start, Target, fit_plan_to_bytes, fit_to_bytes, fit_trained_to_bytes};
#[cfg(feature = "model")]
pub use text::CalibrationText;
