//! What can be wrong with a model or the text it is calibrated on.

use std::path::PathBuf;

use backslash_codec::CodecError;
#[cfg(feature = "model")]
use backslash_model::ModelError;
use backslash_quant::QuantError;

/// An error of this crate; each says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// Less text than one sequence.
    #[error(
        "the calibration text has {found} tokens: at least {needed} are needed, one sequence of the model with its targets"
    )]
    ShortText {
        /// Tokens found.
        found: usize,
        /// Fewest that do.
        needed: usize,
    },
    /// A classifier, whose loss is not one of text.
    #[error("a classifier is calibrated on labelled examples, not on text")]
    Classifier,
    /// Another network, whose loss is one of text.
    #[error("the network is no classifier: it is calibrated on text, not on labelled examples")]
    NoClassifier,
    /// Nothing to calibrate a classifier on.
    #[error("there are no examples to calibrate on: give a file with labelled texts")]
    NoExamples,
    /// A class that the network does not have.
    #[error("class {class} at position {position} is none of the classifier's {classes}")]
    Class {
        /// The class.
        class: u16,
        /// Which example it is of.
        position: usize,
        /// Number of classes the network knows.
        classes: usize,
    },
    /// An example without tokens, or with too many.
    #[error("the example at position {position} has {length} tokens: 1 to {context} are right")]
    ExampleLength {
        /// Its tokens.
        length: usize,
        /// Which example it is.
        position: usize,
        /// Most that the network reads.
        context: usize,
    },
    /// A token beyond the vocabulary.
    #[error(
        "token {token} at position {position} is beyond the model's vocabulary of {vocabulary}: the text was made with another tokenizer"
    )]
    Token {
        /// The token.
        token: u16,
        /// Where it stands.
        position: usize,
        /// Number of tokens the model knows.
        vocabulary: usize,
    },
    /// A loss that no file keeps to.
    #[error(
        "a loss increase of at most {limit} nats per token cannot be met: the finest file that was tried loses {least:.6}"
    )]
    LossUnreachable {
        /// Largest increase asked for, in nats per token.
        limit: f64,
        /// Least increase found.
        least: f64,
    },
    /// A file that cannot be measured.
    #[error("the compressed model cannot be measured: {reason}")]
    Decoding {
        /// What is wrong with it.
        reason: String,
    },
    /// A calibration that was gathered elsewhere and does not serve.
    #[error("the calibration {reason}")]
    Gathered {
        /// What is wrong with it.
        reason: String,
    },
    /// A file of ledger entries that does not serve.
    #[error("{}: {reason}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model.
    #[cfg(feature = "model")]
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The quantiser.
    #[error(transparent)]
    Quant(#[from] QuantError),
    /// The codec.
    #[error(transparent)]
    Codec(#[from] CodecError),
}
