//! The search for the ln κ at which the fast coder's file has a size.

use backslash_codec::{Artifact, Effort, encoded_size_with};
use backslash_quant::QuantError;

use crate::CompressError;

/// Most fast sizes on the way to one target.
const TRIALS: usize = 24;
/// −d ln κ/d ln bytes before a search has seen it: at low rate ln bytes falls about as fast as ln κ rises, at high rate more
/// slowly.
pub(crate) const USUAL_INVERSE_SLOPE: f64 = 1.5;
/// ln κ never leaves ± this.
pub(crate) const FURTHEST: f64 = 25.0;

/// Where a search stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Files made so far, the one under way included.
    pub file: usize,
    /// Sizes tried so far, over all files.
    pub trial: usize,
    /// The last size, in bytes.
    pub bytes: u64,
}

/// A search for contents whose fast files have a size.
pub(crate) struct Search<'a> {
    make: &'a mut dyn FnMut(f64) -> Result<Artifact, CompressError>,
    progress: &'a mut dyn FnMut(Trial),
    /// The nearest point known to be larger, and smaller, than any target so far: ln κ and ln bytes.
    fine: Option<(f64, f64)>,
    coarse: Option<(f64, f64)>,
    /// The trial before the last one, of any target.
    before: Option<(f64, f64)>,
    /// −d ln κ/d ln bytes between the last two trials.
    pub(crate) inverse_slope: Option<f64>,
    /// Number of the file that is searched for.
    pub(crate) file: usize,
    trial: usize,
    /// How far below its target a size is near enough, in its logarithm.
    pub(crate) near: f64,
}

impl<'a> Search<'a> {
    /// A search that has tried nothing. `make` turns ln κ into the content of a file, `progress` is told every size.
    pub(crate) fn new(
        make: &'a mut dyn FnMut(f64) -> Result<Artifact, CompressError>,
        progress: &'a mut dyn FnMut(Trial),
        inverse_slope: Option<f64>,
        near: f64,
    ) -> Self {
        let (fine, coarse, before) = (None, None, None);
        Self { make, progress, fine, coarse, before, inverse_slope, file: 0, trial: 0, near }
    }

    /// The content at ln κ and the size of its fast file.
    pub(crate) fn at(&mut self, log_kappa: f64) -> Result<(f64, Artifact, u64), CompressError> {
        let artifact = (self.make)(log_kappa)?;
        let size = encoded_size_with(&artifact, Effort::Fast)?.total();
        self.trial += 1;
        (self.progress)(Trial { file: self.file, trial: self.trial, bytes: size });
        Ok((log_kappa, artifact, size))
    }

    /// The content whose fast file is near below `target` bytes, or the nearest below that is found.
    pub(crate) fn approach(
        &mut self,
        start: f64,
        target: f64,
    ) -> Result<(f64, Artifact, u64), CompressError> {
        let goal = target.ln();
        // The target moves a little between files: points on the wrong side of it are forgotten.
        self.fine = self.fine.filter(|point| point.1 > goal);
        self.coarse = self.coarse.filter(|point| point.1 <= goal);
        let mut log_kappa = start.clamp(-FURTHEST, FURTHEST);
        let mut below: Option<(f64, Artifact, u64)> = None;
        for _ in 0..TRIALS {
            let artifact = match (self.make)(log_kappa) {
                Ok(artifact) => Some(artifact),
                Err(CompressError::Quant(QuantError::StepTooFine { .. })) => None,
                Err(error) => return Err(error),
            };
            self.trial += 1;
            let (size, artifact) = match artifact {
                Some(artifact) => {
                    (encoded_size_with(&artifact, Effort::Fast)?.total(), Some(artifact))
                }
                None => (u64::MAX, None),
            };
            (self.progress)(Trial { file: self.file, trial: self.trial, bytes: size });
            let log_size = (size as f64).ln();
            if log_size > goal {
                self.fine = Some((log_kappa, log_size));
                if log_kappa >= FURTHEST {
                    let artifact = artifact.expect("the coarsest steps are not too fine");
                    return Ok((log_kappa, artifact, size));
                }
            } else {
                self.coarse = Some((log_kappa, log_size));
                let artifact = artifact.expect("a size was found");
                let nearer = below.as_ref().is_none_or(|(at, ..)| log_kappa < *at);
                if nearer {
                    below = Some((log_kappa, artifact, size));
                }
                if goal - log_size < self.near || log_kappa <= -FURTHEST {
                    break;
                }
            }
            if let (Some(fine), Some(coarse)) = (self.fine, self.coarse)
                && coarse.0 - fine.0 < 1e-5
            {
                break;
            }
            if let Some(before) = self.before {
                let inverse = -(log_kappa - before.0) / (log_size - before.1);
                self.inverse_slope = Some(inverse).filter(|inverse| (0.5..8.0).contains(inverse));
            }
            self.before = Some((log_kappa, log_size));
            log_kappa = self.next(log_kappa, log_size, goal);
        }
        match below {
            Some(found) => Ok(found),
            // All trials were above: the coarsest of the bracket is known to fit.
            None => self.at(self.coarse.map_or(FURTHEST, |point| point.0)),
        }
    }

    /// The next ln κ: between the two sides by interpolation, or outwards while one is missing.
    fn next(&self, log_kappa: f64, log_size: f64, goal: f64) -> f64 {
        let aim = goal - 5e-4;
        match (self.fine, self.coarse) {
            (Some(fine), Some(coarse)) => {
                let span = coarse.0 - fine.0;
                let share = if fine.1.is_finite() && fine.1 < 60.0 {
                    (fine.1 - aim) / (fine.1 - coarse.1).max(1e-12)
                } else {
                    0.5
                };
                // Kept off the ends, so that the bracket shrinks on curved stretches too.
                fine.0 + span * share.clamp(0.02, 0.98)
            }
            _ => {
                let inverse = self.inverse_slope.unwrap_or(USUAL_INVERSE_SLOPE);
                let step = (inverse * (log_size.min(60.0) - aim)).clamp(-3.0, 3.0);
                let step = if step.abs() < 2e-3 { 2e-3 * step.signum() } else { step };
                (log_kappa + step).clamp(-FURTHEST, FURTHEST)
            }
        }
    }
}
