//! The curves of a sweep as tables.

use backslash_eval::table::grouped;
use backslash_eval::{CoderBits, Mean};

use super::export::Export;
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

/// A mean and, of several figures, their deviation.
fn with_deviation(figure: Mean) -> String {
    match figure.count {
        1 => format!("{:.4}", figure.mean),
        _ => format!("{:.4} ± {:.4}", figure.mean, figure.deviation),
    }
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

/// Sizes at the losses of another curve's files, seed by seed.
fn comparisons(file: &SweepFile, series: &[Series<'_>]) -> String {
    if file.compare.is_empty() {
        return String::new();
    }
    let titles =
        ["at its", "nats per token", "bytes of the other", "bytes", "fewer bytes", "95 % interval"];
    let mut grid = Grid::new("curve, against the other", titles.map(str::to_owned));
    let named = |name: &str| series.iter().find(|series| series.curve.name == name);
    for compare in &file.compare {
        let (Some(curve), Some(other)) = (named(&compare.curve), named(&compare.against)) else {
            continue;
        };
        for bits in &compare.bits {
            let pairs: Vec<(&Line, Option<f64>)> = other
                .seeds()
                .into_iter()
                .filter_map(|seed| other.at(seed, *bits))
                .filter(|line| curve.seeds().contains(&line.seed))
                .map(|line| (line, curve.bytes_at(line.seed, line.nats)))
                .collect();
            let of = |figure: &dyn Fn(&Line, f64) -> f64| {
                let found = pairs.iter().filter_map(|(line, bytes)| Some(figure(line, (*bytes)?)));
                Mean::of(&found.collect::<Vec<_>>())
            };
            let mean = |figure: &dyn Fn(&Line) -> f64| {
                let found: Vec<f64> = pairs.iter().map(|(line, _)| figure(line)).collect();
                Mean::of(&found)
            };
            let bytes = |figure: Option<Mean>| {
                figure.map_or("–".to_owned(), |figure| grouped(figure.mean.round() as u64))
            };
            let reached = of(&|_, bytes| bytes);
            let saved = of(&|line, bytes| 100.0 * (1.0 - bytes / line.bytes as f64));
            let (saved, interval) = match saved {
                None => ("not reached".to_owned(), "–".to_owned()),
                Some(saved) => saved_with_interval(saved, pairs.len()),
            };
            let figures = [
                format!("{bits} bits"),
                mean(&|line| line.nats).map_or("–".to_owned(), with_deviation),
                bytes(mean(&|line| line.bytes as f64)),
                bytes(reached),
                saved,
                interval,
            ];
            grid.push(format!("{}, against {}", compare.curve, compare.against), figures);
        }
    }
    format!(
        "\nBytes at equal loss, seed by seed; between two files of a curve by the line through them in (loss, ln bytes), and those of the smallest file where that loses less; the interval is that of the mean over seeds by Student's t, \"no difference\" where zero is in it:\n\n{}",
        grid.text()
    )
}

/// How much is saved, in percent with the deviation over seeds, and what the mean lies in.
fn saved_with_interval(saved: Mean, seeds: usize) -> (String, String) {
    let Mean { mean, deviation, count } = saved;
    let text = match count {
        count if count < seeds => format!("{mean:.1} % ({count} of {seeds} seeds)"),
        1 => format!("{mean:.1} %"),
        _ => format!("{mean:.1} ± {deviation:.1} %"),
    };
    let interval = match saved.interval() {
        None => "–".to_owned(),
        Some(_) if !saved.is_certain() => "no difference".to_owned(),
        Some((least, greatest)) => format!("{least:.1} to {greatest:.1} %"),
    };
    (text, interval)
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
