//! Charts as SVG, drawn by `plotters` for a page that sets the colours.
//!
//! Every chart is drawn twice, for a wide and for a narrow page, because text that scales with its
//! drawing is unreadable on a phone. Colours are CSS variables (`--series-0` …, `--chart-text`,
//! `--chart-axis`, `--chart-grid`, `--page`), so one drawing serves light and dark pages and paper.
//! Series differ in the shape of their markers as well as in colour.

mod accuracy;
mod histogram;
mod line_chart;
mod pruning;
mod range;
mod rate_distortion;
mod standalone;
mod tensor_bytes;
mod theme;
mod training;

pub use accuracy::{AccuracyPoint, accuracy_curves};
pub use histogram::weight_histogram;
pub use pruning::prune_curves;
pub use rate_distortion::{Curve, FloatReference, Interval, Point, rate_distortion};
pub use standalone::standalone;
pub use tensor_bytes::{TensorBudget, tensor_bytes};
pub use theme::SERIES_COLOURS;
pub use training::{
    TraceEvaluation, TraceStep, TrainingTrace, training_bits, training_loss, training_shape,
};

/// A chart with the text that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// The drawing for pages from about 640 CSS pixels, an `svg` element of class `chart wide`.
    pub wide_svg: String,
    /// Its height, in CSS pixels.
    pub wide_height: i32,
    /// The drawing for narrower pages, an `svg` element of class `chart narrow`.
    pub narrow_svg: String,
    /// What the lines mean, in the order of the data.
    pub legend: Vec<LegendEntry>,
    /// Sentences on what the chart leaves out.
    pub notes: Vec<String>,
}

/// One line of a legend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegendEntry {
    /// A piece of the line with its marker, an `svg` element of class `swatch`.
    pub swatch_svg: String,
    /// Name of the line, as plain text.
    pub label: String,
}
