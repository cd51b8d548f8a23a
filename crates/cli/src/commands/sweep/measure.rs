//! The files of a finished run.

use std::path::Path;

use anyhow::{Context, Result};
use backslash_codec::{Limits, encode, read_file};
use backslash_compress::CalibrationText;
use backslash_eval::ladder::{Method, Subject};
use backslash_eval::{AtOneStep, CoderBits, ModelFile, Quality, decoded_weights, views};
use backslash_model::NamedWeights;
use backslash_quant::{effective_rank, is_coded};
use backslash_train::{Record, fitted_shape};

use super::export::{Export, Wanted};
use super::runs::{Line, Planned, Steered};
use crate::prepared::{Data, Prepared};

/// A finished run whose files are made, decoded and run.
pub struct Measurement<'a> {
    run: &'a Planned,
    folder: &'a Path,
    prepared: &'a Prepared,
    model: ModelFile,
    float: Quality,
    /// Of all float weights, for every file alike.
    shape: Option<f64>,
    effective_rank: Option<f64>,
}

/// Figures of one file.
struct Figures {
    bytes: u64,
    nats: f64,
    bits_per_byte: Option<f64>,
    accuracy: Option<f64>,
    coders: Option<CoderBits>,
}

impl Figures {
    fn of(bytes: u64, quality: &Quality, coders: Option<CoderBits>) -> Self {
        Self {
            bytes,
            nats: quality.nats_per_token(),
            bits_per_byte: quality.bits_per_byte(),
            accuracy: quality.accuracy(),
            coders,
        }
    }
}

impl<'a> Measurement<'a> {
    /// Opens the model that a run has left.
    pub fn open(run: &'a Planned, folder: &'a Path, prepared: &'a Prepared) -> Result<Self> {
        let model = ModelFile::open(folder)?;
        let float = prepared.measure(&model.config, &model.weights)?;
        let shape = fitted_shape(&model.weights);
        let effective_rank = mean_effective_rank(&model.weights)?;
        Ok(Self { run, folder, prepared, model, float, shape, effective_rank })
    }

    /// The lines of these files, each given to `push` as soon as it is known; those that cannot be as small as that are
    /// given to `refuse`.
    pub fn lines(
        &self,
        wanted: &[Wanted],
        calibration_tokens: usize,
        push: &mut dyn FnMut(Line) -> Result<()>,
        refuse: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let config = &self.model.config;
        let text = match &self.prepared.data {
            Data::Text(tokens) => CalibrationText::new(config, &tokens.train, calibration_tokens)?,
            Data::Examples(examples) => {
                CalibrationText::of_examples(config, &examples.train, calibration_tokens)?
            }
        };
        let mut subject = Subject::new(self.folder, &self.model, text, self.prepared.test());
        for wanted in wanted {
            let Wanted { export, target } = *wanted;
            let figures = match export {
                Export::Own => self.own()?,
                Export::Coders(exponent) => self.coders(exponent)?,
                Export::Ladder(method) => match ladder(&mut subject, method, target)? {
                    Ok(figures) => figures,
                    Err(reason) => {
                        refuse(&format!("{}: {}: {reason}", self.run.name, export.name()));
                        continue;
                    }
                },
            };
            push(self.line(export, target, &figures)?)?;
        }
        Ok(())
    }

    /// The tensors of the run's own file, without what is needed to run them, as the files of the ladder are.
    fn own(&self) -> Result<Figures> {
        let path = self.folder.join("model.bsl");
        let mut artifact = read_file(&path, &Limits::default())?;
        artifact.metadata.clear();
        let bytes = encode(&artifact)?.len() as u64;
        let quality = self.prepared.measure(&self.model.config, &decoded_weights(&artifact)?)?;
        Ok(Figures::of(bytes, &quality, None))
    }

    /// The float weights at a step of 2^-exponent.
    fn coders(&self, exponent: u8) -> Result<Figures> {
        let step = f32::exp2(-f32::from(exponent));
        let coded = AtOneStep::of(&self.model.weights, step)?;
        let quality = self.prepared.measure(&self.model.config, &coded.weights)?;
        Ok(Figures::of(coded.bytes, &quality, Some(coded.coders)))
    }

    fn line(&self, export: Export, target: Option<f64>, figures: &Figures) -> Result<Line> {
        let run = self.run;
        let parameters = self.model.weights.parameters() as u64;
        let steered = match (export, run.config.rate.budget) {
            (Export::Own, budget) if budget > 0 => Some(self.steered(budget)?),
            _ => None,
        };
        Ok(Line {
            run: run.name.clone(),
            seed: run.seed,
            settings: run.all_settings(),
            steps: run.config.train.steps,
            export: export.name(),
            target,
            bytes: figures.bytes,
            parameters,
            bits_per_weight: 8.0 * figures.bytes as f64 / parameters as f64,
            nats: figures.nats,
            bits_per_byte: figures.bits_per_byte,
            accuracy: figures.accuracy,
            float_nats: self.float.nats_per_token(),
            float_accuracy: self.float.accuracy(),
            shape: self.shape,
            effective_rank: self.effective_rank,
            steered,
            coders: figures.coders,
        })
    }

    /// How well a run has met its size, and what it expected after half of its steps with a rate.
    fn steered(&self, budget: u64) -> Result<Steered> {
        let path = self.folder.join("metrics.jsonl");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let (first, steps) = (self.run.config.first_priced_step(), self.run.config.train.steps);
        let half = first + (steps - first) / 2;
        let records = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let forecast = records.filter_map(|record| match record {
            Record::Step(record) if record.step >= half => record.forecast_bytes,
            _ => None,
        });
        let half_time_forecast = forecast.take(1).next();
        let half_time_forecast = half_time_forecast.with_context(|| {
            format!("{}: has no forecast after half of the steps with a rate", path.display())
        })?;
        let bytes = std::fs::metadata(self.folder.join("model.bsl"))?.len();
        Ok(Steered { budget, bytes, half_time_forecast })
    }
}

/// Mean of the [`effective_rank`]s of all coded matrices.
fn mean_effective_rank(weights: &NamedWeights) -> Result<Option<f64>> {
    let views = views(weights);
    let coded = views.iter().filter(|view| is_coded(view.shape));
    let ranks = coded.map(effective_rank).collect::<Result<Vec<f64>, _>>()?;
    let count = ranks.len();
    Ok((count > 0).then(|| ranks.into_iter().sum::<f64>() / count as f64))
}

/// A file of the ladder, or why there is none of that size.
fn ladder(
    subject: &mut Subject<'_>,
    method: Method,
    target: Option<f64>,
) -> Result<Result<Figures, String>> {
    subject.forget_sizes();
    match subject.measure(method, target) {
        Ok(point) => Ok(Ok(Figures {
            bytes: point.bytes,
            nats: point.nats,
            bits_per_byte: point.bits_per_byte,
            accuracy: point.accuracy,
            coders: None,
        })),
        Err(error) if error.is_unreachable() => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}
