//! What can be wrong with weights or with what is asked of them.

use backslash_codec::CodecError;

/// An error of this crate; each names the tensor and says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum QuantError {
    /// A NaN or an infinity among the weights.
    #[error("tensor `{name}` holds {value} at index {index}: weights must be finite numbers")]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// Row-major position.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// A step that no quantiser can have.
    #[error("tensor `{name}`: step {step} must be a positive, finite number")]
    Step {
        /// Name of the tensor.
        name: String,
        /// The step found.
        step: f32,
    },
    /// A step so fine that codes would not fit 24 bits.
    #[error(
        "tensor `{name}`: at step {step} the weight {weight} has no code below 2^24; use a step of at least {least}"
    )]
    StepTooFine {
        /// Name of the tensor.
        name: String,
        /// The step asked for.
        step: f32,
        /// The largest weight.
        weight: f32,
        /// The finest step that would do.
        least: f32,
    },
    /// A plan without a step for a tensor that is coded.
    #[error("tensor `{name}` has no step in the plan")]
    NoStep {
        /// Name of the tensor.
        name: String,
    },
    /// A size that even the coarsest plan exceeds.
    #[error(
        "{budget} bytes cannot be reached: the smallest file these weights make is {smallest} bytes"
    )]
    Unreachable {
        /// Bytes asked for.
        budget: u64,
        /// Bytes of the smallest file.
        smallest: u64,
    },
    /// The codec refused.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl QuantError {
    /// The error for a piece of a tensor that begins at `position`.
    pub(crate) fn at_position(mut self, position: usize) -> Self {
        if let Self::NotFinite { index, .. } = &mut self {
            *index += position;
        }
        self
    }
}
