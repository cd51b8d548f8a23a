//! Float matrices to integer codes and steps, and the exporters of others that ours is compared with.
//!
//! [`quantize`] turns one matrix into codes at one step, [`quantize_pieces`] one that is too large for memory;
//! [`quantize_matrix`] does so by any [`Rung`] of the encoder ladder, which lose less the more they know of the layer's
//! inputs ([`Covariance`]). A [`Plan`] says which step each tensor gets and makes a whole file's content of it.

mod error;
mod exceptions;
pub mod golf;
mod ladder;
mod pieces;
mod plan;
mod published;
mod spectrum;
mod uniform;

pub use error::QuantError;
pub use exceptions::{LowRank, column_errors, low_rank_correction, quantize_protected};
pub use ladder::{
    Covariance, Drift, Gain, LadderOptions, Rung, ScaleFit, quantize_inputs_first, quantize_matrix,
    squared_error, weighted_error,
};
pub use pieces::quantize_pieces;
pub use plan::{Levels, LineScales, Plan, Weights, is_coded, store_uncoded};
pub use published::{PAPER_STEP, PaperExport, export_as_published};
pub use spectrum::effective_rank;
pub use uniform::{quantize, quantize_to_centroids, quantize_with_dead_zone};
