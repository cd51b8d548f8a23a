//! What the lines of a sweep say about its curves.

use backslash_eval::Mean;
use backslash_eval::plot::{AccuracyPoint, Point};

use super::export::Wanted;
use super::file::{Curve, SweepFile};
use super::runs::{Line, Plan};

/// The files of a curve.
pub struct Series<'a> {
    pub curve: &'a Curve,
    pub files: Vec<Files<'a>>,
}

/// The files of one setting, one export and one size, one per seed.
pub struct Files<'a> {
    /// What sets them apart within their curve.
    pub label: String,
    pub lines: Vec<&'a Line>,
}

impl Files<'_> {
    /// Mean and deviation of a figure over seeds.
    pub fn mean(&self, figure: impl Fn(&Line) -> f64) -> Mean {
        let figures: Vec<f64> = self.lines.iter().map(|line| figure(line)).collect();
        Mean::of(&figures).expect("there are no files without a line")
    }

    /// The mean file, with what the files of the seeds lie between.
    pub fn point(&self) -> Point {
        let files: Vec<Point> = self.lines.iter().map(|line| line.point()).collect();
        Point::mean(&files).expect("there are no files without a line")
    }
}

/// What sets these files apart within their curve.
pub fn label(curve: &Curve, setting: &[String], wanted: Wanted) -> String {
    let Wanted { export, target } = wanted;
    let bits = target.map(|target| format!("{target} bits"));
    let several = (curve.export.len() > 1).then(|| export.name());
    setting.iter().cloned().chain(several).chain(bits).collect::<Vec<_>>().join(", ")
}

/// The curves of a sweep, with the lines that are theirs.
pub fn series<'a>(
    file: &'a SweepFile,
    plan: &Plan,
    lines: &'a [Line],
) -> anyhow::Result<Vec<Series<'a>>> {
    let mut all = Vec::new();
    for (curve, settings) in file.curve.iter().zip(&plan.curves) {
        let mut files = Vec::new();
        for (setting, indices) in curve.settings()?.iter().zip(settings) {
            for wanted in curve.wanted()? {
                let of =
                    |index: &usize| lines.iter().find(|line| line.is(&plan.runs[*index], wanted));
                let lines: Vec<&Line> = indices.iter().filter_map(of).collect();
                if !lines.is_empty() {
                    files.push(Files { label: label(curve, setting, wanted), lines });
                }
            }
        }
        all.push(Series { curve, files });
    }
    Ok(all)
}

impl Series<'_> {
    /// The mean files that no smaller one of the curve is better than, smallest first.
    pub fn front(&self) -> Vec<&Files<'_>> {
        let mut files: Vec<&Files<'_>> = self.files.iter().collect();
        files.sort_by_key(|files| files.point().bytes);
        let mut best = f64::INFINITY;
        files.retain(|files| {
            let loss = files.mean(|line| line.nats).mean;
            let is_better = loss < best;
            best = best.min(loss);
            is_better
        });
        files
    }

    /// Name and mean files by their accuracy; `None` where a file has none, as all of a network that predicts the next token.
    pub fn accuracies(&self) -> Option<(String, Vec<AccuracyPoint>)> {
        let of = |line: &&Line| Some((line.bits_per_weight, line.accuracy?));
        let point = |files: &Files<'_>| {
            let files = files.lines.iter().map(of).collect::<Option<Vec<(f64, f64)>>>()?;
            AccuracyPoint::mean(&files)
        };
        let points = self.files.iter().map(point).collect::<Option<Vec<AccuracyPoint>>>()?;
        Some((self.curve.name.clone(), points))
    }

    /// The lines of all its files.
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.files.iter().flat_map(|files| files.lines.iter().copied())
    }

    /// Seeds of its files.
    pub fn seeds(&self) -> Vec<u64> {
        let mut seeds: Vec<u64> = self.lines().map(|line| line.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds
    }

    /// The line of a seed at a size.
    pub fn at(&self, seed: u64, target: f64) -> Option<&Line> {
        self.lines().find(|line| line.seed == seed && line.target == Some(target))
    }

    /// The line of a seed that loses least in at most so many bytes.
    pub fn best_within(&self, seed: u64, bytes: u64) -> Option<&Line> {
        let fitting = self.lines().filter(|line| line.seed == seed && line.bytes <= bytes);
        fitting.min_by(|one, other| one.nats.total_cmp(&other.nats))
    }

    /// Bytes at which the files of a seed reach a loss: on the line in (loss, ln bytes) between the two files around it, or
    /// those of the smallest file where that loses less. `None` where no file loses as little.
    pub fn bytes_at(&self, seed: u64, nats: f64) -> Option<f64> {
        let mut files: Vec<(f64, f64)> = self
            .lines()
            .filter(|line| line.seed == seed)
            .map(|line| ((line.bytes as f64).ln(), line.nats))
            .collect();
        files.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut best = f64::INFINITY;
        files.retain(|file| {
            let is_better = file.1 < best;
            best = best.min(file.1);
            is_better
        });
        let below = files.iter().find(|file| file.1 <= nats)?;
        let above = files.iter().rfind(|file| file.1 >= nats).unwrap_or(below);
        if above == below {
            return Some(below.0.exp());
        }
        let share = (above.1 - nats) / (above.1 - below.1);
        Some((above.0 + share * (below.0 - above.0)).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs::line;
    use super::*;
    use std::sync::LazyLock;

    static CURVE: LazyLock<Curve> = LazyLock::new(|| toml::from_str("name = \"a\"").unwrap());

    #[test]
    fn a_loss_between_two_files_has_a_size_between_theirs() {
        // The third file is worse than a smaller one, and says nothing.
        let lines = [line(1, 100, 4.0), line(1, 400, 3.0), line(1, 200, 4.5), line(2, 9, 3.5)];
        let files = lines.iter().map(|line| Files { label: String::new(), lines: vec![line] });
        let series = Series { curve: &CURVE, files: files.collect() };
        let bytes = series.bytes_at(1, 3.5).unwrap();
        assert!((bytes - 200.0).abs() < 1e-9, "{bytes}");
        assert!((series.bytes_at(1, 3.0).unwrap() - 400.0).abs() < 1e-9);
        assert_eq!(series.bytes_at(1, 2.9), None);
        assert!((series.bytes_at(1, 4.1).unwrap() - 100.0).abs() < 1e-9);
        assert_eq!(series.seeds(), [1, 2]);
        let front: Vec<u64> = series.front().iter().map(|files| files.lines[0].bytes).collect();
        assert_eq!(front, [9, 400]);
        let best = |seed, bytes| series.best_within(seed, bytes).map(|line| line.bytes);
        assert_eq!([best(1, 99), best(1, 100), best(1, 399)], [None, Some(100), Some(100)]);
        assert_eq!([best(1, 400), best(2, 400)], [Some(400), Some(9)]);
    }

    #[test]
    fn files_of_several_seeds_are_one_mean_file() {
        let lines = [line(1, 100, 4.0), line(2, 200, 3.0)];
        let files = Files { label: String::new(), lines: lines.iter().collect() };
        let nats = files.mean(|line| line.nats);
        assert_eq!((nats.mean, nats.count), (3.5, 2));
        assert!((nats.deviation - 0.5_f64.sqrt()).abs() < 1e-12);
        let point = files.point();
        assert_eq!((point.bytes, point.bits_per_byte), (150, 1.75));
    }
}
