//! The figures of the page of runs as comma-separated values.

use super::groups::groups;
use super::{Reached, RunsReport};

/// A table as comma-separated values (RFC 4180, with line feeds).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Name for its file.
    pub name: &'static str,
    /// A line of headings, and a line for each row; cells without a figure are empty.
    pub text: String,
}

impl Numbers {
    fn new<const N: usize>(
        name: &'static str,
        headings: [&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) -> Self {
        let mut text = line(&headings.map(str::to_owned));
        rows.for_each(|row| text.push_str(&line(&row)));
        Self { name, text }
    }
}

/// All tables that have a row.
pub(super) fn all(report: &RunsReport) -> Vec<Numbers> {
    let mut all = vec![files(report), curves(report), accuracies(report), pruned(report)];
    all.extend([runs(report), tensors(report)]);
    all.extend([densities(report), histograms(report), training(report), evaluations(report)]);
    all.retain(|numbers| numbers.text.lines().nth(1).is_some());
    all
}

fn line(cells: &[String]) -> String {
    let quoted = |cell: &String| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.clone(),
    };
    cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

fn optional(figure: Option<f64>) -> String {
    figure.map_or_else(String::new, |figure| figure.to_string())
}

/// The ends of an interval.
fn ends(interval: Option<(f64, f64)>) -> [String; 2] {
    [optional(interval.map(|ends| ends.0)), optional(interval.map(|ends| ends.1))]
}

fn files(report: &RunsReport) -> Numbers {
    let headings = [
        "run",
        "seed",
        "settings",
        "steps",
        "training_seconds",
        "export",
        "target_bits_per_weight",
        "bytes",
        "parameters",
        "bits_per_weight",
        "nats",
        "bits_per_byte",
        "accuracy",
        "float_nats",
        "float_accuracy",
        "shape",
    ];
    let rows = report.files.iter().map(|file| {
        [
            file.run.clone(),
            file.seed.to_string(),
            file.settings.join(" "),
            file.steps.to_string(),
            optional(file.seconds),
            file.export.clone(),
            optional(file.target),
            file.bytes.to_string(),
            file.parameters.to_string(),
            file.bits_per_weight().to_string(),
            file.nats.to_string(),
            optional(file.quality.bits_per_byte()),
            optional(file.quality.accuracy()),
            file.float_nats.to_string(),
            optional(file.float_accuracy),
            optional(file.shape),
        ]
    });
    Numbers::new("files", headings, rows)
}

fn curves(report: &RunsReport) -> Numbers {
    let headings = [
        "group",
        "curve",
        "setting",
        "files",
        "mean_bytes",
        "interval_from_bytes",
        "interval_to_bytes",
        "mean_bits_per_weight",
        "mean_bits_per_byte",
        "interval_from_bits_per_byte",
        "interval_to_bits_per_byte",
    ];
    let mut rows = Vec::new();
    for group in groups(report).iter().filter(|group| !group.setup.is_of_classifiers()) {
        for curve in &group.curves {
            for place in &curve.places {
                let point = place.point();
                let [bytes_from, bytes_to] = ends(point.interval.map(|interval| interval.bytes));
                let [bits_from, bits_to] =
                    ends(point.interval.map(|interval| interval.bits_per_byte));
                rows.push([
                    group.setup.describe(),
                    curve.name.clone(),
                    place.setting.clone(),
                    place.files.len().to_string(),
                    point.bytes.to_string(),
                    bytes_from,
                    bytes_to,
                    point.bits_per_weight.to_string(),
                    point.bits_per_byte.to_string(),
                    bits_from,
                    bits_to,
                ]);
            }
        }
    }
    Numbers::new("curves", headings, rows.into_iter())
}

fn accuracies(report: &RunsReport) -> Numbers {
    let headings = [
        "group",
        "curve",
        "setting",
        "files",
        "mean_bytes",
        "mean_bits_per_weight",
        "interval_from_bits_per_weight",
        "interval_to_bits_per_weight",
        "mean_accuracy",
        "interval_from_accuracy",
        "interval_to_accuracy",
    ];
    let mut rows = Vec::new();
    for group in groups(report).iter().filter(|group| group.setup.is_of_classifiers()) {
        for curve in &group.curves {
            rows.extend(curve.places.iter().map(|place| {
                let point = place.accuracy();
                let [bits, accuracy] = [0, 1].map(|at| ends(point.intervals.map(|both| both[at])));
                let [bits_from, bits_to] = bits;
                let [accuracy_from, accuracy_to] = accuracy;
                [
                    group.setup.describe(),
                    curve.name.clone(),
                    place.setting.clone(),
                    place.files.len().to_string(),
                    place.point().bytes.to_string(),
                    point.bits_per_weight.to_string(),
                    bits_from,
                    bits_to,
                    point.accuracy.to_string(),
                    accuracy_from,
                    accuracy_to,
                ]
            }));
        }
    }
    Numbers::new("accuracies", headings, rows.into_iter())
}

fn pruned(report: &RunsReport) -> Numbers {
    let headings = [
        "kind",
        "model",
        "sparsity",
        "zeros",
        "bytes",
        "bits_per_weight",
        "bits_per_byte_decoded",
        "accuracy_decoded",
    ];
    let mut rows = Vec::new();
    for kind in report.pruned.iter().flat_map(|pruned| &pruned.kinds) {
        for curve in &kind.curves {
            rows.extend(curve.points.iter().map(|point| {
                [
                    kind.name.clone(),
                    curve.name.clone(),
                    point.sparsity.to_string(),
                    point.zeros.to_string(),
                    point.bytes.to_string(),
                    point.bits_per_weight.to_string(),
                    optional(point.decoded.bits_per_byte()),
                    optional(point.decoded.accuracy()),
                ]
            }));
        }
    }
    Numbers::new("pruned", headings, rows.into_iter())
}

fn runs(report: &RunsReport) -> Numbers {
    let headings = [
        "run",
        "parameters",
        "steps",
        "training_seconds",
        "bytes",
        "payload",
        "tables",
        "scales",
        "corrections",
        "uncoded",
        "directory",
    ];
    let rows = report.runs.iter().map(|run| {
        let split = &run.split;
        [
            run.name.clone(),
            run.parameters.to_string(),
            run.steps.to_string(),
            optional(run.seconds),
            split.total().to_string(),
            split.payload.to_string(),
            split.tables.to_string(),
            split.scales.to_string(),
            split.corrections.to_string(),
            split.uncoded.to_string(),
            split.directory.to_string(),
        ]
    });
    Numbers::new("runs", headings, rows)
}

fn tensors(report: &RunsReport) -> Numbers {
    let headings =
        ["run", "tensor", "shape", "coder", "bytes", "bits_per_weight", "entropy_bits_per_weight"];
    let rows = report.runs.iter().flat_map(|run| {
        run.tensors.iter().map(|tensor| {
            [
                run.name.clone(),
                tensor.name.clone(),
                tensor.extents(),
                tensor.coder.clone(),
                tensor.bytes.to_string(),
                tensor.bits_per_weight.to_string(),
                optional(tensor.entropy_bits),
            ]
        })
    });
    Numbers::new("tensors", headings, rows)
}

fn densities(report: &RunsReport) -> Numbers {
    let headings = [
        "run",
        "weights_of",
        "weights",
        "zeros",
        "root_mean_square",
        "family",
        "shape",
        "scale",
        "nats_per_weight",
    ];
    let mut rows = Vec::new();
    for run in &report.runs {
        for histogram in run.all_matrices.iter().chain(&run.matrices) {
            rows.extend(histogram.fits.iter().map(|fit| {
                [
                    run.name.clone(),
                    histogram.name.clone(),
                    histogram.weights.to_string(),
                    histogram.zeros.to_string(),
                    histogram.root_mean_square.to_string(),
                    fit.family.to_owned(),
                    fit.shape.to_string(),
                    fit.scale.to_string(),
                    fit.log_likelihood.to_string(),
                ]
            }));
        }
    }
    Numbers::new("densities", headings, rows.into_iter())
}

fn histograms(report: &RunsReport) -> Numbers {
    let headings = ["run", "weights_of", "from", "to", "weights", "density"];
    let mut rows = Vec::new();
    for run in &report.runs {
        for histogram in run.all_matrices.iter().chain(&run.matrices) {
            rows.extend(histogram.counts.iter().enumerate().map(|(index, count)| {
                let (from, to, density) = histogram.bin(index);
                [
                    run.name.clone(),
                    histogram.name.clone(),
                    from.to_string(),
                    to.to_string(),
                    count.to_string(),
                    density.to_string(),
                ]
            }));
        }
    }
    Numbers::new("histograms", headings, rows.into_iter())
}

fn training(report: &RunsReport) -> Numbers {
    let headings = ["run", "step", "loss_nats_per_token", "estimated_bits_per_weight"];
    let rows = report.runs.iter().flat_map(|run| {
        run.trace.steps.iter().map(|step| {
            [
                run.name.clone(),
                step.step.to_string(),
                step.loss_nats.to_string(),
                optional(step.estimated_bits_per_weight),
            ]
        })
    });
    Numbers::new("training", headings, rows)
}

fn evaluations(report: &RunsReport) -> Numbers {
    let headings =
        ["run", "step", "bits_per_byte_float", "accuracy_float", "coded_bits_per_weight", "shape"];
    let rows = report.runs.iter().flat_map(|run| {
        run.trace.evaluations.iter().map(|evaluation| {
            [
                run.name.clone(),
                evaluation.step.to_string(),
                optional(evaluation.quality.and_then(Reached::bits_per_byte)),
                optional(evaluation.quality.and_then(Reached::accuracy)),
                optional(evaluation.coded_bits_per_weight),
                optional(evaluation.shape),
            ]
        })
    });
    Numbers::new("evaluations", headings, rows)
}
