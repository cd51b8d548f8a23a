//! A chart as a file of its own, such as a document can show.

use maud::{PreEscaped, html};

use super::Figure;
use super::theme::WIDE;

/// Height of a line of the legend, and of a note, in CSS pixels.
const LINE: i32 = 24;
/// Left edge of the legend's text.
const TEXT: i32 = 56;
const PALETTE: &str = include_str!("palette.css");
const STYLE: &str = "svg { background: var(--page) } text { font-family: system-ui, sans-serif; fill: var(--text) } .legend { font-size: 15px } .note { font-size: 14px }";

/// The wide drawing of a figure with its legend and its notes, as an SVG document that brings its colours.
///
/// ```
/// use backslash_eval::plot::{Curve, Point, rate_distortion, standalone};
///
/// let point = Point { bytes: 250_000, bits_per_weight: 2.0, bits_per_byte: 2.41, interval: None };
/// let figure = rate_distortion(&[Curve { name: "a < b".into(), points: vec![point] }], &[])?.expect("a point");
/// let svg = standalone(&figure);
/// assert!(svg.starts_with("<svg xmlns=") && svg.contains("a &lt; b</text>"));
/// # Ok::<(), backslash_eval::EvalError>(())
/// ```
pub fn standalone(figure: &Figure) -> String {
    let lines = (figure.legend.len() + figure.notes.len()) as i32;
    let height = figure.wide_height + LINE * lines + LINE / 2;
    let drawing = placed(&figure.wide_svg, 0, 0, WIDE.width, figure.wide_height);
    let baseline = |index: usize| figure.wide_height + LINE * (index as i32 + 1) - LINE / 4;
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(WIDE.width) height=(height) viewBox=(format!("0 0 {} {height}", WIDE.width)) {
            style { (PreEscaped(PALETTE)) (PreEscaped(STYLE)) }
            (PreEscaped(drawing))
            @for (index, entry) in figure.legend.iter().enumerate() {
                (PreEscaped(placed(&entry.swatch_svg, 16, baseline(index) - 12, 30, 14)))
                text class="legend" x=(TEXT) y=(baseline(index)) { (entry.label) }
            }
            @for (index, note) in figure.notes.iter().enumerate() {
                text class="note" x="16" y=(baseline(figure.legend.len() + index)) { (note) }
            }
        }
    }
    .into_string()
}

/// An `svg` element at a place within another.
fn placed(svg: &str, x: i32, y: i32, width: i32, height: i32) -> String {
    let place = format!("<svg x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"");
    svg.replacen("<svg", &place, 1)
}
