//! `backslash inspect`.

use std::io::Write;

use anyhow::Result;
use backslash_codec::{Limits, PYTHON_DECODER, inspect_codes, read_bytes};
use backslash_eval::table::grouped;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::json;

use crate::arguments::Inspect;
use crate::output;

pub fn run(arguments: Inspect) -> Result<()> {
    let bytes = read_bytes(&arguments.file, &Limits::default())?;
    let inspection = inspect_codes(&bytes, &Limits::default())?;
    let decoder = arguments.accounting.then(decoder_bytes).transpose()?;
    if arguments.json {
        let mut value = output::inspection_json(&inspection);
        value["file"] = json!(arguments.file);
        value["decoder_bytes"] = json!(decoder.map(|(plain, _)| plain));
        value["decoder_bytes_zlib"] = json!(decoder.map(|(_, packed)| packed));
        return output::print_json(&value);
    }
    let table = output::inspection_table(&inspection);
    let split = &inspection.split;
    let accounting = decoder.map_or_else(String::new, |(plain, packed)| {
        format!(
            "\ndecoder in Python: {} bytes plain, {} with zlib-9; file and packed decoder {}",
            grouped(plain),
            grouped(packed),
            grouped(split.total() + packed),
        )
    });
    output::print(&format!(
        "{table}\n{} bytes: payload {}, tables {}, scales {}, corrections {}, uncoded {}, directory {}{accounting}",
        grouped(split.total()),
        grouped(split.payload),
        grouped(split.tables),
        grouped(split.scales),
        grouped(split.corrections),
        grouped(split.uncoded),
        grouped(split.directory),
    ))
}

/// Bytes of the decoder that needs only Python and NumPy, plain and as one zlib stream.
fn decoder_bytes() -> Result<(u64, u64)> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(PYTHON_DECODER.as_bytes())?;
    Ok((PYTHON_DECODER.len() as u64, encoder.finish()?.len() as u64))
}
