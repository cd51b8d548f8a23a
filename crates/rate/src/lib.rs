//! Statistics of weights and what they cost in bits: slices in, numbers out.
//!
//! Two rates live here. The *rate in bits* is what the file pays: the code length of the quantised weights
//! under a probability model that follows them ([`LaplaceMixture`]), made smooth by uniform noise of one
//! step so that it has a gradient. The *BackSlash rate* ([`backslash`]) is the method of the paper, the
//! mean |w|^shape with one shape for all weights, kept exactly as published and as released.
//!
//! Nothing here knows of tensors, devices or files.
//!
//! ```
//! use backslash_rate::{LaplaceMixture, entropy_bits};
//!
//! // A wide step makes nearly every weight a zero, which costs next to nothing.
//! let model = LaplaceMixture::around(0.1);
//! let (fine, coarse) = (model.at_step(0.01), model.at_step(2.0));
//! assert!(fine.bits(0.0) > 3.5 && coarse.bits(0.0) < 0.1);
//! assert_eq!(entropy_bits(&[1, 1, -1, -1]), 1.0);
//! ```

pub mod backslash;
mod code_length;
mod code_table;
mod density;
mod exponential;
mod generalised_gaussian;
mod lines;
mod mixture;
mod moments;
mod power;
mod quantiser;

pub use code_length::entropy_bits;
pub use code_table::{CodeTables, LineFactors};
pub use density::GeneralisedGaussian;
pub use generalised_gaussian::{moment_ratio, published_shape, shape_from_ratio};
pub use lines::{LineLevels, LineSums};
pub use mixture::{CodeLength, LaplaceMixture, RateSums};
pub use moments::Moments;
pub use quantiser::{
    add_uniform_noise, gain_by_moving, gains_by_scaling, round_some_to_step, round_to_step,
};
