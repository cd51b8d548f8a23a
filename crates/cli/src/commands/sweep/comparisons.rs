//! Two curves held against each other, seed by seed.

use backslash_eval::Mean;
use backslash_eval::table::grouped;

use super::figures::{interval, with_deviation};
use super::file::{Compare, SweepFile};
use super::runs::Line;
use super::series::Series;
use crate::grid::Grid;

/// A pair of curves, and at which sizes they are compared.
struct Pair<'a> {
    compare: &'a Compare,
    curve: &'a Series<'a>,
    other: &'a Series<'a>,
}

impl Pair<'_> {
    fn title(&self) -> String {
        format!("{}, against {}", self.compare.curve, self.compare.against)
    }
}

/// All that the file asks for.
pub fn comparisons(file: &SweepFile, series: &[Series<'_>]) -> String {
    let named = |name: &str| series.iter().find(|series| series.curve.name == name);
    let pairs = file.compare.iter().filter_map(|compare| {
        let (curve, other) = (named(&compare.curve)?, named(&compare.against)?);
        Some(Pair { compare, curve, other })
    });
    let pairs: Vec<Pair<'_>> = pairs.collect();
    at_equal_loss(&pairs) + &at_equal_bytes(&pairs)
}

/// Sizes at the losses of the other curve's files.
fn at_equal_loss(pairs: &[Pair<'_>]) -> String {
    if pairs.iter().all(|pair| pair.compare.bits.is_empty()) {
        return String::new();
    }
    let titles =
        ["at its", "nats per token", "bytes of the other", "bytes", "fewer bytes", "95 % interval"];
    let mut grid = Grid::new("curve, against the other", titles.map(str::to_owned));
    for pair in pairs {
        for bits in &pair.compare.bits {
            grid.push(pair.title(), fewer_bytes(pair, *bits));
        }
    }
    format!(
        "\nBytes at equal loss, seed by seed; between two files of a curve by the line through them in (loss, ln bytes), and those of the smallest file where that loses less; the interval is that of the mean over seeds by Student's t, \"no difference\" where zero is in it:\n\n{}",
        grid.text()
    )
}

/// A row of [`at_equal_loss`]: at the losses of the other's files of this many bits per weight.
fn fewer_bytes(pair: &Pair<'_>, bits: f64) -> [String; 6] {
    let Pair { curve, other, .. } = pair;
    let lines: Vec<(&Line, Option<f64>)> = other
        .seeds()
        .into_iter()
        .filter_map(|seed| other.at(seed, bits))
        .filter(|line| curve.seeds().contains(&line.seed))
        .map(|line| (line, curve.bytes_at(line.seed, line.nats)))
        .collect();
    let of = |figure: &dyn Fn(&Line, f64) -> f64| {
        let found = lines.iter().filter_map(|(line, bytes)| Some(figure(line, (*bytes)?)));
        Mean::of(&found.collect::<Vec<_>>())
    };
    let mean = |figure: &dyn Fn(&Line) -> f64| {
        let found: Vec<f64> = lines.iter().map(|(line, _)| figure(line)).collect();
        Mean::of(&found)
    };
    let bytes = |figure: Option<Mean>| {
        figure.map_or("–".to_owned(), |figure| grouped(figure.mean.round() as u64))
    };
    let (saved, saved_in) = match of(&|line, bytes| 100.0 * (1.0 - bytes / line.bytes as f64)) {
        None => ("not reached".to_owned(), "–".to_owned()),
        Some(saved) => (
            saved_by(saved, lines.len()),
            interval(saved, |least, greatest| format!("{least:.1} to {greatest:.1} %")),
        ),
    };
    [
        format!("{bits} bits"),
        mean(&|line| line.nats).map_or("–".to_owned(), with_deviation),
        bytes(mean(&|line| line.bytes as f64)),
        bytes(of(&|_, bytes| bytes)),
        saved,
        saved_in,
    ]
}

/// How much is saved, in percent with the deviation over the seeds that reach the loss.
fn saved_by(saved: Mean, seeds: usize) -> String {
    let Mean { mean, deviation, count } = saved;
    match count {
        count if count < seeds => format!("{mean:.1} % ({count} of {seeds} seeds)"),
        1 => format!("{mean:.1} %"),
        _ => format!("{mean:.1} ± {deviation:.1} %"),
    }
}

/// Losses of the best files within a number of bytes.
fn at_equal_bytes(pairs: &[Pair<'_>]) -> String {
    if pairs.iter().all(|pair| pair.compare.bytes.is_empty()) {
        return String::new();
    }
    let titles =
        ["bytes at most", "nats of the other", "nats", "fewer nats", "95 % interval", "seeds"];
    let mut grid = Grid::new("curve, against the other", titles.map(str::to_owned));
    for pair in pairs {
        for limit in &pair.compare.bytes {
            grid.push(pair.title(), fewer_nats(pair, *limit));
        }
    }
    format!(
        "\nLosses of the best files of at most so many bytes, of the seeds that both curves have; the interval is that of the mean of their differences by Student's t, \"no difference\" where zero is in it:\n\n{}",
        grid.text()
    )
}

/// A row of [`at_equal_bytes`].
fn fewer_nats(pair: &Pair<'_>, limit: u64) -> [String; 6] {
    let Pair { curve, other, .. } = pair;
    let of =
        |seed| Some((other.best_within(seed, limit)?.nats, curve.best_within(seed, limit)?.nats));
    let losses: Vec<(f64, f64)> = curve.seeds().into_iter().filter_map(of).collect();
    let mean = |figure: &dyn Fn(&(f64, f64)) -> f64| {
        Mean::of(&losses.iter().map(figure).collect::<Vec<_>>())
    };
    let text = |figure: Option<Mean>| figure.map_or("–".to_owned(), with_deviation);
    let fewer = mean(&|(other, own)| other - own);
    let fewer_in = fewer.map_or("–".to_owned(), |fewer| {
        interval(fewer, |least, greatest| format!("{least:.4} to {greatest:.4}"))
    });
    [
        grouped(limit),
        text(mean(&|(other, _)| *other)),
        text(mean(&|(_, own)| *own)),
        text(fewer),
        fewer_in,
        losses.len().to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::file::Curve;
    use super::super::runs::line;
    use super::super::series::Files;
    use super::*;

    fn series<'a>(curve: &'a Curve, lines: &'a [Line]) -> Series<'a> {
        let files = lines.iter().map(|line| Files { label: String::new(), lines: vec![line] });
        Series { curve, files: files.collect() }
    }

    #[test]
    fn losses_in_equal_bytes_are_compared_by_seed() {
        let file: SweepFile = toml::from_str(
            r#"
                config = "small.toml"
                curve = [{ name = "rate" }, { name = "plain" }]
                [[compare]]
                curve = "rate"
                against = "plain"
                bytes = [1000, 2000, 10]
            "#,
        )
        .unwrap();
        // Seed 4 has no plain file, and what is larger or worse than another file of at most the size says nothing.
        let rate =
            [(1, 3.0), (2, 3.25), (3, 3.0), (4, 9.0)].map(|(seed, nats)| line(seed, 990, nats));
        let plain = [
            line(1, 1000, 3.5),
            line(1, 900, 3.75),
            line(1, 2000, 2.5),
            line(2, 1000, 4.0),
            line(3, 995, 4.0),
            line(3, 1001, 1.0),
        ];
        let series = [series(&file.curve[0], &rate), series(&file.curve[1], &plain)];
        let text = comparisons(&file, &series);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("| rate, against plain"))
            .map(|line| line.split('|').map(str::trim).skip(2).take(6).collect())
            .collect();
        // Gains of 0.5, 0.75 and 1: the quantile at 0.975 of Student's t with two degrees of freedom is 4.3027.
        let [within, beyond, none] = &rows[..] else { panic!("{text}") };
        assert_eq!(within[1..3], ["3.8333 ± 0.2887", "3.0833 ± 0.1443"]);
        assert_eq!(within[3..], ["0.7500 ± 0.2500", "0.1290 to 1.3710", "3"]);
        assert_eq!(beyond[3..], ["-0.5833 ± 1.3769", "no difference", "3"]);
        assert_eq!(none[..], ["10", "–", "–", "–", "–", "0"]);
        assert!(!text.contains("Bytes at equal loss"), "{text}");
    }
}
