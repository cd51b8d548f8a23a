//! Loss and bytes over sparsity.

use backslash_codec::{Limits, decode, encode};
use backslash_data::ByteTable;
use backslash_model::{ModelConfig, NamedWeights, Transformer, device};
use serde::Serialize;

use super::{Pruned, Pruner, Scope};
use crate::{EvalError, decoded_weights, evaluate};

/// A pruned model whose file was decoded and evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PrunePoint {
    /// Share of the weights of the matrices that was pruned, 0 to 1.
    pub sparsity: f64,
    /// Share of them that is zero in the file: rounding makes zeros too.
    pub zeros: f64,
    /// Bytes of the file, of weights alone.
    pub bytes: u64,
    /// These, in bits, per weight of the model.
    pub bits_per_weight: f64,
    /// Bits per byte of text of the pruned weights before they are coded.
    pub bits_per_byte_pruned: f64,
    /// Bits per byte of text with what the file decodes to.
    pub bits_per_byte: f64,
}

/// The points of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PruneCurve {
    /// Name of the model.
    pub name: String,
    /// By sparsity, the first without pruning.
    pub points: Vec<PrunePoint>,
}

/// The text that pruned models are evaluated on.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Its tokens.
    pub tokens: &'a [u16],
    /// The bytes that each token stands for.
    pub table: &'a ByteTable,
}

impl PruneCurve {
    /// Prunes a model to each sparsity (0 to 1, rising from 0), makes its file, decodes it and evaluates it; `progress` is
    /// given every point.
    ///
    /// # Errors
    /// If weights cannot be coded, or the network is one without bits per byte.
    pub fn measure(
        name: &str,
        (config, pruner): (&ModelConfig, &Pruner),
        text: Text<'_>,
        (sparsities, scope): (&[f64], Scope),
        progress: &mut dyn FnMut(&PrunePoint),
    ) -> Result<Self, EvalError> {
        let mut points: Vec<PrunePoint> = Vec::new();
        let mut last = None;
        for &sparsity in sparsities {
            let pruned = pruner.at(sparsity, scope)?;
            let point = match (points.last(), &last) {
                // The zeros that rounding has made are pruned first, which changes nothing.
                (Some(&point), Some(last)) if *last == pruned => PrunePoint { sparsity, ..point },
                _ => measured(config, sparsity, &pruned, text)?,
            };
            progress(&point);
            points.push(point);
            last = Some(pruned);
        }
        Ok(Self { name: name.to_owned(), points })
    }

    /// The least sparsity at which the file needs `1 + loss` times the bits per byte of the first point, on straight lines
    /// between the points; `None` where it never does.
    ///
    /// ```
    /// use backslash_eval::prune::{PruneCurve, PrunePoint};
    ///
    /// let point = |sparsity: f64, bits_per_byte: f64| PrunePoint {
    ///     sparsity,
    ///     zeros: sparsity,
    ///     bytes: 1000,
    ///     bits_per_weight: 2.0,
    ///     bits_per_byte_pruned: bits_per_byte,
    ///     bits_per_byte,
    /// };
    /// let points = vec![point(0.0, 2.0), point(0.5, 2.1), point(0.75, 2.3)];
    /// let curve = PruneCurve { name: "plain".into(), points };
    /// assert!((curve.sparsity_at_loss(0.1).unwrap() - 0.625).abs() < 1e-12);
    /// assert_eq!(curve.sparsity_at_loss(0.2), None);
    /// ```
    pub fn sparsity_at_loss(&self, loss: f64) -> Option<f64> {
        let limit = (1.0 + loss) * self.points.first()?.bits_per_byte;
        // What is not finite is lost too.
        let is_lost =
            |point: &PrunePoint| point.bits_per_byte.is_nan() || point.bits_per_byte >= limit;
        let at = self.points.iter().position(is_lost)?;
        let after = self.points[at];
        let Some(before) = at.checked_sub(1).map(|before| self.points[before]) else {
            return Some(after.sparsity);
        };
        if !after.bits_per_byte.is_finite() {
            return Some(before.sparsity);
        }
        let share = (limit - before.bits_per_byte) / (after.bits_per_byte - before.bits_per_byte);
        Some(before.sparsity + share * (after.sparsity - before.sparsity))
    }
}

fn measured(
    config: &ModelConfig,
    sparsity: f64,
    pruned: &Pruned,
    text: Text<'_>,
) -> Result<PrunePoint, EvalError> {
    let Pruned { artifact, weights, zeros } = pruned;
    let file = encode(artifact)?;
    let decoded = decoded_weights(&decode(&file, &Limits::default())?)?;
    let of_file = bits_per_byte(config, &decoded, text)?;
    let bits_per_byte_pruned = match *weights == decoded {
        true => of_file,
        false => bits_per_byte(config, weights, text)?,
    };
    let bytes = file.len() as u64;
    Ok(PrunePoint {
        sparsity,
        zeros: *zeros,
        bytes,
        bits_per_weight: 8.0 * bytes as f64 / weights.parameters().max(1) as f64,
        bits_per_byte_pruned,
        bits_per_byte: of_file,
    })
}

fn bits_per_byte(
    config: &ModelConfig,
    weights: &NamedWeights,
    text: Text<'_>,
) -> Result<f64, EvalError> {
    let network = Transformer::from_weights(config, weights, &device())?;
    evaluate(&network, text.tokens, text.table)?.bits_per_byte().ok_or(EvalError::NoBitsPerByte)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl PruneCurve {
        /// One of sparsities and bits per byte.
        pub(crate) fn of_figures(name: &str, figures: &[(f64, f64)]) -> Self {
            let point = |&(sparsity, bits_per_byte): &(f64, f64)| PrunePoint {
                sparsity,
                zeros: sparsity,
                bytes: 1000,
                bits_per_weight: 2.0,
                bits_per_byte_pruned: bits_per_byte,
                bits_per_byte,
            };
            Self { name: name.to_owned(), points: figures.iter().map(point).collect() }
        }
    }

    #[test]
    fn a_curve_that_ends_in_no_number_is_lost_where_the_last_number_was() {
        let lost =
            |figures: &[(f64, f64)]| PruneCurve::of_figures("", figures).sparsity_at_loss(0.1);
        assert_eq!(lost(&[(0.0, 2.0), (0.4, 2.1), (0.5, f64::NAN)]), Some(0.4));
        assert_eq!(lost(&[(0.0, f64::NAN), (0.4, 2.1)]), Some(0.0));
        assert_eq!(lost(&[(0.0, 2.0), (0.4, 1.9)]), None);
        assert_eq!(lost(&[]), None);
    }
}
