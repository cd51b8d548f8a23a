//! `backslash bench-codec`.

use anyhow::Result;
use backslash_codec::{Limits, Tensor, compare_coders, read_file};
use backslash_eval::table::{Column, Table, grouped};
use serde_json::json;

use crate::arguments::BenchCodec;
use crate::console::say;
use crate::output;

pub fn run(arguments: BenchCodec) -> Result<()> {
    let artifact = read_file(&arguments.file, &Limits::default())?;
    let count = |tensor: &Tensor| match tensor {
        Tensor::Quantized(tensor) => tensor.codes.len() as u64,
        Tensor::Raw(_) => 0,
    };
    let codes: u64 = artifact.tensors.values().map(count).sum();
    say(&format!("running every coder on {} codes", grouped(codes)));
    let results = compare_coders(&artifact, arguments.repetitions)?;
    let bits = |bytes: u64| 8.0 * bytes as f64 / codes.max(1) as f64;
    if arguments.json {
        let rows: Vec<_> = results
            .iter()
            .map(|result| {
                json!({
                    "coder": result.coder,
                    "bytes": result.bytes,
                    "bits_per_code": bits(result.bytes),
                    "encode_seconds": result.encode_seconds,
                    "decode_seconds": result.decode_seconds,
                })
            })
            .collect();
        return output::print_json(&json!({ "codes": codes, "coders": rows }));
    }
    let mut table = Table::new([
        Column::text("coder"),
        Column::number("bytes"),
        Column::number("bits per code"),
        Column::number("encode, M codes/s"),
        Column::number("decode, M codes/s"),
    ]);
    let speed = |seconds: Option<f64>| {
        seconds.map_or_else(|| "–".to_owned(), |s| format!("{:.1}", codes as f64 / s / 1e6))
    };
    for result in &results {
        table.push([
            result.coder.clone(),
            grouped(result.bytes),
            format!("{:.4}", bits(result.bytes)),
            speed(result.encode_seconds),
            speed(result.decode_seconds),
        ]);
    }
    output::print(&table.to_string())
}
