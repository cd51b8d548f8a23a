//! The encoder ladder: ways from a matrix to codes and scales, each of which loses less at a number of bits
//! than the one before, by knowing more.
//!
//! [`Rung`] names them, [`quantize_matrix`] runs one. All take the same step and then spend about the same
//! rate, so that they can be compared and exchanged; all give the same kind of tensor. Those that look at
//! the layer's inputs take their [`Covariance`] and share one recursion (`feedback`), in which every column
//! is quantised after the errors of the columns before it have been passed on to it. What differs is the step
//! of each column (`gptq`, `watersic`), how a code is chosen (`watersic_rate` takes those of a column together, along a
//! `trellis`, by what they cost under `index_rates`), and the reconstruction that is fitted in the end (`levels`, `scale_fit`).

mod covariance;
mod distortion;
mod drift;
mod entquant;
mod feedback;
mod gptq;
mod index_rates;
mod inputs_first;
mod levels;
mod rate_table;
mod rdoq;
mod rung;
mod scale;
mod scale_fit;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trellis;
mod unbiased;
mod watersic;
mod watersic_rate;

pub use covariance::Covariance;
pub use distortion::{squared_error, weighted_error};
pub use drift::Drift;
pub use inputs_first::quantize_inputs_first;
pub(crate) use rung::matrix_shape;
pub use rung::{Gain, LadderOptions, Rung, ScaleFit, quantize_matrix};
