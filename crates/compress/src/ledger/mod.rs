//! What a byte buys: the change of loss and of bytes for every tensor and every way to spend on it.
//!
//! At an [`OperatingPoint`], a file of a recipe at some κ, each [`Entry`] changes one tensor in one way, an
//! [`ExceptionPath`], and all else stays. The tensor is coded alone for its exact bytes; the decoded model is run on
//! text that neither calibration nor allocation has seen ([`HeldOut`]). Beside what is measured stands what the
//! sensitivities predict, and [`rank_correlation`] says whether the prediction puts tensors in the right order.

mod entry;
mod held_out;
mod journal;
mod operating_point;
mod prediction;
mod rank_correlation;
mod variation;

pub use entry::{Entry, ExceptionPath};
pub use held_out::{Change, HeldOut, Losses};
pub use journal::{Journal, JournalHeader};
pub use operating_point::OperatingPoint;
pub use prediction::predicted_loss;
pub use rank_correlation::rank_correlation;

#[cfg(test)]
mod tests;
