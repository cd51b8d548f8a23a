//! The body of the page of runs.

use maud::{Markup, html};

use super::RunsReport;
use super::figures::{OfRun, SIZE_AND_QUALITY, shared};
use super::groups::{Group, Place, groups};
use super::{PruneCurves, PrunedModels, Reached, RunRecord, TensorBudget};
use crate::EvalError;
use crate::plot::prune_curves;
use crate::prune::PruneCurve;
use crate::report::page::{document, figure, table};
use crate::table::{Column, Table, fixed, grouped};

/// Most bytes of a page, so that it opens at once on a phone.
pub(super) const MOST_BYTES: usize = 3_000_000;
/// Most runs of a group whose tensors and weights are drawn.
const MOST_DRAWN: usize = 8;
/// Most runs whose parts stand open.
const MOST_OPEN: usize = 2;

/// The whole document. Where it would be too large, the tensors and weights of fewer runs are drawn.
pub(super) fn page(report: &RunsReport) -> Result<String, EvalError> {
    let mut most_drawn = MOST_DRAWN;
    loop {
        let page = page_of(report, most_drawn)?;
        if page.len() <= MOST_BYTES {
            return Ok(page);
        }
        if most_drawn == 0 {
            return Err(EvalError::PageTooLarge { bytes: page.len(), most: MOST_BYTES });
        }
        most_drawn /= 2;
    }
}

fn page_of(report: &RunsReport, most_drawn: usize) -> Result<String, EvalError> {
    let groups = groups(report);
    let mut sections = Vec::new();
    for group in &groups {
        sections.push(section(group, most_drawn)?);
    }
    let pruned = report.pruned.iter().map(pruning).collect::<Result<Vec<_>, _>>()?;
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{} {what}s", grouped(count as u64)),
    };
    let separate = match groups.len() {
        0 | 1 => "",
        _ => {
            " Models of different size, and figures of different texts, stand in parts of their own."
        }
    };
    let summary = format!(
        "{} that were decoded and evaluated, {}.{separate}",
        count(report.files.len(), "file"),
        count(report.runs.len(), "run folder")
    );
    let body = html! {
        p class="summary" { (summary) }
        @for section in &sections { (section) }
        @for part in &pruned { (part) }
    };
    Ok(document(&report.title, &body))
}

fn section(group: &Group<'_>, most_drawn: usize) -> Result<Markup, EvalError> {
    let figures = shared(group)?;
    let (size, training): (Vec<_>, Vec<_>) =
        figures.iter().partition(|(name, _)| *name == SIZE_AND_QUALITY);
    let drawn = &group.runs[..group.runs.len().min(most_drawn)];
    let mut parts = Vec::new();
    for (index, run) in drawn.iter().enumerate() {
        parts.push(of_run(run, index < MOST_OPEN)?);
    }
    Ok(html! {
        section class="group" {
            h2 { (group.setup.describe()) }
            @if !group.curves.is_empty() {
                h3 { "Size and quality" }
                @for (_, chart) in &size { (figure(chart)) }
                p class="note" {
                    "Bytes of whole files of weights, without tokenizer and configuration, decoded again and evaluated. Where \
                     there are several seeds a point is their mean, with the 95 % confidence interval of that, of three seeds and more, as lines and a band (Student's t). \
                     Files named own are at the steps that their run has learned."
                }
                (table(&files_table(group)))
            }
            @if !group.runs.is_empty() {
                h3 { "Runs" }
                (table(&runs_table(group)))
                p class="note" {
                    "Bytes and bits per weight of the whole model.bsl, with tokenizer and configuration. Float figures are \
                     those of the weights before they are rounded; of a run that was trained with rounding, what its file \
                     decodes to is what its training has seen. Training time is tokens over the recorded speed."
                }
                h3 { "Where the bytes go" }
                (table(&split_table(&group.runs)))
            }
            @if !training.is_empty() {
                h3 { "Training" }
                @for (_, chart) in &training { (figure(chart)) }
            }
            @for part in &parts { (part) }
            @if drawn.len() < group.runs.len() {
                p class="note" {
                    "Tensors and weights of the first " (drawn.len()) " of " (group.runs.len()) " runs are shown."
                }
            }
        }
    })
}

/// The curves of pruned models.
fn pruning(pruned: &PrunedModels) -> Result<Markup, EvalError> {
    Ok(html! {
        section class="group" {
            h2 { "Pruning" }
            @if let Some(chart) = prune_curves(&pruned.kinds)? { (figure(&chart)) }
            p class="note" { (pruned.note) }
            details { summary { "Figures of this chart" } (table(&pruned_table(&pruned.kinds))) }
        }
    })
}

/// The tensors and the weights of a run.
fn of_run(run: &RunRecord, is_open: bool) -> Result<Markup, EvalError> {
    let OfRun { tensors, weights } = OfRun::new(run)?;
    Ok(html! {
        details class="run" open[is_open] {
            summary { "Tensors and weights of " (run.name) }
            @if let Some(chart) = tensors {
                h3 { "Bytes of each tensor" }
                (figure(&chart))
                details { summary { "Figures of this chart" } (table(&tensors_table(&run.tensors))) }
            }
            @if let Some(chart) = weights {
                h3 { "Distribution of the float weights" }
                (figure(&chart))
                (table(&fits_table(run)))
                p class="note" {
                    "Mean logarithm of each density at its greatest likelihood, in nats per weight: more is better, and the \
                     generalised Gaussian, which has both others in it, is never worse. Shape 1 is Laplace, 2 is Gauss. Where \
                     codes count from the random start of a tensor, its weights still have that start in them."
                }
            }
        }
    })
}

/// A figure, or a dash where there is none.
fn or_dash(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or_else(|| "–".to_owned(), |figure| fixed(figure, decimals))
}

fn files_table(group: &Group<'_>) -> Table<11> {
    let is_of_classifiers = group.setup.is_of_classifiers();
    let [decoded, float] = match is_of_classifiers {
        true => ["% correct", "% correct, float"],
        false => ["bits per byte", "float nats per token"],
    };
    let mut table = Table::new([
        Column::text("curve"),
        Column::text("setting"),
        Column::number("files"),
        Column::number("file bytes"),
        Column::number("bits per weight"),
        Column::number(decoded),
        Column::number("95 % interval"),
        Column::number(float),
        Column::number("steps"),
        Column::number("training minutes"),
        Column::number("shape"),
    ]);
    for curve in &group.curves {
        for place in &curve.places {
            let point = place.point();
            let [decoded, interval, float] = match is_of_classifiers {
                true => accuracies(place),
                false => losses(place),
            };
            table.push([
                curve.short_name.clone(),
                place.setting.replace('"', ""),
                place.files.len().to_string(),
                grouped(point.bytes),
                fixed(point.bits_per_weight, 3),
                decoded,
                interval,
                float,
                or_dash(place.mean(|file| Some(file.steps as f64)), 0),
                or_dash(place.mean(|file| file.seconds).map(|seconds| seconds / 60.0), 1),
                or_dash(place.mean(|file| file.shape), 2),
            ]);
        }
    }
    table
}

/// Of files of language models: bits per byte, their interval, and the loss of the float weights.
fn losses(place: &Place<'_>) -> [String; 3] {
    let point = place.point();
    let interval = point.interval.map(|interval| interval.bits_per_byte);
    [
        fixed(point.bits_per_byte, 4),
        from_to(interval, 1.0, 4),
        or_dash(place.mean(|file| Some(file.float_nats)), 4),
    ]
}

/// Of files of classifiers: the percentage that they get right, its interval, and that of the float weights.
fn accuracies(place: &Place<'_>) -> [String; 3] {
    let point = place.accuracy();
    let float = place.mean(|file| file.float_accuracy);
    [
        fixed(100.0 * point.accuracy, 2),
        from_to(point.intervals.map(|[_, accuracy]| accuracy), 100.0, 2),
        or_dash(float.map(|share| 100.0 * share), 2),
    ]
}

/// The ends of an interval in that unit, or a dash.
fn from_to(interval: Option<(f64, f64)>, per_unit: f64, decimals: usize) -> String {
    interval.map_or_else(
        || "–".to_owned(),
        |(least, greatest)| {
            let end = |value| fixed(per_unit * value, decimals);
            format!("{} to {}", end(least), end(greatest))
        },
    )
}

/// The points of all models, kind by kind.
pub(super) fn pruned_table(kinds: &[PruneCurves]) -> Table<6> {
    let of_classes = kinds.iter().flat_map(|kind| &kind.curves).any(PruneCurve::is_of_classes);
    let mut table = Table::new([
        Column::text("model"),
        Column::number("pruned, %"),
        Column::number("zeros in the file, %"),
        Column::number("file bytes"),
        Column::number(if of_classes { "% correct, decoded" } else { "bits per byte, decoded" }),
        Column::number("95 % interval"),
    ]);
    let figure = |figure: f64| if of_classes { fixed(100.0 * figure, 2) } else { fixed(figure, 4) };
    for kind in kinds {
        for (at, point) in kind.mean().points.iter().enumerate() {
            let band = kind.decoded(at).and_then(|mean| mean.band());
            let band = band.map(|(from, to)| format!("{} to {}", figure(from), figure(to)));
            table.push([
                kind.name.clone(),
                fixed(100.0 * point.sparsity, 0),
                fixed(100.0 * point.zeros, 1),
                grouped(point.bytes),
                figure(point.decoded.figure()),
                band.unwrap_or_else(|| "–".to_owned()),
            ]);
        }
    }
    table
}

fn runs_table(group: &Group<'_>) -> Table<8> {
    let of_classes = group.setup.is_of_classifiers();
    let [float, decoded] = match of_classes {
        true => ["% correct, float", "% correct, decoded"],
        false => ["bits per byte, float", "bits per byte, decoded"],
    };
    let mut table = Table::new([
        Column::text("run"),
        Column::number("steps"),
        Column::number("training minutes"),
        Column::number("file bytes"),
        Column::number("bits per weight"),
        Column::number(float),
        Column::number(decoded),
        Column::number("shape"),
    ]);
    let quality = |quality: Option<f64>| match of_classes {
        true => or_dash(quality.map(|share| 100.0 * share), 2),
        false => or_dash(quality, 4),
    };
    for run in &group.runs {
        let bytes = run.split.total();
        let last = run.trace.evaluations.last();
        table.push([
            run.name.clone(),
            grouped(run.steps),
            or_dash(run.seconds.map(|seconds| seconds / 60.0), 1),
            grouped(bytes),
            fixed(8.0 * bytes as f64 / run.parameters.max(1) as f64, 3),
            quality(last.and_then(|last| last.quality).map(Reached::figure)),
            quality(group.decoded(run)),
            or_dash(last.and_then(|last| last.shape), 2),
        ]);
    }
    table
}

fn split_table(runs: &[&RunRecord]) -> Table<8> {
    let mut table = Table::new([
        Column::text("bytes of"),
        Column::number("payload"),
        Column::number("tables"),
        Column::number("scales"),
        Column::number("corrections"),
        Column::number("uncoded"),
        Column::number("directory"),
        Column::number("all"),
    ]);
    for run in runs {
        let split = &run.split;
        table.push([
            run.name.clone(),
            grouped(split.payload),
            grouped(split.tables),
            grouped(split.scales),
            grouped(split.corrections),
            grouped(split.uncoded),
            grouped(split.directory),
            grouped(split.total()),
        ]);
    }
    table
}

fn tensors_table(tensors: &[TensorBudget]) -> Table<6> {
    let mut table = Table::new([
        Column::text("tensor"),
        Column::text("shape"),
        Column::text("coder"),
        Column::number("bytes"),
        Column::number("bits per weight"),
        Column::number("entropy of the codes"),
    ]);
    for tensor in tensors {
        table.push([
            tensor.name.clone(),
            tensor.extents(),
            tensor.coder.clone(),
            grouped(tensor.bytes),
            fixed(tensor.bits_per_weight, 3),
            or_dash(tensor.entropy_bits, 3),
        ]);
    }
    table
}

fn fits_table(run: &RunRecord) -> Table<7> {
    let mut table = Table::new([
        Column::text("weights of"),
        Column::number("root mean square"),
        Column::number("fitted shape"),
        Column::number("generalised Gaussian"),
        Column::number("Gaussian"),
        Column::number("Laplace"),
        Column::text("better of the two"),
    ]);
    for histogram in run.all_matrices.iter().chain(&run.matrices) {
        let [generalised, gauss, laplace] = &histogram.fits;
        table.push([
            histogram.name.clone(),
            fixed(histogram.root_mean_square, 5),
            fixed(generalised.shape, 2),
            fixed(generalised.log_likelihood, 4),
            fixed(gauss.log_likelihood, 4),
            fixed(laplace.log_likelihood, 4),
            histogram.better_named().family.to_owned(),
        ]);
    }
    table
}
