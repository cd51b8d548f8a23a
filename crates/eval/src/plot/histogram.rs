//! A histogram of weights with the densities that fit them.

use super::line_chart::{Bar, Line, LineChart};
use super::range::AxisRange;
use super::theme::{WIDE, filled_swatch, plain_swatch};
use super::{Figure, LegendEntry};
use crate::table::{fixed, grouped};
use crate::{EvalError, WeightHistogram};

/// Points of the line of a density.
const POINTS: i32 = 240;

/// Draws the bins as bars and each density as a line; the figures of a bin appear where one points at it.
///
/// The vertical axis ends above the highest bin but one and the densities, so that a heap of weights that are exactly zero
/// does not flatten the rest.
///
/// # Errors
///
/// [`EvalError::Plot`] when the plotting library refuses.
pub fn weight_histogram(histogram: &WeightHistogram) -> Result<Figure, EvalError> {
    let bins: Vec<(f64, f64, f64)> =
        (0..histogram.counts.len()).map(|index| histogram.bin(index)).collect();
    let mut heights: Vec<f64> = bins.iter().map(|bin| bin.2).collect();
    heights.sort_by(f64::total_cmp);
    let edge = bins.last().map_or(1.0, |bin| bin.1);
    // Below shape 1 a density is a spike at zero: half a bin beside it is high enough.
    let near = 0.5 * histogram.bin_width;
    let peaks = histogram.fits.iter().map(|fit| fit.density(near));
    let second = heights.iter().rev().nth(1).copied().unwrap_or(1.0);
    let top = 1.08 * peaks.fold(second, f64::max);
    let line = |slot: usize, density: &dyn Fn(f64) -> f64| {
        let x = |index: i32| edge * (2.0 * f64::from(index) / f64::from(POINTS) - 1.0);
        let points = (0..=POINTS).map(|index| (x(index), density(x(index)).min(2.0 * top)));
        Line { slot, points: points.collect(), marks: Vec::new() }
    };
    let bars = bins.iter().zip(&histogram.counts).map(|(&(low, high, density), count)| Bar {
        slot: 0,
        x: (low, high),
        y: density,
        tooltip: format!(
            "{} to {}: {} weights, density {}",
            fixed(low, 5),
            fixed(high, 5),
            grouped(*count),
            fixed(density, 3)
        ),
    });
    let fits = || (1..).zip(&histogram.fits);
    let chart = LineChart {
        description: format!(
            "Histogram of the {} weights of {} with three fitted densities",
            grouped(histogram.weights),
            histogram.name
        ),
        x_title: "weight".to_owned(),
        y_title: "density".to_owned(),
        top_axis: None,
        x: AxisRange { low: -edge, high: edge },
        y: AxisRange { low: 0.0, high: top },
        lines: fits().map(|(slot, fit)| line(slot, &|weight| fit.density(weight))).collect(),
        levels: Vec::new(),
        bars: bars.collect(),
    };
    let (wide_svg, narrow_svg) = chart.draw()?;
    let weights = LegendEntry {
        swatch_svg: filled_swatch(0),
        label: format!("{}, {} weights", histogram.name, grouped(histogram.weights)),
    };
    let densities = fits().map(|(slot, fit)| LegendEntry {
        swatch_svg: plain_swatch(slot),
        label: format!(
            "{}, shape {}: {} nats per weight",
            fit.family,
            fixed(fit.shape, 2),
            fixed(fit.log_likelihood, 4)
        ),
    });
    Ok(Figure {
        wide_svg,
        wide_height: WIDE.height,
        narrow_svg,
        legend: std::iter::once(weights).chain(densities).collect(),
        notes: notes(histogram, &heights, top),
    })
}

fn notes(histogram: &WeightHistogram, heights: &[f64], top: f64) -> Vec<String> {
    let share = |count: u64| fixed(100.0 * count as f64 / histogram.weights as f64, 2);
    let mut notes = Vec::new();
    if histogram.outside > 0 {
        notes.push(format!("{} % of the weights lie outside.", share(histogram.outside)));
    }
    if histogram.zeros > 0 {
        notes.push(format!("{} % of the weights are exactly zero.", share(histogram.zeros)));
    }
    if heights.last().is_some_and(|highest| *highest > top) {
        notes.push("The highest bar is cut off.".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triangle() -> Vec<f32> {
        let value = |i: i32| (i % 41 + i % 37 - 38) as f32 * 0.01;
        (0..5000).map(value).collect()
    }

    #[test]
    fn bins_have_their_figures_and_each_density_a_line() {
        let histogram = WeightHistogram::of("layer <1>", &triangle()).unwrap();
        let figure = weight_histogram(&histogram).unwrap();
        assert_eq!(figure.wide_svg.matches("<rect class=\"mark\"").count(), 61);
        for slot in 1..4 {
            let line =
                format!("<polyline fill=\"none\" opacity=\"1\" stroke=\"var(--series-{slot})\"");
            assert!(figure.wide_svg.contains(&line), "{slot}");
        }
        assert!(figure.wide_svg.contains("layer &lt;1&gt;") && !figure.wide_svg.contains("NaN"));
        let labels: Vec<&str> = figure.legend.iter().map(|entry| entry.label.as_str()).collect();
        assert_eq!(labels[0], "layer <1>, 5,000 weights");
        assert!(labels[2].starts_with("Gaussian, shape 2.00: "), "{labels:?}");
    }

    #[test]
    fn a_heap_of_zeros_is_cut_off_and_said() {
        let mut weights = triangle();
        weights.extend(vec![0.0; 20_000]);
        let histogram = WeightHistogram::of("pruned", &weights).unwrap();
        let notes = weight_histogram(&histogram).unwrap().notes;
        assert!(notes.iter().any(|note| note.contains("exactly zero")), "{notes:?}");
    }
}
