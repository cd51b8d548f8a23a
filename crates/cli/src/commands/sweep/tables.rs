//! The curves of a sweep as tables.

use backslash_eval::CoderBits;
use backslash_eval::table::grouped;

use super::comparisons::comparisons;
use super::export::Export;
use super::figures::with_deviation;
use super::file::{Curve, SweepFile};
use super::runs::Line;
use super::series::{Files, Series};
use crate::grid::Grid;

/// All tables.
pub fn tables(file: &SweepFile, series: &[Series<'_>]) -> String {
    let mut text = "Mean over seeds ± standard deviation; every file decoded again and run (weights alone: no tokenizer and no configuration).\n\n".to_owned();
    text += &files(series).text();
    text += &coders(series);
    text += &comparisons(file, series);
    text += &limits(file, series);
    text += &steered(series);
    text
}

/// A row for each of the files.
pub fn files(series: &[Series<'_>]) -> Grid {
    let lines = || series.iter().flat_map(|curve| &curve.files).flat_map(|files| &files.lines);
    let classifiers = lines().any(|line| line.accuracy.is_some());
    let quality = match classifiers {
        true => ["nats per example", "% correct", "float % correct"],
        false => ["nats per token", "bits per byte", "float nats per token"],
    };
    let [nats, second, third] = quality;
    let titles = ["bytes", "bits per weight", nats, second, third, "shape", "seeds"];
    let mut grid = Grid::new("curve", titles.map(str::to_owned));
    for curve in series {
        for files in &curve.files {
            let point = files.point();
            let (second, third) = match classifiers {
                true => (
                    percent(files, |line| line.accuracy),
                    percent(files, |line| line.float_accuracy),
                ),
                false => (
                    format!("{:.4}", point.bits_per_byte),
                    format!("{:.4}", files.mean(|line| line.float_nats).mean),
                ),
            };
            let figures = [
                grouped(point.bytes),
                format!("{:.3}", point.bits_per_weight),
                with_deviation(files.mean(|line| line.nats)),
                second,
                third,
                shape(files),
                files.lines.len().to_string(),
            ];
            grid.push(row_title(curve.curve, &files.label), figures);
        }
    }
    grid
}

/// Mean shape of the float weights, where all lines have one.
fn shape(files: &Files<'_>) -> String {
    match files.lines.iter().all(|line| line.shape.is_some()) {
        true => format!("{:.2}", files.mean(|line| line.shape.unwrap_or(f64::NAN)).mean),
        false => "–".to_owned(),
    }
}

/// Mean and deviation of a share, in percent, where all lines have one.
fn percent(files: &Files<'_>, share: impl Fn(&Line) -> Option<f64>) -> String {
    if files.lines.iter().any(|line| share(line).is_none()) {
        return "–".to_owned();
    }
    let figure = files.mean(|line| 100.0 * share(line).unwrap_or(f64::NAN));
    match figure.count {
        1 => format!("{:.2}", figure.mean),
        _ => format!("{:.2} ± {:.2}", figure.mean, figure.deviation),
    }
}

/// Bits per weight by every coder, of the files that have been made for that.
fn coders(series: &[Series<'_>]) -> String {
    let titles = [
        "step",
        "exp-Golomb 0",
        "best exp-Golomb",
        "Huffman",
        "fixed length",
        "entropy",
        "our file",
        "% correct",
        "nats",
        "shape",
        "seeds",
    ];
    let mut grid = Grid::new("curve", titles.map(str::to_owned));
    let mut any = false;
    for curve in series {
        for files in &curve.files {
            let Some(Export::Coders(exponent)) = Export::named(&files.lines[0].export) else {
                continue;
            };
            any = true;
            let bits = |of: &dyn Fn(&CoderBits) -> f64| {
                let mean = files.mean(|line| line.coders.as_ref().map_or(f64::NAN, of)).mean;
                format!("{mean:.3}")
            };
            let figures = [
                format!("2^-{exponent}"),
                bits(&|coders| coders.golomb),
                bits(&|coders| coders.golomb_best),
                bits(&|coders| coders.huffman),
                bits(&|coders| coders.fixed_length),
                bits(&|coders| coders.entropy),
                bits(&|coders| coders.ours),
                percent(files, |line| line.accuracy),
                with_deviation(files.mean(|line| line.nats)),
                shape(files),
                files.lines.len().to_string(),
            ];
            grid.push(row_title(curve.curve, &files.label), figures);
        }
    }
    match any {
        false => String::new(),
        true => format!(
            "\nBits per weight of all weights at one step; ours is a whole file, the others are without their table of values:\n\n{}",
            grid.text()
        ),
    }
}

/// What a row begins with: a curve, and what sets its files apart within it.
pub fn row_title(curve: &Curve, label: &str) -> String {
    match label.is_empty() {
        true => curve.name.clone(),
        false => format!("{}: {label}", curve.name),
    }
}

/// The best file of every curve at some sizes.
fn limits(file: &SweepFile, series: &[Series<'_>]) -> String {
    if file.limits.is_empty() {
        return String::new();
    }
    let titles = file.limits.iter().map(|limit| format!("{} bytes", grouped(*limit)));
    let mut grid = Grid::new("best file of at most", titles);
    for curve in series {
        let cells = file.limits.iter().map(|limit| {
            let fitting = curve.front().into_iter().rfind(|files| files.point().bytes <= *limit);
            fitting.map_or("–".to_owned(), |files| {
                let loss = with_deviation(files.mean(|line| line.nats));
                format!("{loss} ({}; {})", grouped(files.point().bytes), files.label)
            })
        });
        grid.push(curve.curve.name.clone(), cells);
    }
    format!("\n{}", grid.text())
}

/// How well runs have met their sizes.
fn steered(series: &[Series<'_>]) -> String {
    let titles =
        ["seed", "budget", "file", "of the budget", "forecast half-way through the rate", "off by"];
    let mut grid = Grid::new("run", titles.map(str::to_owned));
    let mut any = false;
    for curve in series {
        for files in &curve.files {
            for line in &files.lines {
                let Some(steered) = line.steered else { continue };
                any = true;
                let (bytes, forecast) = (steered.bytes as f64, steered.half_time_forecast as f64);
                let figures = [
                    line.seed.to_string(),
                    grouped(steered.budget),
                    grouped(steered.bytes),
                    format!("{:.2} %", 100.0 * bytes / steered.budget as f64),
                    grouped(steered.half_time_forecast),
                    format!("{:+.1} %", 100.0 * (forecast / bytes - 1.0)),
                ];
                grid.push(row_title(curve.curve, &files.label), figures);
            }
        }
    }
    match any {
        false => String::new(),
        true => format!(
            "\nRuns that were steered to a size, with everything that is needed to run their files:\n\n{}",
            grid.text()
        ),
    }
}
