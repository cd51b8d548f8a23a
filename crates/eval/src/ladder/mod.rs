//! How much each way of making a file loses at a number of bits per weight: every quantiser of ours, and the exporters of
//! others.
//!
//! A [`Subject`] is a model with the text that it is calibrated and measured on. It makes a [`Point`] of a [`Method`] and
//! a target: a whole file of weights alone, as the exporters of others make them, that was decoded again and run. Points
//! are kept in a [`Journal`], a line each, so that a long table can be made in several sittings; [`Summary`] compares
//! them over several models. Tensors that are no model are measured by their squared error ([`measure_errors`]).

mod errors;
mod exporters;
mod factors;
mod fingerprint;
mod journal;
mod method;
mod subject;
mod summary;

use backslash_codec::SizeSplit;
use serde::{Deserialize, Serialize};

pub use errors::{ErrorPoint, measure_errors};
pub use fingerprint::{scored_fingerprint, weights_hash};
pub use journal::Journal;
pub use method::Method;
pub use subject::Subject;
pub use summary::Summary;

/// One file that was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The model, as it was named.
    pub run: String,
    /// What the figures depend on: hash of the model, and number and hash of the tokens of calibration and of validation.
    pub fingerprint: String,
    /// Name of the method.
    pub method: String,
    /// How steps were shared out; none for the exporters of others.
    pub allocation: Option<String>,
    /// Bits per weight that were asked for; none for methods that have no choice.
    pub target: Option<f64>,
    /// Length of the file.
    pub bytes: u64,
    /// Weights in it.
    pub parameters: u64,
    /// Its bytes by purpose; none for the exporters of others.
    pub split: Option<Split>,
    /// ln κ; none for the exporters of others.
    pub log_kappa: Option<f64>,
    /// What clips or step of another exporter were multiplied by to meet the target.
    pub factor: Option<f64>,
    /// Loss of the decoded model, in nats per token.
    pub nats: f64,
    /// Loss of the float model.
    pub float_nats: f64,
    /// Bits per byte of text of the decoded model; none for an encoder, whose losses are per masked token.
    pub bits_per_byte: Option<f64>,
    /// Share of the examples whose class the decoded model finds; of a classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Time that the file took, in seconds.
    pub seconds: f64,
}

/// Bytes of a file by purpose, as [`SizeSplit`] has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Split {
    pub payload: u64,
    pub tables: u64,
    pub scales: u64,
    pub corrections: u64,
    pub uncoded: u64,
    pub directory: u64,
}

impl From<SizeSplit> for Split {
    fn from(split: SizeSplit) -> Self {
        let SizeSplit { payload, tables, scales, corrections, uncoded, directory } = split;
        Self { payload, tables, scales, corrections, uncoded, directory }
    }
}

impl Point {
    /// Bits of the file per weight.
    pub fn bits_per_weight(&self) -> f64 {
        8.0 * self.bytes as f64 / self.parameters as f64
    }

    /// What the file loses, in nats per token.
    pub fn increase(&self) -> f64 {
        self.nats - self.float_nats
    }
}
