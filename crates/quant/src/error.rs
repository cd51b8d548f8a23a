//! What can be wrong with weights or with what is asked of them.

use backslash_codec::CodecError;

use crate::Rung;

/// An error of this crate; each names the tensor and says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum QuantError {
    /// Scales that do not fit the tensor they belong to.
    #[error(
        "`{name}`: {} row and {} column scales, expected {} and {}, all positive",
        found.0, found.1, expected.0, expected.1
    )]
    Scales {
        /// The tensor's name.
        name: String,
        /// Numbers of row and column scales.
        found: (usize, usize),
        /// As many as that would fit.
        expected: (usize, usize),
    },
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
    /// A singular value decomposition that does not converge.
    #[error("tensor `{name}`: the error of its codes has no singular value decomposition")]
    NoDecomposition {
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
    /// A shape that promises another number of weights.
    #[error("tensor `{name}`: shape {shape:?} does not fit its {count} weights")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Number of weights that came with it.
        count: usize,
    },
    /// A quantiser that needs the covariance of the inputs, without one.
    #[error(
        "tensor `{name}`: `{rung}` needs the covariance of the layer's inputs; without one use rtn, rdoq or entquant"
    )]
    NoCovariance {
        /// Name of the tensor.
        name: String,
        /// The quantiser.
        rung: Rung,
    },
    /// A covariance of other inputs.
    #[error("tensor `{name}` has {columns} columns, but its covariance is of {width} inputs")]
    CovarianceWidth {
        /// Name of the tensor.
        name: String,
        /// Inputs of the layer.
        columns: usize,
        /// Inputs of the covariance.
        width: usize,
    },
    /// A quantiser that does not exist.
    #[error("there is no quantiser `{0}`; there are {all}", all = Rung::names())]
    UnknownRung(String),
    /// A setting out of its range.
    #[error("the {what} is {value}; it must be a finite number of at least 0")]
    Setting {
        /// The setting.
        what: &'static str,
        /// The value found.
        value: f64,
    },
    /// A layer too wide for its covariance to be gathered.
    #[error("a covariance of {width} inputs does not fit memory: at most {limit} inputs")]
    TooWide {
        /// Inputs asked for.
        width: usize,
        /// Most inputs.
        limit: usize,
    },
    /// Inputs that are not whole rows.
    #[error("{length} values are not rows of {width} inputs")]
    InputLength {
        /// Number of values.
        length: usize,
        /// Inputs of the layer.
        width: usize,
    },
    /// A NaN or an infinity among the inputs of a layer.
    #[error(
        "sample {row}, input {column} is {value}: the inputs of a layer must be finite numbers"
    )]
    InputNotFinite {
        /// Number of the sample, from 0.
        row: usize,
        /// Number of the input, from 0.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// An entry that no matrix of second moments has.
    #[error(
        "second moment ({row}, {column}) is {value}: entries must be finite, squares at least 0"
    )]
    Moment {
        /// Row of the entry.
        row: usize,
        /// Column of the entry.
        column: usize,
        /// The value found.
        value: f64,
    },
    /// Covariances of different widths.
    #[error("covariances of {width} and of {other} inputs cannot be merged")]
    Widths {
        /// Inputs of the first.
        width: usize,
        /// Inputs of the second.
        other: usize,
    },
    /// Nothing to weigh errors by.
    #[error("the covariance of {samples} samples says nothing: there was no input but zeros")]
    NoMoments {
        /// Number of samples.
        samples: u64,
    },
    /// A covariance without a Cholesky factor.
    #[error(
        "the covariance is not positive definite, even with {ridge} times its mean diagonal added"
    )]
    NotPositive {
        /// Share of the mean diagonal.
        ridge: f64,
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
