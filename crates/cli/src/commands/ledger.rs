//! `backslash ledger`.

use anyhow::{Context, Result};
use backslash_codec::Effort;
use backslash_compress::ledger::{Entry, ExceptionPath, Journal, OperatingPoint, rank_correlation};
use backslash_compress::{Allocation, CompressError, Goal};
use backslash_eval::ModelFile;
use backslash_eval::table::{Column, Table, grouped};
use serde_json::{Value, json};

use super::{fit, measured};
use crate::arguments::Ledger;
use crate::calibration::Material;
use crate::console::{Progress, say};
use crate::output;

pub fn run(arguments: Ledger) -> Result<()> {
    let model = ModelFile::open(&arguments.input).with_context(|| {
        "a ledger needs a model that can be run: a run's folder, or one with config.json and tokenizer"
    })?;
    let material = Material::open(&model, &arguments.columns.of(&arguments.text))?;
    let text = material.calibration(&model.config, arguments.calibration_tokens)?;
    let held_out = measured::held_out(&model, &material, &text, arguments.slope_tokens)?;
    let (recipe, sensitivities) = fit::calibrated(&model, &text, arguments.rung, Allocation::Rows)?;
    let mut no_loss = |_: &_| -> Result<f64, CompressError> {
        unreachable!("a ledger is asked for by size or κ")
    };
    let log_kappa = match goal(&arguments, recipe.parameters()) {
        Goal::Kappa(kappa) => kappa.ln(),
        goal => recipe.fit(goal, Effort::Smallest, &mut no_loss, &mut fit::note)?.log_kappa,
    };
    let point = OperatingPoint::new(
        &model.config,
        &model.weights,
        &recipe,
        &sensitivities,
        &held_out,
        log_kappa,
    )?;
    let entries = measure(&arguments, &point)?;
    let (alone, mut changes): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.path == ExceptionPath::Alone);
    changes.sort_by(|a, b| b.return_per_kb().total_cmp(&a.return_per_kb()));
    let summary = Summary::of(&point, held_out.tokens(), &alone, log_kappa);
    if arguments.json {
        return output::print_json(&json!({
            "summary": summary.json(),
            "alone": alone,
            "ledger": changes.iter().map(entry_json).collect::<Vec<_>>(),
        }));
    }
    output::print(&format!(
        "{}\n{}\n{}",
        ledger_table(&changes),
        alone_table(&alone),
        summary.text()
    ))
}

fn goal(arguments: &Ledger, parameters: usize) -> Goal {
    if let Some(kappa) = arguments.kappa {
        return Goal::Kappa(kappa);
    }
    let bits = arguments.bits_per_weight.unwrap_or(fit::DEFAULT_BITS_PER_WEIGHT);
    Goal::Bytes(arguments.budget.unwrap_or((bits * parameters as f64 / 8.0) as u64))
}

/// All entries, those of a journal read and the others measured.
fn measure(arguments: &Ledger, point: &OperatingPoint<'_>) -> Result<Vec<Entry>> {
    let mut journal = match &arguments.results {
        Some(path) => Some(Journal::open(path, &point.journal_header())?),
        None => None,
    };
    let (mut entries, mut open) = (Vec::new(), Vec::new());
    for (tensor, path) in point.changes() {
        match journal.as_ref().and_then(|journal| journal.finished(&tensor, path)) {
            Some(entry) => entries.push(entry.clone()),
            None => open.push((tensor, path)),
        }
    }
    let total = (entries.len() + open.len()) as u64;
    if !entries.is_empty() {
        say(&format!("{} of {total} entries are there already", entries.len()));
    }
    let mut progress = Progress::new("entry", entries.len() as u64, total);
    for (tensor, path) in open {
        let entry = point.measure(&tensor, path)?;
        if let Some(journal) = &mut journal {
            journal.push(&entry)?;
        }
        entries.push(entry);
        progress.at(entries.len() as u64, &tensor);
    }
    progress.finish();
    Ok(entries)
}

/// The figures of the whole.
struct Summary {
    log_kappa: f64,
    tokens: usize,
    coded_bytes: u64,
    divergence: f64,
    cross_entropy: f64,
    /// Rank correlation of predicted and measured loss over tensors that are quantised alone: from the error of the
    /// outputs, and from that of the weights.
    correlation: Option<f64>,
    plain_correlation: Option<f64>,
}

impl Summary {
    fn of(point: &OperatingPoint<'_>, tokens: usize, alone: &[Entry], log_kappa: f64) -> Self {
        let measured: Vec<f64> = alone.iter().map(|entry| entry.divergence.mean).collect();
        let correlation = |predicted: fn(&Entry) -> f64| {
            rank_correlation(&alone.iter().map(predicted).collect::<Vec<_>>(), &measured)
        };
        Self {
            log_kappa,
            tokens,
            coded_bytes: point.coded_bytes(),
            divergence: point.losses().mean_divergence(),
            cross_entropy: point.losses().mean_cross_entropy(),
            correlation: correlation(|entry| entry.predicted),
            plain_correlation: correlation(|entry| entry.predicted_plain),
        }
    }

    fn json(&self) -> Value {
        json!({
            "kappa": self.log_kappa.exp(),
            "tokens": self.tokens,
            "coded_bytes": self.coded_bytes,
            "divergence": self.divergence,
            "cross_entropy": self.cross_entropy,
            "rank_correlation": self.correlation,
            "rank_correlation_plain": self.plain_correlation,
        })
    }

    fn text(&self) -> String {
        let figure = |value: Option<f64>| {
            value.map_or_else(|| "n/a".to_owned(), |value| format!("{value:.3}"))
        };
        format!(
            "κ {:.5}: {} bytes of coded tensors, {:.5} nats per token from the float model on {} tokens\nrank correlation of predicted and measured loss, tensors quantised alone: {} (from the error of the outputs), {} (from that of the weights)",
            self.log_kappa.exp(),
            grouped(self.coded_bytes),
            self.divergence,
            grouped(self.tokens as u64),
            figure(self.correlation),
            figure(self.plain_correlation),
        )
    }
}

/// The changes that do anything, losses in thousandths of a nat per token.
fn ledger_table(entries: &[Entry]) -> Table<7> {
    let mut table = Table::new([
        Column::text("tensor"),
        Column::text("change"),
        Column::number("bytes"),
        Column::number("loss, mnat"),
        Column::number("predicted"),
        Column::number("saved per kB, mnat"),
        Column::number("predicted"),
    ]);
    let does_something = |entry: &&Entry| entry.bytes != 0 || entry.divergence.mean != 0.0;
    for entry in entries.iter().filter(does_something) {
        table.push([
            entry.tensor.clone(),
            entry.path.to_string(),
            format!("{:+}", entry.bytes),
            format!("{:+.3} ± {:.3}", 1e3 * entry.divergence.mean, 1e3 * entry.divergence.error),
            format!("{:+.3}", 1e3 * entry.predicted),
            match entry.return_per_kb() {
                f64::INFINITY => "saves both".to_owned(),
                f64::NEG_INFINITY => "saves nothing".to_owned(),
                figure => format!("{:.3} ± {:.3}", 1e3 * figure, 1e3 * entry.return_error_per_kb()),
            },
            match entry.predicted_return_per_kb() {
                f64::INFINITY => "saves both".to_owned(),
                f64::NEG_INFINITY => "saves nothing".to_owned(),
                figure => format!("{:.3}", 1e3 * figure),
            },
        ]);
    }
    table
}

/// Tensors quantised alone.
fn alone_table(entries: &[Entry]) -> Table<5> {
    let mut table = Table::new([
        Column::text("tensor alone"),
        Column::number("bytes"),
        Column::number("loss, mnat"),
        Column::number("predicted, outputs"),
        Column::number("predicted, weights"),
    ]);
    for entry in entries {
        table.push([
            entry.tensor.clone(),
            grouped(entry.bytes.unsigned_abs()),
            format!("{:.3} ± {:.3}", 1e3 * entry.divergence.mean, 1e3 * entry.divergence.error),
            format!("{:.3}", 1e3 * entry.predicted),
            format!("{:.3}", 1e3 * entry.predicted_plain),
        ]);
    }
    table
}

fn entry_json(entry: &Entry) -> Value {
    let mut value = serde_json::to_value(entry).expect("plain data");
    // JSON has no infinity: null is what saves both or, where the loss rises, nothing.
    value["return_per_kb"] = json!(entry.return_per_kb());
    value["predicted_return_per_kb"] = json!(entry.predicted_return_per_kb());
    value["hypothetical"] = json!(entry.path.is_hypothetical());
    value
}
