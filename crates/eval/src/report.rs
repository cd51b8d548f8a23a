//! Pages that show what runs found: [`Report`] compares methods on one model, with the curves, the training and a sample
//! of text; [`RunsReport`] shows any runs and the results of sweeps.
//!
//! A page is a single file that needs no network; its content security policy forbids that, and all scripts but the one
//! that sorts tables, without which the page is whole. It follows the reader's choice of light or dark, fits a phone, and
//! prints.

mod html;
mod page;
mod runs;

pub use runs::{Numbers, PrunedModels, ResultFile, RunRecord, RunsReport, Test};
use serde::Serialize;

use crate::EvalError;
use crate::plot::{
    Curve, FloatReference, TrainingTrace, rate_distortion, training_bits, training_loss,
};
use crate::table::{Column, Table, fixed, grouped};

/// One way of turning a model into a file, and what it gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodRow {
    /// Name of the method.
    pub method: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bits of the file per weight of the model.
    pub bits_per_weight: f64,
    /// Bits per byte of text with the float weights.
    pub bits_per_byte_float: f64,
    /// Bits per byte of text with the weights that came back from the file.
    pub bits_per_byte_decoded: f64,
}

/// Text that a model wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The beginning it was given.
    pub prompt: String,
    /// What it wrote after that, without the prompt.
    pub text: String,
}

/// Everything on the page. Parts without content are left out.
///
/// ```
/// use backslash_eval::report::{MethodRow, Report};
///
/// let report = Report {
///     title: "Tom & Jerry".into(),
///     summary: "The rate-trained file is half as large.".into(),
///     rows: vec![MethodRow {
///         method: "rate-trained".into(),
///         file_bytes: 262_144,
///         bits_per_weight: 2.0,
///         bits_per_byte_float: 2.31,
///         bits_per_byte_decoded: 2.33,
///     }],
///     ..Report::default()
/// };
/// let page = report.to_html()?;
/// assert!(page.contains("<h1>Tom &amp; Jerry</h1>"));
/// assert!(page.contains("262,144"));
/// # Ok::<(), backslash_eval::EvalError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Heading of the page.
    pub title: String,
    /// The result in one or two plain sentences.
    pub summary: String,
    /// Names and values of the settings that produced it.
    pub settings: Vec<(String, String)>,
    /// The methods, in the order of the table.
    pub rows: Vec<MethodRow>,
    /// Rate–distortion curves.
    pub curves: Vec<Curve>,
    /// What the float models reach, as dashed lines beside the curves.
    pub float_bits_per_byte: Vec<FloatReference>,
    /// Logs of training.
    pub traces: Vec<TrainingTrace>,
    /// Samples of text.
    pub samples: Vec<Sample>,
}

impl Report {
    /// The page as one HTML document.
    ///
    /// # Errors
    ///
    /// [`EvalError::Plot`] when the plotting library refuses a chart.
    pub fn to_html(&self) -> Result<String, EvalError> {
        let rate_distortion = rate_distortion(&self.curves, &self.float_bits_per_byte)?;
        let training = [training_loss(&self.traces)?, training_bits(&self.traces)?];
        Ok(html::page(self, rate_distortion.as_ref(), &training))
    }
}

/// The methods as a table, for the terminal as for the page.
pub fn methods_table(rows: &[MethodRow]) -> Table<5> {
    let mut table = Table::new([
        Column::text("method"),
        Column::number("file bytes"),
        Column::number("bits per weight"),
        Column::number("bits per byte, float"),
        Column::number("bits per byte, decoded"),
    ]);
    for row in rows {
        table.push([
            row.method.clone(),
            grouped(row.file_bytes),
            fixed(row.bits_per_weight, 3),
            fixed(row.bits_per_byte_float, 4),
            fixed(row.bits_per_byte_decoded, 4),
        ]);
    }
    table
}

/// The files behind the curves as a table, by curve and size.
pub fn curves_table(curves: &[Curve]) -> Table<4> {
    let mut table = Table::new([
        Column::text("curve"),
        Column::number("file bytes"),
        Column::number("bits per weight"),
        Column::number("bits per byte, decoded"),
    ]);
    for curve in curves {
        let mut points = curve.points.clone();
        points.sort_by_key(|point| point.bytes);
        for point in points {
            table.push([
                curve.name.clone(),
                grouped(point.bytes),
                fixed(point.bits_per_weight, 3),
                fixed(point.bits_per_byte, 4),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests;
