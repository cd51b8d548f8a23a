//! `backslash train`.

use std::path::Path;

use anyhow::Result;
use backslash_codec::{Effort, Overwrite, encode, write_bytes};
use backslash_compress::{Target, fit_plan_to_bytes};
use backslash_data::Tokenizer;
use backslash_eval::{ModelFile, Quality, table, views};
use backslash_model::{NamedWeights, initial_weights};
use backslash_quant::Plan;
use backslash_train::{
    Beginning, Observer, Part, Profile, RateMethod, Run, RunConfig, Scores, Start, StepReport,
    TrainError, config,
};
use serde_json::json;

use crate::allocator::keep_free_memory;
use crate::arguments::Train;
use crate::console::{Progress, say};
use crate::output;
use crate::prepared::{Data, Prepared, prepare};
use crate::session;

/// Step of a coded tensor over its root mean square, where the run has learned no steps.
pub const DEFAULT_RELATIVE_STEP: f32 = 0.5;

pub fn run(arguments: Train) -> Result<()> {
    if arguments.with_parent {
        std::thread::spawn(end_with_parent);
    }
    keep_free_memory();
    let mut config = configuration(&arguments)?;
    let prepared = prepare(&mut config)?;
    let start = match (arguments.resume, arguments.force) {
        (true, _) => Start::Resume,
        (false, true) => Start::Replace,
        (false, false) => Start::Fresh,
    };
    let (mut run, watch) = open(&arguments.out, &config, &prepared, start)?;
    if arguments.profile {
        run.trainer.profile.start();
    }
    let first = run.trainer.steps_taken();
    let show_profile = |profile: &Profile, last: u64| {
        if arguments.profile {
            say(&profile_table(profile, last.saturating_sub(first)));
        }
    };
    if let Some(step) = arguments.until.filter(|step| *step < config.train.steps) {
        let profile = train_until(step, run, watch, &arguments.out)?;
        show_profile(&profile, step);
        return Ok(());
    }
    let finished = finish(run, watch, &arguments.out)?;
    show_profile(&finished.profile, config.train.steps);
    let bits_per_weight = 8.0 * finished.file_bytes as f64 / config.model.parameters() as f64;
    if arguments.json {
        return output::print_json(&json!({
            "folder": arguments.out,
            "parameters": config.model.parameters(),
            "file_bytes": finished.file_bytes,
            "bits_per_weight": bits_per_weight,
            "float": output::quality_json(&finished.float),
            "decoded": output::quality_json(&finished.decoded),
        }));
    }
    output::print(&format!(
        "{}: {} bytes, {bits_per_weight:.3} bits per weight\nfloat    {}\ndecoded  {}",
        arguments.out.join("model.bsl").display(),
        table::grouped(finished.file_bytes),
        describe(&finished.float),
        describe(&finished.decoded),
    ))
}

/// Ends this process once its standard input is closed, as it is by the death of whoever holds the other end.
fn end_with_parent() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    std::process::exit(1);
}

/// The configuration from file, overrides and options; of a resumed run, its own.
fn configuration(arguments: &Train) -> Result<RunConfig> {
    if arguments.resume {
        let path = arguments.out.join("config.toml");
        if !path.exists() {
            return Err(TrainError::NoCheckpoint { path: arguments.out.clone() }.into());
        }
        return Ok(config::parse_file(&path, &[])?);
    }
    let mut set = arguments.set.clone();
    if let Some(from) = &arguments.from {
        let from = toml::Value::String(from.display().to_string());
        set.push(format!("train.from={from}"));
    }
    let mut config = match &arguments.config {
        Some(path) => config::parse_file(path, &set)?,
        None => config::parse("", &set)?,
    };
    arguments.data.put_into(&mut config.data);
    if let Some(tokenizer) = &arguments.tokenizer {
        config.data.tokenizer.clone_from(tokenizer);
    }
    if let Some(precision) = arguments.precision {
        config.train.precision = precision;
    }
    if let Some(budget) = arguments.budget {
        config.rate.budget = budget;
        if config.rate.method == RateMethod::None {
            config.rate.method = RateMethod::Bits;
        }
    }
    Ok(config)
}

/// Milliseconds per step by part.
fn profile_table(profile: &Profile, steps: u64) -> String {
    let total: f64 = Part::ALL.map(|part| profile.seconds(part)).into_iter().sum();
    let row = |name: &str, seconds: f64| {
        let milliseconds = 1e3 * seconds / steps.max(1) as f64;
        format!("{name:<24} {milliseconds:>10.2} {:>6.1} %", 100.0 * seconds / total)
    };
    let mut lines = vec![format!("{:<24} {:>10} {:>8}", "part", "ms a step", "share")];
    lines.extend(Part::ALL.map(|part| row(part.name(), profile.seconds(part))));
    lines.push(row("all", total));
    lines.join("\n")
}

/// What a finished run gave.
pub struct Finished {
    pub profile: Profile,
    pub file_bytes: u64,
    pub float: Quality,
    pub decoded: Quality,
    pub weights: NamedWeights,
    pub plan: Plan,
}

/// Opens a run in a folder, with who watches it.
fn open<'a>(
    folder: &Path,
    config: &'a RunConfig,
    prepared: &'a Prepared,
    start: Start,
) -> Result<(Run, Watch<'a>)> {
    let metadata = ModelFile::metadata(&config.model, &prepared.tokenizer);
    let weights = match &prepared.weights {
        Some(weights) => weights.clone(),
        None => initial_weights(&config.model, config.train.seed).map_err(TrainError::from)?,
    };
    let beginning = Beginning { weights, metadata };
    let run = Run::open(folder, config, prepared.training(), beginning, start)?;
    let (count, what) = match prepared.data {
        Data::Text(_) => (config.train.batch_size * config.model.context, "tokens"),
        Data::Examples(_) => (config.train.batch_size, "examples"),
    };
    say(&format!(
        "{}: {} parameters, {} steps of {} {what}",
        folder.display(),
        table::grouped(config.model.parameters() as u64),
        config.train.steps,
        table::grouped(count as u64),
    ));
    if !config.train.precision.is_fast() {
        say(
            "note: this processor has neither AMX nor AVX512-BF16; train.precision = \"fp32\" is faster on it",
        );
    }
    let progress = Progress::new("step", run.trainer.steps_taken(), config.train.steps);
    Ok((run, Watch { progress, config, prepared, last: None }))
}

/// Runs the steps up to that many in all, and leaves a checkpoint.
fn train_until(step: u64, mut run: Run, mut watch: Watch<'_>, folder: &Path) -> Result<Profile> {
    run.train_until(step, watch.prepared.training(), &mut watch)?;
    watch.progress.finish();
    output::print(&format!(
        "{}: stopped after {} of {} steps; --resume goes on",
        folder.display(),
        run.trainer.steps_taken(),
        watch.config.train.steps,
    ))?;
    Ok(run.trainer.profile.clone())
}

/// Runs all steps in a folder and leaves the finished model there.
pub fn train(
    folder: &Path,
    config: &RunConfig,
    prepared: &Prepared,
    start: Start,
) -> Result<Finished> {
    let (run, watch) = open(folder, config, prepared, start)?;
    finish(run, watch, folder)
}

/// Runs the steps that are left and leaves the finished model.
fn finish(mut run: Run, mut watch: Watch<'_>, folder: &Path) -> Result<Finished> {
    let Watch { config, prepared, .. } = watch;
    let tokenizer = &prepared.tokenizer;
    let metadata = ModelFile::metadata(&config.model, tokenizer);
    run.train(prepared.training(), &mut watch)?;
    let float = match watch.last {
        Some(quality) => quality,
        None => watch.measure(run.trainer.weights())?,
    };
    watch.progress.finish();
    let weights = run.trainer.weights().clone();
    let learned = run.trainer.learned_plan();
    let is_learned = learned.is_some();
    let plan = learned.unwrap_or_else(|| Plan::relative(&views(&weights), DEFAULT_RELATIVE_STEP));
    let views = views(&weights);
    let (plan, file) = match config.rate.budget {
        0 => {
            let file = encode(&plan.artifact(&views, &metadata)?)?;
            (plan, file)
        }
        budget => {
            say(&format!("making a file of at most {} bytes", table::grouped(budget)));
            let target = Target { budget, effort: Effort::Smallest };
            let fitted = fit_plan_to_bytes(&plan, &views, &metadata, target, &mut |_| ())?;
            (plan.scaled(fitted.log_kappa.exp() as f32), fitted.bytes)
        }
    };
    leave(folder, config, tokenizer, &weights, is_learned.then_some(&plan))?;

    let path = folder.join("model.bsl");
    let file_bytes = write_bytes(&path, &file, Overwrite::Replace)?;
    let decoded = ModelFile::open(&path)?;
    let decoded = prepared.measure(&config.model, &decoded.weights)?;
    let profile = run.trainer.profile.clone();
    Ok(Finished { profile, file_bytes, float, decoded, weights, plan })
}

/// Writes the float model, what is needed to run it, and the learned steps.
fn leave(
    folder: &Path,
    config: &RunConfig,
    tokenizer: &Tokenizer,
    weights: &NamedWeights,
    plan: Option<&Plan>,
) -> Result<()> {
    weights.write(&folder.join("model.safetensors"))?;
    let model = serde_json::to_vec_pretty(&config.model)?;
    write_bytes(&folder.join("config.json"), &model, Overwrite::Replace)?;
    tokenizer.save(&folder.join(format!("tokenizer.{}", tokenizer.extension())))?;
    if let Some(plan) = plan {
        session::write_plan(folder, plan)?;
    }
    Ok(())
}

/// Quality in one line.
pub fn describe(quality: &Quality) -> String {
    let (nats, tokens) = (quality.nats_per_token(), table::grouped(quality.tokens));
    if let Some(accuracy) = quality.accuracy() {
        return format!(
            "{:.2} % correct, {nats:.4} nats per example ({tokens} examples)",
            100.0 * accuracy
        );
    }
    let Quality { bytes: Some(bytes), .. } = *quality else {
        return format!("{nats:.4} nats per masked token ({tokens} masked tokens)");
    };
    format!(
        "{:.4} bits per byte, {nats:.4} nats per token ({tokens} tokens, {} bytes of text)",
        bits_per_byte(quality),
        table::grouped(bytes),
    )
}

/// Bits per byte of a network that predicts the next token.
pub fn bits_per_byte(quality: &Quality) -> f64 {
    quality.bits_per_byte().expect("the network predicts the next token")
}

/// Shows a run's progress and evaluates it.
struct Watch<'a> {
    progress: Progress,
    config: &'a RunConfig,
    prepared: &'a Prepared,
    last: Option<Quality>,
}

impl Watch<'_> {
    fn measure(&self, weights: &NamedWeights) -> Result<Quality> {
        self.prepared.measure(&self.config.model, weights)
    }
}

impl Observer for Watch<'_> {
    fn step(&mut self, report: &StepReport, tokens_per_second: f64) {
        let bits = report
            .bits_per_weight
            .map_or_else(String::new, |bits| format!("  {bits:.2} bits/weight"));
        let file = report.forecast.map_or_else(String::new, |forecast| {
            format!(
                "  file {:.0} kB ± {:.0} (budget {:.0})",
                forecast.bytes / 1e3,
                forecast.deviation / 1e3,
                forecast.budget as f64 / 1e3,
            )
        });
        let message = format!(
            "loss {:.3}  lr {:.1e}  {} tok/s{bits}{file}",
            report.loss,
            report.learning_rate,
            table::grouped(tokens_per_second as u64),
        );
        self.progress.at(report.step, &message);
    }

    fn evaluate(
        &mut self,
        step: u64,
        weights: &NamedWeights,
        bits: Option<(f64, f64)>,
    ) -> Result<Scores, TrainError> {
        let quality =
            self.measure(weights).map_err(|error| match error.downcast::<TrainError>() {
                Ok(error) => error,
                Err(error) => TrainError::Evaluation { step, reason: format!("{error:#}") },
            })?;
        let bits = bits.map_or_else(String::new, |(proxy, coded)| {
            format!(
                ", {coded:.3} bits per weight coded, {proxy:.3} by the rate term ({:+.1} %)",
                100.0 * (proxy / coded - 1.0)
            )
        });
        self.progress.note(&format!("step {step}: validation {}{bits}", describe(&quality)));
        self.last = Some(quality);
        Ok(Scores {
            nats: quality.nats_per_token(),
            bits_per_byte: quality.bits_per_byte(),
            accuracy: quality.accuracy(),
        })
    }
}
