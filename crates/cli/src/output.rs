//! Results on stdout.

use std::io::Write;

use anyhow::Result;
use backslash_codec::{Inspection, Origin, SizeSplit, TensorReport};
use backslash_eval::Quality;
use backslash_eval::table::{Column, Table, grouped};
use serde::Serialize;
use serde_json::{Value, json};

/// Prints one line or table of a result.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    Ok(stdout.flush()?)
}

/// Prints a result as JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// The parts of a file's size.
pub fn split_json(split: &SizeSplit) -> Value {
    json!({
        "total": split.total(),
        "payload": split.payload,
        "tables": split.tables,
        "scales": split.scales,
        "corrections": split.corrections,
        "uncoded": split.uncoded,
        "directory": split.directory,
    })
}

/// Where the bytes of a file go.
pub fn inspection_json(inspection: &Inspection) -> Value {
    let tensor = |tensor: &TensorReport| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "coder": tensor.coder,
            "step": tensor.step,
            "origin": tensor.origin.map(|Origin { seed, stream, bound }| {
                json!({ "seed": seed, "stream": stream, "bound": bound })
            }),
            "bits_per_weight": tensor.bits_per_weight,
            "entropy_bits": tensor.entropy_bits,
            "split": split_json(&tensor.split),
        })
    };
    json!({
        "split": split_json(&inspection.split),
        "tensors": inspection.tensors.iter().map(tensor).collect::<Vec<_>>(),
    })
}

/// The tensors of a file, a line each.
pub fn inspection_table(inspection: &Inspection) -> Table<7> {
    let mut table = Table::new([
        Column::text("tensor"),
        Column::text("shape"),
        Column::text("coder"),
        Column::number("step"),
        Column::number("bits/weight"),
        Column::number("entropy"),
        Column::number("bytes"),
    ]);
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    for tensor in &inspection.tensors {
        let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        table.push([
            tensor.name.clone(),
            shape.join("×"),
            match tensor.origin {
                None => tensor.coder.clone(),
                Some(_) => format!("{} from start", tensor.coder),
            },
            number(tensor.step.map(f64::from), 6),
            format!("{:.3}", tensor.bits_per_weight),
            number(tensor.entropy_bits, 3),
            grouped(tensor.split.total()),
        ]);
    }
    table
}

/// The figures of an evaluation.
pub fn quality_json(quality: &Quality) -> Value {
    if let Some(accuracy) = quality.accuracy() {
        return json!({
            "accuracy": accuracy,
            "nats_per_example": quality.nats_per_token(),
            "examples": quality.tokens,
            "correct": quality.correct,
        });
    }
    json!({
        "bits_per_byte": quality.bits_per_byte(),
        "nats_per_token": quality.nats_per_token(),
        "tokens": quality.tokens,
        "bytes": quality.bytes,
    })
}
