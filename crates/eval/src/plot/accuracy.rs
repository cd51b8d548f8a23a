//! Accuracy of decoded classifiers against the bits per weight of their files.

use super::line_chart::{Extent, Line, LineChart, Mark};
use super::range::{AxisRange, is_drawable};
use super::theme::{WIDE, line_swatch};
use super::{Figure, LegendEntry};
use crate::table::fixed;
use crate::{EvalError, Mean};

/// A file of a classifier, or the mean of several, such as those of several seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AccuracyPoint {
    /// Bits of the file per weight of the model.
    pub bits_per_weight: f64,
    /// Share of the examples whose class the decoded model finds, 0 to 1.
    pub accuracy: f64,
    /// The 95 % confidence intervals of the means of three files or more: of the bits per weight and of the accuracy.
    pub intervals: Option<[(f64, f64); 2]>,
}

impl AccuracyPoint {
    /// The mean of files, each as bits per weight and accuracy, with its intervals ([`Mean::band`]); `None` of none.
    ///
    /// ```
    /// use backslash_eval::plot::AccuracyPoint;
    ///
    /// let mean = AccuracyPoint::mean(&[(2.0, 0.75), (3.0, 0.25), (2.5, 0.5)]).expect("three files");
    /// assert_eq!((mean.bits_per_weight, mean.accuracy), (2.5, 0.5));
    /// let [bits, accuracy] = mean.intervals.expect("three files");
    /// assert!(bits.0 < 1.3 && bits.1 > 3.7 && accuracy.0 < 0.0);
    /// ```
    pub fn mean(files: &[(f64, f64)]) -> Option<Self> {
        let bits = Mean::of(&files.iter().map(|file| file.0).collect::<Vec<_>>())?;
        let accuracy = Mean::of(&files.iter().map(|file| file.1).collect::<Vec<_>>())?;
        Some(Self {
            bits_per_weight: bits.mean,
            accuracy: accuracy.mean,
            intervals: bits.band().zip(accuracy.band()).map(|(bits, accuracy)| [bits, accuracy]),
        })
    }
}

/// Draws a line with markers for every named curve; `None` when there is no point to draw.
///
/// # Errors
///
/// [`EvalError::Plot`] when the plotting library refuses.
pub fn accuracy_curves(
    curves: &[(String, Vec<AccuracyPoint>)],
) -> Result<Option<Figure>, EvalError> {
    let is_placed =
        |point: &&AccuracyPoint| is_drawable(point.bits_per_weight) && is_drawable(point.accuracy);
    let drawable: Vec<Vec<AccuracyPoint>> = curves
        .iter()
        .map(|(_, points)| {
            let mut points: Vec<AccuracyPoint> = points.iter().filter(is_placed).copied().collect();
            points.sort_by(|one, other| one.bits_per_weight.total_cmp(&other.bits_per_weight));
            points
        })
        .collect();
    let all = || drawable.iter().flatten();
    let (Some(x), Some(y)) = (
        AxisRange::of_all(all().map(|point| point.bits_per_weight)),
        AxisRange::of_all(all().flat_map(accuracies)),
    ) else {
        return Ok(None);
    };
    let place = |point: &AccuracyPoint| (point.bits_per_weight, 100.0 * point.accuracy);
    let mark = |name: &str, point: &AccuracyPoint| Mark {
        x: point.bits_per_weight,
        y: 100.0 * point.accuracy,
        tooltip: format!(
            "{name}: {} bits per weight, {} % correct",
            fixed(point.bits_per_weight, 3),
            fixed(100.0 * point.accuracy, 2)
        ),
        extent: point.intervals.map(|[bits, accuracy]| Extent {
            x: bits,
            y: (100.0 * accuracy.0, 100.0 * accuracy.1),
        }),
    };
    let pairs = || curves.iter().zip(&drawable).enumerate().filter(|(_, pair)| !pair.1.is_empty());
    let names: Vec<&str> = pairs().map(|(_, pair)| pair.0.0.as_str()).collect();
    let chart = LineChart {
        description: format!(
            "Line chart of the accuracy of decoded files against bits per weight: {}",
            names.join(", ")
        ),
        x_title: "bits per weight".to_owned(),
        y_title: "% correct, decoded".to_owned(),
        top_axis: None,
        x: x.not_below_zero(),
        y,
        lines: pairs()
            .map(|(slot, ((name, _), points))| Line {
                slot,
                points: points.iter().map(place).collect(),
                marks: points.iter().map(|point| mark(name, point)).collect(),
            })
            .collect(),
        levels: Vec::new(),
        bars: Vec::new(),
    };
    let (wide_svg, narrow_svg) = chart.draw()?;
    let legend = pairs().map(|(slot, ((name, _), _))| LegendEntry {
        swatch_svg: line_swatch(slot),
        label: name.clone(),
    });
    Ok(Some(Figure {
        wide_svg,
        wide_height: WIDE.height,
        narrow_svg,
        legend: legend.collect(),
        notes: Vec::new(),
    }))
}

/// The accuracy of a point in percent, with the ends of its interval as far as they are accuracies.
fn accuracies(point: &AccuracyPoint) -> impl Iterator<Item = f64> {
    let ends = point.intervals.map(|[_, (least, greatest)]| [least, greatest]);
    let all = std::iter::once(point.accuracy).chain(ends.into_iter().flatten());
    all.map(|accuracy| 100.0 * accuracy.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_room_for_intervals_of_accuracies() {
        let wide = AccuracyPoint::mean(&[(2.0, 0.9), (2.1, 0.98), (2.2, 0.95)]).unwrap();
        let (least, greatest) = wide.intervals.unwrap()[1];
        assert!(greatest > 1.0, "{greatest}");
        let ends: Vec<f64> = accuracies(&wide).skip(1).collect();
        assert_eq!(ends, [100.0 * least, 100.0]);
    }

    #[test]
    fn every_file_has_a_marker_and_seeds_have_a_band() {
        let point = |files: &[(f64, f64)]| AccuracyPoint::mean(files).unwrap();
        let curves = [
            (
                "l1".to_owned(),
                vec![
                    point(&[(3.0, 0.8), (3.2, 0.82), (3.1, 0.81)]),
                    point(&[(1.5, 0.7), (1.6, 0.76), (1.4, 0.75)]),
                ],
            ),
            ("plain".to_owned(), vec![point(&[(4.0, 0.81)]), point(&[(f64::NAN, 0.81)])]),
            ("none".to_owned(), Vec::new()),
        ];
        let figure = accuracy_curves(&curves).unwrap().unwrap();
        assert_eq!(figure.wide_svg.matches("<g class=\"mark\">").count(), 3);
        assert_eq!(figure.wide_svg.matches("fill-opacity=\"0.2\"").count(), 1);
        assert!(figure.wide_svg.contains("l1: 3.100 bits per weight, 81.00 % correct"));
        let labels: Vec<&str> = figure.legend.iter().map(|entry| entry.label.as_str()).collect();
        assert_eq!(labels, ["l1", "plain"]);
        assert_eq!(accuracy_curves(&curves[2..]).unwrap(), None);
    }
}
