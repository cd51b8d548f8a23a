//! `backslash ladder`.

mod tables;

use anyhow::{Context, Result, bail};
use backslash_compress::Allocation;
use backslash_eval::ladder::{Journal, Method, Point, Subject, measure_errors, weights_hash};
use backslash_eval::{ModelFile, views};
use backslash_quant::{Rung, is_coded};
use serde_json::json;

use super::compress::open_tensors;
use crate::arguments::{self, Ladder};
use crate::calibration::Material;
use crate::console::{Progress, say, watched};
use crate::failure::Usage;
use crate::scored::Scored;
use crate::{document, output};

pub fn run(arguments: Ladder) -> Result<()> {
    let rungs = match arguments.rungs.is_empty() {
        true => Rung::ALL.to_vec(),
        false => arguments.rungs.clone(),
    };
    arguments.columns.check(&arguments.text)?;
    // Before hours of work, not after.
    document::check(arguments.document.section.as_deref())?;
    let text = if arguments.text.is_empty() {
        by_error(&arguments, &rungs)?
    } else {
        by_loss(&arguments, &rungs)?
    };
    let arguments::Document { markdown, section } = &arguments.document;
    document::replace(markdown.as_deref(), section.as_deref(), &text.markdown)?;
    if arguments.json {
        return output::print_json(&text.json);
    }
    output::print(&text.plain)
}

/// A result in each form that it is asked for.
struct Output {
    plain: String,
    markdown: String,
    json: serde_json::Value,
}

/// Every method and size, for models that can be run.
fn by_loss(arguments: &Ladder, rungs: &[Rung]) -> Result<Output> {
    let results = arguments.results.as_deref().expect("required with --text");
    let names: Vec<String> = arguments.inputs.iter().map(|path| Subject::name_of(path)).collect();
    if let Some(twice) = (1..names.len()).find(|index| names[..*index].contains(&names[*index])) {
        bail!(Usage(format!("two models are named `{}`", names[twice])));
    }
    let methods = Method::all(rungs, &allocations(arguments)?);
    let wanted = wanted(arguments, &methods);
    let mut journal = Journal::open(results)?;
    let total = (wanted.len() * arguments.inputs.len()) as u64;
    let mut progress: Option<Progress> = None;
    let (mut done, mut fingerprints) = (0, Vec::new());
    for input in &arguments.inputs {
        let model = ModelFile::open(input).with_context(|| {
            "--text needs models that can be run: runs' folders, or ones with config.json and tokenizer"
        })?;
        let material = Material::open(&model, &arguments.columns.of(&arguments.text))?;
        let text = material.calibration(&model.config, arguments.calibration_tokens)?;
        let validation = arguments.columns.of(&arguments.data);
        let scored = Scored::open(&model, &validation, arguments.tokens)?;
        let mut subject = Subject::new(input, &model, text, scored.test());
        fingerprints.push((subject.name().to_owned(), subject.fingerprint().to_owned()));
        for (method, target) in &wanted {
            done += 1;
            let (name, fingerprint) = (subject.name(), subject.fingerprint());
            if journal.find(name, fingerprint, *method, *target)?.is_some() {
                continue;
            }
            let progress = progress.get_or_insert_with(|| Progress::new("file", done - 1, total));
            if method.needs_calibration() {
                watched("calibration", |tell| subject.calibrate(tell))?;
            }
            let title = format!("{} {}", subject.name(), method.name());
            match subject.measure(*method, *target) {
                Ok(point) => {
                    let (bits, increase) = (point.bits_per_weight(), point.increase());
                    progress.at(
                        done,
                        &format!("{title}: {bits:.3} bits per weight, {increase:+.4} nats"),
                    );
                    journal.push(point)?;
                }
                // Others may be: the table has a dash for this one.
                Err(error) if error.is_unreachable() => progress.note(&format!("{title}: {error}")),
                Err(error) => return Err(error.into()),
            }
        }
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    let points: Vec<Point> =
        journal.points().filter(|point| names.contains(&point.run)).cloned().collect();
    let tables = tables::by_loss(&points, rungs, &methods, &arguments.bits);
    Ok(Output {
        markdown: document::section(&tables.markdown, &fingerprints),
        plain: tables.plain,
        json: json!(points),
    })
}

/// The ways of sharing out steps that are asked for.
fn allocations(arguments: &Ladder) -> Result<Vec<Allocation>> {
    let found = arguments.allocations.iter().map(|allocation| match allocation {
        arguments::Allocation::Relative => Ok(Allocation::Relative),
        arguments::Allocation::Tensors => Ok(Allocation::Tensors),
        arguments::Allocation::Rows => Ok(Allocation::Rows),
        arguments::Allocation::Measured => bail!(Usage(
            "--allocations measured: the ladder compares rows, tensors and relative".to_owned()
        )),
    });
    found.collect()
}

fn wanted(arguments: &Ladder, methods: &[Method]) -> Vec<(Method, Option<f64>)> {
    let targets = |method: Method| -> Vec<Option<f64>> {
        match method.has_target() {
            true => arguments.bits.iter().map(|bits| Some(*bits)).collect(),
            false => vec![None],
        }
    };
    let pairs = |method: &Method| {
        let method = *method;
        targets(method).into_iter().map(move |target| (method, target))
    };
    methods.iter().flat_map(pairs).collect()
}

/// The quantisers that need no text, for tensors.
fn by_error(arguments: &Ladder, rungs: &[Rung]) -> Result<Output> {
    let mut rows = Vec::new();
    let mut fingerprints = Vec::new();
    for input in &arguments.inputs {
        let tensors = open_tensors(input)?;
        let name = input.file_stem().unwrap_or(input.as_os_str()).to_string_lossy().into_owned();
        let weights = views(&tensors.weights);
        if !weights.iter().any(|tensor| is_coded(tensor.shape)) {
            bail!("{}: no tensor of it is large enough to be coded", input.display());
        }
        fingerprints.push((name.clone(), weights_hash(&tensors.weights)));
        let free: Vec<Rung> = rungs.iter().copied().filter(|r| !r.needs_covariance()).collect();
        let total = (2 * free.len() * arguments.bits.len()) as u64;
        let mut progress = Progress::new(&name, 0, total);
        let mut done = 0;
        for allocation in [Allocation::Relative, Allocation::Equal] {
            for rung in &free {
                for bits in &arguments.bits {
                    let parameters = tensors.weights.parameters() as u64;
                    let budget = (bits * parameters as f64 / 8.0) as u64;
                    let method = Method::Ours(*rung, allocation).name();
                    done += 1;
                    match measure_errors(&weights, *rung, allocation, budget) {
                        Ok(point) => rows.push(tables::ErrorRow {
                            input: name.clone(),
                            method: method.clone(),
                            parameters,
                            point,
                        }),
                        Err(error) => say(&format!("{name}, {method}, {bits} bits: {error}")),
                    }
                    progress.at(done, &method);
                }
            }
        }
        progress.finish();
    }
    let tables = tables::by_error(&rows);
    Ok(Output {
        markdown: document::section(&tables.markdown, &fingerprints),
        plain: tables.plain,
        json: tables::errors_json(&rows),
    })
}
