//! A chart of lines: the axes and lines by the plotting library, the markers with their tooltips by
//! us, because the library's SVG has no tooltips.

use maud::{Markup, html};
use plotters::prelude::*;

use super::range::AxisRange;
use super::theme::{Canvas, Ink, NARROW, UNITS, WIDE, arrow_path, finish, marker_path};
use crate::EvalError;
use crate::table::grouped;

/// Font size in the library's measure for one CSS pixel; it divides by this when it writes SVG.
const FONT_UNIT: f64 = 1.24;

/// A place on the chart with the text that appears when one points at it.
pub(super) struct Mark {
    pub x: f64,
    pub y: f64,
    pub tooltip: String,
    /// Least and greatest x and y of what the place is the mean of.
    pub extent: Option<Extent>,
}

/// What a mean lies between.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub x: (f64, f64),
    pub y: (f64, f64),
}

/// A line, in order of `x`.
pub(super) struct Line {
    /// Decides colour and marker.
    pub slot: usize,
    pub points: Vec<(f64, f64)>,
    /// Where markers stand; need not be all points.
    pub marks: Vec<Mark>,
}

/// A filled rectangle on the horizontal axis.
pub(super) struct Bar {
    pub slot: usize,
    pub x: (f64, f64),
    pub y: f64,
    pub tooltip: String,
}

/// A dashed horizontal line.
pub(super) struct Level {
    pub slot: usize,
    pub y: f64,
    pub tooltip: String,
}

/// A second reading of the horizontal axis, at the top.
pub(super) struct TopAxis {
    pub title: String,
    /// Its unit per unit of the lower axis.
    pub per_x: f64,
}

pub(super) struct LineChart {
    /// What the chart shows, in a sentence, for those who cannot see it.
    pub description: String,
    pub x_title: String,
    pub y_title: String,
    pub top_axis: Option<TopAxis>,
    pub x: AxisRange,
    pub y: AxisRange,
    pub lines: Vec<Line>,
    pub levels: Vec<Level>,
    pub bars: Vec<Bar>,
}

impl LineChart {
    /// The chart as SVG for a wide and a narrow page.
    pub fn draw(&self) -> Result<(String, String), EvalError> {
        let draw = |canvas: &Canvas| {
            self.draw_on(canvas).map_err(|error| EvalError::Plot {
                chart: self.description.clone(),
                reason: error.to_string(),
            })
        };
        Ok((draw(&WIDE)?, draw(&NARROW)?))
    }

    fn draw_on(&self, canvas: &Canvas) -> Result<String, DrawingAreaErrorKind<std::io::Error>> {
        let mut drawing = String::new();
        let marks = {
            let size = ((canvas.width * UNITS) as u32, (canvas.height * UNITS) as u32);
            let root = SVGBackend::with_string(&mut drawing, size).into_drawing_area();
            let font = ("sans-serif", canvas.font * f64::from(UNITS) * FONT_UNIT)
                .into_font()
                .color(&Ink::Text.rgb());
            let mut builder = ChartBuilder::on(&root);
            builder
                .margin(6 * UNITS)
                .margin_right(16 * UNITS)
                .x_label_area_size(50 * UNITS)
                .y_label_area_size(canvas.y_labels_width * UNITS);
            if self.top_axis.is_some() {
                builder.top_x_label_area_size(50 * UNITS);
            }
            let per_x = self.top_axis.as_ref().map_or(1.0, |axis| axis.per_x);
            let top = AxisRange { low: self.x.low * per_x, high: self.x.high * per_x };
            let mut chart = builder
                .build_cartesian_2d(self.x.low..self.x.high, self.y.low..self.y.high)?
                .set_secondary_coord(top.low..top.high, self.y.low..self.y.high);

            chart
                .configure_mesh()
                .max_light_lines(0)
                .bold_line_style(Ink::Grid.line(1.0))
                .axis_style(Ink::Axis.line(1.0))
                .label_style(font.clone())
                .axis_desc_style(font.clone())
                .set_all_tick_mark_size(4 * UNITS)
                .x_labels(canvas.x_ticks)
                .y_labels(canvas.y_ticks)
                .x_label_formatter(&|&value| tick_label(value, &self.x))
                .y_label_formatter(&|&value| tick_label(value, &self.y))
                .x_desc(&self.x_title)
                .y_desc(&self.y_title)
                .draw()?;
            if let Some(axis) = &self.top_axis {
                chart
                    .configure_secondary_axes()
                    .axis_style(Ink::Axis.line(1.0))
                    .label_style(font.clone())
                    .axis_desc_style(font)
                    .set_all_tick_mark_size(4 * UNITS)
                    .x_labels(canvas.x_ticks)
                    .x_label_formatter(&|&value| tick_label(value, &top))
                    .x_desc(&axis.title)
                    .draw()?;
            }

            for level in self.levels.iter().filter(|level| level.y <= self.y.high) {
                let ends = [(self.x.low, level.y), (self.x.high, level.y)];
                let style = Ink::Series(level.slot).line(1.5);
                chart.draw_series(DashedLineSeries::new(ends, 7 * UNITS, 5 * UNITS, style))?;
            }
            for line in &self.lines {
                for piece in pieces_below(&line.points, self.y.high) {
                    chart.draw_series(LineSeries::new(piece, Ink::Series(line.slot).line(2.0)))?;
                }
            }
            let marks = self.marks(|x, y| chart.backend_coord(&(x, y)));
            root.present()?;
            marks
        };
        Ok(finish(&drawing, canvas, &self.description, &marks))
    }

    /// What lies on top of the drawing; `place` gives the drawing's coordinates.
    fn marks(&self, place: impl Fn(f64, f64) -> (i32, i32)) -> Markup {
        html! {
            @for bar in &self.bars {
                @let (left, top) = place(bar.x.0, bar.y.min(self.y.high));
                @let (right, bottom) = place(bar.x.1, self.y.low);
                rect class="mark" x=(left) y=(top) width=((right - left).max(1)) height=((bottom - top).max(0))
                    fill=(Ink::Series(bar.slot).css()) fill-opacity="0.3" {
                    title { (bar.tooltip) }
                }
            }
            @for line in &self.lines {
                @if let Some(outline) = self.band(line, &place) {
                    path d=(outline) fill=(Ink::Series(line.slot).css()) fill-opacity="0.2" pointer-events="none" {}
                }
            }
            @for level in self.levels.iter().filter(|level| level.y <= self.y.high) {
                @let (left, y) = place(self.x.low, level.y);
                @let (right, _) = place(self.x.high, level.y);
                // Invisible and thick, so that the thin line can be pointed at.
                path d=(format!("M{left} {y}H{right}")) stroke="transparent" stroke-width=(10 * UNITS) {
                    title { (level.tooltip) }
                }
            }
            @for line in &self.lines {
                @for mark in &line.marks {
                    @let (x, y) = place(mark.x, mark.y.min(self.y.high));
                    g class="mark" {
                        title { (mark.tooltip) }
                        circle cx=(x) cy=(y) r=(11 * UNITS) fill="transparent" {}
                        @if let Some(extent) = mark.extent.filter(|_| mark.y <= self.y.high) {
                            path d=(self.whiskers(mark, extent, &place)) fill="none"
                                stroke=(Ink::Series(line.slot).css()) stroke-width=(3 * UNITS / 2) {}
                        }
                        @if mark.y > self.y.high {
                            path d=(arrow_path(x, y, 6 * UNITS)) fill="var(--page)"
                                stroke=(Ink::Series(line.slot).css()) stroke-width=(2 * UNITS) {}
                        } @else {
                            path d=(marker_path(line.slot, x, y, 5 * UNITS)) fill=(Ink::Series(line.slot).css())
                                stroke="var(--page)" stroke-width=(UNITS) {}
                        }
                    }
                }
            }
        }
    }
}

impl LineChart {
    /// The outline of what lies between the least and the greatest y at the marks of a line that have an extent; `None` where
    /// fewer than two have one.
    fn band(&self, line: &Line, place: &impl Fn(f64, f64) -> (i32, i32)) -> Option<String> {
        let of = |mark: &Mark| Some((mark.x, mark.extent?.y));
        let extents: Vec<(f64, (f64, f64))> = line.marks.iter().filter_map(of).collect();
        if extents.len() < 2 {
            return None;
        }
        let lows = extents.iter().map(|(x, y)| (*x, y.0));
        let highs = extents.iter().rev().map(|(x, y)| (*x, y.1));
        let corners = lows.chain(highs).map(|(x, y)| {
            let (x, y) = place(x, y.clamp(self.y.low, self.y.high));
            format!("{x} {y}")
        });
        Some(format!("M{}z", corners.collect::<Vec<_>>().join("L")))
    }

    /// A cross from the least to the greatest x and y.
    fn whiskers(
        &self,
        mark: &Mark,
        extent: Extent,
        place: &impl Fn(f64, f64) -> (i32, i32),
    ) -> String {
        let at = |x: f64, y: f64| {
            place(x.clamp(self.x.low, self.x.high), y.clamp(self.y.low, self.y.high))
        };
        let (low, high) = (at(mark.x, extent.y.0), at(mark.x, extent.y.1));
        let (left, right) = (at(extent.x.0, mark.y), at(extent.x.1, mark.y));
        format!("M{} {}V{}M{} {}H{}", low.0, low.1, high.1, left.0, left.1, right.0)
    }
}

fn tick_label(value: f64, axis: &AxisRange) -> String {
    let decimals = axis.tick_decimals();
    if decimals == 0 && value >= 0.0 {
        grouped(value.round() as u64)
    } else {
        format!("{value:.decimals$}")
    }
}

/// The parts of a line that lie at or below `top`, cut where it crosses.
fn pieces_below(points: &[(f64, f64)], top: f64) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut previous: Option<(f64, f64)> = None;
    for &point in points {
        if let Some(before) = previous
            && (before.1 > top) != (point.1 > top)
        {
            let share = (top - before.1) / (point.1 - before.1);
            piece.push((before.0 + share * (point.0 - before.0), top));
        }
        if point.1 <= top {
            piece.push(point);
        } else if !piece.is_empty() {
            pieces.push(std::mem::take(&mut piece));
        }
        previous = Some(point);
    }
    pieces.push(piece);
    pieces.retain(|piece| piece.len() > 1);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_leave_the_chart() {
        let points = [(0.0, 5.0), (1.0, 3.0), (2.0, 1.0), (3.0, 5.0), (4.0, 9.0)];
        assert_eq!(
            pieces_below(&points, 4.0),
            [vec![(0.5, 4.0), (1.0, 3.0), (2.0, 1.0), (2.75, 4.0)]]
        );
        assert_eq!(pieces_below(&points, 9.0), [points.to_vec()]);
        assert!(pieces_below(&points, 0.5).is_empty());
        assert!(pieces_below(&points[..1], 9.0).is_empty());
    }

    #[test]
    fn ticks_are_grouped_when_whole() {
        assert_eq!(tick_label(1500.0, &AxisRange { low: 0.0, high: 4000.0 }), "1,500");
        assert_eq!(tick_label(2.35, &AxisRange { low: 2.3, high: 2.7 }), "2.35");
        assert_eq!(tick_label(-20.0, &AxisRange { low: -40.0, high: 40.0 }), "-20");
    }
}
