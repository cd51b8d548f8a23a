//! How large a file will be, from the fast coder and a few of the rows.

use std::collections::BTreeMap;

use backslash_codec::{Effort, encode_with, encoded_size_with};
use backslash_quant::{Weights, is_coded};

use crate::goal::LossIncrease;
use crate::search::Trial;
use crate::solver::{Fitted, Start, Target, fit_to_bytes};
use crate::{CompressError, Goal, Recipe, StepRule};

/// Weights in a sample, about.
const SAMPLE: usize = 1 << 20;
/// Rows that are taken from a tensor at the least.
const FEWEST_ROWS: usize = 32;

/// A file that has not been made.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// The fast coder's file of the same content.
    pub fast: Fitted,
    /// Bytes of the smallest file, about: those of the fast one times the ratio that the two have for a sample of the
    /// rows.
    pub bytes: u64,
}

impl Recipe<'_> {
    /// What [`Recipe::fit`] will make with all effort, without the slow coder running on more than about a million
    /// weights.
    ///
    /// # Errors
    /// Those of [`Recipe::fit`].
    pub fn estimate(
        &self,
        goal: Goal,
        loss_increase: &mut LossIncrease<'_>,
        progress: &mut dyn FnMut(Trial),
    ) -> Result<Estimate, CompressError> {
        let (fast, ratio) = if let Goal::Bytes(budget) = goal {
            let start =
                self.start_from_sample(Target { budget, effort: Effort::Smallest }, progress)?;
            let ratio = start.ratio.unwrap_or(1.0);
            let target = Target { budget: (budget as f64 / ratio) as u64, effort: Effort::Fast };
            let mut make = |log_kappa| self.artifact(log_kappa);
            (fit_to_bytes(&mut make, start, target, progress)?, ratio)
        } else {
            let fast = self.fit(goal, Effort::Fast, loss_increase, progress)?;
            let sample = self.sample().recipe(self).artifact(fast.log_kappa)?;
            let smallest = encode_with(&sample, Effort::Smallest)?.len() as f64;
            let ratio = smallest / encoded_size_with(&sample, Effort::Fast)?.total() as f64;
            (fast, ratio)
        };
        let bytes = (ratio * fast.bytes.len() as f64).round() as u64;
        Ok(Estimate { fast, bytes })
    }

    /// Where the search on a sample of the rows, for as many bytes per weight, has ended.
    pub(crate) fn start_from_sample(
        &self,
        target: Target,
        progress: &mut dyn FnMut(Trial),
    ) -> Result<Start, CompressError> {
        let start = Start::at(self.guess(self.bits(target.budget)));
        let sample = self.sample();
        let recipe = sample.recipe(self);
        let share = recipe.parameters() as f64 / self.parameters().max(1) as f64;
        let mut make = |log_kappa| recipe.artifact(log_kappa);
        // Tables are as large for a few rows as for all.
        let split = encoded_size_with(&make(start.log_kappa)?, Effort::Fast)?;
        let fixed = (split.tables + split.directory) as f64;
        let budget = (share * target.budget as f64 + (1.0 - share) * fixed) as u64;
        let fast = Target { budget, effort: Effort::Fast };
        let fitted = match fit_to_bytes(&mut make, start, fast, progress) {
            Ok(fitted) => fitted,
            // All rows may still do.
            Err(CompressError::Quant(_)) => return Ok(start),
            Err(error) => return Err(error),
        };
        let Fitted { log_kappa, artifact, bytes, inverse_slope, .. } = fitted;
        if target.effort == Effort::Fast {
            return Ok(Start { log_kappa, ratio: None, inverse_slope });
        }
        let smallest = encoded_size_with(&artifact, Effort::Smallest)?.total();
        let ratio = smallest as f64 / bytes.len() as f64;
        // What the slow coder saves makes room for finer steps.
        let log_kappa = log_kappa + inverse_slope.unwrap_or(1.5) * ratio.ln();
        Ok(Start { log_kappa, ratio: Some(ratio), inverse_slope })
    }

    /// Every k-th row of all coded tensors, k being the same but for tensors of few rows.
    fn sample(&self) -> Sample {
        let every = self.parameters().div_ceil(SAMPLE).max(1);
        let mut tensors = Vec::new();
        for tensor in self.weights.iter().filter(|tensor| is_coded(tensor.shape)) {
            let rows = tensor.shape[0].max(1);
            let columns = tensor.data.len() / rows;
            if self.inputs_first.contains(tensor.name) {
                // Its outputs are the columns.
                let every = every.min(columns.div_ceil(FEWEST_ROWS)).max(1);
                let rows_of = tensor.data.chunks(columns.max(1));
                let picked = rows_of.flat_map(|row| row.iter().copied().step_by(every));
                let (name, rule) = (tensor.name.to_owned(), self.rules.get(tensor.name).cloned());
                let (shape, data) = (vec![rows, columns.div_ceil(every)], picked.collect());
                tensors.push(SampledTensor { name, shape, data, rule });
                continue;
            }
            let every = every.min(rows.div_ceil(FEWEST_ROWS));
            let picked = || (0..rows).step_by(every);
            let mut shape = tensor.shape.to_vec();
            shape[0] = picked().count();
            let row = |row: usize| &tensor.data[row * columns..(row + 1) * columns];
            let data = picked().flat_map(row).copied().collect();
            let rule = self.rules.get(tensor.name).map(|rule| StepRule {
                step: rule.step,
                rows: rule.rows.as_ref().map(|rows| picked().map(|row| rows[row]).collect()),
            });
            tensors.push(SampledTensor { name: tensor.name.to_owned(), shape, data, rule });
        }
        Sample { tensors }
    }
}

/// Some of the rows.
struct Sample {
    tensors: Vec<SampledTensor>,
}

struct SampledTensor {
    name: String,
    shape: Vec<usize>,
    data: Vec<f32>,
    rule: Option<StepRule>,
}

impl Sample {
    /// The recipe for these rows.
    fn recipe<'a>(&'a self, whole: &Recipe<'_>) -> Recipe<'a> {
        let weights = self.tensors.iter().map(|tensor| Weights {
            name: &tensor.name,
            shape: &tensor.shape,
            data: &tensor.data,
        });
        let rule = |tensor: &SampledTensor| Some((tensor.name.clone(), tensor.rule.clone()?));
        Recipe {
            weights: weights.collect(),
            metadata: BTreeMap::new(),
            verbatim: BTreeMap::new(),
            rung: whole.rung,
            options: whole.options,
            rules: self.tensors.iter().filter_map(rule).collect(),
            metrics: whole.metrics.clone(),
            inputs_first: whole.inputs_first.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_quant::{LadderOptions, Rung};
    use rand::{RngExt, SeedableRng};

    /// Rows of very different scale, and one tensor that is small.
    #[test]
    fn a_sample_foretells_the_size_of_all_rows() {
        let mut random = rand_pcg::Pcg64::seed_from_u64(7);
        let mut matrix = |rows: usize, columns: usize| -> Vec<f32> {
            let mut value = |index: usize| {
                let sum: f32 = (0..4).map(|_| random.random::<f32>() - 0.5).sum();
                sum * (1 + index / columns % 5) as f32
            };
            (0..rows * columns).map(&mut value).collect()
        };
        let (large, small) = (matrix(4096, 512), matrix(80, 64));
        let weights = vec![
            Weights { name: "large", shape: &[4096, 512], data: &large },
            Weights { name: "small", shape: &[80, 64], data: &small },
        ];
        let recipe = Recipe::of_weights(weights, Rung::Rtn, LadderOptions::default());
        let shapes: Vec<_> =
            recipe.sample().tensors.iter().map(|tensor| tensor.shape.clone()).collect();
        assert_eq!(shapes, [vec![1366, 512], vec![27, 64]]);
        let mut no_loss = |_: &_| unreachable!("a size is asked for");
        for goal in [Goal::Bytes(600_000), Goal::Kappa(0.7)] {
            let estimate = recipe.estimate(goal, &mut no_loss, &mut |_| ()).unwrap();
            let made = recipe.artifact(estimate.fast.log_kappa).unwrap();
            assert_eq!(estimate.fast.bytes, encode_with(&made, Effort::Fast).unwrap());
            let bytes = encode_with(&made, Effort::Smallest).unwrap().len() as f64;
            assert!((estimate.bytes as f64 / bytes - 1.0).abs() < 0.01, "{goal:?}: {bytes}");
            if goal == Goal::Bytes(600_000) {
                assert!((bytes / 600_000.0 - 1.0).abs() < 0.01, "{bytes}");
            }
        }
    }
}
