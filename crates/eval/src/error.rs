use std::path::PathBuf;

use backslash_codec::CodecError;
use backslash_compress::CompressError;
use backslash_data::Error as DataError;
use backslash_model::ModelError;
use backslash_quant::QuantError;
use backslash_quant::golf::GolfError;
use thiserror::Error;

/// Why an evaluation or its presentation failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The plotting library refused a chart.
    #[error("chart \"{chart}\" cannot be drawn: {reason}")]
    Plot {
        /// What the chart shows.
        chart: String,
        /// The plotting library's words.
        reason: String,
    },
    /// A page with more figures than a browser shows at once.
    #[error(
        "the page would have {bytes} bytes of at most {most}: give it fewer results, or take --csv"
    )]
    PageTooLarge {
        /// What it would have.
        bytes: usize,
        /// What it may have.
        most: usize,
    },
    /// A file that holds weights but not what is needed to run them.
    #[error("{}: {problem}", path.display())]
    ModelFile {
        /// The file or folder.
        path: PathBuf,
        /// What is missing or wrong, and what would be right.
        problem: String,
    },
    /// A token beyond the vocabulary of a model.
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
    /// A class that a classifier does not have.
    #[error("example {position} is of class {class}, the model has {classes} classes")]
    Class {
        /// The class.
        class: u16,
        /// Number of the example, from 0 on.
        position: usize,
        /// Number of classes.
        classes: usize,
    },
    /// Text for a classifier.
    #[error("a classifier is scored on labelled texts, not on text; give it a tab-separated file")]
    Classifier,
    /// Labelled texts for a network that is no classifier.
    #[error("labelled texts need a classifier: train one with `backslash train --from`")]
    NoClassifier,
    /// Text was asked for from a network that writes none.
    #[error(
        "an encoder cannot write: it predicts hidden tokens from those on both sides, not the next one; use a decoder such as Llama or GPT-2"
    )]
    Encoder,
    /// A curve was asked for of a network that has neither bits per byte nor accuracy.
    #[error(
        "an encoder without classes has no bits per byte: it is scored on hidden tokens; use a decoder such as Llama or GPT-2, or a classifier"
    )]
    NoBitsPerByte,
    /// The file of a model.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Text or tokenizer.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The compression of weights.
    #[error(transparent)]
    Quant(#[from] QuantError),
    /// The search for a file of a size.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The baseline exporter.
    #[error(transparent)]
    Golf(#[from] GolfError),
}

impl EvalError {
    /// Whether a size or a loss was asked for that no file has.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Compress(
                CompressError::LossUnreachable { .. }
                    | CompressError::Quant(QuantError::Unreachable { .. })
            ) | Self::Quant(QuantError::Unreachable { .. })
        )
    }
}
