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
}
