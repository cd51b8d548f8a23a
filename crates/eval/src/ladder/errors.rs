//! Files of tensors that nobody can run, by their squared error.

use backslash_codec::{Effort, Limits, decode};
use backslash_compress::{Allocation, Recipe, Target, equal_rules, relative_rules};
use backslash_quant::{LadderOptions, Rung, Weights, squared_error};

use crate::{EvalError, decoded_weights};

/// A file and how far its tensors are from the originals.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorPoint {
    /// Length of the file.
    pub bytes: u64,
    /// Σ(w − ŵ)² over the tensors of two and more dimensions: those of one, such as running statistics, may be of any
    /// size, and are stored nearly as they are by all.
    pub squared_error: f64,
    /// Σw² over the same.
    pub power: f64,
}

impl ErrorPoint {
    /// Signal-to-noise ratio in decibels.
    pub fn decibels(&self) -> f64 {
        10.0 * (self.power / self.squared_error).log10()
    }
}

/// The file of a quantiser that needs no text, of at most `budget` bytes, decoded again. Steps are relative to each tensor,
/// or equal.
///
/// # Errors
/// Those of the quantiser, and if the budget cannot be met.
pub fn measure_errors(
    weights: &[Weights<'_>],
    rung: Rung,
    allocation: Allocation,
    budget: u64,
) -> Result<ErrorPoint, EvalError> {
    let rules = match allocation {
        Allocation::Equal => equal_rules(weights),
        _ => relative_rules(weights),
    };
    let options = LadderOptions::default();
    let recipe = Recipe { rules, ..Recipe::of_weights(weights.to_vec(), rung, options) };
    let target = Target { budget, effort: Effort::Smallest };
    let fitted = recipe.fit_to_bytes(target, None, &mut |_| ())?;
    let decoded = decode(&fitted.bytes, &Limits::default())?;
    let mut point = ErrorPoint { bytes: fitted.bytes.len() as u64, squared_error: 0.0, power: 0.0 };
    for tensor in decoded_weights(&decoded)?.tensors() {
        let original = weights.iter().find(|weights| weights.name == tensor.name);
        if let Some(original) = original.filter(|weights| weights.shape.len() >= 2) {
            point.squared_error += squared_error(original.data, &tensor.data);
            point.power += squared_error(original.data, &vec![0.0; original.data.len()]);
        }
    }
    Ok(point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    /// Two tensors of very different scale: equal steps put all error where it is cheap.
    #[test]
    fn equal_steps_have_the_least_squared_error() {
        let mut random = rand_pcg::Pcg64::seed_from_u64(3);
        let mut noise = |scale: f32| -> Vec<f32> {
            (0..128 * 128).map(|_| scale * (random.random::<f32>() - 0.5)).collect()
        };
        let (large, small) = (noise(8.0), noise(1.0));
        let weights = [
            Weights { name: "large", shape: &[128, 128], data: &large },
            Weights { name: "small", shape: &[128, 128], data: &small },
        ];
        let measure = |rung, allocation| measure_errors(&weights, rung, allocation, 9_000).unwrap();
        let equal = measure(Rung::Rtn, Allocation::Equal);
        assert!(equal.bytes <= 9_000 && equal.bytes > 8_900, "{}", equal.bytes);
        let relative = measure(Rung::Rtn, Allocation::Relative);
        // 1.5 bits are moved to the large tensor: 4.5 decibels less error there would be 9 of one that were alone.
        assert!(equal.decibels() > relative.decibels() + 2.0);
        assert!(measure(Rung::Trellis, Allocation::Equal).decibels() > equal.decibels() + 0.3);
    }
}
