//! What a decoded model is worth, and how that is shown.
//!
//! [`ModelFile`] is a model with all that is needed to run it, in a `.bsl` file or a run's folder;
//! [`TestSet`] measures its bits per byte of text, how well an encoder finds hidden tokens, or the accuracy of a classifier; [`generate`] lets it write.
//! [`prune`] takes its smallest weights away, [`ladder`] compares ways of making its file. The rest is presentation
//! and takes plain figures: [`table`] prints, [`plot`] draws, [`report`] puts both on a page.

mod coders;
mod error;
mod generate;
mod histogram;
pub mod ladder;
mod mean;
mod model_file;
pub mod plot;
pub mod prune;
mod quality;
pub mod report;
pub mod table;

pub use coders::{AtOneStep, CoderBits};
pub use error::EvalError;
pub use generate::{Sampling, generate};
pub use histogram::{DensityFit, WeightHistogram};
pub use mean::Mean;
pub use model_file::{ModelFile, decoded_weights, views};
pub use quality::{Quality, TestSet, evaluate, evaluate_examples};
