//! `backslash report`: any runs and results of sweeps on one page.

mod lines;
mod metrics;
mod pruned;
mod run;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use backslash_codec::{Overwrite, write_bytes};
use backslash_eval::prune::Reached;
use backslash_eval::report::{ResultFile, RunsReport};
use backslash_eval::table::grouped;
use serde_json::json;

use super::sweep::Line;
use crate::arguments::Report;
use crate::console::say;
use crate::failure::Usage;
use crate::{output, session};

pub use metrics::Metrics;

pub fn run(arguments: Report) -> Result<()> {
    // Before the work, not after.
    let overwrite = session::overwrite(&arguments.output, arguments.force)?;
    for folder in arguments.svg.iter().chain(&arguments.csv) {
        refuse_existing_folder(folder, arguments.force)?;
    }
    let (folders, others): (Vec<&PathBuf>, Vec<&PathBuf>) =
        arguments.inputs.iter().partition(|path| path.is_dir());
    let (pruned, results): (Vec<&PathBuf>, Vec<&PathBuf>) =
        others.into_iter().partition(|path| path.extension().is_some_and(|kind| kind == "json"));
    let pruned = pruned.into_iter().map(|path| pruned::read(path)).collect::<Result<Vec<_>>>()?;
    let mut files = Vec::new();
    for path in results {
        for line in lines::read::<Line>(path, "line of a sweep")? {
            files.push(result_file(line).with_context(|| path.display().to_string())?);
        }
    }
    let mut runs = Vec::new();
    for folder in run::open_all(&folders)? {
        say(&format!("reading {}", folder.path().display()));
        let own = |file: &&mut ResultFile| file.run == folder.name();
        let seconds = folder.seconds();
        files.iter_mut().filter(own).for_each(|file| file.seconds = seconds);
        let is_known = files.iter().any(|file| file.run == folder.name() && file.export == "own");
        if arguments.evaluate && !is_known {
            say(&format!("evaluating {}", folder.path().join("model.bsl").display()));
            files.push(folder.evaluated()?);
        }
        runs.push(folder.record()?);
    }
    let report = RunsReport { title: arguments.title.clone(), files, runs, pruned };
    let page = report.to_html()?;
    write_bytes(&arguments.output, page.as_bytes(), overwrite)?;
    let svgs = match &arguments.svg {
        None => Vec::new(),
        Some(folder) => write_all(folder, "svg", report.to_svgs()?)?,
    };
    let tables = report.to_csv().into_iter().map(|table| (table.name.to_owned(), table.text));
    let tables = match &arguments.csv {
        None => Vec::new(),
        Some(folder) => write_all(folder, "csv", tables.collect())?,
    };
    if arguments.json {
        return output::print_json(&json!({
            "report": arguments.output,
            "report_bytes": page.len(),
            "files": report.files.len(),
            "runs": report.runs.len(),
            "pruned": report.pruned.len(),
            "svg": svgs,
            "csv": tables,
        }));
    }
    output::print(&format!(
        "{}: {} bytes, {} files and {} runs",
        arguments.output.display(),
        grouped(page.len() as u64),
        report.files.len(),
        report.runs.len(),
    ))
}

/// A line as charts take it.
fn result_file(line: Line) -> Result<ResultFile> {
    let quality = Reached::recorded(line.bits_per_byte, line.accuracy).with_context(|| {
        format!("the line of {} has neither bits_per_byte nor accuracy", line.run)
    })?;
    Ok(ResultFile {
        run: line.run,
        seed: line.seed,
        settings: line.settings,
        steps: line.steps,
        export: line.export,
        target: line.target,
        bytes: line.bytes,
        parameters: line.parameters,
        nats: line.nats,
        quality,
        float_nats: line.float_nats,
        float_accuracy: line.float_accuracy,
        shape: line.shape,
        seconds: None,
    })
}

/// Refuses a folder with something in it, unless that may be replaced.
fn refuse_existing_folder(folder: &Path, force: bool) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        bail!(Usage(format!("{} is no folder", folder.display())));
    }
    if session::is_occupied(folder) && !force {
        bail!(Usage(format!(
            "{} is not empty: choose another folder or pass --force",
            folder.display()
        )));
    }
    Ok(())
}

/// Writes files of one kind into a folder; their paths.
fn write_all(folder: &Path, kind: &str, files: Vec<(String, String)>) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut paths = Vec::new();
    for (name, text) in files {
        let path = folder.join(format!("{name}.{kind}"));
        write_bytes(&path, text.as_bytes(), Overwrite::Replace)?;
        paths.push(path);
    }
    Ok(paths)
}
