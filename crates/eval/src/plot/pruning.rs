//! Bits per byte, or accuracy, of pruned models against their sparsity.

use super::line_chart::{Extent, Line, LineChart, Mark};
use super::range::{AxisRange, is_drawable};
use super::theme::{WIDE, line_swatch};
use super::{Figure, LegendEntry};
use crate::EvalError;
use crate::prune::{PruneCurves, PrunePoint, Reached};
use crate::table::{fixed, grouped};

/// Draws a line for every kind of model, the mean over its seeds with the interval of three or more
/// ([`Mean::band`](crate::Mean::band)); `None` when there is no point to draw. In bits per byte the vertical axis ends above
/// twice the best, where a model has nothing left to lose. All curves are to be of one figure.
///
/// # Errors
///
/// [`EvalError::Plot`] when the plotting library refuses.
pub fn prune_curves(curves: &[PruneCurves]) -> Result<Option<Figure>, EvalError> {
    let is_placed = |(_, point): &(usize, PrunePoint)| is_drawable(point.decoded.figure());
    let drawable: Vec<Vec<(usize, PrunePoint)>> = curves
        .iter()
        .map(|curve| curve.mean().points.into_iter().enumerate().filter(is_placed).collect())
        .collect();
    let all = || drawable.iter().flatten().map(|(_, point)| point);
    let Some(first) = all().next() else { return Ok(None) };
    let what = first.decoded.name();
    let best = all().map(|point| point.decoded.figure()).fold(f64::INFINITY, f64::min);
    let is_shown = |point: &&PrunePoint| match point.decoded {
        Reached::BitsPerByte(bits) => bits <= 2.0 * best,
        Reached::Accuracy(_) => true,
    };
    let shown = all().filter(is_shown).map(|point| point.decoded.figure());
    let Some(y) = AxisRange::of_all(shown) else { return Ok(None) };
    let line = |slot: usize, curve: &PruneCurves, points: &[(usize, PrunePoint)]| Line {
        slot,
        points: points
            .iter()
            .map(|(_, point)| (100.0 * point.sparsity, point.decoded.figure()))
            .collect(),
        marks: points
            .iter()
            .map(|(at, point)| Mark {
                x: 100.0 * point.sparsity,
                y: point.decoded.figure(),
                tooltip: format!(
                    "{}, {} % pruned: {} {what}, {} bytes",
                    curve.name,
                    fixed(100.0 * point.sparsity, 1),
                    fixed(point.decoded.figure(), 4),
                    grouped(point.bytes)
                ),
                extent: curve.decoded(*at).and_then(|mean| mean.band()).map(|band| Extent {
                    x: (100.0 * point.sparsity, 100.0 * point.sparsity),
                    y: band,
                }),
            })
            .collect(),
    };
    let pairs = || curves.iter().zip(&drawable).enumerate().filter(|(_, pair)| !pair.1.is_empty());
    let names: Vec<&str> = pairs().map(|(_, pair)| pair.0.name.as_str()).collect();
    let chart = LineChart {
        description: format!(
            "Line chart of {what} of pruned models against sparsity: {}",
            names.join(", ")
        ),
        x_title: "pruned weights of the matrices (%)".to_owned(),
        y_title: format!("{what}, decoded"),
        top_axis: None,
        x: AxisRange { low: 0.0, high: 100.0 },
        y,
        lines: pairs().map(|(slot, (curve, points))| line(slot, curve, points)).collect(),
        levels: Vec::new(),
        bars: Vec::new(),
    };
    let (wide_svg, narrow_svg) = chart.draw()?;
    let legend = pairs().map(|(slot, (curve, _))| {
        let lost = match curve.sparsity_at_loss(0.1) {
            Some(sparsity) => format!("loses 10 % at {} %", fixed(100.0 * sparsity.mean, 1)),
            None => "loses less than 10 %".to_owned(),
        };
        LegendEntry { swatch_svg: line_swatch(slot), label: format!("{}: {lost}", curve.name) }
    });
    let above = all().filter(|point| point.decoded.figure() > y.high).count();
    let notes = match above {
        0 => Vec::new(),
        above => vec![format!("Points above the chart, as arrows at its edge: {above}.")],
    };
    Ok(Some(Figure {
        wide_svg,
        wide_height: WIDE.height,
        narrow_svg,
        legend: legend.collect(),
        notes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::PruneCurve;

    #[test]
    fn every_model_has_a_line_and_says_where_a_tenth_is_lost() {
        let seeds = |name: &str, seeds: &[&[(f64, f64)]]| PruneCurves {
            name: name.to_owned(),
            curves: seeds.iter().map(|figures| PruneCurve::of_figures(name, figures)).collect(),
        };
        let plain: &[(f64, f64)] = &[(0.0, 2.0), (0.5, 2.4), (0.9, 9.0)];
        let curves = [
            seeds("plain", &[plain; 3]),
            seeds("rate", &[&[(0.0, 2.1), (0.5, 2.1), (0.9, f64::NAN)]]),
        ];
        let figure = prune_curves(&curves).unwrap().unwrap();
        let labels: Vec<&str> = figure.legend.iter().map(|entry| entry.label.as_str()).collect();
        assert_eq!(labels, ["plain: loses 10 % at 25.0 %", "rate: loses 10 % at 50.0 %"]);
        assert_eq!(figure.wide_svg.matches("<g class=\"mark\">").count(), 5);
        assert!(
            figure.wide_svg.contains("plain, 50.0 % pruned: 2.4000 bits per byte, 1,000 bytes")
        );
        assert_eq!(figure.wide_svg.matches("fill-opacity=\"0.2\"").count(), 1, "a band of seeds");
        assert_eq!(figure.notes, ["Points above the chart, as arrows at its edge: 1."]);
        assert_eq!(prune_curves(&[seeds("none", &[&[(0.0, f64::NAN)]])]).unwrap(), None);
    }
}
