//! The file that changes are measured against.

use std::collections::BTreeMap;

use backslash_codec::QuantizedTensor;
use backslash_model::{ModelConfig, NamedWeights};
use backslash_quant::{Weights, is_coded};
use rayon::prelude::*;

use super::variation::{Variation, coded_bytes, fits_row_scales, protects_columns};
use super::{Change, Entry, ExceptionPath, HeldOut, JournalHeader, Losses, predicted_loss};
use crate::{CompressError, Recipe, Sensitivity};

/// Ranks of low-rank corrections that are tried.
const RANKS: [usize; 2] = [4, 8];

/// A file of a recipe at some κ, decoded, with what each of its tensors takes.
#[derive(Debug)]
pub struct OperatingPoint<'a> {
    pub(super) recipe: &'a Recipe<'a>,
    pub(super) log_kappa: f64,
    pub(super) sensitivities: &'a BTreeMap<String, Sensitivity>,
    config: &'a ModelConfig,
    /// The float model.
    weights: &'a NamedWeights,
    held_out: &'a HeldOut,
    coded: BTreeMap<String, Coded>,
    decoded: NamedWeights,
    losses: Losses,
}

/// A tensor of the file.
#[derive(Debug)]
pub(super) struct Coded {
    pub tensor: QuantizedTensor,
    pub bytes: u64,
}

impl<'a> OperatingPoint<'a> {
    /// Quantises, codes and runs the file of `recipe` at ln κ. `weights` are those of the recipe, of a network of
    /// that configuration; `held_out` is text that neither calibration nor allocation has used.
    ///
    /// # Errors
    /// Those of [`Recipe::artifact`] and of the codec; and if the weights do not fit the configuration.
    pub fn new(
        config: &'a ModelConfig,
        weights: &'a NamedWeights,
        recipe: &'a Recipe<'a>,
        sensitivities: &'a BTreeMap<String, Sensitivity>,
        held_out: &'a HeldOut,
        log_kappa: f64,
    ) -> Result<Self, CompressError> {
        let coded = recipe
            .weights
            .par_iter()
            .with_max_len(1)
            .filter(|tensor| is_coded(tensor.shape))
            .map(|tensor| {
                let name = tensor.name.to_owned();
                let tensor = recipe.coded(tensor, recipe.rule(&name)?, log_kappa)?;
                let bytes = coded_bytes(&name, tensor.clone())?;
                Ok((name, Coded { tensor, bytes }))
            })
            .collect::<Result<BTreeMap<_, _>, CompressError>>()?;
        let mut decoded = weights.clone();
        for tensor in decoded.tensors_mut() {
            if let Some(coded) = coded.get(&tensor.name) {
                tensor.data = coded.tensor.dequantize();
            }
        }
        let losses = held_out.losses(config, &decoded)?;
        Ok(Self {
            recipe,
            log_kappa,
            sensitivities,
            config,
            weights,
            held_out,
            coded,
            decoded,
            losses,
        })
    }

    /// Losses of the decoded file.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// Bytes of all coded tensors.
    pub fn coded_bytes(&self) -> u64 {
        self.coded.values().map(|coded| coded.bytes).sum()
    }

    /// Names of the tensors that can be changed: those that are coded and whose sensitivity is known.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.coded.keys().map(String::as_str).filter(|name| self.sensitivities.contains_key(*name))
    }

    /// Every entry of the ledger, tensor by tensor.
    pub fn changes(&self) -> Vec<(String, ExceptionPath)> {
        let mut changes = Vec::new();
        for name in self.tensors() {
            let mut paths =
                vec![ExceptionPath::Alone, ExceptionPath::Finer, ExceptionPath::Coarser];
            if self.config.ties(name) {
                paths.push(ExceptionPath::FinerEmbedding);
            }
            let by_output = !self.recipe.inputs_first.contains(name);
            let protects = protects_columns(self.recipe.rung);
            if by_output && protects && self.coded[name].tensor.columns() > 1 {
                paths.push(ExceptionPath::ProtectedColumns);
            }
            if by_output {
                paths.push(ExceptionPath::RowFactors);
            }
            if by_output && fits_row_scales(self.recipe.rung) {
                paths.push(ExceptionPath::RowScales);
            }
            paths.extend(RANKS.map(ExceptionPath::LowRank));
            changes.extend(paths.into_iter().map(|path| (name.to_owned(), path)));
        }
        changes
    }

    /// Measures one entry.
    ///
    /// # Errors
    /// Those of the quantiser and the codec.
    ///
    /// # Panics
    /// If the tensor is not one of [`OperatingPoint::tensors`].
    pub fn measure(&self, name: &str, path: ExceptionPath) -> Result<Entry, CompressError> {
        let tensor = self.tensor(name);
        let variation = self.variation(tensor, path)?;
        let (others, before) = match path {
            ExceptionPath::Alone => (self.weights, self.held_out.float()),
            _ => (&self.decoded, &self.losses),
        };
        let after = self.losses_with(others, name, variation.decoded.clone())?;
        let sensitivity = &self.sensitivities[name];
        let metric = self.recipe.metric_of_columns(name);
        let coded = self.coded(name);
        let predicted = |metric| -> Result<f64, CompressError> {
            let before = match path {
                ExceptionPath::Alone => 0.0,
                _ => {
                    let decoded = coded.tensor.dequantize();
                    predicted_loss(sensitivity, tensor.data, &decoded, metric)?
                }
            };
            let after = predicted_loss(sensitivity, tensor.data, &variation.decoded, metric)?;
            Ok(rounded(after - before))
        };
        let change = |before: &[f64], after: &[f64]| {
            let Change { mean, error } = Change::between(before, after);
            Change { mean: rounded(mean), error: rounded(error) }
        };
        let bytes = match path {
            ExceptionPath::Alone => coded.bytes as i64,
            _ => variation.bytes as i64 - coded.bytes as i64,
        };
        Ok(Entry {
            tensor: name.to_owned(),
            path,
            bytes,
            divergence: change(&before.divergence, &after.divergence),
            cross_entropy: change(&before.cross_entropy, &after.cross_entropy),
            predicted: predicted(metric)?,
            predicted_plain: predicted(None)?,
        })
    }

    /// −dD/dB of a tensor, in nats per token and byte, from its step ÷ √2 to its step × √2; with its standard error.
    /// A change that costs no bytes has none.
    ///
    /// # Errors
    /// Those of the quantiser and the codec.
    ///
    /// # Panics
    /// As [`OperatingPoint::measure`].
    pub fn slope(&self, name: &str) -> Result<Option<Change>, CompressError> {
        let at = |path| -> Result<(u64, Losses), CompressError> {
            let Variation { decoded, bytes } = self.variation(self.tensor(name), path)?;
            Ok((bytes, self.losses_with(&self.decoded, name, decoded)?))
        };
        let (fine_bytes, fine) = at(ExceptionPath::Finer)?;
        let (coarse_bytes, coarse) = at(ExceptionPath::Coarser)?;
        let Some(bytes) = fine_bytes.checked_sub(coarse_bytes).filter(|bytes| *bytes > 0) else {
            return Ok(None);
        };
        let Change { mean, error } = Change::between(&fine.divergence, &coarse.divergence);
        Ok(Some(Change { mean: mean / bytes as f64, error: error / bytes as f64 }))
    }

    /// What a journal of this ledger begins with.
    pub fn journal_header(&self) -> JournalHeader {
        JournalHeader {
            rung: self.recipe.rung.to_string(),
            log_kappa: self.log_kappa.to_string(),
            coded_bytes: self.coded_bytes(),
            tokens: self.held_out.tokens(),
            float_loss: format!("{:.6}", self.held_out.float().mean_cross_entropy()),
        }
    }

    pub(super) fn coded(&self, name: &str) -> &Coded {
        &self.coded[name]
    }

    fn tensor(&self, name: &str) -> &Weights<'a> {
        let found = self.recipe.weights.iter().find(|tensor| tensor.name == name);
        found.expect("a tensor of the recipe")
    }

    /// Losses with one tensor of `others` replaced.
    fn losses_with(
        &self,
        others: &NamedWeights,
        name: &str,
        data: Vec<f32>,
    ) -> Result<Losses, CompressError> {
        let mut weights = others.clone();
        let position = weights.position(name).expect("a tensor of the model");
        weights.tensors_mut()[position].data = data;
        self.held_out.losses(self.config, &weights)
    }
}

/// To 10⁻¹² nats: with so few digits a figure comes back exactly from the text of a journal.
fn rounded(figure: f64) -> f64 {
    (figure * 1e12).round() / 1e12
}
