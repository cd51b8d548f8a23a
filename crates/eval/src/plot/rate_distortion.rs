//! Bits per byte of decoded files against their size.

use serde::Serialize;

use super::line_chart::{Extent, Level, Line, LineChart, Mark, TopAxis};
use super::range::{AxisRange, is_drawable};
use super::theme::{WIDE, dashed_swatch, line_swatch};
use super::{Figure, LegendEntry};
use crate::EvalError;
use crate::Mean;
use crate::table::{fixed, grouped};

/// A file that was written, read back and evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bits of the file per weight of the model.
    pub bits_per_weight: f64,
    /// Bits per byte of text with the decoded model.
    pub bits_per_byte: f64,
    /// Of the mean of several files, how certain it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

/// The 95 % confidence intervals of the means of some files, such as those of several seeds: [`Mean::band`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// How many files.
    pub files: usize,
    /// Of the bytes.
    pub bytes: (f64, f64),
    /// Of the bits per byte of text.
    pub bits_per_byte: (f64, f64),
}

impl Point {
    /// The mean of some files with its intervals, which fewer than three files do not have; `None` of none.
    ///
    /// ```
    /// use backslash_eval::plot::Point;
    ///
    /// let file = |bytes, bits_per_byte| Point { bytes, bits_per_weight: 2.0, bits_per_byte, interval: None };
    /// let mean = Point::mean(&[file(100, 2.5), file(200, 2.0), file(300, 2.25)]).expect("three files");
    /// assert_eq!((mean.bytes, mean.bits_per_byte), (200, 2.25));
    /// let (least, greatest) = mean.interval.expect("three files").bits_per_byte;
    /// assert!((1.62..1.64).contains(&least) && (2.86..2.88).contains(&greatest));
    /// assert_eq!(Point::mean(&[file(100, 2.5), file(300, 2.0)]).expect("two files").interval, None);
    /// ```
    pub fn mean(files: &[Self]) -> Option<Self> {
        let mean =
            |figure: &dyn Fn(&Self) -> f64| Mean::of(&files.iter().map(figure).collect::<Vec<_>>());
        let bytes = mean(&|file| file.bytes as f64)?;
        let bits_per_byte = mean(&|file| file.bits_per_byte)?;
        let bands = bytes.band().zip(bits_per_byte.band());
        let interval = bands.map(|(bytes, bits_per_byte)| Interval {
            files: files.len(),
            bytes,
            bits_per_byte,
        });
        Some(Self {
            bytes: bytes.mean.round() as u64,
            bits_per_weight: mean(&|file| file.bits_per_weight)?.mean,
            bits_per_byte: bits_per_byte.mean,
            interval,
        })
    }
}

/// The files of one model at several rates.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Name of the model or method.
    pub name: String,
    /// The files, in any order.
    pub points: Vec<Point>,
}

/// What a model reaches before it is compressed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FloatReference {
    /// Name of the model; that of a [`Curve`] gives the line the curve's colour.
    pub name: String,
    /// Bits per byte of text with the float weights.
    pub bits_per_byte: f64,
}

/// Draws `curves` with a marker for every file and a dashed line for every reference; `None` when
/// no point can be drawn.
///
/// The vertical axis ends above the interesting part: files far worse than the rest appear as
/// arrows at the upper edge. Figures that are not finite are left out. Both are said in the notes.
///
/// # Errors
///
/// [`EvalError::Plot`] when the plotting library refuses.
///
/// # Example
///
/// ```
/// use backslash_eval::plot::{Curve, Point, rate_distortion};
///
/// let points = vec![
///     Point { bytes: 250_000, bits_per_weight: 2.0, bits_per_byte: 2.41, interval: None },
///     Point { bytes: 500_000, bits_per_weight: 4.0, bits_per_byte: 2.33, interval: None },
/// ];
/// let figure = rate_distortion(&[Curve { name: "plain".into(), points }], &[])?.expect("two points");
/// assert!(figure.wide_svg.contains("plain: 250,000 bytes, 2.000 bits per weight, 2.4100 bits per byte"));
/// # Ok::<(), backslash_eval::EvalError>(())
/// ```
pub fn rate_distortion(
    curves: &[Curve],
    references: &[FloatReference],
) -> Result<Option<Figure>, EvalError> {
    let drawable: Vec<Vec<Point>> = curves.iter().map(drawable_points).collect();
    let levels: Vec<&FloatReference> =
        references.iter().filter(|reference| is_drawable(reference.bits_per_byte)).collect();
    let points = || drawable.iter().flatten();
    let quality = points()
        .map(|point| point.bits_per_byte)
        .chain(levels.iter().map(|level| level.bits_per_byte));
    let (Some(x), Some(y)) =
        (AxisRange::of_all(points().map(kilobytes)), AxisRange::of_best(quality))
    else {
        return Ok(None);
    };

    let slot_of = |name: &str, index: usize| {
        curves.iter().position(|curve| curve.name == name).unwrap_or(curves.len() + index)
    };
    let slots: Vec<usize> =
        levels.iter().enumerate().map(|(index, level)| slot_of(&level.name, index)).collect();
    let chart = LineChart {
        description: description(curves),
        x_title: "file size (kB)".to_owned(),
        y_title: "bits per byte, decoded".to_owned(),
        top_axis: bytes_per_bit(points())
            .map(|bytes| TopAxis { title: "bits per weight".to_owned(), per_x: 1000.0 / bytes }),
        x: x.not_below_zero(),
        y,
        lines: curves
            .iter()
            .zip(&drawable)
            .enumerate()
            .map(|(slot, (curve, points))| line(slot, curve, points))
            .collect(),
        levels: levels
            .iter()
            .zip(&slots)
            .map(|(level, &slot)| Level {
                slot,
                y: level.bits_per_byte,
                tooltip: float_label(level),
            })
            .collect(),
        bars: Vec::new(),
    };

    let curve_entries =
        curves.iter().enumerate().filter(|(slot, _)| !drawable[*slot].is_empty()).map(
            |(slot, curve)| LegendEntry {
                swatch_svg: line_swatch(slot),
                label: curve.name.clone(),
            },
        );
    let level_entries = levels.iter().zip(&slots).map(|(level, &slot)| LegendEntry {
        swatch_svg: dashed_swatch(slot),
        label: float_label(level),
    });
    let (wide_svg, narrow_svg) = chart.draw()?;
    let legend = curve_entries.chain(level_entries).collect();
    Ok(Some(Figure {
        wide_svg,
        wide_height: WIDE.height,
        narrow_svg,
        legend,
        notes: notes(curves, &drawable, &levels, y.high),
    }))
}

fn drawable_points(curve: &Curve) -> Vec<Point> {
    let is_placed =
        |point: &&Point| is_drawable(point.bits_per_byte) && is_drawable(kilobytes(point));
    let mut points: Vec<Point> = curve.points.iter().filter(is_placed).copied().collect();
    points.sort_by_key(|point| point.bytes);
    points
}

fn kilobytes(point: &Point) -> f64 {
    point.bytes as f64 / 1000.0
}

/// Bytes of file per bit per weight, when it is the same for all files to half a percent, that is,
/// when one number of weights stands behind all of them.
fn bytes_per_bit<'a>(points: impl Iterator<Item = &'a Point>) -> Option<f64> {
    let ratios: Vec<f64> = points.map(|point| point.bytes as f64 / point.bits_per_weight).collect();
    let (&first, rest) = ratios.split_first()?;
    let is_usable = first.is_finite() && first > 0.0;
    let agree = rest.iter().all(|ratio| (ratio / first - 1.0).abs() < 0.005);
    (is_usable && agree).then_some(first)
}

fn line(slot: usize, curve: &Curve, points: &[Point]) -> Line {
    let mark = |point: &Point| Mark {
        x: kilobytes(point),
        y: point.bits_per_byte,
        tooltip: tooltip(curve, point),
        extent: point.interval.map(|interval| Extent {
            x: (interval.bytes.0.max(0.0) / 1000.0, interval.bytes.1 / 1000.0),
            y: interval.bits_per_byte,
        }),
    };
    Line {
        slot,
        points: points.iter().map(|point| (kilobytes(point), point.bits_per_byte)).collect(),
        marks: points.iter().map(mark).collect(),
    }
}

fn tooltip(curve: &Curve, point: &Point) -> String {
    let interval = point.interval.map_or_else(String::new, |interval| {
        format!(
            " (mean of {} files, 95 % interval {} to {})",
            interval.files,
            fixed(interval.bits_per_byte.0, 4),
            fixed(interval.bits_per_byte.1, 4)
        )
    });
    format!(
        "{}: {} bytes, {} bits per weight, {} bits per byte{interval}",
        curve.name,
        grouped(point.bytes),
        fixed(point.bits_per_weight, 3),
        fixed(point.bits_per_byte, 4)
    )
}

fn float_label(level: &FloatReference) -> String {
    format!("{} before compression: {}", level.name, fixed(level.bits_per_byte, 4))
}

fn description(curves: &[Curve]) -> String {
    let names: Vec<String> = curves
        .iter()
        .map(|curve| format!("{} ({} files)", curve.name, curve.points.len()))
        .collect();
    format!(
        "Line chart of bits per byte of the decoded file against file size: {}",
        names.join(", ")
    )
}

fn notes(
    curves: &[Curve],
    drawable: &[Vec<Point>],
    levels: &[&FloatReference],
    top: f64,
) -> Vec<String> {
    let mut notes = Vec::new();
    let above: Vec<f64> =
        drawable.iter().flatten().map(|point| point.bits_per_byte).filter(|&y| y > top).collect();
    if let Some(worst) = above.iter().copied().max_by(f64::total_cmp) {
        let files =
            if above.len() == 1 { "1 file lies" } else { &format!("{} files lie", above.len()) };
        notes.push(format!(
            "{files} above the chart, at up to {} bits per byte: an arrow at the upper edge.",
            fixed(worst, 4)
        ));
    }
    for level in levels.iter().filter(|level| level.bits_per_byte > top) {
        notes.push(format!("{} lies above the chart.", float_label(level)));
    }
    for (curve, points) in curves.iter().zip(drawable) {
        let missing = curve.points.len() - points.len();
        if missing > 0 {
            notes.push(format!(
                "{}: {missing} of {} files have no figure to draw.",
                curve.name,
                curve.points.len()
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, figures: &[(u64, f64)]) -> Curve {
        let point = |&(bytes, bits_per_byte): &(u64, f64)| Point {
            bytes,
            bits_per_weight: bytes as f64 / 125_000.0,
            bits_per_byte,
            interval: None,
        };
        Curve { name: name.to_owned(), points: figures.iter().map(point).collect() }
    }

    #[test]
    fn every_file_has_one_marker_and_the_axes_have_units() {
        let curves = [
            curve("plain", &[(500_000, 2.33), (250_000, 2.41), (400_000, 2.35)]),
            curve("rate", &[(150_000, 2.36), (200_000, 2.34)]),
        ];
        let references = [FloatReference { name: "rate".into(), bits_per_byte: 2.32 }];
        let figure = rate_distortion(&curves, &references).unwrap().unwrap();
        for svg in [&figure.wide_svg, &figure.narrow_svg] {
            assert_eq!(svg.matches("<g class=\"mark\">").count(), 5);
            assert_eq!(
                svg.matches("<polyline fill=\"none\" opacity=\"1\" stroke=\"var(--series-0)\"")
                    .count(),
                1
            );
            for title in ["file size (kB)", "bits per weight", "bits per byte, decoded"] {
                assert!(svg.contains(&format!("{title}\n</text>")), "{title}");
            }
            assert!(svg.contains("<title>rate before compression: 2.3200</title>"));
        }
        let labels: Vec<&str> = figure.legend.iter().map(|entry| entry.label.as_str()).collect();
        assert_eq!(labels, ["plain", "rate", "rate before compression: 2.3200"]);
        assert!(figure.legend[2].swatch_svg.contains("--series-1"));
        assert!(figure.notes.is_empty(), "{:?}", figure.notes);
    }

    #[test]
    fn a_file_far_above_is_an_arrow_and_a_note() {
        let figures =
            [(100_000, 7.0), (200_000, 2.40), (300_000, 2.35), (400_000, 2.33), (500_000, 2.32)];
        let figure = rate_distortion(&[curve("plain", &figures)], &[]).unwrap().unwrap();
        assert_eq!(figure.wide_svg.matches("fill=\"var(--page)\"").count(), 1);
        assert!(figure.wide_svg.contains("7.0000 bits per byte</title>"));
        assert!(
            figure.notes[0].starts_with("1 file lies above the chart, at up to 7.0000"),
            "{:?}",
            figure.notes
        );
    }

    #[test]
    fn figures_that_are_not_finite_are_left_out_and_named() {
        let figures = [
            (100_000, f64::NAN),
            (200_000, f64::INFINITY),
            (u64::MAX, 2.0),
            (300_000, 1e300),
            (300_000, 2.4),
        ];
        let figure = rate_distortion(&[curve("plain", &figures)], &[]).unwrap().unwrap();
        assert_eq!(figure.wide_svg.matches("<g class=\"mark\">").count(), 1);
        assert_eq!(figure.notes, ["plain: 4 of 5 files have no figure to draw."]);
        assert!(!figure.wide_svg.contains("NaN") && !figure.wide_svg.contains("inf"));
    }

    #[test]
    fn nothing_to_draw_is_no_chart() {
        let nan = FloatReference { name: "plain".into(), bits_per_byte: f64::NAN };
        assert_eq!(rate_distortion(&[], &[]).unwrap(), None);
        assert_eq!(rate_distortion(&[curve("plain", &[])], &[nan]).unwrap(), None);
        assert_eq!(rate_distortion(&[curve("plain", &[(1, f64::NAN)])], &[]).unwrap(), None);
    }

    #[test]
    fn one_file_and_strange_sizes_draw() {
        for figures in [
            vec![(250_000, 2.4)],
            vec![(0, 0.0)],
            vec![(1_000_000_000_000_000, 1e12)],
            vec![(7, 2.0), (7, 3.0)],
        ] {
            let figure = rate_distortion(&[curve("one", &figures)], &[]).unwrap().unwrap();
            assert_eq!(figure.wide_svg.matches("<g class=\"mark\">").count(), figures.len());
        }
    }

    #[test]
    fn models_of_different_size_share_no_axis_in_bits() {
        let mut small = curve("small", &[(100_000, 2.4)]);
        small.points[0].bits_per_weight = 8.0;
        let both = [curve("large", &[(100_000, 2.3)]), small];
        let figure = rate_distortion(&both, &[]).unwrap().unwrap();
        assert!(!figure.wide_svg.contains("bits per weight\n</text>"));
    }

    #[test]
    fn the_interval_of_seeds_is_a_band_with_its_figures() {
        let file = |bytes: u64, bits_per_byte: f64| curve("", &[(bytes, bits_per_byte)]).points[0];
        let means = [
            Point::mean(&[file(100_000, 2.4), file(110_000, 2.5), file(90_000, 2.45)]).unwrap(),
            Point::mean(&[file(200_000, 2.2), file(210_000, 2.3), file(220_000, 2.4)]).unwrap(),
        ];
        let seeds = Curve { name: "seeds".into(), points: means.to_vec() };
        let figure = rate_distortion(&[seeds, curve("one", &[(150_000, 2.3)])], &[]);
        let svg = figure.unwrap().unwrap().wide_svg;
        assert_eq!(svg.matches("fill-opacity=\"0.2\"").count(), 1, "one band");
        assert!(svg.contains(
            "2.3000 bits per byte (mean of 3 files, 95 % interval 2.0516 to 2.5484)</title>"
        ));
    }

    #[test]
    fn names_are_escaped() {
        let figure = rate_distortion(&[curve("</svg><script>\"#B50000\"", &[(1, 2.0)])], &[])
            .unwrap()
            .unwrap();
        assert!(!figure.wide_svg.contains("<script>"));
        assert!(figure.wide_svg.contains("&lt;/svg&gt;&lt;script&gt;&quot;#B50000&quot;"));
    }
}
