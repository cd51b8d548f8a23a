//! What several commands do alike: open models, make files of weights, measure them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use backslash_codec::{
    Artifact, Effort, Limits, Origin, Overwrite, decode, encode_with, write_bytes,
};
use backslash_data::ByteTable;
use backslash_eval::{ModelFile, Quality, TestSet, decoded_weights};
use backslash_model::{ModelConfig, NamedWeights};
use backslash_quant::{LineScales, Plan};
use serde::{Deserialize, Serialize};

use crate::console::say;
use crate::failure::Usage;

/// Opens a model whose tensors are to be compressed, and says which of a folder's will not be in the file.
pub fn open_model(path: &Path) -> Result<ModelFile> {
    let model = ModelFile::open(path)?;
    if let Some((first, others)) = model.left_out.split_first() {
        let more = match others.len() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        say(&format!(
            "{}: left out, since the network does not have it: `{first}`{more}",
            path.display()
        ));
    }
    Ok(model)
}

/// Keeps the first `count` tokens or examples; all where `count` is 0.
pub fn limit<T>(items: &mut Vec<T>, count: usize) {
    if count > 0 {
        items.truncate(count);
    }
}

/// Bits per byte of weights.
pub fn measure(
    config: &ModelConfig,
    weights: &NamedWeights,
    tokens: &[u16],
    table: &ByteTable,
) -> Result<Quality> {
    Ok(TestSet::Text { tokens, table }.quality(config, weights)?)
}

/// A file's bytes and the quality of what was decoded from them.
pub struct Measured {
    pub bytes: Vec<u8>,
    pub quality: Quality,
}

/// Encodes, decodes the bytes again, and measures the decoded model.
pub fn roundtrip(
    artifact: &Artifact,
    effort: Effort,
    tokens: &[u16],
    table: &ByteTable,
) -> Result<Measured> {
    let bytes = encode_with(artifact, effort)?;
    let decoded = decode(&bytes, &Limits::default())?;
    let model = ModelFile::from_artifact(Path::new("the encoded model"), &decoded)?;
    let quality = measure(&model.config, &decoded_weights(&decoded)?, tokens, table)?;
    Ok(Measured { bytes, quality })
}

/// What a run has learned about the codes of a tensor, as its `steps.json` has it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum LearnedStep {
    /// One step, codes from zero.
    Alone(f32),
    Detailed {
        step: f32,
        #[serde(flatten)]
        origin: Option<LearnedOrigin>,
        #[serde(skip_serializing_if = "Option::is_none")]
        scales: Option<LineScales>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dead_zone: Option<f32>,
    },
}

/// What codes are added to.
#[derive(Serialize, Deserialize)]
struct LearnedOrigin {
    seed: u64,
    stream: u64,
    bound: f32,
}

/// Writes the steps of a plan, and what codes are added to, into the `steps.json` of a folder.
pub fn write_plan(folder: &Path, plan: &Plan) -> Result<()> {
    let learned = plan.steps.iter().map(|(name, &step)| {
        let origin = plan.origins.get(name);
        let origin =
            origin.map(|&Origin { seed, stream, bound }| LearnedOrigin { seed, stream, bound });
        let scales = plan.scales.get(name).cloned();
        let dead_zone = plan.dead_zones.get(name).copied();
        let learned = match (&origin, &scales, dead_zone) {
            (None, None, None) => LearnedStep::Alone(step),
            _ => LearnedStep::Detailed { step, origin, scales, dead_zone },
        };
        (name, learned)
    });
    let learned: BTreeMap<&String, LearnedStep> = learned.collect();
    let text = serde_json::to_vec_pretty(&learned)?;
    write_bytes(&folder.join("steps.json"), &text, Overwrite::Replace)?;
    Ok(())
}

/// The plan that a run has learned, from the `steps.json` in its folder.
pub fn learned_plan(folder: &Path) -> Result<Option<Plan>> {
    let path = folder.join("steps.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let learned: BTreeMap<String, LearnedStep> = serde_json::from_slice(&text)
        .with_context(|| format!("{}: not a list of steps by tensor", path.display()))?;
    let mut plan = Plan::learned(BTreeMap::new());
    for (name, learned) in learned {
        let step = match learned {
            LearnedStep::Alone(step) => step,
            LearnedStep::Detailed { step, origin, scales, dead_zone } => {
                if let Some(LearnedOrigin { seed, stream, bound }) = origin {
                    plan.origins.insert(name.clone(), Origin { seed, stream, bound });
                }
                plan.scales.extend(scales.map(|scales| (name.clone(), scales)));
                plan.dead_zones.extend(dead_zone.map(|zone| (name.clone(), zone)));
                step
            }
        };
        plan.steps.insert(name, step);
    }
    Ok(Some(plan))
}

/// Whether an output may be written, before the work is done.
pub fn overwrite(path: &Path, force: bool) -> Result<Overwrite> {
    match (force, path.exists()) {
        (true, _) => Ok(Overwrite::Replace),
        (false, false) => Ok(Overwrite::Refuse),
        (false, true) => {
            bail!(Usage(format!("{} exists: choose another name or pass --force", path.display())))
        }
    }
}

/// Whether a folder is there and holds something.
pub fn is_occupied(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// Refuses a folder that holds something already.
pub fn refuse_existing_run(folder: &Path) -> Result<()> {
    if is_occupied(folder) {
        bail!(Usage(format!(
            "{} is not empty: choose another folder with --out",
            folder.display()
        )));
    }
    Ok(())
}

/// A number of bytes, with `B`, `kB` (1,000) or `MB` (1,000,000) behind it or nothing.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..].to_ascii_lowercase()[..] {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        other => return Err(format!("`{other}` is not a unit: use B, kB, MB or GB")),
    };
    let number: f64 = digits
        .trim()
        .replace([',', '_'], "")
        .parse()
        .map_err(|_| "expected a number such as 600kB".to_owned())?;
    let bytes = number * unit;
    if (1.0..1e15).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err("must be at least 1 byte".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learned_plans_are_read_as_they_were_written() {
        let of = |name: &str, step| (name.to_owned(), step);
        let steps = BTreeMap::from([of("a", 0.5), of("b", 0.25), of("c", 0.1), of("d", 3.0)]);
        let origin = Origin { seed: 3, stream: 9, bound: 0.5 };
        let scales = LineScales { rows: vec![1.0, 2.0], columns: vec![0.5] };
        let plan = Plan::learned(steps)
            .from_origins(BTreeMap::from([("b".to_owned(), origin)]))
            .with_scales(BTreeMap::from([("c".to_owned(), scales)]))
            .with_dead_zones(BTreeMap::from([of("c", 0.02), of("d", 0.04)]));
        let folder = tempfile::tempdir().unwrap();
        write_plan(folder.path(), &plan).unwrap();
        assert_eq!(learned_plan(folder.path()).unwrap(), Some(plan));
    }

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(parse_size("600kB"), Ok(600_000));
        assert_eq!(parse_size("1.5 MB"), Ok(1_500_000));
        assert_eq!(parse_size("16,000,000"), Ok(16_000_000));
        for wrong in ["", "kB", "-5", "0", "3 pints", "nan", "1e99"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
