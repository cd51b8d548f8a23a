//! Points on the disk, a line of JSON each.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Method, Point};
use crate::EvalError;

/// What a line has: a point, and a figure for readers that do not divide.
#[derive(Serialize)]
struct Line<'a> {
    bits_per_weight: f64,
    #[serde(flatten)]
    point: &'a Point,
}

/// A file of points to which every finished one is added.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    points: Vec<Point>,
}

impl Journal {
    /// Opens a journal, or begins one, for this process alone. A last line that was cut is dropped, to be made again.
    ///
    /// # Errors
    /// If the file cannot be read or written, is in use, or has another line that is no point.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        let problem = |problem: String| EvalError::ModelFile { path: path.to_owned(), problem };
        let fail = |error: std::io::Error| problem(error.to_string());
        let mut options = OpenOptions::new();
        let mut file = options.create(true).read(true).append(true).open(path).map_err(fail)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                problem("another process adds points to it: name another file".to_owned())
            }
            TryLockError::Error(error) => problem(error.to_string()),
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(fail)?;
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let points = whole.lines().enumerate().map(|(index, line)| {
            serde_json::from_str(line)
                .map_err(|error| problem(format!("line {} is no point: {error}", index + 1)))
        });
        let points = points.collect::<Result<Vec<Point>, EvalError>>()?;
        file.set_len(whole.len() as u64).map_err(fail)?;
        Ok(Self { path: path.to_owned(), file, points })
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
        let mut own = self.points.iter().filter(|point| point.run == run);
        if let Some(other) = own.clone().find(|point| point.fingerprint != fingerprint) {
            return Err(EvalError::ModelFile {
                path: self.path.clone(),
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
        let line = Line { bits_per_weight: point.bits_per_weight(), point: &point };
        let line = serde_json::to_string(&line).expect("plain data") + "\n";
        self.file.write_all(line.as_bytes()).map_err(|error| EvalError::ModelFile {
            path: self.path.clone(),
            problem: error.to_string(),
        })?;
        self.points.push(point);
        Ok(())
    }

    /// All points.
    pub fn points(&self) -> &[Point] {
        &self.points
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
        assert_eq!(journal.points().len(), 2);
        assert_eq!(journal.find("b", "other", Method::Int8, None).unwrap(), None);
        let error = journal.find("a", "g", Method::Int8, None).unwrap_err().to_string();
        assert!(error.contains("other weights"), "{error}");
        drop(journal);

        std::fs::write(&path, "no point\n").unwrap();
        assert!(Journal::open(&path).unwrap_err().to_string().contains("line 1"));
        assert_eq!(std::fs::read(&path).unwrap(), b"no point\n");
    }
}
