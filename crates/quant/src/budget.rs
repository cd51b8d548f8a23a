//! The finest plan that fits a number of bytes.

use std::collections::BTreeMap;

use backslash_codec::{Effort, encoded_size_with};

use crate::{Plan, QuantError, Weights};

/// Halvings of the interval of ln(factor): it starts 20 wide and ends below 10⁻⁴.
const HALVINGS: u32 = 18;
/// Files of full effort that are made at the most.
const FILES: u32 = 8;
/// Share of the budget that is good enough.
const ENOUGH: f64 = 0.998;

/// Multiplies all steps of a plan by a factor at which the whole file has at most `budget` bytes, and hardly
/// less.
///
/// The smallest encoding is slow and the fast one is close to it, by a ratio that changes little with the
/// steps. So the factor is found by bisection with the fast encoding, on its logarithm from e⁻¹⁰ to e¹⁰, for
/// the budget over that ratio; then the smallest file is made, and the ratio corrected, until the file fits
/// and uses at least 99.8 % of the budget. Size counts everything, metadata included. `progress` is called
/// before each of at most eight files, with their number.
///
/// # Errors
/// [`QuantError::Unreachable`] if the coarsest plan is still too large; otherwise those of
/// [`Plan::artifact`].
pub fn fit_to_bytes(
    plan: &Plan,
    weights: &[Weights<'_>],
    metadata: &BTreeMap<String, Vec<u8>>,
    budget: u64,
    mut progress: impl FnMut(u32),
) -> Result<Plan, QuantError> {
    let search = Search { plan, weights, metadata };
    progress(1);
    let smallest = search.size(COARSEST, Effort::Smallest)?;
    if smallest > budget {
        return Err(QuantError::Unreachable { budget, smallest });
    }
    let mut best = (COARSEST, smallest);
    let mut ratio = 1.0;
    for file in 2..=FILES {
        progress(file);
        let log_factor = search.finest(budget as f64 / ratio)?;
        let fast = search.size(log_factor, Effort::Fast)?;
        let size = search.size(log_factor, Effort::Smallest)?;
        if size <= budget && size > best.1 {
            best = (log_factor, size);
        }
        if best.1 as f64 >= ENOUGH * budget as f64 {
            break;
        }
        // A file just above the budget would be met again: aim a little lower.
        let margin = if size > budget { 1.0005 } else { 1.0 };
        ratio = margin * size as f64 / fast as f64;
    }
    Ok(plan.scaled(best.0.exp()))
}

/// ln of the largest factor.
const COARSEST: f32 = 10.0;

struct Search<'a> {
    plan: &'a Plan,
    weights: &'a [Weights<'a>],
    metadata: &'a BTreeMap<String, Vec<u8>>,
}

impl Search<'_> {
    fn size(&self, log_factor: f32, effort: Effort) -> Result<u64, QuantError> {
        let artifact = self.plan.scaled(log_factor.exp()).artifact(self.weights, self.metadata);
        match artifact {
            Ok(artifact) => Ok(encoded_size_with(&artifact, effort)?.total()),
            Err(QuantError::StepTooFine { .. }) => Ok(u64::MAX),
            Err(error) => Err(error),
        }
    }

    /// The least ln(factor) at which the fast file has at most `bytes`.
    fn finest(&self, bytes: f64) -> Result<f32, QuantError> {
        let (mut fine, mut coarse) = (-COARSEST, COARSEST);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (fine + coarse);
            if self.size(middle, Effort::Fast)? as f64 > bytes {
                fine = middle;
            } else {
                coarse = middle;
            }
        }
        Ok(coarse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    #[test]
    fn the_budget_is_met_from_below_and_used() {
        let mut random = rand_pcg::Pcg64::seed_from_u64(2);
        let data: Vec<f32> = StandardNormal.sample_iter(&mut random).take(256 * 256).collect();
        let weights = [Weights { name: "w", shape: &[256, 256], data: &data }];
        let metadata = BTreeMap::from([("note".to_owned(), b"of some length".to_vec())]);
        let plan = Plan::relative(&weights, 1.0);
        for budget in [4_000, 11_111, 25_000] {
            let fitted = fit_to_bytes(&plan, &weights, &metadata, budget, |_| ()).unwrap();
            let artifact = fitted.artifact(&weights, &metadata).unwrap();
            let bytes = backslash_codec::encode(&artifact).unwrap().len() as u64;
            assert!(bytes <= budget && bytes * 1000 > budget * 995, "{budget}: {bytes}");
        }
        let error = fit_to_bytes(&plan, &weights, &metadata, 10, |_| ()).unwrap_err();
        assert!(matches!(error, QuantError::Unreachable { budget: 10, smallest } if smallest > 10));
    }
}
