//! What a file is asked to be.

use backslash_codec::{Artifact, Effort, encode_with};
use backslash_rate::Moments;

use crate::search::Trial;
use crate::solver::{Fitted, Start, Target, fit_to_bytes};
use crate::{CompressError, Recipe};

/// What decides how large a file becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// At most so many bytes, and nearly as many.
    Bytes(u64),
    /// At most so many nats per token more than the float model, measured on the calibration text.
    LossIncrease(f64),
    /// A given κ.
    Kappa(f64),
}

/// Most files that are measured in search of a loss.
const MEASUREMENTS: usize = 10;
/// Share of the allowed increase that is used before that search ends.
const ENOUGH: f64 = 0.97;

/// Weights from which on a few of the rows are fitted first, to begin the search for all of them where it ends.
const LARGE: usize = 8 << 20;

/// Measures how much the content of a file loses.
pub type LossIncrease<'a> = dyn FnMut(&Artifact) -> Result<f64, CompressError> + 'a;

impl Recipe<'_> {
    /// The file that meets a goal. `loss_increase` measures the content of a file and is only called for
    /// [`Goal::LossIncrease`]; `progress` is called after every size that is tried.
    ///
    /// # Errors
    /// Those of [`fit_to_bytes`] and of `loss_increase`; [`CompressError::LossUnreachable`] if even the finest
    /// file loses more than it may.
    pub fn fit(
        &self,
        goal: Goal,
        effort: Effort,
        loss_increase: &mut LossIncrease<'_>,
        progress: &mut dyn FnMut(Trial),
    ) -> Result<Fitted, CompressError> {
        let log_kappa = match goal {
            Goal::Bytes(budget) => {
                return self.fit_to_bytes(Target { budget, effort }, None, progress);
            }
            Goal::Kappa(kappa) => kappa.ln(),
            Goal::LossIncrease(limit) => self.log_kappa_of_loss(limit, loss_increase, progress)?,
        };
        let artifact = self.artifact(log_kappa)?;
        let bytes = encode_with(&artifact, effort)?;
        Ok(Fitted { log_kappa, artifact, bytes, ratio: None, inverse_slope: None })
    }

    /// The file of [`Goal::Bytes`]. `ratio` is that of a similar file, if there is one ([`Start`]).
    ///
    /// # Errors
    /// Those of [`fit_to_bytes`].
    pub fn fit_to_bytes(
        &self,
        target: Target,
        ratio: Option<f64>,
        progress: &mut dyn FnMut(Trial),
    ) -> Result<Fitted, CompressError> {
        let start = match self.parameters() > LARGE {
            true => self.start_from_sample(target, progress)?,
            false => Start { ratio, ..Start::at(self.guess(self.bits(target.budget))) },
        };
        fit_to_bytes(&mut |log_kappa| self.artifact(log_kappa), start, target, progress)
    }

    /// Bits per weight of a number of bytes.
    pub(crate) fn bits(&self, bytes: u64) -> f64 {
        8.0 * bytes as f64 / self.parameters().max(1) as f64
    }

    /// Secant search on ln κ: the increase grows about as κ².
    fn log_kappa_of_loss(
        &self,
        limit: f64,
        loss_increase: &mut LossIncrease<'_>,
        progress: &mut dyn FnMut(Trial),
    ) -> Result<f64, CompressError> {
        if limit.is_nan() || limit <= 0.0 {
            return Err(CompressError::LossUnreachable { limit, least: 0.0 });
        }
        let mut log_kappa = 0.5 * (24.0 * limit / self.parameters().max(1) as f64).ln();
        // ln κ and increase on either side of the limit.
        let mut below: Option<(f64, f64)> = None;
        let mut above: Option<(f64, f64)> = None;
        let mut least = f64::INFINITY;
        for trial in 1..=MEASUREMENTS {
            let increase = loss_increase(&self.artifact(log_kappa)?)?;
            progress(Trial { file: 1, trial, bytes: 0 });
            least = least.min(increase);
            if increase <= limit {
                below = Some((log_kappa, increase.max(1e-9)));
                if increase >= ENOUGH * limit {
                    break;
                }
            } else {
                above = Some((log_kappa, increase));
            }
            log_kappa = match (below, above) {
                (Some(below), Some(above)) => {
                    let slope = (above.1 / below.1).ln() / (above.0 - below.0);
                    let aim = (0.99 * limit / below.1).ln() / slope.max(1e-6);
                    let span = above.0 - below.0;
                    below.0 + aim.clamp(0.02 * span, 0.98 * span)
                }
                _ => {
                    let factor = (0.99 * limit / increase.max(1e-9)).ln();
                    log_kappa + (0.5 * factor).clamp(-2.0, 2.0)
                }
            };
        }
        match below {
            Some((log_kappa, _)) => Ok(log_kappa),
            None => Err(CompressError::LossUnreachable { limit, least }),
        }
    }

    /// ln κ at which the file has about so many bits per weight: −log₂Δ plus the differential entropy of weights
    /// between Gaussian and Laplace, two bits at a deviation of one.
    pub fn guess(&self, bits_per_weight: f64) -> f64 {
        let (mut bits, mut count) = (0.0, 0.0);
        for tensor in &self.weights {
            let Some(rule) = self.rules.get(tensor.name) else { continue };
            let rms = Moments::of(tensor.data).root_mean_square();
            if rms.is_normal() && rule.step.is_normal() {
                bits += tensor.data.len() as f64 * (2.0 + (rms / rule.step).log2());
                count += tensor.data.len() as f64;
            }
        }
        std::f64::consts::LN_2 * (bits / f64::max(count, 1.0) - bits_per_weight)
    }
}
