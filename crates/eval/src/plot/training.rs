//! Loss and estimated rate over the steps of training.

use serde::Serialize;

use super::line_chart::{Line, LineChart, Mark};
use super::range::{AxisRange, is_drawable};
use super::theme::{WIDE, line_swatch};
use super::{Figure, LegendEntry};
use crate::EvalError;
use crate::prune::Reached;
use crate::table::{fixed, grouped};

/// Most points per line; longer traces are averaged, all by the same number of steps.
const MAX_POINTS: usize = 300;
/// Most points of a line that each have a marker.
const MOST_MARKS: usize = 40;

/// What was logged at one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TraceStep {
    /// Number of the step.
    pub step: u64,
    /// Training loss, nats per token.
    pub loss_nats: f64,
    /// Estimated bits per weight, where the run has a rate term.
    pub estimated_bits_per_weight: Option<f64>,
}

/// What was found of the float weights after a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TraceEvaluation {
    /// Steps taken.
    pub step: u64,
    /// Bits per byte of validation text, or accuracy, where there was something to evaluate on.
    pub quality: Option<Reached>,
    /// Shape of the generalised Gaussian with the moments of all weights, where the run has recorded it.
    pub shape: Option<f64>,
    /// Bits per coded weight that the codec spends, where the run has learned steps.
    pub coded_bits_per_weight: Option<f64>,
}

/// The log of one training run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TrainingTrace {
    /// Name of the run.
    pub name: String,
    /// The steps, in order.
    pub steps: Vec<TraceStep>,
    /// The evaluations, in order.
    pub evaluations: Vec<TraceEvaluation>,
}

/// Draws the training loss of every run; `None` when there is none to draw.
///
/// Long traces are averaged in groups of steps, and losses far above the rest, as at the start, are
/// cut off; both are said in the notes.
///
/// # Errors
///
/// [`EvalError::Plot`] when the plotting library refuses.
pub fn training_loss(traces: &[TrainingTrace]) -> Result<Option<Figure>, EvalError> {
    let losses = traces.iter().map(|trace| logged(trace, |step| Some(step.loss_nats))).collect();
    draw(traces, losses, "training loss", "nats per token", AxisRange::of_most)
}

/// Draws the estimated bits per weight of every run that has them; `None` when no run has.
///
/// # Errors
///
/// [`EvalError::Plot`] when the plotting library refuses.
pub fn training_bits(traces: &[TrainingTrace]) -> Result<Option<Figure>, EvalError> {
    let bits =
        traces.iter().map(|trace| logged(trace, |step| step.estimated_bits_per_weight)).collect();
    draw(traces, bits, "estimated rate", "bits per weight", AxisRange::of_all)
}

/// Draws the shape of the weights of every run that has recorded it; `None` when no run has.
///
/// # Errors
///
/// [`EvalError::Plot`] when the plotting library refuses.
pub fn training_shape(traces: &[TrainingTrace]) -> Result<Option<Figure>, EvalError> {
    let shapes = |trace: &TrainingTrace| {
        let shape = |at: &TraceEvaluation| Some((at.step as f64, at.shape?));
        trace.evaluations.iter().filter_map(shape).collect()
    };
    let shapes = traces.iter().map(shapes).collect();
    draw(traces, shapes, "shape of the weights", "1 Laplace, 2 Gauss", AxisRange::of_all)
}

/// Step and value of every step at which the run logged the quantity.
fn logged(trace: &TrainingTrace, quantity: impl Fn(&TraceStep) -> Option<f64>) -> Vec<(f64, f64)> {
    trace.steps.iter().filter_map(|step| Some((step.step as f64, quantity(step)?))).collect()
}

fn draw(
    traces: &[TrainingTrace],
    logged: Vec<Vec<(f64, f64)>>,
    quantity: &str,
    unit: &str,
    range: impl Fn(Vec<f64>) -> Option<AxisRange>,
) -> Result<Option<Figure>, EvalError> {
    let mut notes = Vec::new();
    let mut drawable = Vec::new();
    for (trace, values) in traces.iter().zip(logged) {
        let count = values.len();
        let is_placed = |&(step, value): &(f64, f64)| is_drawable(step) && is_drawable(value);
        let placed: Vec<(f64, f64)> = values.into_iter().filter(is_placed).collect();
        if placed.len() < count {
            let missing = count - placed.len();
            notes.push(format!(
                "{}: {missing} of {count} steps have no figure to draw.",
                trace.name
            ));
        }
        drawable.push(placed);
    }
    let longest = drawable.iter().map(Vec::len).max().unwrap_or(0);
    let group = longest.div_ceil(MAX_POINTS).max(1);
    if group > 1 {
        notes.push(format!("Every point is the mean of {group} logged steps."));
    }
    let averaged: Vec<Vec<(f64, f64)>> =
        drawable.iter().map(|points| means(points, group)).collect();
    let all = || averaged.iter().flatten();
    let (Some(x), Some(y)) = (
        AxisRange::of_all(all().map(|point| point.0)),
        range(all().map(|point| point.1).collect()),
    ) else {
        return Ok(None);
    };
    if all().any(|point| point.1 > y.high) {
        notes.push(format!("Values above {} {unit} are cut off.", fixed(y.high, 2)));
    }

    let mut lines = Vec::new();
    let mut legend = Vec::new();
    for (slot, (trace, points)) in traces.iter().zip(averaged).enumerate() {
        let Some(&(step, value)) = points.last() else {
            continue;
        };
        let mark = |&(step, value): &(f64, f64)| Mark {
            x: step,
            y: value,
            tooltip: format!(
                "{}, step {}: {} {unit}",
                trace.name,
                grouped(step as u64),
                fixed(value, 4)
            ),
            extent: None,
        };
        // Many markers would hide the line; the last one says where it ends.
        let marks = match points.len() {
            0..=MOST_MARKS => points.iter().map(mark).collect(),
            _ => vec![mark(&(step, value))],
        };
        legend.push(LegendEntry { swatch_svg: line_swatch(slot), label: trace.name.clone() });
        lines.push(Line { slot, points, marks });
    }
    let names: Vec<&str> = legend.iter().map(|entry| entry.label.as_str()).collect();
    let chart = LineChart {
        description: format!(
            "Line chart of the {quantity} in {unit} over training steps: {}",
            names.join(", ")
        ),
        x_title: "training step".to_owned(),
        y_title: format!("{quantity} ({unit})"),
        top_axis: None,
        x: x.not_below_zero(),
        y,
        lines,
        levels: Vec::new(),
        bars: Vec::new(),
    };
    let (wide_svg, narrow_svg) = chart.draw()?;
    Ok(Some(Figure { wide_svg, wide_height: WIDE.height, narrow_svg, legend, notes }))
}

/// Mean value of every `group` neighbouring points, at the last step of the group.
fn means(points: &[(f64, f64)], group: usize) -> Vec<(f64, f64)> {
    let mean = |points: &[(f64, f64)]| {
        let sum: f64 = points.iter().map(|point| point.1).sum();
        (points[points.len() - 1].0, sum / points.len() as f64)
    };
    points.chunks(group).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(name: &str, steps: u64, bits: Option<f64>) -> TrainingTrace {
        let step = |step: u64| TraceStep {
            step,
            loss_nats: 1.5 + 4.0 / (1.0 + step as f64 / 20.0),
            estimated_bits_per_weight: bits.map(|bits| bits + 4.0 / (1.0 + step as f64)),
        };
        let steps = (0..steps).map(step).collect();
        TrainingTrace { name: name.to_owned(), steps, ..TrainingTrace::default() }
    }

    #[test]
    fn long_traces_are_averaged_and_their_start_is_cut_off() {
        let figure = training_loss(&[trace("plain", 1200, None), trace("rate", 1200, Some(2.0))])
            .unwrap()
            .unwrap();
        assert_eq!(figure.legend.len(), 2);
        assert!(
            figure.notes.contains(&"Every point is the mean of 4 logged steps.".to_owned()),
            "{:?}",
            figure.notes
        );
        assert!(figure.notes.last().unwrap().contains("are cut off"), "{:?}", figure.notes);
        assert!(figure.wide_svg.contains("plain, step 1,199: 1.5"));
        assert!(figure.wide_svg.len() < 40_000, "{}", figure.wide_svg.len());
    }

    #[test]
    fn only_runs_with_a_rate_term_are_in_the_chart_of_bits() {
        let traces = [trace("plain", 50, None), trace("rate", 50, Some(2.0))];
        let figure = training_bits(&traces).unwrap().unwrap();
        assert_eq!(
            figure.legend.iter().map(|entry| entry.label.as_str()).collect::<Vec<_>>(),
            ["rate"]
        );
        // The colour of a run is the same in both charts.
        assert!(figure.wide_svg.contains("--series-1") && !figure.wide_svg.contains("--series-0"));
        assert_eq!(training_bits(&traces[..1]).unwrap(), None);
    }

    #[test]
    fn shapes_are_drawn_where_they_were_recorded() {
        let evaluation = |step: u64, shape: Option<f64>| TraceEvaluation {
            step,
            quality: Some(Reached::BitsPerByte(2.0)),
            shape,
            coded_bits_per_weight: None,
        };
        let mut rate = trace("rate", 5, Some(2.0));
        rate.evaluations =
            vec![evaluation(1, None), evaluation(3, Some(1.5)), evaluation(5, Some(1.25))];
        assert_eq!(training_shape(&[trace("plain", 5, None)]).unwrap(), None);
        let figure = training_shape(&[rate]).unwrap().unwrap();
        assert_eq!(figure.wide_svg.matches("<g class=\"mark\">").count(), 2);
        assert!(figure.wide_svg.contains("rate, step 5: 1.2500"), "{}", figure.wide_svg);
    }

    #[test]
    fn a_diverged_run_is_drawn_as_far_as_it_goes() {
        let mut diverged = trace("diverged", 10, None);
        diverged.steps[9].loss_nats = f64::NAN;
        diverged.steps[8].loss_nats = f64::INFINITY;
        let figure = training_loss(&[diverged]).unwrap().unwrap();
        assert!(figure.wide_svg.contains("diverged, step 7:"));
        assert_eq!(figure.notes[0], "diverged: 2 of 10 steps have no figure to draw.");
    }

    #[test]
    fn empty_traces_are_no_chart() {
        assert_eq!(training_loss(&[]).unwrap(), None);
        assert_eq!(training_loss(&[trace("empty", 0, None)]).unwrap(), None);
        assert!(training_loss(&[trace("one step", 1, None)]).unwrap().is_some());
    }

    #[test]
    fn means_keep_the_last_step() {
        assert_eq!(means(&[(1.0, 2.0), (2.0, 4.0), (3.0, 9.0)], 2), [(2.0, 3.0), (3.0, 9.0)]);
    }
}
