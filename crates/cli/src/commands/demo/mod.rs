//! `backslash demo`: two models from the same start on the same batches, one plain and one with the rate
//! term, and what their files are worth.

mod compare;

use std::path::{Path, PathBuf};

use anyhow::Result;
use backslash_codec::{Overwrite, write_bytes};
use backslash_data::TokenSet;
use backslash_eval::plot::FloatReference;
use backslash_eval::report::{MethodRow, Report, Sample, methods_table};
use backslash_eval::{ModelFile, Sampling, table};
use backslash_train::{RateMethod, RunConfig, Start, config};
use serde_json::json;

use super::generate::continuation;
use super::report::Metrics;
use super::train::{Finished, bits_per_byte, train};
use crate::arguments::Demo;
use crate::console::say;
use crate::output;
use crate::prepared::{Prepared, prepare};
use crate::session;
use compare::Comparison;

/// Configuration of both models.
const CONFIG: &str = include_str!("../../../../../configs/demo.toml");
/// What the sample begins with.
const PROMPT: &str = "/// Returns the number of ";
/// Tokens of the sample.
const SAMPLE_TOKENS: usize = 120;

pub fn run(arguments: Demo) -> Result<()> {
    let folder = arguments.out.clone().unwrap_or_else(free_folder);
    session::refuse_existing_run(&folder)?;
    let mut plain = config::parse(CONFIG, &arguments.set)?;
    plain.data.train.clone_from(&arguments.data.data);
    plain.data.validation.clone_from(&arguments.data.validation);
    let prepared = prepare(&mut plain)?;
    let mut rated = plain.clone();
    rated.rate.method = RateMethod::Bits;

    say("1 of 3: the plain model");
    let plain_run = train(&folder.join("plain"), &plain, &prepared, Start::Fresh)?;
    say("2 of 3: the same with the rate in the loss");
    let rated_run = train(&folder.join("rate"), &rated, &prepared, Start::Fresh)?;
    say("3 of 3: files, decoded and evaluated");
    let comparison = Comparison::new(&plain, &prepared, &plain_run, &rated_run)?;

    let report = report(&folder, &rated, &prepared, &comparison)?;
    let path = folder.join("report.html");
    write_bytes(&path, report.to_html()?.as_bytes(), Overwrite::Replace)?;
    if arguments.json {
        return output::print_json(&json!({ "rows": report.rows, "report": path }));
    }
    output::print(&format!(
        "{}\n{}\n\nreport: {}",
        methods_table(&report.rows),
        report.summary,
        path.display()
    ))
}

/// The first of `runs/demo`, `runs/demo-2`, … that does not exist.
fn free_folder() -> PathBuf {
    let numbered = (2..).map(|number| PathBuf::from(format!("runs/demo-{number}")));
    std::iter::once(PathBuf::from("runs/demo"))
        .chain(numbered)
        .find(|path| !path.exists())
        .expect("numbers do not run out")
}

fn report(
    folder: &Path,
    config: &RunConfig,
    prepared: &Prepared,
    comparison: &Comparison,
) -> Result<Report> {
    let model = ModelFile::open(&folder.join("rate/model.bsl"))?;
    let text = continuation(&model, PROMPT, SAMPLE_TOKENS, Sampling::default())?;
    let [plain, rated] = ["plain", "rate"].map(|name| folder.join(name));
    let float = |name: &str, finished: &Finished| FloatReference {
        name: name.to_owned(),
        bits_per_byte: bits_per_byte(&finished.float),
    };
    Ok(Report {
        title: "Training with the size of the file in the loss".to_owned(),
        summary: summary(&comparison.rows),
        settings: settings(config, prepared.text()?),
        rows: comparison.rows.clone(),
        curves: comparison.curves.clone(),
        float_bits_per_byte: vec![
            float(compare::PLAIN, comparison.plain),
            float(compare::RATED, comparison.rated),
        ],
        traces: vec![
            Metrics::read(&plain)?.trace(compare::PLAIN),
            Metrics::read(&rated)?.trace(compare::RATED),
        ],
        samples: vec![Sample { prompt: PROMPT.to_owned(), text }],
    })
}

/// The result in two sentences; says so where the expected order does not hold.
fn summary(rows: &[MethodRow]) -> String {
    let [int8, ours, same_bytes, rated] = rows else {
        return String::new();
    };
    let ratio = 100.0 * ours.file_bytes as f64 / int8.file_bytes as f64;
    let gain = same_bytes.bits_per_byte_decoded - rated.bits_per_byte_decoded;
    let order = if gain > 0.0 { "fewer" } else { "more" };
    format!(
        "At the same bytes ({} and {}) the rate-trained model needs {:.3} bits per byte {order} than the plain one. \
         The plain model in our codec takes {ratio:.0} % of the bytes of int8 rows with zlib at no more bits per byte.",
        table::grouped(rated.file_bytes),
        table::grouped(same_bytes.file_bytes),
        gain.abs(),
    )
}

fn settings(config: &RunConfig, tokens: &TokenSet) -> Vec<(String, String)> {
    let (train, model) = (&config.train, &config.model);
    let text = match config.data.train.is_empty() {
        true => "source and documentation of the project's dependencies".to_owned(),
        false => {
            config.data.train.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
        }
    };
    let pairs = [
        ("text", text),
        ("training tokens", table::grouped(tokens.train.len() as u64)),
        ("validation tokens", table::grouped(tokens.validation.len() as u64)),
        ("tokenizer", format!("{}, {} pieces", config.data.tokenizer, model.vocabulary_size)),
        ("parameters", table::grouped(model.parameters() as u64)),
        (
            "network",
            format!(
                "{} layers, width {}, {} heads, context {}",
                model.layers, model.width, model.heads, model.context
            ),
        ),
        (
            "training",
            format!(
                "{} steps of {} tokens, AdamW {}",
                train.steps,
                train.batch_size * model.context,
                train.learning_rate
            ),
        ),
        ("λ, nats per bit per weight", config.rate.lambda.to_string()),
        ("seed", train.seed.to_string()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
