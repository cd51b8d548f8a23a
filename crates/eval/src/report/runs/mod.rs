//! The page of any runs and results of sweeps: curves over seeds, and where the bytes of each run's file go.

mod figures;
mod groups;
mod html;
mod numbers;
#[cfg(test)]
mod tests;

use backslash_codec::SizeSplit;
use serde::Serialize;

pub use numbers::Numbers;

use crate::plot::{TensorBudget, TrainingTrace, standalone};
use crate::prune::{PruneCurves, Reached};
use crate::{EvalError, WeightHistogram};

/// A file that was made of a run, decoded and evaluated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultFile {
    /// Name of the run.
    pub run: String,
    /// Its seed.
    pub seed: u64,
    /// What sets the run apart from others but for its seed, as `key=value`.
    pub settings: Vec<String>,
    /// Optimizer steps.
    pub steps: u64,
    /// How the file was made.
    pub export: String,
    /// Bits per weight that were asked for, where a size could be.
    pub target: Option<f64>,
    /// Length of the file, of weights alone.
    pub bytes: u64,
    /// Number of weights.
    pub parameters: u64,
    /// Loss of the decoded model, nats per token; of a classifier per example.
    pub nats: f64,
    /// Bits per byte of text with the decoded model, or the share of the examples whose class it finds.
    pub quality: Reached,
    /// Loss of the float weights, as `nats`.
    pub float_nats: f64,
    /// Share of the examples whose class the float weights of a classifier find.
    pub float_accuracy: Option<f64>,
    /// Shape of the generalised Gaussian with the moments of all float weights.
    pub shape: Option<f64>,
    /// Time that training took, in seconds, where it was recorded.
    pub seconds: Option<f64>,
}

impl ResultFile {
    fn bits_per_weight(&self) -> f64 {
        8.0 * self.bytes as f64 / self.parameters.max(1) as f64
    }

    /// What its quality was measured on.
    fn test(&self) -> Test {
        match self.quality {
            Reached::Accuracy(_) => Test::Examples,
            Reached::BitsPerByte(bits) => {
                Test::Text { bytes_per_token: self.nats / std::f64::consts::LN_2 / bits }
            }
        }
    }
}

/// What a quality was measured on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Test {
    /// Nothing was evaluated.
    Nothing,
    /// Text, told from others by its bytes per token.
    Text {
        /// Bytes of the text per token.
        bytes_per_token: f64,
    },
    /// Examples of a classifier.
    Examples,
}

/// What the folder of a run says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRecord {
    /// Name of the folder.
    pub name: String,
    /// Number of weights.
    pub parameters: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// Time that they took, in seconds, by the recorded speed.
    pub seconds: Option<f64>,
    /// What it was evaluated on.
    pub test: Test,
    /// Log of the training.
    pub trace: TrainingTrace,
    /// Bytes of the whole file by purpose.
    #[serde(skip)]
    pub split: SizeSplit,
    /// What each tensor takes in the file.
    pub tensors: Vec<TensorBudget>,
    /// Distribution of the float weights of all coded matrices together.
    pub all_matrices: Option<WeightHistogram>,
    /// The same of each coded matrix.
    pub matrices: Vec<WeightHistogram>,
}

/// A page of runs.
///
/// Only files of models with the same number of weights that were evaluated on the same text share a chart: the page has a
/// part for each number of weights and each number of bytes per token of validation text. Classifiers have parts of their
/// own, and so have pruned models.
///
/// ```
/// use backslash_eval::prune::Reached;
/// use backslash_eval::report::{ResultFile, RunsReport};
///
/// let file = |seed: u64, bits_per_byte: f64| ResultFile {
///     run: format!("seed{seed}"),
///     seed,
///     settings: vec!["rate.lambda=0.1".into()],
///     steps: 900,
///     export: "own".into(),
///     target: None,
///     bytes: 250_000 + seed,
///     parameters: 1_000_000,
///     nats: 1.7 * bits_per_byte,
///     quality: Reached::BitsPerByte(bits_per_byte),
///     float_nats: 3.5,
///     float_accuracy: None,
///     shape: None,
///     seconds: None,
/// };
/// let files = vec![file(1, 2.25), file(2, 2.30), file(3, 2.35)];
/// let report = RunsReport { title: "Three seeds".into(), files, ..RunsReport::default() };
/// assert!(report.to_html()?.contains("(mean of 3 files, 95 % interval 2.1758 to 2.4242)"));
/// # Ok::<(), backslash_eval::EvalError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunsReport {
    /// Heading of the page.
    pub title: String,
    /// Files with their figures.
    pub files: Vec<ResultFile>,
    /// Folders of runs.
    pub runs: Vec<RunRecord>,
    /// Curves of pruned models, those of one chart together.
    pub pruned: Vec<PrunedModels>,
}

/// What `prune-curve` has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrunedModels {
    /// Which matrices were pruned, and how.
    pub note: String,
    /// The models, by kind.
    pub kinds: Vec<PruneCurves>,
}

impl RunsReport {
    /// The page as one HTML document of at most three million bytes: where it would be larger, the tensors and weights of
    /// fewer runs are drawn.
    ///
    /// # Errors
    ///
    /// [`EvalError::Plot`] when the plotting library refuses a chart, and [`EvalError::PageTooLarge`] where the tables alone
    /// are larger than that.
    pub fn to_html(&self) -> Result<String, EvalError> {
        html::page(self)
    }

    /// Every figure as an SVG document of its own, with a name for its file.
    ///
    /// # Errors
    ///
    /// [`EvalError::Plot`] when the plotting library refuses a chart.
    pub fn to_svgs(&self) -> Result<Vec<(String, String)>, EvalError> {
        let figures = figures::all(self)?;
        Ok(figures.into_iter().map(|(name, figure)| (name, standalone(&figure))).collect())
    }

    /// The figures behind the page as comma-separated values, each with a name for its file.
    pub fn to_csv(&self) -> Vec<Numbers> {
        numbers::all(self)
    }
}
