//! One knob, one file: the finest steps that fit a number of bytes.

use backslash_codec::{Artifact, Effort, encode_with, encoded_size_with};
use backslash_quant::QuantError;

use crate::CompressError;

/// Share of the budget that is used before the search ends.
const ENOUGH: f64 = 0.997;
/// Most fast sizes between two files, and most files.
const TRIALS: usize = 24;
const FILES: usize = 8;
/// ln κ never leaves ± this.
const FURTHEST: f64 = 25.0;

/// A file that fits.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// ln κ at which it was made.
    pub log_kappa: f64,
    /// What it holds.
    pub artifact: Artifact,
    /// The file itself.
    pub bytes: Vec<u8>,
}

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

/// The file of the smallest κ, that is of the finest steps, with at most `budget` bytes.
///
/// `make` turns ln κ into the content of a file; its size falls with κ, by about one bit per weight each time κ
/// doubles. The search runs on sizes of the fast coder, which stand in a steady ratio to those of the smallest
/// files; then a file is made, and the ratio corrected, until the file fits and uses at least 99.7 % of the budget
/// (or until eight files have been made, and the best of them is taken). `start` is a first guess of ln κ.
///
/// # Errors
/// [`QuantError::Unreachable`] with the smallest size found if the budget cannot be met; otherwise those of `make`.
pub fn fit_to_bytes(
    make: &mut dyn FnMut(f64) -> Result<Artifact, CompressError>,
    start: f64,
    budget: u64,
    progress: &mut dyn FnMut(Trial),
) -> Result<Fitted, CompressError> {
    let mut search = Search { make, progress, fine: None, coarse: None, file: 0, trial: 0 };
    let mut best: Option<Fitted> = None;
    let (mut ratio, mut log_kappa) = (1.0, start);
    let mut smallest = u64::MAX;
    for file in 1..=FILES {
        search.file = file;
        let (at, artifact, fast) = search.approach(log_kappa, budget as f64 / ratio)?;
        let bytes = encode_with(&artifact, Effort::Smallest)?;
        let size = bytes.len() as u64;
        smallest = smallest.min(size);
        log_kappa = at;
        let used = size as f64 / budget as f64;
        let better = best.as_ref().is_none_or(|best| bytes.len() > best.bytes.len());
        if size <= budget && better {
            best = Some(Fitted { log_kappa: at, artifact, bytes });
        }
        // The finest steps there are, or a file that uses the budget.
        if (ENOUGH..=1.0).contains(&used) || (size <= budget && at <= -FURTHEST) {
            break;
        }
        if size > budget && at >= FURTHEST {
            break;
        }
        // A file just above the budget would be met again: aim a little lower.
        let margin = if size > budget { 1.0005 } else { 1.0 };
        ratio = margin * size as f64 / fast as f64;
    }
    best.ok_or_else(|| QuantError::Unreachable { budget, smallest }.into())
}

struct Search<'a> {
    make: &'a mut dyn FnMut(f64) -> Result<Artifact, CompressError>,
    progress: &'a mut dyn FnMut(Trial),
    /// The nearest point known to be larger, and smaller, than any target so far: ln κ and ln bytes.
    fine: Option<(f64, f64)>,
    coarse: Option<(f64, f64)>,
    file: usize,
    trial: usize,
}

impl Search<'_> {
    /// The content whose fast file is within 0.1 % below `target` bytes (1 % for the first file), or the nearest below
    /// that is found.
    fn approach(&mut self, start: f64, target: f64) -> Result<(f64, Artifact, u64), CompressError> {
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
                // The first file only tells the ratio.
                let near = if self.file == 1 { 1e-2 } else { 1e-3 };
                if goal - log_size < near || log_kappa <= -FURTHEST {
                    break;
                }
            }
            if let (Some(fine), Some(coarse)) = (self.fine, self.coarse)
                && coarse.0 - fine.0 < 1e-5
            {
                break;
            }
            log_kappa = self.next(log_kappa, log_size, goal);
        }
        match below {
            Some(found) => Ok(found),
            // All trials were above: the coarsest of the bracket is known to fit.
            None => {
                let at = self.coarse.map_or(FURTHEST, |point| point.0);
                let artifact = (self.make)(at)?;
                let size = encoded_size_with(&artifact, Effort::Fast)?.total();
                Ok((at, artifact, size))
            }
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
                // At low rate ln bytes falls about as fast as ln κ rises, at high rate more slowly.
                let step = (1.5 * (log_size.min(60.0) - aim)).clamp(-3.0, 3.0);
                let step = if step.abs() < 0.01 { 0.01 * step.signum() } else { step };
                (log_kappa + step).clamp(-FURTHEST, FURTHEST)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_quant::{Plan, Weights};
    use rand::{RngExt, SeedableRng};
    use std::collections::BTreeMap;

    #[test]
    fn the_budget_is_met_from_below_and_used() {
        let mut random = rand_pcg::Pcg64::seed_from_u64(2);
        let data: Vec<f32> = (0..256 * 256)
            .map(|_| {
                let u: f32 = random.random_range(1e-6..1.0);
                let sign = if random.random::<bool>() { 1.0 } else { -1.0 };
                -u.ln() * sign
            })
            .collect();
        let weights = [Weights { name: "w", shape: &[256, 256], data: &data }];
        let metadata = BTreeMap::from([("note".to_owned(), b"of some length".to_vec())]);
        let plan = Plan::relative(&weights, 1.0);
        let mut make = |x: f64| Ok(plan.scaled(x.exp() as f32).artifact(&weights, &metadata)?);
        for (budget, start) in [(4_000, 0.0), (11_111, 3.0), (25_000, -6.0), (60_000, 0.0)] {
            let mut trials = 0;
            let fitted = fit_to_bytes(&mut make, start, budget, &mut |_| trials += 1).unwrap();
            let bytes = fitted.bytes.len() as u64;
            assert!(bytes <= budget && bytes * 1000 > budget * 995, "{budget}: {bytes}");
            assert!(trials < 40, "{trials} trials");
        }
        let error = fit_to_bytes(&mut make, 0.0, 10, &mut |_| ()).unwrap_err();
        assert!(
            matches!(error, CompressError::Quant(QuantError::Unreachable { budget: 10, smallest }) if smallest > 10),
            "{error}"
        );
        // More than the weights can use: the finest file there is.
        let fitted = fit_to_bytes(&mut make, 0.0, 10_000_000, &mut |_| ()).unwrap();
        assert!(fitted.bytes.len() > 150_000, "{}", fitted.bytes.len());
    }
}
