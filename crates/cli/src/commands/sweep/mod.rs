//! `backslash sweep`: trains every setting of a grid with every seed, makes their files, and sets their curves side by
//! side.
//!
//! `file` says what is compared and `export` in which files, `runs` which trainings that takes. `workers` train them in
//! processes of their own while this one makes the files of those that have ended (`measure`) and adds a line for each to
//! the results, always in the same order. What has a line is not made again, and a run that was interrupted goes on from
//! its newest checkpoint. `series`, `tables` and `comparisons` are what comes of it, and `check` makes one row of them again.

mod check;
mod comparisons;
mod export;
mod figures;
mod file;
mod measure;
mod runs;
mod series;
mod tables;
mod workers;

use std::path::Path;

use anyhow::{Result, bail};
use backslash_codec::{Overwrite, write_bytes};
use backslash_compress::JsonLines;
use backslash_eval::plot::{Curve, Figure, accuracy_curves, rate_distortion, standalone};
use backslash_train::{RunConfig, config};

use crate::arguments::Sweep;
use crate::console::{Progress, say};
use crate::prepared::{Prepared, prepare};
use crate::{document, output};
use export::Wanted;
use file::SweepFile;
use measure::Measurement;
use runs::Planned;
use series::Series;
use workers::{Queue, Training};

pub use runs::{Line, settings};

pub fn run(arguments: Sweep) -> Result<()> {
    // Before hours of work, not after.
    document::check(arguments.section.as_deref())?;
    let file = SweepFile::open(&arguments.file)?;
    if let (Some(document), Some(row)) = (&arguments.check, &arguments.row) {
        return check::check(&arguments, &file, document, row);
    }
    let mut base = base(&file, &arguments)?;
    let results = arguments.results.as_deref().expect("required where nothing is checked");
    let mut journal = JsonLines::<Line>::open(results, "line of a sweep")?;
    let prepared = prepare(&mut base)?;
    let data = runs::data_hash(&prepared);
    let plan = runs::plan(&file, &base, &data)?;

    let missing = missing(&plan.runs, journal.values());
    let failed = make(&arguments, missing, &prepared, &mut |line| Ok(journal.push(line)?))?;

    let lines = journal.values();
    let series = series::series(&file, &plan, lines)?;
    let tables = tables::tables(&file, &series);
    let inputs = [("configuration".to_owned(), plan.hash()), ("data".to_owned(), data)];
    let text = document::section(&tables, &inputs);
    document::replace(arguments.markdown.as_deref(), arguments.section.as_deref(), &text)?;
    if let (Some(path), Some(figure)) = (&arguments.plot, figure(&series)?) {
        write_bytes(path, standalone(&figure).as_bytes(), Overwrite::Replace)?;
    }
    if arguments.json {
        let of_this = |line: &&Line| plan.runs.iter().any(|run| run.name == line.run);
        output::print_json(&serde_json::json!(lines.iter().filter(of_this).collect::<Vec<_>>()))?;
    } else {
        output::print(&tables)?;
    }
    match &failed[..] {
        [] => Ok(()),
        [first, ..] => {
            bail!("{} of {} runs failed, such as {first}", failed.len(), plan.runs.len())
        }
    }
}

/// The configuration that all runs begin with, and the data.
fn base(file: &SweepFile, arguments: &Sweep) -> Result<RunConfig> {
    let mut base = config::parse_file(&file.config, &file.overrides())?;
    arguments.data.put_into(&mut base.data);
    if let Some(tokenizer) = &arguments.tokenizer {
        base.data.tokenizer.clone_from(tokenizer);
    }
    Ok(base)
}

/// The runs with files that have no line yet, and these files.
fn missing<'a>(planned: &'a [Planned], lines: &[Line]) -> Vec<(&'a Planned, Vec<Wanted>)> {
    let missing = |run: &Planned| -> Vec<Wanted> {
        let wanted = run.wanted.iter().copied();
        wanted.filter(|wanted| !lines.iter().any(|line| line.is(run, *wanted))).collect()
    };
    let all = planned.iter().map(|run| (run, missing(run)));
    all.filter(|(_, files)| !files.is_empty()).collect()
}

/// Trains the runs that are not there yet and gives a line for each of these files; what failed.
fn make(
    arguments: &Sweep,
    files: Vec<(&Planned, Vec<Wanted>)>,
    prepared: &Prepared,
    keep: &mut dyn FnMut(Line) -> Result<()>,
) -> Result<Vec<String>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let to_train = files.iter().map(|(run, _)| *run);
    let to_train: Vec<&Planned> =
        to_train.filter(|run| !workers::is_finished(&run.folder(&arguments.out))).collect();
    say(&format!(
        "{} runs, {} of them to train, {} files to make",
        files.len(),
        to_train.len(),
        files.iter().map(|(_, wanted)| wanted.len()).sum::<usize>(),
    ));
    let queue = Queue::default();
    std::thread::scope(|scope| {
        let out: &Path = &arguments.out;
        let mut training = Training::start(scope, &to_train, out, arguments.workers, &queue);
        let (taken, all) = training.steps();
        let mut progress = Progress::new("sweep: step", taken, all);
        let mut failed = Vec::new();
        for (index, (run, wanted)) in files.iter().enumerate() {
            let message = format!("run {} of {}: {}", index + 1, files.len(), run.describe());
            if let Err(error) = training.wait(run, &mut |steps| progress.at(steps, &message)) {
                progress.note(&format!("failed: {error:#}"));
                failed.push(format!("{error:#}"));
                continue;
            }
            let folder = run.folder(out);
            let mut push = |line: Line| {
                progress.note(&format!("{} {}", run.describe(), line.describe()));
                keep(line)
            };
            Measurement::open(run, &folder, prepared)?.lines(
                wanted,
                arguments.calibration_tokens,
                &mut push,
                &mut |reason| progress.note(reason),
            )?;
        }
        progress.finish();
        Ok(failed)
    })
}

/// The best files of every curve; of classifiers all files, by their accuracy.
fn figure(series: &[Series<'_>]) -> Result<Option<Figure>> {
    if let Some(curves) = series.iter().map(Series::accuracies).collect::<Option<Vec<_>>>() {
        return Ok(accuracy_curves(&curves)?);
    }
    let curve = |series: &Series<'_>| Curve {
        name: series.curve.name.clone(),
        points: series.front().iter().map(|files| files.point()).collect(),
    };
    Ok(rate_distortion(&series.iter().map(curve).collect::<Vec<_>>(), &[])?)
}
