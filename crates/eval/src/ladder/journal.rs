//! Points on the disk, a line of JSON each.

use std::path::Path;

use backslash_compress::JsonLines;
use serde::{Deserialize, Serialize};

use super::{Method, Point};
use crate::EvalError;

/// What a line has: a point, and a figure for readers that do not divide.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    bits_per_weight: f64,
    #[serde(flatten)]
    point: Point,
}

/// A file of points to which every finished one is added.
#[derive(Debug)]
pub struct Journal {
    lines: JsonLines<Line>,
}

impl Journal {
    /// Opens a journal, or begins one, for this process alone. A last line that was cut is dropped, to be made again.
    ///
    /// # Errors
    /// If the file cannot be read or written, is in use, or has another line that is no point.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        Ok(Self { lines: JsonLines::open(path, "point")? })
    }

    /// The point of a model, a method and a target, if it is there.
    ///
    /// # Errors
    /// If a model of that name has points with another fingerprint: other weights, or other text.
    pub fn find(
        &self,
        run: &str,
        fingerprint: &str,
        method: Method,
        target: Option<f64>,
    ) -> Result<Option<&Point>, EvalError> {
        let mut own = self.points().filter(|point| point.run == run);
        if let Some(other) = own.clone().find(|point| point.fingerprint != fingerprint) {
            return Err(EvalError::ModelFile {
                path: self.lines.path().to_owned(),
                problem: format!(
                    "has points of a `{run}` with other weights or other text ({} instead of {fingerprint}): name another file",
                    other.fingerprint
                ),
            });
        }
        Ok(own.find(|point| point.method == method.name() && point.target == target))
    }

    /// Adds a point.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push(&mut self, point: Point) -> Result<(), EvalError> {
        Ok(self.lines.push(Line { bits_per_weight: point.bits_per_weight(), point })?)
    }

    /// All points.
    pub fn points(&self) -> impl Iterator<Item = &Point> + Clone {
        self.lines.values().iter().map(|line| &line.point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(method: Method, target: Option<f64>) -> Point {
        Point {
            run: "a".to_owned(),
            fingerprint: "f".to_owned(),
            method: method.name(),
            target,
            bytes: 100,
            parameters: 400,
            nats: 3.25,
            float_nats: 3.0,
            bits_per_byte: Some(2.0),
            seconds: 1.5,
            ..Point::default()
        }
    }

    #[test]
    fn finished_points_are_found_and_a_cut_line_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        journal.push(point(Method::SdClip, Some(2.0))).unwrap();
        journal.push(point(Method::Int8, None)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 7]).unwrap();

        let in_use = Journal::open(&path).unwrap_err().to_string();
        assert!(in_use.contains("another process"), "{in_use}");
        drop(journal);
        let mut journal = Journal::open(&path).unwrap();
        let find = |journal: &Journal, method, target| {
            journal.find("a", "f", method, target).unwrap().cloned()
        };
        assert_eq!(
            find(&journal, Method::SdClip, Some(2.0)),
            Some(point(Method::SdClip, Some(2.0)))
        );
        assert_eq!(find(&journal, Method::SdClip, Some(3.0)), None);
        assert_eq!(find(&journal, Method::Int8, None), None);
        journal.push(point(Method::Int8, None)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!(journal.points().count(), 2);
        assert_eq!(journal.find("b", "other", Method::Int8, None).unwrap(), None);
        let error = journal.find("a", "g", Method::Int8, None).unwrap_err().to_string();
        assert!(error.contains("other weights"), "{error}");
        drop(journal);

        std::fs::write(&path, "no point\n").unwrap();
        assert!(Journal::open(&path).unwrap_err().to_string().contains("line 1"));
        assert_eq!(std::fs::read(&path).unwrap(), b"no point\n");
    }
}
