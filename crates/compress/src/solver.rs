//! One knob, one file: the finest steps that fit a number of bytes.

use std::collections::BTreeMap;

use backslash_codec::{Artifact, Effort, encode_with, encoded_size_with, estimated_size};
use backslash_quant::{Levels, Plan, QuantError, Weights};

use crate::CompressError;
use crate::search::{FURTHEST, Search, Trial, USUAL_INVERSE_SLOPE};

/// Share of the budget that is used before the search ends, and that is aimed at.
const ENOUGH: f64 = 0.997;
const AIM: f64 = 0.9985;
/// The same where steps are as trained.
const ENOUGH_AS_TRAINED: f64 = 0.98;
/// Most contents that are tried.
const FILES: usize = 8;
/// How far below its target a fast size may be, in its logarithm, and where the file only tells the ratio.
const NEAR: f64 = 1e-3;
const ROUGHLY_NEAR: f64 = 1e-2;
/// Factor on a ratio that is not to be exceeded.
const MARGIN: f64 = 1.0005;
/// The size of a file over that of the fast coder's, about, before a search has seen it.
const USUAL_RATIO: f64 = 0.93;
/// How far an estimated size may be from that of the file, as a share of it.
const DOUBT: f64 = 0.002;

/// A file that fits.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// ln κ at which it was made.
    pub log_kappa: f64,
    /// What it holds.
    pub artifact: Artifact,
    /// The file itself.
    pub bytes: Vec<u8>,
    /// Its size over that of the fast coder's file, where the search has seen both.
    pub ratio: Option<f64>,
    /// −d ln κ/d ln bytes there, where the search has seen it.
    pub inverse_slope: Option<f64>,
}

/// Where a search begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start {
    /// A guess of ln κ.
    pub log_kappa: f64,
    /// About the size of a file over that of the fast coder's, if a similar file has told it.
    pub ratio: Option<f64>,
    /// About −d ln κ/d ln bytes, likewise.
    pub inverse_slope: Option<f64>,
}

impl Start {
    /// Where nothing is known of the files but a guess of ln κ.
    pub fn at(log_kappa: f64) -> Self {
        Self { log_kappa, ratio: None, inverse_slope: None }
    }
}

/// A size to be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Most bytes of the file.
    pub budget: u64,
    /// How small the file is made for its content.
    pub effort: Effort,
}

/// The file of the smallest κ, that is of the finest steps, with at most `target.budget` bytes.
///
/// `make` turns ln κ into the content of a file; its size falls with κ, by about one bit per weight each time κ
/// doubles. The search runs on sizes of the fast coder, which stand in a steady ratio to those of the smallest
/// files. What it ends at is estimated, unless `start` knows the ratio, and made where it may do, and the ratio corrected,
/// until a file fits and uses at least 99.7 % of the budget (or until eight contents have been tried, and the best of them is
/// taken). `start` is a first guess of ln κ.
///
/// # Errors
/// [`QuantError::Unreachable`] with the smallest size found if the budget cannot be met; otherwise those of `make`.
pub fn fit_to_bytes(
    make: &mut dyn FnMut(f64) -> Result<Artifact, CompressError>,
    start: Start,
    target: Target,
    progress: &mut dyn FnMut(Trial),
) -> Result<Fitted, CompressError> {
    let Target { budget, effort } = target;
    let known = match effort {
        Effort::Fast => Some(1.0),
        Effort::Smallest => start.ratio.map(|ratio| MARGIN * ratio),
    };
    let near = if known.is_some() { NEAR } else { ROUGHLY_NEAR };
    let mut search = Search::new(make, progress, start.inverse_slope, near);
    let mut best: Option<Fitted> = None;
    // The largest content that is expected to fit and has not been made.
    let mut left: Option<Candidate> = None;
    let (mut ratio, mut log_kappa) = (known.unwrap_or(USUAL_RATIO), start.log_kappa);
    // The size of the last file over what it was estimated at.
    let mut bias = 1.0;
    let mut smallest = u64::MAX;
    // Sizes on both sides of the budget, as ln κ and ln bytes.
    let mut above: Option<(f64, f64)> = None;
    let mut below: Option<(f64, f64)> = None;
    for file in 1..=FILES {
        search.file = file;
        let (at, artifact, fast) = match (above, below) {
            // Between two files their own sizes are a better guide than the ratio, which depends on κ where files are small.
            (Some(above), Some(below)) => {
                let aim = (AIM * budget as f64).ln();
                let share = ((above.1 - aim) / (above.1 - below.1)).clamp(0.05, 0.95);
                search.at(above.0 + share * (below.0 - above.0))?
            }
            _ => search.approach(log_kappa, budget as f64 / ratio)?,
        };
        let estimate = match effort {
            Effort::Fast => Some(fast),
            // A ratio that is known tells as much.
            Effort::Smallest if file == 1 && known.is_some() => None,
            Effort::Smallest => Some(estimated_size(&artifact)?.total()),
        };
        // What will clearly not do is not made, but for the finest and the coarsest steps there are.
        let clearly_off = estimate
            .map(|estimate| (bias * estimate as f64).round() as u64)
            .filter(|expected| at.abs() < FURTHEST && !may_do(*expected, budget));
        log_kappa = at;
        let size = match clearly_off {
            Some(expected) => {
                if expected <= budget && left.as_ref().is_none_or(|left| expected > left.expected) {
                    left = Some(Candidate { log_kappa: at, artifact, fast, expected });
                }
                expected
            }
            None => {
                let made = make_file(at, artifact, fast, effort, search.inverse_slope)?;
                let size = made.bytes.len() as u64;
                bias = estimate.map_or(bias, |estimate| size as f64 / estimate as f64);
                if size <= budget && best.as_ref().is_none_or(|best| size > best.bytes.len() as u64)
                {
                    best = Some(made);
                }
                size
            }
        };
        smallest = smallest.min(size);
        let used = size as f64 / budget as f64;
        match used > 1.0 {
            true => above = Some((at, (size as f64).ln())),
            false => below = Some((at, (size as f64).ln())),
        }
        // A file that uses the budget, or the finest and the coarsest steps there are.
        if (ENOUGH..=1.0).contains(&used)
            || (size <= budget && at <= -FURTHEST)
            || (size > budget && at >= FURTHEST)
        {
            break;
        }
        // A file just above the budget would be met again: aim a little lower.
        let margin = if size > budget { MARGIN } else { 1.0 };
        ratio = margin * size as f64 / fast as f64;
        search.near = NEAR;
    }
    let used = best.as_ref().map_or(0, |best| best.bytes.len() as u64);
    if let Some(left) = left.filter(|left| left.expected > used) {
        let Candidate { log_kappa, artifact, fast, .. } = left;
        let made = make_file(log_kappa, artifact, fast, effort, search.inverse_slope)?;
        let size = made.bytes.len() as u64;
        smallest = smallest.min(size);
        if (used + 1..=budget).contains(&size) {
            best = Some(made);
        }
    }
    best.ok_or_else(|| QuantError::Unreachable { budget, smallest }.into())
}

/// The file of a content that a search has found, whose fast file has `fast` bytes.
fn make_file(
    log_kappa: f64,
    artifact: Artifact,
    fast: u64,
    effort: Effort,
    inverse_slope: Option<f64>,
) -> Result<Fitted, CompressError> {
    let bytes = encode_with(&artifact, effort)?;
    let ratio = Some(bytes.len() as f64 / fast as f64);
    Ok(Fitted { log_kappa, artifact, bytes, ratio, inverse_slope })
}

/// Whether a file that is expected to have so many bytes may fit and use the budget.
fn may_do(expected: u64, budget: u64) -> bool {
    (ENOUGH - DOUBT..=1.0 + DOUBT).contains(&(expected as f64 / budget as f64))
}

/// As [`fit_to_bytes`] for weights whose training has seen the steps of κ = 1: their file stays as it is if it uses at least
/// 98 % of the budget. Trained weights crowd where one code gives way to the next, so a file on another grid loses more than
/// its bytes are worth.
///
/// # Errors
/// Those of [`fit_to_bytes`].
pub fn fit_trained_to_bytes(
    make: &mut dyn FnMut(f64) -> Result<Artifact, CompressError>,
    target: Target,
    progress: &mut dyn FnMut(Trial),
) -> Result<Fitted, CompressError> {
    let artifact = make(0.0)?;
    let of_budget = |size: u64| size as f64 / target.budget as f64;
    let mut size = match target.effort {
        Effort::Fast => encoded_size_with(&artifact, Effort::Fast)?.total(),
        Effort::Smallest => estimated_size(&artifact)?.total(),
    };
    if (ENOUGH_AS_TRAINED - DOUBT..=1.0 + DOUBT).contains(&of_budget(size)) {
        let bytes = encode_with(&artifact, target.effort)?;
        size = bytes.len() as u64;
        if (ENOUGH_AS_TRAINED..=1.0).contains(&of_budget(size)) {
            progress(Trial { file: 1, trial: 1, bytes: size });
            return Ok(Fitted {
                log_kappa: 0.0,
                artifact,
                bytes,
                ratio: None,
                inverse_slope: None,
            });
        }
    }
    progress(Trial { file: 1, trial: 1, bytes: size });
    let fast = encoded_size_with(&artifact, Effort::Fast)?.total();
    let start = Start {
        log_kappa: USUAL_INVERSE_SLOPE * (of_budget(size) / AIM).ln(),
        ratio: Some(size as f64 / fast as f64),
        inverse_slope: None,
    };
    let mut after = |trial: Trial| {
        progress(Trial { file: trial.file + 1, trial: trial.trial + 1, ..trial });
    };
    fit_to_bytes(make, start, target, &mut after)
}

/// The largest file of at most `target.budget` bytes by a plan of steps, all of them multiplied by κ, or, where codes are on
/// the grid of the training, as it is ([`fit_trained_to_bytes`]).
///
/// # Errors
/// Those of [`fit_to_bytes`] and of [`Plan::artifact`].
pub fn fit_plan_to_bytes(
    plan: &Plan,
    weights: &[Weights<'_>],
    metadata: &BTreeMap<String, Vec<u8>>,
    target: Target,
    progress: &mut dyn FnMut(Trial),
) -> Result<Fitted, CompressError> {
    let mut make =
        |log_kappa: f64| Ok(plan.scaled(log_kappa.exp() as f32).artifact(weights, metadata)?);
    match plan.levels {
        Levels::Grid => fit_trained_to_bytes(&mut make, target, progress),
        Levels::Centroids => fit_to_bytes(&mut make, Start::at(0.0), target, progress),
    }
}

/// A content that is no file yet.
struct Candidate {
    log_kappa: f64,
    artifact: Artifact,
    /// Bytes of its fast file.
    fast: u64,
    /// About those of its file.
    expected: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

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
            let mut last = Trial { file: 0, trial: 0, bytes: 0 };
            let start = Start::at(start);
            let target = Target { budget, effort: Effort::Smallest };
            let fitted = fit_to_bytes(&mut make, start, target, &mut |trial| last = trial).unwrap();
            let bytes = fitted.bytes.len() as u64;
            assert!(bytes <= budget && bytes * 1000 > budget * 995, "{budget}: {bytes}");
            assert!(last.trial < 40 && last.file > 1, "{last:?}");
            // Told the ratio, it makes one file.
            let again = Start { ratio: fitted.ratio, ..Start::at(fitted.log_kappa) };
            let fitted = fit_to_bytes(&mut make, again, target, &mut |trial| last = trial).unwrap();
            let bytes = fitted.bytes.len() as u64;
            assert!(bytes <= budget && bytes * 1000 > budget * 995, "{budget}: {bytes}");
            assert_eq!(last.file, 1);
            // The fast coder's file is no larger either.
            let target = Target { budget, effort: Effort::Fast };
            let fitted = fit_to_bytes(&mut make, start, target, &mut |trial| last = trial).unwrap();
            let bytes = fitted.bytes.len() as u64;
            assert!(bytes <= budget && bytes * 1000 > budget * 995, "{budget}: {bytes}");
            assert_eq!(fitted.bytes, encode_with(&fitted.artifact, Effort::Fast).unwrap());
        }
        let target = |budget| Target { budget, effort: Effort::Smallest };
        let start = Start::at(0.0);
        let error = fit_to_bytes(&mut make, start, target(10), &mut |_| ()).unwrap_err();
        assert!(
            matches!(error, CompressError::Quant(QuantError::Unreachable { budget: 10, smallest }) if smallest > 10),
            "{error}"
        );
        // More than the weights can use: the finest file there is.
        let fitted = fit_to_bytes(&mut make, start, target(10_000_000), &mut |_| ()).unwrap();
        assert!(fitted.bytes.len() > 150_000, "{}", fitted.bytes.len());
    }

    /// Tensors of more codes, whose sizes are estimated before a file is made.
    #[test]
    fn large_files_meet_their_budget_by_estimates() {
        let mut random = rand_pcg::Pcg64::seed_from_u64(3);
        let mut row = |index: usize| {
            let scale = (1 + index % 7) as f32;
            (0..256).map(|_| scale * random.random_range(-1.0_f32..1.0).powi(3)).collect()
        };
        let data: Vec<f32> = (0..700).flat_map::<Vec<f32>, _>(&mut row).collect();
        let weights = [Weights { name: "w", shape: &[700, 256], data: &data }];
        let plan = Plan::relative(&weights, 1.0);
        let made = std::cell::Cell::new(0);
        let mut make = |x: f64| {
            made.set(made.get() + 1);
            Ok(plan.scaled(x.exp() as f32).artifact(&weights, &BTreeMap::new())?)
        };
        for budget in [12_000_u64, 40_000, 80_000] {
            let target = Target { budget, effort: Effort::Smallest };
            made.set(0);
            let fitted = fit_to_bytes(&mut make, Start::at(0.0), target, &mut |_| ()).unwrap();
            let bytes = fitted.bytes.len() as u64;
            assert!(bytes <= budget && bytes * 1000 >= budget * 997, "{budget}: {bytes}");
            assert_eq!(fitted.bytes, encode_with(&fitted.artifact, Effort::Smallest).unwrap());
            assert!(made.get() < 16, "{budget}: {}", made.get());
            // The file is as the content says, and so is the ratio.
            let fast = encoded_size_with(&fitted.artifact, Effort::Fast).unwrap().total();
            assert_eq!(fitted.ratio, Some(bytes as f64 / fast as f64));
        }
    }

    /// A grid that weights were trained for is kept where its file uses the budget, and no other.
    #[test]
    fn files_on_the_grid_of_the_training_stay() {
        let data: Vec<f32> = (0..64 * 64).map(|i| ((i * i) % 401) as f32 * 0.01 - 2.0).collect();
        let weights = [Weights { name: "w", shape: &[64, 64], data: &data }];
        let trained = Plan::learned(BTreeMap::from([("w".to_owned(), 0.5)]));
        let empty = BTreeMap::new();
        let fit = |plan: &Plan, budget| {
            let target = Target { budget, effort: Effort::Smallest };
            fit_plan_to_bytes(plan, &weights, &empty, target, &mut |_| ()).unwrap()
        };
        let file = encode_with(&trained.artifact(&weights, &empty).unwrap(), Effort::Smallest);
        let file = file.unwrap();
        let bytes = file.len() as u64;
        for budget in [bytes, bytes * 100 / 99] {
            assert_eq!(fit(&trained, budget).bytes, file);
        }
        for budget in [bytes - 1, bytes * 100 / 96] {
            let fitted = fit(&trained, budget);
            assert!(fitted.log_kappa != 0.0 && fitted.bytes != file);
            assert!(fitted.bytes.len() as u64 <= budget);
        }
        // What the first file has told is used: no other has its steps again.
        let mut made = Vec::new();
        let mut make = |log_kappa: f64| {
            made.push(log_kappa);
            Ok(trained.scaled(log_kappa.exp() as f32).artifact(&weights, &empty)?)
        };
        let target = Target { budget: bytes * 9 / 10, effort: Effort::Smallest };
        let mut told: Vec<Trial> = Vec::new();
        let fitted =
            fit_trained_to_bytes(&mut make, target, &mut |trial| told.push(trial)).unwrap();
        assert!(fitted.log_kappa > 0.0);
        assert!(made[0] == 0.0 && made[1] > 0.0 && !made[1..].contains(&0.0), "{made:?}");
        // And counted.
        assert_eq!((told[0].file, told[0].trial), (1, 1));
        assert!(told.windows(2).all(|pair| pair[0].trial < pair[1].trial), "{told:?}");
        assert!(told[1..].iter().all(|trial| trial.file > 1), "{told:?}");

        let centroids = Plan { levels: Levels::Centroids, ..trained };
        assert!(fit(&centroids, bytes * 100 / 99).bytes.len() > file.len());
    }
}
