//! Writes a report of made-up figures, to look at the page without training anything:
//! `cargo run --release -p backslash-eval --example report -- report.html`

use std::error::Error;

use backslash_eval::plot::{Curve, FloatReference, Point, TraceStep, TrainingTrace};
use backslash_eval::report::{MethodRow, Report, Sample, methods_table};

const WEIGHTS: f64 = 1_048_576.0;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("say where to write the page")?;
    let report = Report {
        title: "Example: rate-trained against plain, 1.0 M weights".into(),
        summary: "At the same file size the rate-trained model needs 2.36 bits per byte, the plain one 2.58. \
                  These figures are made up."
            .into(),
        settings: [
            ("model", "4 layers, width 128, 4 heads, context 256"),
            ("tokenizer", "byte-level BPE, 1,024 pieces"),
            ("training", "600 steps of 12 sequences"),
            ("learning rate", "2e-3, linear warm-down over the last half"),
            ("lambda", "0.05 nats per bit per weight"),
            ("seed", "1"),
            ("text", "source and documentation of the pinned dependencies, 8 MB"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        rows: vec![
            row("plain, int8 rows + zlib-9", 812_345, 2.331, 2.334),
            row("plain, our codec at the bytes of the next", 198_800, 2.331, 2.581),
            row("rate-trained, our codec", 198_765, 2.348, 2.357),
        ],
        curves: vec![
            curve("plain", |bits| 2.331 + 2.05 * (-1.386 * bits).exp(), &[0.8, 1.1, 1.517, 2.0, 2.5, 3.0, 3.6]),
            curve("rate-trained", |bits| 2.348 + 0.85 * (-3.0 * bits).exp(), &[0.5, 0.75, 1.0, 1.25, 1.516, 2.0]),
            curve("plain, int8 rows + zlib-9", |_| 2.334, &[6.198]),
        ],
        float_bits_per_byte: vec![
            FloatReference { name: "plain".into(), bits_per_byte: 2.331 },
            FloatReference { name: "rate-trained".into(), bits_per_byte: 2.348 },
        ],
        traces: vec![trace("plain", false), trace("rate-trained", true)],
        samples: vec![Sample {
            prompt: "/// Returns the".into(),
            text: " number of elements in the `Vec<T>`, also referred to\n/// as its \"length\".\n\
                   pub fn len(&self) -> usize {\n    self.len & !FLAG\n}\n\n#[derive(Debug, Clone)]\npub struct \
                   Iter<'a, T> {\n\tinner: slice::Iter<'a, T>,\n}\n"
                .into(),
        }],
    };
    std::fs::write(&path, report.to_html()?)?;
    print!("{}", methods_table(&report.rows));
    Ok(())
}

fn row(
    method: &str,
    file_bytes: u64,
    bits_per_byte_float: f64,
    bits_per_byte_decoded: f64,
) -> MethodRow {
    let bits_per_weight = 8.0 * file_bytes as f64 / WEIGHTS;
    MethodRow {
        method: method.into(),
        file_bytes,
        bits_per_weight,
        bits_per_byte_float,
        bits_per_byte_decoded,
    }
}

fn curve(name: &str, bits_per_byte: impl Fn(f64) -> f64, bits_per_weight: &[f64]) -> Curve {
    let point = |&bits: &f64| Point {
        bytes: (bits * WEIGHTS / 8.0) as u64,
        bits_per_weight: bits,
        bits_per_byte: bits_per_byte(bits),
        interval: None,
    };
    Curve { name: name.into(), points: bits_per_weight.iter().map(point).collect() }
}

fn trace(name: &str, has_rate: bool) -> TrainingTrace {
    let step = |step: u64| {
        let progress = step as f64 / 600.0;
        let ripple = 0.06 * ((step * 7919 % 101) as f64 / 101.0 - 0.5);
        let loss = 3.3 + 3.6 * (-progress * 14.0).exp() + 0.5 * (-progress * 2.5).exp() + ripple;
        TraceStep {
            step,
            loss_nats: if has_rate { loss + 0.03 * progress } else { loss },
            estimated_bits_per_weight: has_rate.then_some(1.5 + 4.5 * (-progress * 3.0).exp()),
        }
    };
    let steps = (1..=600).map(step).collect();
    TrainingTrace { name: name.into(), steps, ..TrainingTrace::default() }
}
