//! Trained weights to the best file of a size.
//!
//! The quantisers of `backslash-quant` know matrices; this crate knows the model they belong to. It runs
//! the model on text to learn what each layer sees and how much the loss minds an error in each tensor
//! ([`Calibration`]), turns that into steps at equal slopes of loss against bits ([`step_rules`]), and finds the one
//! κ at which the file has the size that was asked for ([`fit_to_bytes`]). The [`ledger`] then measures what a byte
//! buys in each tensor, and [`measured_rules`] corrects steps by it.

mod allocation;
mod calibration;
mod error;
mod estimate;
mod goal;
mod json_lines;
pub mod ledger;
mod measured;
mod recipe;
mod sensitivity;
mod sequential;
mod solver;
mod text;

pub use allocation::{Allocation, StepRule, equal_rules, relative_rules, step_rules};
pub use calibration::{Calibration, covariances};
pub use error::CompressError;
pub use estimate::Estimate;
pub use goal::{Goal, LossIncrease};
pub use json_lines::JsonLines;
pub use measured::{Judge, MeasuredRules, MeasuredStep, Slope, corrections, measured_rules};
pub use recipe::Recipe;
pub use sensitivity::{Sensitivity, sensitivities};
pub use sequential::Sequential;
pub use solver::{Fitted, Start, Target, Trial, fit_plan_to_bytes, fit_to_bytes};
pub use text::CalibrationText;
