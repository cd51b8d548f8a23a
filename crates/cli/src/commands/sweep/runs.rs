//! The runs of a sweep, and the line that each of their files has in its results.

use std::path::{Path, PathBuf};

use anyhow::Result;
use backslash_eval::CoderBits;
use backslash_eval::plot::Point;
use backslash_eval::table::grouped;
use backslash_train::{RateConfig, RunConfig, config};
use serde::{Deserialize, Serialize};
use toml::Table;

use super::export::Wanted;
use super::file::{Curve, SweepFile, assignments};
use crate::prepared::{Data, Prepared};

/// A run and the files that are wanted of it. Curves share the runs that they have in common.
pub struct Planned {
    pub name: String,
    pub config: RunConfig,
    pub seed: u64,
    /// What sets it apart from the configuration that all begin with, but for the seed.
    pub settings: Vec<String>,
    pub wanted: Vec<Wanted>,
    /// Name of what it has in common with all runs that differ from it in their rate only, and how many steps that is.
    pub trunk: (String, u64),
}

/// A file that was made of a run, decoded and run: a line of the results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Name of the run: its seed, and a hash of its configuration and its data.
    pub run: String,
    pub seed: u64,
    /// [`Planned::all_settings`].
    pub settings: Vec<String>,
    /// Optimizer steps.
    pub steps: u64,
    pub export: String,
    /// Bits per weight that were asked for.
    pub target: Option<f64>,
    /// Length of the file, of weights alone.
    pub bytes: u64,
    pub parameters: u64,
    pub bits_per_weight: f64,
    /// Loss of the decoded model, in nats per token, of a classifier per example.
    pub nats: f64,
    /// Of a network that predicts the next token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bits_per_byte: Option<f64>,
    /// Of a classifier: share of the examples whose class the decoded model finds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub accuracy: Option<f64>,
    /// Loss of the float weights.
    pub float_nats: f64,
    /// Of a classifier: the share that the float weights find.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub float_accuracy: Option<f64>,
    /// Shape of the generalised Gaussian with the moments of all float weights.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shape: Option<f64>,
    /// Mean over the coded float matrices of their effective rank, as a share of the full one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effective_rank: Option<f64>,
    /// Of a run that was steered to a size: that size, its file with everything that is needed to run it, and the forecast of
    /// that file after half of the steps with a rate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub steered: Option<Steered>,
    /// Of the export that compares coders: bits per weight by each.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub coders: Option<CoderBits>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steered {
    pub budget: u64,
    pub bytes: u64,
    pub half_time_forecast: u64,
}

impl Line {
    /// The file as a point of a chart; of a classifier without a quality that it shows.
    pub fn point(&self) -> Point {
        let Self { bytes, bits_per_weight, bits_per_byte, .. } = *self;
        let bits_per_byte = bits_per_byte.unwrap_or(f64::NAN);
        Point { bytes, bits_per_weight, bits_per_byte, interval: None }
    }

    /// The file in a few words, without those of its run.
    pub fn describe(&self) -> String {
        let target = self.target.map_or(String::new(), |bits| format!(" at {bits} bits"));
        let quality = match self.accuracy {
            Some(accuracy) => format!("{:.2} % correct", 100.0 * accuracy),
            None => format!("{:.4} nats per token", self.nats),
        };
        format!(
            "{}{target}: {} bytes, {:.3} bits per weight, {quality}",
            self.export,
            grouped(self.bytes),
            self.bits_per_weight,
        )
    }

    /// Whether this is that file of a run.
    pub fn is(&self, run: &Planned, wanted: Wanted) -> bool {
        self.run == run.name && self.export == wanted.export.name() && self.target == wanted.target
    }
}

impl Planned {
    /// In a few words.
    pub fn describe(&self) -> String {
        format!("{} {}", self.name, self.settings.join(" "))
    }

    /// All that is not as by default, and what sets it apart from other runs even where that is the default: what tells runs
    /// of other sweeps from it too.
    pub fn all_settings(&self) -> Vec<String> {
        let mut all = settings(&self.config);
        let has = |own: &&String| all.iter().any(|setting| key(setting) == key(own));
        let by_default: Vec<String> =
            self.settings.iter().filter(|own| !has(own)).cloned().collect();
        all.extend(by_default);
        all
    }

    /// Its folder.
    pub fn folder(&self, out: &Path) -> PathBuf {
        out.join(&self.name)
    }
}

/// All runs, in the order of their curves.
pub struct Plan {
    pub runs: Vec<Planned>,
    /// Of every curve and every setting, the indices of its runs, one per seed.
    pub curves: Vec<Vec<Vec<usize>>>,
}

impl Plan {
    /// The beginning of a hash of the names of all runs, which hold the hashes of their configurations.
    pub fn hash(&self) -> String {
        let names: Vec<&str> = self.runs.iter().map(|run| run.name.as_str()).collect();
        blake3::hash(names.join("\n").as_bytes()).to_hex()[..12].to_owned()
    }
}

/// The runs that a sweep takes.
pub fn plan(file: &SweepFile, base: &RunConfig, data: &str) -> Result<Plan> {
    let mut planned: Vec<Planned> = Vec::new();
    let mut curves = Vec::new();
    for curve in &file.curve {
        let mut by_setting = Vec::new();
        for setting in curve.settings()? {
            let seeds = curve.seeds.as_ref().unwrap_or(&file.seeds).iter();
            let indices =
                seeds.map(|seed| add(&mut planned, file, curve, &setting, *seed, base, data));
            by_setting.push(indices.collect::<Result<Vec<usize>>>()?);
        }
        curves.push(by_setting);
    }
    Ok(Plan { runs: planned, curves })
}

fn add(
    planned: &mut Vec<Planned>,
    file: &SweepFile,
    curve: &Curve,
    setting: &[String],
    seed: u64,
    base: &RunConfig,
    data: &str,
) -> Result<usize> {
    let own = [curve.overrides(), setting.to_vec()].concat();
    let overrides = [file.overrides(), own.clone(), vec![format!("train.seed={seed}")]].concat();
    let mut config = config::parse_file(&file.config, &overrides)?;
    let name = format!("seed{seed}-{}", fingerprint(&config, data));
    config.data.clone_from(&base.data);
    let unpriced = RunConfig { rate: RateConfig::default(), ..config.clone() };
    let steps = config.first_priced_step();
    let trunk = (format!("trunk{steps}-{}", fingerprint(&unpriced, data)), steps);
    let wanted = curve.wanted()?;
    let index = match planned.iter().position(|run| run.name == name) {
        Some(index) => index,
        None => {
            planned.push(Planned { name, config, seed, settings: own, wanted: Vec::new(), trunk });
            planned.len() - 1
        }
    };
    let run = &mut planned[index];
    let new = wanted.into_iter().filter(|wanted| !run.wanted.contains(wanted));
    let new: Vec<Wanted> = new.collect();
    run.wanted.extend(new);
    Ok(index)
}

/// The beginning of a hash of a configuration and of data. Of a configuration only what is not as by default counts, so that
/// results outlive keys that are added to it.
fn fingerprint(config: &RunConfig, data: &str) -> String {
    let table =
        |config: &RunConfig| Table::try_from(config).expect("a configuration is plain data");
    let mut own = table(config);
    own.remove("data");
    let own = without(own, &table(&RunConfig::default()));
    let text = format!("{data}\n{own}");
    blake3::hash(text.as_bytes()).to_hex()[..10].to_owned()
}

fn key(setting: &str) -> &str {
    setting.split_once('=').map_or(setting, |(key, _)| key)
}

/// What a configuration has that is not as by default, as `key=value`, but for its data, its seed, its steps and how often
/// it is evaluated and kept.
pub fn settings(config: &RunConfig) -> Vec<String> {
    let plain = RunConfig::default();
    let mut config = config.clone();
    config.train.seed = plain.train.seed;
    config.train.steps = plain.train.steps;
    config.train.evaluate_every = plain.train.evaluate_every;
    config.train.checkpoint_every = plain.train.checkpoint_every;
    config.data.clone_from(&plain.data);
    let table =
        |config: &RunConfig| Table::try_from(config).expect("a configuration is plain data");
    assignments("", &without(table(&config), &table(&plain)))
}

fn without(table: Table, defaults: &Table) -> Table {
    let kept = table.into_iter().filter_map(|(key, value)| match (value, defaults.get(&key)) {
        (toml::Value::Table(inner), Some(toml::Value::Table(defaults))) => {
            Some((key, toml::Value::Table(without(inner, defaults))))
        }
        (value, Some(default)) if value == *default => None,
        (value, _) => Some((key, value)),
    });
    kept.collect()
}

/// The beginning of a hash of the data and of the tokenizer.
pub fn data_hash(prepared: &Prepared) -> String {
    let mut hash = blake3::Hasher::new();
    match &prepared.data {
        Data::Text(tokens) => {
            for tokens in [&tokens.train, &tokens.validation] {
                hash.update(&(tokens.len() as u64).to_le_bytes());
                add_tokens(&mut hash, tokens);
            }
        }
        Data::Examples(examples) => {
            for examples in [&examples.train, &examples.validation] {
                hash.update(&(examples.len() as u64).to_le_bytes());
                for example in examples {
                    add_tokens(&mut hash, &[example.class, example.tokens.len() as u16]);
                    add_tokens(&mut hash, &example.tokens);
                }
            }
        }
    }
    hash.update(&prepared.tokenizer.to_bytes());
    hash.finalize().to_hex()[..12].to_owned()
}

fn add_tokens(hash: &mut blake3::Hasher, tokens: &[u16]) {
    for chunk in tokens.chunks(1 << 16) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|token| token.to_le_bytes()).collect();
        hash.update(&bytes);
    }
}

/// A line of a run, for the tests of what is made of lines.
#[cfg(test)]
pub fn line(seed: u64, bytes: u64, nats: f64) -> Line {
    Line {
        run: format!("seed{seed}"),
        seed,
        settings: Vec::new(),
        steps: 1,
        export: "own".to_owned(),
        target: None,
        bytes,
        parameters: 1000,
        bits_per_weight: bytes as f64 / 125.0,
        nats,
        bits_per_byte: Some(0.5 * nats),
        accuracy: None,
        float_nats: 3.0,
        float_accuracy: None,
        shape: None,
        effective_rank: None,
        steered: None,
        coders: None,
    }
}
