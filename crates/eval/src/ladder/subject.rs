//! A model, and files made of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use backslash_codec::{Artifact, Effort, Limits, SizeSplit, decode, inspect};
use backslash_compress::{
    Allocation, Calibration, CalibrationText, CompressError, Goal, Recipe, Target, Trial,
};
use backslash_model::NamedWeights;
use backslash_quant::Rung;

use super::fingerprint::fingerprint;
use super::{Method, Point, Split, exporters, factors};
use crate::{EvalError, ModelFile, Quality, TestSet, decoded_weights, views};

/// Seed of the targets that sensitivities are measured with.
const SEED: u64 = 1;

/// A model with the text that it is calibrated and measured on.
pub struct Subject<'a> {
    name: String,
    fingerprint: String,
    model: &'a ModelFile,
    text: CalibrationText,
    test: TestSet<'a>,
    /// The float model's, once a point has asked for it.
    float: Option<Quality>,
    calibration: Option<Calibration>,
    /// Size of the last file over that of its fast coding, by rung.
    ratios: BTreeMap<Rung, f64>,
}

/// A file and what it decodes to.
pub(super) struct Made {
    pub bytes: u64,
    pub weights: NamedWeights,
    /// By purpose, for files of ours.
    pub split: Option<SizeSplit>,
    /// ln κ, for files of ours.
    pub log_kappa: Option<f64>,
    /// What the setting of another exporter was multiplied by.
    pub factor: Option<f64>,
}

impl Made {
    /// The file of another exporter.
    pub fn exported(bytes: u64, weights: NamedWeights, factor: Option<f64>) -> Self {
        Self { bytes, weights, split: None, log_kappa: None, factor }
    }

    /// A file of ours, decoded again.
    fn decoded(file: &[u8], log_kappa: f64) -> Result<Self, EvalError> {
        Ok(Self {
            bytes: file.len() as u64,
            weights: decoded_weights(&decode(file, &Limits::default())?)?,
            split: Some(inspect(file)?.split),
            log_kappa: Some(log_kappa),
            factor: None,
        })
    }
}

impl<'a> Subject<'a> {
    /// Name of a model: that of its folder or file.
    pub fn name_of(path: &Path) -> String {
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }

    /// A model to be calibrated on `text` and measured on `test`.
    pub fn new(
        path: &Path,
        model: &'a ModelFile,
        text: CalibrationText,
        test: TestSet<'a>,
    ) -> Self {
        Self {
            name: Self::name_of(path),
            fingerprint: fingerprint(model, &text, test),
            model,
            text,
            test,
            float: None,
            calibration: None,
            ratios: BTreeMap::new(),
        }
    }

    /// Name of the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What figures depend on: hash of the model, and number and hash of the tokens of
    /// calibration and of validation.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Runs the model on the calibration text, if that has not been done yet; `progress` is told the batches done and all.
    ///
    /// # Errors
    /// Those of [`Calibration::of`].
    pub fn calibrate(&mut self, progress: impl FnMut(usize, usize)) -> Result<(), EvalError> {
        if self.calibration.is_none() {
            let ModelFile { config, weights, .. } = self.model;
            self.calibration = Some(Calibration::of(config, weights, &self.text, SEED, progress)?);
        }
        Ok(())
    }

    /// Forgets what earlier files have told about sizes, so that the next does not depend on which were made before.
    pub fn forget_sizes(&mut self) {
        self.ratios.clear();
    }

    /// Makes a file by a method at a number of bits per weight, decodes it and runs it.
    ///
    /// # Errors
    /// Those of the method; and if no file of ours is as small as that, or loses as little.
    pub fn measure(&mut self, method: Method, target: Option<f64>) -> Result<Point, EvalError> {
        let float = match self.float {
            Some(float) => float,
            None => *self.float.insert(self.quality(&self.model.weights)?),
        };
        let start = Instant::now();
        let weights = &self.model.weights;
        let parameters = weights.parameters() as u64;
        let budget = target.map_or(u64::MAX, |bits| (bits * parameters as f64 / 8.0) as u64);
        let embeds = |name: &str| self.model.config.ties(name);
        let made = match method {
            Method::Ours(rung, allocation) => self.ours(rung, allocation, budget)?,
            Method::NoWorseThanInt8(rung) => self.no_worse(rung, float)?,
            Method::Int8 => exporters::int8(weights)?,
            Method::Int8AllMatrices => exporters::int8_all_matrices(weights)?,
            Method::SdClip => exporters::sdclip(weights, embeds, budget)?,
            Method::Factors => factors::factored(weights, self.calibration()?, embeds, budget)?,
            Method::Paper => exporters::paper(weights)?,
            Method::PaperScaled => exporters::paper_of(weights, budget)?,
        };
        let quality = self.quality(&made.weights)?;
        Ok(Point {
            run: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            method: method.name(),
            allocation: method.allocation().map(|allocation| allocation.to_string()),
            target,
            bytes: made.bytes,
            parameters,
            split: made.split.map(Split::from),
            log_kappa: made.log_kappa,
            factor: made.factor,
            nats: quality.nats_per_token(),
            float_nats: float.nats_per_token(),
            bits_per_byte: quality.bits_per_byte(),
            accuracy: quality.accuracy(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn quality(&self, weights: &NamedWeights) -> Result<Quality, EvalError> {
        self.test.quality(&self.model.config, weights)
    }

    fn calibration(&mut self) -> Result<&Calibration, EvalError> {
        self.calibrate(|_, _| ())?;
        Ok(self.calibration.as_ref().expect("just calibrated"))
    }

    fn recipe(&mut self, rung: Rung, allocation: Allocation) -> Result<Recipe<'a>, EvalError> {
        let calibration = self.calibration()?.clone();
        let weights = views(&self.model.weights);
        Ok(Recipe::calibrated(weights, BTreeMap::new(), calibration, rung, allocation)?)
    }

    /// The whole file of a size.
    fn ours(&mut self, rung: Rung, allocation: Allocation, budget: u64) -> Result<Made, EvalError> {
        let recipe = self.recipe(rung, allocation)?;
        let ratio = self.ratios.get(&rung).copied();
        let target = Target { budget, effort: Effort::Smallest };
        let fitted = recipe.fit_to_bytes(target, ratio, &mut |_: Trial| ())?;
        self.ratios.extend(fitted.ratio.map(|ratio| (rung, ratio)));
        Made::decoded(&fitted.bytes, fitted.log_kappa)
    }

    /// The smallest file that loses no more than the int8 exporter's.
    fn no_worse(&mut self, rung: Rung, float: Quality) -> Result<Made, EvalError> {
        let float = float.nats_per_token();
        let exported = exporters::int8_all_matrices(&self.model.weights)?;
        let limit = self.quality(&exported.weights)?.nats_per_token() - float;
        let recipe = self.recipe(rung, Allocation::Rows)?;
        let mut increase = |artifact: &Artifact| {
            let failed = |error: EvalError| CompressError::Decoding { reason: error.to_string() };
            let weights = decoded_weights(artifact).map_err(failed)?;
            Ok(self.quality(&weights).map_err(failed)?.nats_per_token() - float)
        };
        let fitted =
            recipe.fit(Goal::LossIncrease(limit), Effort::Smallest, &mut increase, &mut |_| ())?;
        Made::decoded(&fitted.bytes, fitted.log_kappa)
    }
}
