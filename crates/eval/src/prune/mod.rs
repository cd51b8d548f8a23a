//! Magnitude pruning: how much a model loses as its smallest weights become zero, and what its file then takes.
//!
//! A [`Pruner`] holds a model with the codes or the steps of its file. At a sparsity it sets the smallest weights of the
//! matrices to zero and makes the whole file again, so that bytes stand beside the loss. [`PruneCurve`] says at which sparsity
//! a tenth of the quality is gone, [`PruneCurves`] does so over several seeds.

mod curve;
mod mask;
mod pruner;
mod seeds;

pub use curve::{PruneCurve, PrunePoint, Reached};
pub use mask::{Scope, smallest};
pub use pruner::{Matrices, Pruned, Pruner};
pub use seeds::PruneCurves;
