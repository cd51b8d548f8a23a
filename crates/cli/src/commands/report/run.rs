//! What the folder of a finished run says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use backslash_codec::{Limits, encode, inspect_codes, read_bytes, read_file};
use backslash_eval::plot::TensorBudget;
use backslash_eval::prune::Reached;
use backslash_eval::report::{ResultFile, RunRecord, Test};
use backslash_eval::{WeightHistogram, decoded_weights};
use backslash_model::NamedWeights;
use backslash_quant::is_coded;
use backslash_train::{EvaluationRecord, RunConfig, config, fitted_shape};

use super::Metrics;
use crate::commands::sweep;
use crate::prepared::prepare;

/// A run's folder with its configuration and its log.
pub struct Folder {
    path: PathBuf,
    name: String,
    config: RunConfig,
    metrics: Metrics,
}

/// Opens the folders of finished runs; those of one name in several places are named by their paths.
pub fn open_all(paths: &[&PathBuf]) -> Result<Vec<Folder>> {
    let folders = paths.iter().map(|path| Folder::open(path));
    let mut folders = folders.collect::<Result<Vec<Folder>>>()?;
    let names: Vec<String> = folders.iter().map(|folder| folder.name.clone()).collect();
    for folder in &mut folders {
        if names.iter().filter(|name| **name == folder.name).count() > 1 {
            folder.name = folder.path.display().to_string();
        }
    }
    Ok(folders)
}

impl Folder {
    /// Opens the folder of a finished run.
    fn open(path: &Path) -> Result<Self> {
        for (name, lacking) in [
            ("config.toml", "is no run's folder"),
            ("metrics.jsonl", "is no run's folder"),
            ("model.bsl", "holds a run that has not ended"),
            ("model.safetensors", "holds a run that has not ended"),
        ] {
            if !path.join(name).exists() {
                bail!("{} {lacking}: it has no {name}", path.display());
            }
        }
        let whole = path.canonicalize().with_context(|| path.display().to_string())?;
        let name = whole.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let config = config::parse_file(&path.join("config.toml"), &[])
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.join("config.toml").display()))?;
        Ok(Self { path: path.to_owned(), name, config, metrics: Metrics::read(path)? })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of the folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Seconds of training at the recorded speeds.
    pub fn seconds(&self) -> Option<f64> {
        self.metrics.seconds(self.config.train.batch_size * self.config.model.context)
    }

    /// Everything but the quality of what the file decodes to.
    pub fn record(&self) -> Result<RunRecord> {
        let path = self.path.join("model.bsl");
        let bytes = read_bytes(&path, &Limits::default())?;
        let inspection = inspect_codes(&bytes, &Limits::default())
            .with_context(|| path.display().to_string())?;
        let tensors = inspection.tensors.into_iter().map(|tensor| TensorBudget {
            bytes: tensor.split.total(),
            name: tensor.name,
            shape: tensor.shape,
            coder: tensor.coder,
            bits_per_weight: tensor.bits_per_weight,
            entropy_bits: tensor.entropy_bits,
        });
        let weights = self.float_weights()?;
        let coded = weights.tensors().iter().filter(|tensor| is_coded(&tensor.shape));
        let matrices =
            coded.clone().filter_map(|tensor| WeightHistogram::of(&tensor.name, &tensor.data));
        let all: Vec<f32> = coded.clone().flat_map(|tensor| tensor.data.iter().copied()).collect();
        let last = self.metrics.evaluations.last();
        Ok(RunRecord {
            name: self.name.clone(),
            parameters: weights.parameters() as u64,
            steps: self.config.train.steps,
            seconds: self.seconds(),
            test: match last {
                _ if self.config.model.is_classifier() => Test::Examples,
                Some(EvaluationRecord { nats_per_token, bits_per_byte: Some(bits), .. }) => {
                    Test::Text { bytes_per_token: nats_per_token / std::f64::consts::LN_2 / bits }
                }
                _ => Test::Nothing,
            },
            trace: self.metrics.trace(&self.name),
            split: inspection.split,
            tensors: tensors.collect(),
            all_matrices: WeightHistogram::of("all coded matrices", &all),
            matrices: matrices.collect(),
        })
    }

    /// The run's own file, decoded and evaluated on the validation text of its configuration. As in the results of a sweep
    /// its size is that of the weights alone.
    pub fn evaluated(&self) -> Result<ResultFile> {
        let mut config = self.config.clone();
        let prepared = prepare(&mut config)
            .with_context(|| format!("{}: the data of its configuration", self.path.display()))?;
        let mut artifact = read_file(&self.path.join("model.bsl"), &Limits::default())?;
        artifact.metadata.clear();
        let bytes = encode(&artifact)?.len() as u64;
        let quality = prepared.measure(&config.model, &decoded_weights(&artifact)?)?;
        let float = self.float_weights()?;
        let last = self.metrics.evaluations.last();
        let (float_nats, float_accuracy) = match last {
            Some(last) => (last.nats_per_token, last.accuracy),
            None => {
                let float = prepared.measure(&config.model, &float)?;
                (float.nats_per_token(), float.accuracy())
            }
        };
        Ok(ResultFile {
            run: self.name.clone(),
            seed: config.train.seed,
            settings: sweep::settings(&self.config),
            steps: config.train.steps,
            export: "own".to_owned(),
            target: None,
            bytes,
            parameters: float.parameters() as u64,
            nats: quality.nats_per_token(),
            quality: Reached::of(&quality)?,
            float_nats,
            float_accuracy,
            shape: fitted_shape(&float),
            seconds: self.seconds(),
        })
    }

    fn float_weights(&self) -> Result<NamedWeights> {
        let path = self.path.join("model.safetensors");
        Ok(NamedWeights::read(&path)?)
    }
}
