//! The finest plan that fits a number of bytes.

use std::collections::BTreeMap;

use backslash_codec::encoded_size;

use crate::{Plan, QuantError, Weights};

/// Halvings of the interval of ln(factor): it starts 20 wide and ends below 10⁻⁴.
const HALVINGS: u32 = 18;

/// Multiplies all steps of a plan by the smallest factor at which the whole file has at most `budget` bytes.
///
/// Bisection on the logarithm of the factor, from e⁻¹⁰ to e¹⁰, against the codec's exact size, metadata
/// included. Size falls with the factor but for single bytes, so the file found is within a few bytes of
/// the largest that fits.
///
/// # Errors
/// [`QuantError::Unreachable`] if the coarsest plan is still too large; otherwise those of
/// [`Plan::artifact`].
pub fn fit_to_bytes(
    plan: &Plan,
    weights: &[Weights<'_>],
    metadata: &BTreeMap<String, Vec<u8>>,
    budget: u64,
) -> Result<Plan, QuantError> {
    let size = |log_factor: f32| -> Result<u64, QuantError> {
        let artifact = plan.scaled(log_factor.exp()).artifact(weights, metadata);
        match artifact {
            Ok(artifact) => Ok(encoded_size(&artifact)?.total()),
            Err(QuantError::StepTooFine { .. }) => Ok(u64::MAX),
            Err(error) => Err(error),
        }
    };
    let (mut fine, mut coarse) = (-10.0_f32, 10.0_f32);
    let smallest = size(coarse)?;
    if smallest > budget {
        return Err(QuantError::Unreachable { budget, smallest });
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (fine + coarse);
        if size(middle)? > budget {
            fine = middle;
        } else {
            coarse = middle;
        }
    }
    Ok(plan.scaled(coarse.exp()))
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
            let fitted = fit_to_bytes(&plan, &weights, &metadata, budget).unwrap();
            let artifact = fitted.artifact(&weights, &metadata).unwrap();
            let bytes = backslash_codec::encode(&artifact).unwrap().len() as u64;
            assert!(bytes <= budget && bytes * 1000 > budget * 995, "{budget}: {bytes}");
        }
        let error = fit_to_bytes(&plan, &weights, &metadata, 10).unwrap_err();
        assert!(matches!(error, QuantError::Unreachable { budget: 10, smallest } if smallest > 10));
    }
}
