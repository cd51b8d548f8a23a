//! The bytes of each tensor of a file, as bars.

use maud::{Markup, html};
use serde::Serialize;

use super::Figure;
use super::theme::{Ink, NARROW, WIDE};
use crate::table::{fixed, grouped};

/// Share of all bytes below which tensors are one bar together.
const SMALL: f64 = 0.002;
/// Height of a row in the wide and in the narrow drawing, in CSS pixels; the narrow one has the name above the bar.
const ROWS: [i32; 2] = [22, 40];
/// Room for the names in the wide drawing.
const NAMES: i32 = 290;
/// Room for the figures behind the longest bar.
const FIGURES: [i32; 2] = [200, 185];

/// What a tensor takes in a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorBudget {
    /// Name of the tensor.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Coder of its codes, or of its bytes where it is not quantised.
    pub coder: String,
    /// All of its bytes but those in the file's directory.
    pub bytes: u64,
    /// These, in bits, per weight.
    pub bits_per_weight: f64,
    /// Entropy of the histogram of its codes, in bits per weight: a proxy, not a size. None of a tensor without codes.
    pub entropy_bits: Option<f64>,
}

impl TensorBudget {
    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.shape.iter().map(|extent| *extent as u64).product()
    }

    /// Rows × columns × ….
    pub fn extents(&self) -> String {
        self.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
    }
}

/// A bar with its texts.
struct Bar {
    name: String,
    bytes: u64,
    figures: String,
    tooltip: String,
}

/// Draws a bar for every tensor, in the order given; small ones, of less than 0.2 % of the bytes, are one bar at the end.
/// `None` where no tensor has a byte.
///
/// ```
/// use backslash_eval::plot::{TensorBudget, tensor_bytes};
///
/// let tensor = TensorBudget {
///     name: "head.weight".into(),
///     shape: vec![64, 32],
///     coder: "mix".into(),
///     bytes: 512,
///     bits_per_weight: 2.0,
///     entropy_bits: Some(2.1),
/// };
/// let figure = tensor_bytes(&[tensor]).expect("a tensor with bytes");
/// assert!(figure.wide_svg.contains("head.weight, 64×32: 512 bytes, 2.000 bits per weight"));
/// ```
pub fn tensor_bytes(tensors: &[TensorBudget]) -> Option<Figure> {
    let total: u64 = tensors.iter().map(|tensor| tensor.bytes).sum();
    let is_small = |tensor: &&TensorBudget| (tensor.bytes as f64) < SMALL * total as f64;
    let (small, large): (Vec<_>, Vec<_>) = tensors.iter().partition(is_small);
    let mut bars: Vec<Bar> = large.into_iter().map(|tensor| bar(tensor, total)).collect();
    bars.extend(together(&small, total));
    let most = bars.iter().map(|bar| bar.bytes).max().filter(|most| *most > 0)?;
    let description = format!(
        "Bar chart of the bytes of {} tensors: {}",
        tensors.len(),
        bars.iter().map(|bar| bar.tooltip.as_str()).collect::<Vec<_>>().join("; ")
    );
    let rows = bars.len() as i32;
    Some(Figure {
        wide_svg: drawing(WIDE.class, WIDE.width, ROWS[0] * rows, &description, &wide(&bars, most)),
        wide_height: ROWS[0] * rows,
        narrow_svg: drawing(
            NARROW.class,
            NARROW.width,
            ROWS[1] * rows,
            &description,
            &narrow(&bars, most),
        ),
        legend: Vec::new(),
        notes: Vec::new(),
    })
}

fn bar(tensor: &TensorBudget, total: u64) -> Bar {
    let share = 100.0 * tensor.bytes as f64 / total as f64;
    Bar {
        name: tensor.name.clone(),
        bytes: tensor.bytes,
        figures: format!(
            "{} B, {} bits/weight",
            grouped(tensor.bytes),
            fixed(tensor.bits_per_weight, 2)
        ),
        tooltip: format!(
            "{}, {}: {} bytes, {} bits per weight, {} % of all tensors",
            tensor.name,
            tensor.extents(),
            grouped(tensor.bytes),
            fixed(tensor.bits_per_weight, 3),
            fixed(share, 1)
        ),
    }
}

/// One bar for all of these.
fn together(tensors: &[&TensorBudget], total: u64) -> Option<Bar> {
    let bytes: u64 = tensors.iter().map(|tensor| tensor.bytes).sum();
    let weights: u64 = tensors.iter().map(|tensor| tensor.weights()).sum();
    let all = TensorBudget {
        name: match tensors {
            [] => return None,
            [tensor] => return Some(bar(tensor, total)),
            tensors => format!("{} small tensors", tensors.len()),
        },
        shape: vec![usize::try_from(weights).ok()?],
        coder: String::new(),
        bytes,
        bits_per_weight: 8.0 * bytes as f64 / weights.max(1) as f64,
        entropy_bits: None,
    };
    Some(bar(&all, total))
}

fn wide(bars: &[Bar], most: u64) -> Markup {
    let room = WIDE.width - NAMES - FIGURES[0];
    html! {
        @for (row, bar) in (0..).zip(bars) {
            @let (top, length) = (ROWS[0] * row, length(bar, most, room));
            g class="mark" {
                title { (bar.tooltip) }
                rect x="0" y=(top) width=(WIDE.width) height=(ROWS[0]) fill="transparent" {}
                text x=(NAMES - 8) y=(top + 16) text-anchor="end" font-size="13" fill=(Ink::Text.css()) { (bar.name) }
                rect x=(NAMES) y=(top + 4) width=(length) height="15" rx="2" fill=(Ink::Series(0).css()) {}
                text x=(NAMES + length + 6) y=(top + 16) font-size="13" fill=(Ink::Text.css()) { (bar.figures) }
            }
        }
    }
}

fn narrow(bars: &[Bar], most: u64) -> Markup {
    let room = NARROW.width - FIGURES[1];
    html! {
        @for (row, bar) in (0..).zip(bars) {
            @let (top, length) = (ROWS[1] * row, length(bar, most, room));
            g class="mark" {
                title { (bar.tooltip) }
                rect x="0" y=(top) width=(NARROW.width) height=(ROWS[1]) fill="transparent" {}
                text x="0" y=(top + 14) font-size="12" fill=(Ink::Text.css()) { (bar.name) }
                rect x="0" y=(top + 19) width=(length) height="14" rx="2" fill=(Ink::Series(0).css()) {}
                text x=(length + 6) y=(top + 30) font-size="12" fill=(Ink::Text.css()) { (bar.figures) }
            }
        }
    }
}

/// Length of a bar where the longest takes all the room.
fn length(bar: &Bar, most: u64, room: i32) -> i32 {
    ((f64::from(room) * bar.bytes as f64 / most as f64).round() as i32).max(1)
}

fn drawing(class: &str, width: i32, height: i32, description: &str, content: &Markup) -> String {
    html! {
        svg class=(class) viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(description) xmlns="http://www.w3.org/2000/svg" {
            (content)
        }
    }
    .into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, bytes: u64) -> TensorBudget {
        TensorBudget {
            name: name.to_owned(),
            shape: vec![100, 10],
            coder: "mix".to_owned(),
            bytes,
            bits_per_weight: bytes as f64 / 125.0,
            entropy_bits: None,
        }
    }

    #[test]
    fn large_tensors_have_bars_and_small_ones_one_together() {
        let tensors =
            [tensor("a<b", 3000), tensor("norm.1", 2), tensor("c", 1500), tensor("norm.2", 3)];
        let figure = tensor_bytes(&tensors).unwrap();
        for svg in [&figure.wide_svg, &figure.narrow_svg] {
            assert_eq!(svg.matches("<g class=\"mark\">").count(), 3);
            assert!(
                svg.contains("a&lt;b, 100×10: 3,000 bytes, 24.000 bits per weight, 66.6 % of all")
            );
            assert!(svg.contains("2 small tensors, 2000: 5 bytes"), "{svg}");
        }
        let room = WIDE.width - NAMES - FIGURES[0];
        assert!(figure.wide_svg.contains(&format!("width=\"{room}\"")));
        assert!(figure.wide_svg.contains(&format!("width=\"{}\"", room / 2)));
        assert_eq!(figure.wide_height, 3 * ROWS[0]);
    }

    #[test]
    fn nothing_has_no_bars() {
        assert_eq!(tensor_bytes(&[]), None);
        assert_eq!(tensor_bytes(&[tensor("empty", 0)]), None);
    }
}
