//! One line of the ledger.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Change;

/// A way to change one tensor of a file, all else as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExceptionPath {
    /// The step divided by √2.
    Finer,
    /// The step times √2.
    Coarser,
    /// Half the step, for the embedding that is also the output head.
    FinerEmbedding,
    /// The columns of largest error, one of 32, at a quarter of their step; not where codes lie on a trellis.
    ProtectedColumns,
    /// The factors of the rows by their sensitivity, off where the file has them and on where it has not.
    RowFactors,
    /// The row scales that are fitted to the codes, off where they are fitted and on where not.
    RowScales,
    /// A correction of the error of this rank, in addition. No file can hold one: what it returns is hypothetical.
    LowRank(usize),
    /// This tensor as in the file and all others as floats, against the float model.
    Alone,
}

impl ExceptionPath {
    /// Whether the file format cannot hold it.
    pub fn is_hypothetical(self) -> bool {
        matches!(self, Self::LowRank(_))
    }
}

impl fmt::Display for ExceptionPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Finer => "step ÷ √2",
            Self::Coarser => "step × √2",
            Self::FinerEmbedding => "step ÷ 2",
            Self::ProtectedColumns => "protected columns",
            Self::RowFactors => "row factors",
            Self::RowScales => "fitted row scales",
            Self::LowRank(rank) => return write!(formatter, "rank {rank} (hypothetical)"),
            Self::Alone => "alone",
        })
    }
}

/// What one change does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the tensor.
    pub tensor: String,
    /// What is changed.
    pub path: ExceptionPath,
    /// Change of the tensor's bytes; for [`ExceptionPath::Alone`] the bytes themselves.
    pub bytes: i64,
    /// Change of the Kullback–Leibler divergence from the float model, in nats per token.
    pub divergence: Change,
    /// Change of the cross-entropy on the text, in nats per token. Noisier than the divergence, which averages over
    /// all tokens that could come instead of taking the one that did.
    pub cross_entropy: Change,
    /// Change of the loss that the error of the outputs predicts, in nats per token.
    pub predicted: f64,
    /// The same from the plain squared error of the weights.
    pub predicted_plain: f64,
}

impl Entry {
    /// Loss saved per byte spent, or paid per byte freed, in nats per token per kB: −ΔD/ΔB·1000, D being the divergence.
    /// Infinite for what saves both, and less than any number for what costs loss without a change of bytes.
    ///
    /// ```
    /// use backslash_compress::ledger::{Change, Entry, ExceptionPath};
    ///
    /// let entry = |bytes, mean| Entry {
    ///     tensor: "w".to_owned(),
    ///     path: ExceptionPath::Finer,
    ///     bytes,
    ///     divergence: Change { mean, error: 0.0 },
    ///     cross_entropy: Change { mean, error: 0.0 },
    ///     predicted: mean,
    ///     predicted_plain: mean,
    /// };
    /// assert_eq!(entry(500, -0.25).return_per_kb(), 0.5);
    /// assert_eq!(entry(-500, 0.25).return_per_kb(), 0.5);
    /// assert_eq!(entry(500, 0.25).return_per_kb(), -0.5);
    /// assert_eq!(entry(-500, -0.25).return_per_kb(), f64::INFINITY);
    /// assert_eq!(entry(0, 0.25).return_per_kb(), f64::NEG_INFINITY);
    /// ```
    pub fn return_per_kb(&self) -> f64 {
        self.per_kb(self.divergence.mean)
    }

    /// As [`Entry::return_per_kb`], from the predicted change.
    pub fn predicted_return_per_kb(&self) -> f64 {
        self.per_kb(self.predicted)
    }

    /// Standard error of [`Entry::return_per_kb`].
    pub fn return_error_per_kb(&self) -> f64 {
        1e3 * self.divergence.error / (self.bytes.unsigned_abs().max(1)) as f64
    }

    fn per_kb(&self, change: f64) -> f64 {
        match self.bytes {
            bytes if bytes <= 0 && change < 0.0 => f64::INFINITY,
            0 if change == 0.0 => 0.0,
            0 => f64::NEG_INFINITY,
            bytes => -1e3 * change / bytes as f64,
        }
    }
}
