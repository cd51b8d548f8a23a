//! One row of a document, made again.

use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

use super::export::Wanted;
use super::file::SweepFile;
use super::runs::{Plan, Planned};
use super::{base, make, runs, series, tables};
use crate::arguments::Sweep;
use crate::failure::Usage;
use crate::grid::Grid;
use crate::prepared::prepare;
use crate::{document, output};

/// A figure of a row, as the document has it and as it is now.
#[derive(Debug, PartialEq, Serialize)]
struct Figure {
    figure: String,
    document: String,
    now: String,
    /// Of the document's figure.
    difference_percent: f64,
}

/// Makes the files of a row again and says whether its figures hold.
pub fn check(arguments: &Sweep, file: &SweepFile, path: &Path, row: &str) -> Result<()> {
    let section = arguments.section.as_deref().expect("required where a row is checked");
    let text = document::read_section(path, section)?;
    let Some(claimed) = Row::find(&text, row) else {
        bail!(Usage(format!(
            "--row {row}: {} has no such row in its section `{section}`",
            path.display()
        )));
    };
    let mut base = base(file, arguments)?;
    let prepared = prepare(&mut base)?;
    let plan = runs::plan(file, &base, &runs::data_hash(&prepared))?;
    let Some((runs, wanted)) = files_of(file, &plan, row)? else {
        bail!(Usage(format!(
            "--row {row}: {} makes no such files: it is not what section `{section}` is of",
            arguments.file.display()
        )));
    };
    let mut lines = Vec::new();
    let files = runs.into_iter().map(|run| (run, vec![wanted])).collect();
    let failed = make(arguments, files, &prepared, &mut |line| {
        lines.push(line);
        Ok(())
    })?;
    if let Some(first) = failed.first() {
        bail!("{first}");
    }
    let grid = tables::files(&series::series(file, &plan, &lines)?);
    let now = Row::find(&grid.text(), row).expect("its files have just been made");
    let figures = figures(&claimed, &now);
    report(&figures, arguments)?;
    let apart = |figure: &&Figure| figure.difference_percent.abs() > arguments.within;
    match figures.iter().find(apart) {
        None => Ok(()),
        Some(Figure { figure, document, now, .. }) => bail!(
            "{}: {figure} of `{row}` was {document} and is {now}, more than {} % apart",
            path.display(),
            arguments.within
        ),
    }
}

/// The runs whose files a row is the mean of, and which files these are.
fn files_of<'a>(
    file: &SweepFile,
    plan: &'a Plan,
    row: &str,
) -> Result<Option<(Vec<&'a Planned>, Wanted)>> {
    for (curve, settings) in file.curve.iter().zip(&plan.curves) {
        for (setting, indices) in curve.settings()?.iter().zip(settings) {
            for wanted in curve.wanted()? {
                if tables::row_title(curve, &series::label(curve, setting, wanted)) == row {
                    let runs = indices.iter().map(|index| &plan.runs[*index]).collect();
                    return Ok(Some((runs, wanted)));
                }
            }
        }
    }
    Ok(None)
}

/// A row of a table with the titles of its columns.
#[derive(Debug, PartialEq)]
struct Row {
    cells: Vec<(String, String)>,
}

impl Row {
    /// The first row in a text in Markdown whose first cell is this.
    fn find(text: &str, first: &str) -> Option<Self> {
        let mut titles: Vec<&str> = Vec::new();
        let mut is_in_table = false;
        for line in text.lines() {
            let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
                is_in_table = false;
                continue;
            };
            let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
            if !is_in_table {
                titles.clone_from(&cells);
                is_in_table = true;
            } else if cells.first() == Some(&first) {
                let pairs = titles.iter().zip(&cells).skip(1);
                let owned = pairs.map(|(title, cell)| ((*title).to_owned(), (*cell).to_owned()));
                return Some(Self { cells: owned.collect() });
            }
        }
        None
    }

    fn get(&self, title: &str) -> Option<&str> {
        self.cells.iter().find(|(own, _)| own == title).map(|(_, cell)| cell.as_str())
    }
}

/// The figures that both rows have.
fn figures(claimed: &Row, now: &Row) -> Vec<Figure> {
    let pairs = now.cells.iter().filter_map(|(title, now)| {
        let document = claimed.get(title)?;
        let difference_percent = 100.0 * (number(now)? / number(document)? - 1.0);
        Some(Figure {
            figure: title.clone(),
            document: document.to_owned(),
            now: now.clone(),
            difference_percent,
        })
    });
    pairs.collect()
}

/// The number that a cell begins with; a deviation after it is not compared.
fn number(cell: &str) -> Option<f64> {
    cell.split_whitespace().next()?.replace(',', "").parse().ok()
}

fn report(figures: &[Figure], arguments: &Sweep) -> Result<()> {
    if arguments.json {
        return output::print_json(&figures);
    }
    let mut grid = Grid::new("figure", ["document", "now", "difference"].map(str::to_owned));
    for figure in figures {
        let difference = match figure.document == figure.now {
            true => "the same".to_owned(),
            false => format!("{:+.2} %", figure.difference_percent),
        };
        grid.push(figure.figure.clone(), [figure.document.clone(), figure.now.clone(), difference]);
    }
    output::print(&grid.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Words.\n\n| curve | bytes | nats per token |\n| --- | ---: | ---: |\n| a: 2 bits | 1,200 | 3.5000 ± 0.0100 |\n| a | 900 | – |\n\n| other | x |\n| --- | --- |\n| b | 1 |\n";

    #[test]
    fn a_row_has_the_titles_of_its_own_table() {
        let row = Row::find(TEXT, "a: 2 bits").unwrap();
        assert_eq!(row.get("bytes"), Some("1,200"));
        assert_eq!(row.get("nats per token"), Some("3.5000 ± 0.0100"));
        assert_eq!(Row::find(TEXT, "b").unwrap().get("x"), Some("1"));
        // The titles of a table are none of its rows.
        assert_eq!(Row::find(TEXT, "curve"), None);
        assert_eq!(Row::find(TEXT, "c"), None);
    }

    #[test]
    fn figures_are_compared_by_their_titles() {
        let claimed = Row::find(TEXT, "a: 2 bits").unwrap();
        let now = "| curve | nats per token | shape | bytes |\n|-|-|-|-|\n| a: 2 bits | 3.5035 | 1.5 | 1,200 |\n";
        let figures = figures(&claimed, &Row::find(now, "a: 2 bits").unwrap());
        let [nats, bytes] = &figures[..] else { panic!("two titles are in both: {figures:?}") };
        assert!((nats.difference_percent - 0.1).abs() < 1e-9, "{nats:?}");
        assert_eq!((bytes.document.as_str(), bytes.difference_percent), ("1,200", 0.0));
    }
}
