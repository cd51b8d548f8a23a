//! The file that says what a sweep compares.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use toml::{Table, Value};

use super::export::{Export, Wanted};
use crate::failure::Usage;

/// What is compared: every curve is a grid of settings, each trained with every seed and exported in the same ways.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// Configuration that all runs begin with, relative to the file.
    pub config: PathBuf,
    /// Seeds of the curves that have none of their own.
    #[serde(default = "one_seed")]
    pub seeds: Vec<u64>,
    /// Keys of the configuration that all runs set.
    #[serde(default)]
    pub set: Table,
    /// The curves, in the order of tables and legend.
    pub curve: Vec<Curve>,
    /// Pairs of curves that are compared, at equal loss or in equal bytes.
    #[serde(default)]
    pub compare: Vec<Compare>,
    /// Sizes, in bytes, whose best file is named for every curve.
    #[serde(default)]
    pub limits: Vec<u64>,
}

/// Runs that are one line of a chart.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// Name in tables and legend.
    pub name: String,
    /// Seeds; those of the file without.
    pub seeds: Option<Vec<u64>>,
    /// Name of a curve before it whose `set` is taken over, but for what this one sets itself.
    pub like: Option<String>,
    /// Keys of the configuration that its runs set.
    #[serde(default)]
    pub set: Table,
    /// Keys of the configuration, each with the list of its values: all combinations are trained.
    #[serde(default)]
    pub grid: Table,
    /// Ways to make a file: `own` for the learned steps, `coders at 2^-8` for all codes of the paper at its step (or
    /// from 2^-1 to 2^-16 at another), or a method of `backslash ladder`.
    #[serde(default = "own")]
    pub export: Vec<String>,
    /// Sizes of files, in bits per weight, for exports whose size can be chosen.
    #[serde(default)]
    pub bits: Vec<f64>,
}

/// A curve whose files are held against those of another.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The curve whose sizes and losses are asked for.
    pub curve: String,
    /// The curve that it is held against.
    pub against: String,
    /// Bits per weight of the other's files whose losses are to be reached, in as few bytes as can be.
    #[serde(default)]
    pub bits: Vec<f64>,
    /// Sizes in bytes, for the best file of each curve that is no larger.
    #[serde(default)]
    pub bytes: Vec<u64>,
}

fn own() -> Vec<String> {
    vec![Export::Own.name()]
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

impl SweepFile {
    /// Reads a file; the configuration's path is then one that can be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut file = Self::parse(&text).with_context(|| path.display().to_string())?;
        file.config = path.parent().unwrap_or(Path::new("")).join(&file.config);
        Ok(file)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut file: Self =
            toml::from_str(text).map_err(|error| Usage(error.to_string().trim_end().to_owned()))?;
        file.take_over()?;
        file.check()?;
        Ok(file)
    }

    /// Gives curves the settings of those that they are like.
    fn take_over(&mut self) -> Result<()> {
        for index in 0..self.curve.len() {
            let (before, rest) = self.curve.split_at_mut(index);
            let curve = &mut rest[0];
            let Some(like) = &curve.like else { continue };
            let Some(other) = before.iter().find(|other| other.name == *like) else {
                let name = &curve.name;
                bail!(Usage(format!("curve `{name}`: like: there is no curve `{like}` before it")));
            };
            curve.set = merged(&other.set, &curve.set);
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let names: Vec<&str> = self.curve.iter().map(|curve| &curve.name[..]).collect();
        for (index, curve) in self.curve.iter().enumerate() {
            let name = &curve.name;
            if names[..index].contains(&&name[..]) {
                bail!(Usage(format!("two curves are named `{name}`")));
            }
            curve.wanted()?;
            if curve.bits.iter().any(|bits| !(bits.is_finite() && *bits > 0.0)) {
                bail!(Usage(format!("curve `{name}`: `bits` must be positive")));
            }
            curve.settings()?;
        }
        let tables = self.curve.iter().flat_map(|curve| [&curve.set, &curve.grid]);
        for (key, why) in [
            (
                ["data", ""],
                "all runs of a sweep have the same data: --data, --validation and --tokenizer name it",
            ),
            (["train", "seed"], "`seeds` lists the seeds"),
            (["train", "from"], "all runs of a sweep begin with weights drawn by their seed"),
        ] {
            let has = |table: &Table| match (table.get(key[0]), key[1]) {
                (found, "") => found.is_some(),
                (Some(Value::Table(section)), key) => section.contains_key(key),
                _ => false,
            };
            if tables.clone().chain([&self.set]).any(has) {
                let name = key.join(".");
                bail!(Usage(format!("`{}` cannot be set: {why}", name.trim_end_matches('.'))));
            }
        }
        for compare in &self.compare {
            for name in [&compare.curve, &compare.against] {
                if !names.contains(&&name[..]) {
                    bail!(Usage(format!(
                        "compare: there is no curve `{name}` (there are {})",
                        names.join(", ")
                    )));
                }
            }
            if compare.bits.is_empty() && compare.bytes.is_empty() {
                bail!(Usage(format!(
                    "compare: `{}` against `{}`: `bits` must list files of the other whose losses are to be reached, or `bytes` sizes",
                    compare.curve, compare.against
                )));
            }
        }
        Ok(())
    }

    /// The keys that all runs set.
    pub fn overrides(&self) -> Vec<String> {
        assignments("", &self.set)
    }
}

impl Curve {
    /// The overrides of every combination of the grid, without those of the curve itself.
    pub fn settings(&self) -> Result<Vec<Vec<String>>> {
        let mut settings = vec![Vec::new()];
        for (key, value) in leaves("", &self.grid) {
            let Value::Array(values) = value else {
                bail!(Usage(format!(
                    "curve `{}`: grid.{key} = {value}: expected a list of values",
                    self.name
                )));
            };
            settings = settings
                .iter()
                .flat_map(|before| {
                    values.iter().map(|value| {
                        let mut setting: Vec<String> = before.clone();
                        setting.push(format!("{key}={value}"));
                        setting
                    })
                })
                .collect();
        }
        Ok(settings)
    }

    /// The keys that its runs set.
    pub fn overrides(&self) -> Vec<String> {
        assignments("", &self.set)
    }

    /// Every way to make a file of its runs, with the bits per weight of those whose size can be chosen.
    pub fn wanted(&self) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for name in &self.export {
            let Some(export) = Export::named(name) else {
                bail!(Usage(format!(
                    "curve `{}`: there is no export `{name}` (there are {})",
                    self.name,
                    Export::known()
                )));
            };
            match export.has_target() {
                true if self.bits.is_empty() => bail!(Usage(format!(
                    "curve `{}`: `bits` must list the sizes of `{name}`, in bits per weight",
                    self.name
                ))),
                true => wanted
                    .extend(self.bits.iter().map(|bits| Wanted { export, target: Some(*bits) })),
                false => wanted.push(Wanted { export, target: None }),
            }
        }
        Ok(wanted)
    }
}

/// All values of nested tables, the second's where both have one.
fn merged(first: &Table, second: &Table) -> Table {
    let mut all = first.clone();
    for (key, value) in second {
        let value = match (first.get(key), value) {
            (Some(Value::Table(first)), Value::Table(second)) => {
                Value::Table(merged(first, second))
            }
            _ => value.clone(),
        };
        all.insert(key.clone(), value);
    }
    all
}

/// Every value of nested tables, with its dotted key.
fn leaves<'a>(prefix: &str, table: &'a Table) -> Vec<(String, &'a Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(table) => found.extend(leaves(&format!("{path}."), table)),
            value => found.push((path, value)),
        }
    }
    found
}

/// Every value of nested tables as `key=value`, the key dotted.
pub(super) fn assignments(prefix: &str, table: &Table) -> Vec<String> {
    let leaves = leaves(prefix, table).into_iter();
    leaves.map(|(key, value)| format!("{key}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        config = "small.toml"
        seeds = [1, 2]
        set.train.steps = 50

        [[curve]]
        name = "plain"
        export = ["rtn", "BackSlash 2^-8 + EG0"]
        bits = [2, 3.5]

        [[curve]]
        name = "rate"
        seeds = [1]
        set.rate.method = "bits"
        grid.rate.lambda = [0.1, 0.3]
        grid.train.warmdown = [0.4, 0.5]
    "#;

    #[test]
    fn a_grid_is_all_combinations_and_sizes_belong_to_exports_that_have_them() {
        let file = SweepFile::parse(FILE).unwrap();
        assert_eq!(file.overrides(), ["train.steps=50"]);
        let [plain, rate] = &file.curve[..] else { panic!("two curves") };
        assert_eq!(plain.settings().unwrap(), [Vec::<String>::new()]);
        let wanted = plain.wanted().unwrap();
        let exports: Vec<_> =
            wanted.iter().map(|wanted| (wanted.export.name(), wanted.target)).collect();
        let expected = [("rtn", Some(2.0)), ("rtn", Some(3.5)), ("BackSlash 2^-8 + EG0", None)];
        assert_eq!(exports, expected.map(|(name, bits)| (name.to_owned(), bits)));
        assert_eq!(rate.overrides(), ["rate.method=\"bits\""]);
        let settings = rate.settings().unwrap();
        assert_eq!(settings.len(), 4);
        assert_eq!(settings[1], ["rate.lambda=0.1", "train.warmdown=0.5"]);
        assert_eq!(rate.wanted().unwrap(), [Wanted { export: Export::Own, target: None }]);
    }

    #[test]
    fn a_curve_takes_over_what_it_does_not_set_itself() {
        let more = r#"
            [[curve]]
            name = "large"
            like = "rate"
            set.rate.start = 0.5
            set.model.width = 64

            [[curve]]
            name = "noise"
            like = "large"
            set.rate.start = 0.8
        "#;
        let file = SweepFile::parse(&format!("{FILE}{more}")).unwrap();
        let [_, rate, large, noise] = &file.curve[..] else { panic!("four curves") };
        assert_eq!(rate.overrides(), ["rate.method=\"bits\""]);
        for (curve, start) in [(large, 0.5), (noise, 0.8)] {
            let mut overrides = curve.overrides();
            overrides.sort();
            let start = format!("rate.start={start}");
            assert_eq!(overrides, ["model.width=64", "rate.method=\"bits\"", &start]);
            assert_eq!(curve.settings().unwrap(), [Vec::<String>::new()]);
            assert_eq!((&curve.seeds, &curve.export), (&None, &own()));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (from, to, named) in [
            ("\"rtn\"", "\"rnt\"", "no export `rnt`"),
            ("\"rtn\"", "\"coders at 2^-0\"", "coders at 2^-1 to coders at 2^-16"),
            ("\"rtn\"", "\"coders at 2^-x\"", "no export `coders at 2^-x`"),
            ("bits = [2, 3.5]", "", "`bits` must list the sizes of `rtn`"),
            ("bits = [2, 3.5]", "bits = [0]", "must be positive"),
            ("name = \"rate\"", "name = \"plain\"", "two curves are named `plain`"),
            ("[0.1, 0.3]", "0.1", "grid.rate.lambda = 0.1: expected a list"),
            ("seeds = [1]", "sedes = [1]", "unknown field `sedes`"),
            ("seeds = [1]", "like = \"rate\"", "no curve `rate` before it"),
            ("train.steps", "train.seed", "`train.seed` cannot be set: `seeds`"),
            ("grid.train.warmdown", "grid.data.train", "`data` cannot be set"),
        ] {
            let error = format!("{:#}", SweepFile::parse(&FILE.replace(from, to)).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
        for (against, sizes, named) in [
            ("flat", "bits = [2]", "no curve `flat` (there are plain, rate)"),
            ("plain", "", "`rate` against `plain`: `bits` must list"),
            ("plain", "bytes = [-1]", "invalid value"),
        ] {
            let compare =
                format!("{FILE}\n[[compare]]\ncurve = \"rate\"\nagainst = \"{against}\"\n{sizes}");
            let error = format!("{:#}", SweepFile::parse(&compare).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
