//! Sizes, colours and marker shapes, and what turns the plotting library's output into a themed
//! element.

use maud::{Markup, PreEscaped, html};
use plotters::style::{Color, RGBColor, ShapeStyle};

/// Number of colours a page must define, `--series-0` to `--series-5`; further series use them
/// again.
pub const SERIES_COLOURS: usize = 6;

/// Drawing units per CSS pixel. The library places everything on whole units, so one per pixel
/// would be coarse.
pub(super) const UNITS: i32 = 4;

/// How large a chart is drawn, in CSS pixels.
pub(super) struct Canvas {
    pub class: &'static str,
    pub width: i32,
    pub height: i32,
    pub font: f64,
    pub y_labels_width: i32,
    pub x_ticks: usize,
    pub y_ticks: usize,
}

pub(super) const WIDE: Canvas = Canvas {
    class: "chart wide",
    width: 920,
    height: 440,
    font: 14.0,
    y_labels_width: 76,
    x_ticks: 9,
    y_ticks: 8,
};

pub(super) const NARROW: Canvas = Canvas {
    class: "chart narrow",
    width: 380,
    height: 340,
    font: 13.0,
    y_labels_width: 64,
    x_ticks: 5,
    y_ticks: 7,
};

/// A colour that the page decides. The library knows only RGB, so each ink is drawn as an RGB value
/// that nothing else uses and replaced in the finished drawing.
#[derive(Clone, Copy)]
pub(super) enum Ink {
    Text,
    Axis,
    Grid,
    Series(usize),
}

impl Ink {
    pub fn css(self) -> String {
        match self {
            Self::Text => "var(--chart-text)".to_owned(),
            Self::Axis => "var(--chart-axis)".to_owned(),
            Self::Grid => "var(--chart-grid)".to_owned(),
            Self::Series(slot) => format!("var(--series-{})", slot % SERIES_COLOURS),
        }
    }

    pub fn rgb(self) -> RGBColor {
        match self {
            Self::Text => RGBColor(0xB5, 0, 0),
            Self::Axis => RGBColor(0xB5, 0, 1),
            Self::Grid => RGBColor(0xB5, 0, 2),
            Self::Series(slot) => RGBColor(0xB5, 1, (slot % SERIES_COLOURS) as u8),
        }
    }

    /// A line of this colour, `width` CSS pixels wide.
    pub fn line(self, width: f64) -> ShapeStyle {
        self.rgb().stroke_width((width * f64::from(UNITS)).round() as u32)
    }
}

/// The finished element: `drawing` as the library wrote it, in the page's colours, with a name for
/// screen readers and with `marks` on top.
pub(super) fn finish(drawing: &str, canvas: &Canvas, description: &str, marks: &Markup) -> String {
    let body = drawing.split_once('>').map_or(drawing, |(_, body)| body);
    let mut body = body.trim_end().trim_end_matches("</svg>").to_owned();
    let inks =
        [Ink::Text, Ink::Axis, Ink::Grid].into_iter().chain((0..SERIES_COLOURS).map(Ink::Series));
    for ink in inks {
        // Attributes only: the library escapes quotation marks in text.
        let RGBColor(red, green, blue) = ink.rgb();
        body = body.replace(
            &format!("\"#{red:02X}{green:02X}{blue:02X}\""),
            &format!("\"{}\"", ink.css()),
        );
    }
    let view_box = format!("0 0 {} {}", canvas.width * UNITS, canvas.height * UNITS);
    html! {
        svg class=(canvas.class) viewBox=(view_box) role="img" aria-label=(description) xmlns="http://www.w3.org/2000/svg" {
            (PreEscaped(body)) (marks)
        }
    }
    .into_string()
}

/// The outline of the marker of series `slot` about (`x`, `y`), `radius` being half its height.
pub(super) fn marker_path(slot: usize, x: i32, y: i32, radius: i32) -> String {
    let r = radius;
    let relative = match slot % 5 {
        0 => format!("m-{r} 0a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0", d = 2 * r),
        1 => format!("m-{s} -{s}h{d}v{d}h-{d}", s = r * 7 / 8, d = 2 * (r * 7 / 8)),
        2 => format!("m0 {r}l{w} -{h}h-{d}", w = r * 9 / 8, h = 2 * r, d = 2 * (r * 9 / 8)),
        3 => format!("m0 -{q}l{q} {q}l-{q} {q}l-{q} -{q}", q = r * 5 / 4),
        _ => format!(
            "m0 -{t}l{t} -{t}l{t} {t}l-{t} {t}l{t} {t}l-{t} {t}l-{t} -{t}l-{t} {t}l-{t} -{t}l{t} -{t}l-{t} -{t}l{t} -{t}",
            t = r / 2
        ),
    };
    format!("M{x} {y}{relative}z")
}

/// The arrow at the upper edge that stands for a point above the chart.
pub(super) fn arrow_path(x: i32, y: i32, radius: i32) -> String {
    format!("M{x} {y}l{radius} {height}h-{width}z", height = radius * 3 / 2, width = 2 * radius)
}

/// A piece of line with a marker, for a legend.
pub(super) fn line_swatch(slot: usize) -> String {
    swatch(html! {
        path d="M4 28h112" fill="none" stroke=(Ink::Series(slot).css()) stroke-width="9" {}
        path d=(marker_path(slot, 60, 28, 18)) fill=(Ink::Series(slot).css()) {}
    })
}

/// A piece of line without a marker, for a legend.
pub(super) fn plain_swatch(slot: usize) -> String {
    swatch(html! {
        path d="M4 28h112" fill="none" stroke=(Ink::Series(slot).css()) stroke-width="9" {}
    })
}

/// A piece of filled ground, for a legend.
pub(super) fn filled_swatch(slot: usize) -> String {
    swatch(html! {
        path d="M4 4h112v48h-112z" fill=(Ink::Series(slot).css()) fill-opacity="0.3" {}
    })
}

/// A piece of dashed line, for a legend.
pub(super) fn dashed_swatch(slot: usize) -> String {
    swatch(html! {
        path d="M4 28h112" fill="none" stroke=(Ink::Series(slot).css()) stroke-width="9" stroke-dasharray="22 14" {}
    })
}

fn swatch(content: Markup) -> String {
    html! { svg class="swatch" viewBox="0 0 120 56" aria-hidden="true" { (content) } }.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inks_become_variables_in_attributes_and_nowhere_else() {
        let drawing = "<svg width=\"4\">\n<text fill=\"#B50000\">\n#B50000 &quot;#B50000&quot;</text>\n</svg>\n";
        let svg = finish(drawing, &WIDE, "a \"b\" & <c>", &html! { g {} });
        assert!(
            svg.contains("<text fill=\"var(--chart-text)\">\n#B50000 &quot;#B50000&quot;</text>"),
            "{svg}"
        );
        assert!(svg.contains("aria-label=\"a &quot;b&quot; &amp; &lt;c&gt;\""), "{svg}");
        assert!(svg.ends_with("<g></g></svg>"), "{svg}");
        assert_eq!(svg.matches("<svg").count(), 1);
    }

    #[test]
    fn every_series_has_a_colour_of_the_page() {
        let colours: Vec<String> = (0..8).map(|slot| Ink::Series(slot).css()).collect();
        assert_eq!(colours[0], colours[SERIES_COLOURS]);
        assert_eq!(colours[5], "var(--series-5)");
    }
}
