//! A model, and files made of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use backslash_codec::{Effort, Limits, decode, encode_with};
use backslash_compress::{Allocation, Calibration, CalibrationText, Goal, Recipe, Trial};
use backslash_data::ByteTable;
use backslash_model::{NamedTensor, NamedWeights, Transformer, device};
use backslash_quant::golf::{
    DecodedTensor, FloatTensor, SdClip, export_int8_zlib, export_int8_zlib_all_matrices,
    export_sdclip, import_int8_zlib, import_sdclip,
};
use backslash_quant::{PAPER_STEP, Rung, export_as_published};

use super::{Method, Point};
use crate::{EvalError, ModelFile, Quality, decoded_weights, evaluate, views};

/// Seed of the targets that sensitivities are measured with.
const SEED: u64 = 1;
/// Halvings in search of the setting of another exporter.
const HALVINGS: u32 = 13;
/// Contents that are measured in search of the smallest file that is no worse, and the bits per weight between which
/// it lies, about.
const NO_WORSE_FILES: u32 = 10;
const NO_WORSE_BITS: (f64, f64) = (2.0, 8.0);

/// A model with the text that it is calibrated and measured on.
pub struct Subject<'a> {
    name: String,
    fingerprint: String,
    model: &'a ModelFile,
    text: CalibrationText,
    tokens: &'a [u16],
    table: ByteTable,
    float: Quality,
    calibration: Option<Calibration>,
}

/// A file and what it decodes to.
struct Made {
    bytes: u64,
    weights: NamedWeights,
}

impl<'a> Subject<'a> {
    /// A model under the name of its folder or file, and its float loss on `tokens`.
    ///
    /// # Errors
    /// If the text has a token beyond the vocabulary, or is too short.
    pub fn new(
        path: &Path,
        model: &'a ModelFile,
        text: CalibrationText,
        tokens: &'a [u16],
    ) -> Result<Self, EvalError> {
        let table = model.tokenizer.byte_table();
        let float = evaluate(&model.network()?, tokens, &table)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let hash = blake3::hash(&weight_bytes(&model.weights)).to_hex();
        let fingerprint = format!("{}-{}-{}", &hash[..12], text.tokens(), tokens.len());
        Ok(Self { name, fingerprint, model, text, tokens, table, float, calibration: None })
    }

    /// Name of the model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What figures depend on: hash of the weights, and tokens of calibration and of validation.
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

    /// Makes a file by a method at a number of bits per weight, decodes it and runs it.
    ///
    /// # Errors
    /// Those of the method; and if it cannot be as small as that.
    pub fn measure(&mut self, method: Method, target: Option<f64>) -> Result<Point, EvalError> {
        let start = Instant::now();
        let parameters = self.model.weights.parameters() as u64;
        let budget = target.map_or(u64::MAX, |bits| (bits * parameters as f64 / 8.0) as u64);
        let made = match method {
            Method::Ours(rung, allocation) => self.ours(rung, allocation, budget)?,
            Method::NoWorseThanInt8(rung) => self.no_worse(rung)?,
            Method::Int8 => {
                self.exported(export_int8_zlib(&self.floats())?.bytes, import_int8_zlib)?
            }
            Method::Int8AllMatrices => self
                .exported(export_int8_zlib_all_matrices(&self.floats())?.bytes, import_int8_zlib)?,
            Method::SdClip => self.sdclip(budget)?,
            Method::Paper => self.paper(PAPER_STEP)?,
            Method::PaperScaled => self.paper_of(budget)?,
        };
        let quality = self.quality(&made.weights)?;
        Ok(Point {
            run: self.name.clone(),
            fingerprint: self.fingerprint.clone(),
            method: method.name(),
            target,
            bytes: made.bytes,
            parameters,
            nats: quality.nats_per_token(),
            float_nats: self.float.nats_per_token(),
            bits_per_byte: quality.bits_per_byte(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn quality(&self, weights: &NamedWeights) -> Result<Quality, EvalError> {
        let network = Transformer::from_weights(&self.model.config, weights, &device())?;
        evaluate(&network, self.tokens, &self.table)
    }

    fn recipe(&mut self, rung: Rung, allocation: Allocation) -> Result<Recipe<'a>, EvalError> {
        self.calibrate(|_, _| ())?;
        let calibration = self.calibration.clone().expect("just calibrated");
        let weights = views(&self.model.weights);
        Ok(Recipe::calibrated(weights, BTreeMap::new(), calibration, rung, allocation)?)
    }

    fn ours(&mut self, rung: Rung, allocation: Allocation, budget: u64) -> Result<Made, EvalError> {
        fitted(&self.recipe(rung, allocation)?, budget)
    }

    /// Halving of ln κ: the loss grows with it.
    fn no_worse(&mut self, rung: Rung) -> Result<Made, EvalError> {
        let bytes = export_int8_zlib_all_matrices(&self.floats())?.bytes;
        let exported = self.exported(bytes, import_int8_zlib)?;
        let limit = self.quality(&exported.weights)?.nats;
        let recipe = self.recipe(rung, Allocation::Rows)?;
        let (mut fine, mut coarse) = (recipe.guess(NO_WORSE_BITS.1), recipe.guess(NO_WORSE_BITS.0));
        for _ in 0..NO_WORSE_FILES {
            let middle = 0.5 * (fine + coarse);
            let weights = decoded_weights(&recipe.artifact(middle)?)?;
            if self.quality(&weights)?.nats <= limit {
                fine = middle;
            } else {
                coarse = middle;
            }
        }
        decoded(&encode_with(&recipe.artifact(fine)?, Effort::Smallest)?)
    }

    fn floats(&self) -> Vec<FloatTensor<'a>> {
        let tensors = self.model.weights.tensors().iter();
        let float =
            |t: &'a NamedTensor| FloatTensor { name: &t.name, shape: &t.shape, values: &t.data };
        tensors.map(float).collect()
    }

    fn exported<E: Into<EvalError>>(
        &self,
        bytes: Vec<u8>,
        import: impl Fn(&[u8]) -> Result<Vec<DecodedTensor>, E>,
    ) -> Result<Made, EvalError> {
        let tensors = import(&bytes).map_err(Into::into)?.into_iter().map(|tensor| NamedTensor {
            name: tensor.name,
            shape: tensor.shape,
            data: tensor.values,
        });
        Ok(Made { bytes: bytes.len() as u64, weights: NamedWeights::new(tensors.collect()) })
    }

    fn sdclip(&self, budget: u64) -> Result<Made, EvalError> {
        let floats = self.floats();
        let tied = |name: &str| self.model.config.ties(name);
        let export = |log_factor: f64| -> Result<Vec<u8>, EvalError> {
            let setting = |tensor: &FloatTensor<'_>| {
                let setting = if tied(tensor.name) { SdClip::EMBEDDING } else { SdClip::MATRIX };
                SdClip { clip: setting.clip * log_factor.exp() as f32, ..setting }
            };
            Ok(export_sdclip(&floats, setting)?.bytes)
        };
        // Larger clips, coarser steps.
        let log_factor = least_that_fits((-1.5, 3.5), budget, |x| Ok(export(x)?.len() as u64))?;
        self.exported(export(log_factor)?, import_sdclip)
    }

    fn paper(&self, step: f32) -> Result<Made, EvalError> {
        let export = export_as_published(&views(&self.model.weights), step)?;
        let tensors = self.model.weights.tensors().iter().zip(&export.decoded);
        let decoded =
            tensors.map(|(tensor, data)| NamedTensor { data: data.clone(), ..tensor.clone() });
        Ok(Made { bytes: export.golomb_bytes(), weights: NamedWeights::new(decoded.collect()) })
    }

    fn paper_of(&self, budget: u64) -> Result<Made, EvalError> {
        let step = |log_factor: f64| PAPER_STEP * log_factor.exp() as f32;
        let views = views(&self.model.weights);
        let size = |x: f64| Ok(export_as_published(&views, step(x))?.golomb_bytes());
        self.paper(step(least_that_fits((-2.0, 6.0), budget, size)?))
    }
}

/// The whole file of a recipe, decoded again.
fn fitted(recipe: &Recipe<'_>, budget: u64) -> Result<Made, EvalError> {
    let mut no_loss = |_: &_| unreachable!("a size was asked for");
    let fitted = recipe.fit(Goal::Bytes(budget), &mut no_loss, &mut |_: Trial| ())?;
    decoded(&fitted.bytes)
}

fn decoded(file: &[u8]) -> Result<Made, EvalError> {
    let weights = decoded_weights(&decode(file, &Limits::default())?)?;
    Ok(Made { bytes: file.len() as u64, weights })
}

/// The least x of a range at which `size` is at most `budget`, where size falls with x; the upper end if there is none.
fn least_that_fits(
    (mut low, mut high): (f64, f64),
    budget: u64,
    size: impl Fn(f64) -> Result<u64, EvalError>,
) -> Result<f64, EvalError> {
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if size(middle)? <= budget {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(high)
}

fn weight_bytes(weights: &NamedWeights) -> Vec<u8> {
    let tensors = weights.tensors().iter();
    tensors.flat_map(|tensor| tensor.data.iter().flat_map(|value| value.to_le_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_that_fits_is_found_from_above() {
        let size = |x: f64| Ok((1e6 * (-x).exp()) as u64);
        let found = least_that_fits((-2.0, 6.0), 500_000, size).unwrap();
        assert!((found - 2.0_f64.ln()).abs() < 1e-3 && size(found).unwrap() <= 500_000, "{found}");
        assert_eq!(least_that_fits((-2.0, 1.0), 5, size).unwrap(), 1.0);
    }
}
