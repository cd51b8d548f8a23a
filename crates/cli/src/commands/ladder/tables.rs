//! What the points of a ladder say, as text.

use backslash_compress::Allocation;
use backslash_eval::Mean;
use backslash_eval::ladder::{ErrorPoint, Method, Point, Summary};
use backslash_eval::table::grouped;
use backslash_quant::Rung;
use serde_json::{Value, json};

use crate::grid::Grid;

/// Tables for a terminal and for a document.
pub struct Tables {
    pub plain: String,
    pub markdown: String,
}

/// The tables of models that were run.
pub fn by_loss(points: &[Point], rungs: &[Rung], methods: &[Method], bits: &[f64]) -> Tables {
    let summary = Summary::new(points);
    let mut float: Vec<(&str, f64)> =
        points.iter().map(|point| (point.run.as_str(), point.float_nats)).collect();
    float.sort_by(|one, other| one.0.cmp(other.0));
    float.dedup();
    let mean = match float.len() {
        1 => "one model".to_owned(),
        count => format!("mean over {count} models ± standard deviation"),
    };
    let mut text = format!(
        "Loss above the float model's ({}) in nats per token, {mean}, at bits per weight of the whole file (weights alone: no tokenizer and no configuration, as in the exporters of others; every file decoded again):\n\n",
        float.iter().map(|(_, nats)| format!("{nats:.4}")).collect::<Vec<_>>().join(", "),
    );
    text += &losses(&summary, methods, bits).text();
    text += "\n";
    text += &sizes(&summary, methods).text();
    text += "\nDifferences between methods at the same bits per weight, in the same model";
    text += match float.len() {
        1 => ":\n\n",
        _ => {
            "; \"no difference\" where zero is in the 95 % confidence interval of the mean (Student's t):\n\n"
        }
    };
    text += &differences(&summary, rungs, methods, bits).text();
    text += &order(&summary, rungs, bits);
    text += &no_worse(&summary, rungs);
    Tables { plain: text.clone(), markdown: text }
}

fn heading(bits: &[f64]) -> Vec<String> {
    bits.iter().map(|bits| format!("{bits} bits")).collect()
}

fn losses(summary: &Summary<'_>, methods: &[Method], bits: &[f64]) -> Grid {
    let mut grid = Grid::new("method", heading(bits));
    for &method in methods.iter().filter(|method| method.has_target()) {
        let cells = bits.iter().map(|bits| cell(summary, method, Some(*bits)));
        grid.push(method.name(), cells);
    }
    grid
}

/// Methods whose size is their own: it belongs under no heading of the others.
fn sizes(summary: &Summary<'_>, methods: &[Method]) -> Grid {
    let titles = ["bytes", "bits per weight", "loss above float"].map(str::to_owned);
    let mut grid = Grid::new("method without a choice of size", titles);
    for &method in methods.iter().filter(|method| !method.has_target()) {
        let points = summary.points(method, None);
        let mean = |figure: fn(&Point) -> f64| {
            Mean::of(&points.iter().map(|point| figure(point)).collect::<Vec<_>>())
        };
        let bytes = mean(|point| point.bytes as f64);
        let figures = [
            bytes.map_or("–".to_owned(), |bytes| grouped(bytes.mean.round() as u64)),
            mean(Point::bits_per_weight)
                .map_or("–".to_owned(), |bits| format!("{:.3}", bits.mean)),
            cell(summary, method, None),
        ];
        grid.push(method.name(), figures);
    }
    grid
}

/// Loss above float; with the size where it is more than 1 % off.
fn cell(summary: &Summary<'_>, method: Method, target: Option<f64>) -> String {
    let Some(increase) = summary.increase(method, target) else { return "–".to_owned() };
    let points = summary.points(method, target);
    let sizes: Vec<f64> = points.iter().map(|point| point.bits_per_weight()).collect();
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    let off = target.is_some_and(|target| (mean / target - 1.0).abs() > 0.01);
    let size = if off { format!(" at {mean:.3}") } else { String::new() };
    match increase.count {
        1 => format!("{:+.4}{size}", increase.mean),
        _ => format!("{:+.4} ± {:.4}{size}", increase.mean, increase.deviation),
    }
}

fn ours(rung: Rung) -> Method {
    Method::Ours(rung, Allocation::Rows)
}

fn differences(summary: &Summary<'_>, rungs: &[Rung], methods: &[Method], bits: &[f64]) -> Grid {
    let mut grid = Grid::new("method − other", heading(bits));
    let mut push = |one: Method, other: Method| {
        let cells = bits.iter().map(|bits| match summary.difference(one, other, Some(*bits)) {
            None => "–".to_owned(),
            Some(difference) if difference.count == 1 || difference.is_certain() => {
                format!("{:+.4}", difference.mean)
            }
            Some(difference) => format!("no difference ({:+.4})", difference.mean),
        });
        grid.push(format!("{} − {}", one.name(), other.name()), cells);
    };
    for pair in rungs.windows(2) {
        push(ours(pair[1]), ours(pair[0]));
    }
    let (Some(first), Some(last)) = (rungs.first(), rungs.last()) else { return grid };
    // What knowing the loss is worth: steps by rows and by tensors against steps that do not know it.
    let ends = [Some(first), Some(last).filter(|_| rungs.len() > 1)];
    for rung in ends.into_iter().flatten() {
        for (one, other) in [
            (Allocation::Rows, Allocation::Relative),
            (Allocation::Tensors, Allocation::Relative),
            (Allocation::Rows, Allocation::Tensors),
        ] {
            let (one, other) = (Method::Ours(*rung, one), Method::Ours(*rung, other));
            if methods.contains(&one) && methods.contains(&other) {
                push(one, other);
            }
        }
    }
    push(ours(*last), Method::SdClip);
    push(ours(*last), Method::PaperScaled);
    for rung in &rungs[1..] {
        let ratios = bits.iter().map(|bits| {
            let ratio = |one: &Point, other: &Point| one.increase() / other.increase();
            let target = Some(*bits);
            match summary.paired((ours(*rung), target), (ours(*first), target), ratio) {
                None => "–".to_owned(),
                Some(ratio) => format!("× {:.2}", ratio.mean),
            }
        });
        grid.push(format!("{rung} ÷ {first}"), ratios);
    }
    grid
}

/// Where each quantiser is at or below the one before it, and where it is not.
fn order(summary: &Summary<'_>, rungs: &[Rung], bits: &[f64]) -> String {
    let mut text = String::new();
    for pair in rungs.windows(2) {
        let (mut holds, mut fails) = (Vec::new(), Vec::new());
        for size in bits {
            match summary.difference(ours(pair[1]), ours(pair[0]), Some(*size)) {
                None => {}
                Some(found) if found.mean <= 0.0 => holds.push(size.to_string()),
                Some(found) if found.count > 1 && !found.is_certain() => {
                    holds.push(format!("{size} (no difference)"));
                }
                Some(_) => fails.push(size.to_string()),
            }
        }
        let list = |sizes: Vec<String>| match sizes.is_empty() {
            true => "none".to_owned(),
            false => sizes.join(", "),
        };
        let (better, worse) = (list(holds), list(fails));
        text += &format!("- {} − {}: {better}; more at {worse}.\n", pair[1], pair[0]);
    }
    match text.is_empty() {
        true => text,
        false => format!(
            "\nBits per weight at which a quantiser loses no more than the one before it:\n\n{text}"
        ),
    }
}

fn no_worse(summary: &Summary<'_>, rungs: &[Rung]) -> String {
    let Some(last) = rungs.last() else { return String::new() };
    let (ours, other) = ((Method::NoWorseThanInt8(*last), None), (Method::Int8AllMatrices, None));
    let share = summary.paired(ours, other, |one, other| one.bytes as f64 / other.bytes as f64);
    let loss = summary.paired(ours, other, |one, other| one.nats - other.nats);
    let (Some(share), Some(loss)) = (share, loss) else { return String::new() };
    let spread = match share.count {
        1 => String::new(),
        _ => format!(" ± {:.1}", 100.0 * share.deviation),
    };
    format!(
        "\nThe smallest file of {last} that loses no more than golf int8 + zlib-9 takes {:.1}{spread} % of its bytes; the difference of the losses is {:+.5} nats.\n",
        100.0 * share.mean,
        loss.mean
    )
}

/// A file of tensors that cannot be run.
pub struct ErrorRow {
    pub input: String,
    pub method: String,
    pub parameters: u64,
    pub point: ErrorPoint,
}

impl ErrorRow {
    fn bits_per_weight(&self) -> f64 {
        8.0 * self.point.bytes as f64 / self.parameters as f64
    }
}

/// The table of tensors that cannot be run.
pub fn by_error(rows: &[ErrorRow]) -> Tables {
    let mut text =
        "Whole files, decoded again: Σw² over Σ(w − ŵ)² over all matrices, in decibels.\n\n"
            .to_owned();
    let titles = ["method", "bytes", "bits per weight", "decibels"].map(str::to_owned);
    let mut grid = Grid::new("file", titles);
    for row in rows {
        let figures = [
            row.method.clone(),
            grouped(row.point.bytes),
            format!("{:.3}", row.bits_per_weight()),
            format!("{:.2}", row.point.decibels()),
        ];
        grid.push(row.input.clone(), figures);
    }
    text += &grid.text();
    Tables { plain: text.clone(), markdown: text }
}

/// The same as data.
pub fn errors_json(rows: &[ErrorRow]) -> Value {
    let row = |row: &ErrorRow| {
        json!({
            "file": row.input,
            "method": row.method,
            "bytes": row.point.bytes,
            "bits_per_weight": row.bits_per_weight(),
            "squared_error": row.point.squared_error,
            "decibels": row.point.decibels(),
        })
    };
    json!(rows.iter().map(row).collect::<Vec<_>>())
}
