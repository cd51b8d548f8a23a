//! Curves of the same kind of model with several seeds.

use super::{PruneCurve, PrunePoint, Reached};
use serde::Serialize;

use crate::Mean;

/// The curves of one kind of model, one per seed, at the same sparsities.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PruneCurves {
    /// What they are of.
    pub name: String,
    /// One per seed.
    pub curves: Vec<PruneCurve>,
}

impl PruneCurves {
    /// Mean figures of all curves, point by point.
    pub fn mean(&self) -> PruneCurve {
        let count = self.curves.iter().map(|curve| curve.points.len()).min().unwrap_or(0);
        PruneCurve {
            name: self.name.clone(),
            points: (0..count).map(|at| self.point(at)).collect(),
        }
    }

    /// What the decoded files of a point reach.
    pub fn decoded(&self, at: usize) -> Option<Mean> {
        self.over(at, |point| point.decoded.figure())
    }

    /// [`PruneCurve::sparsity_at_loss`] of those curves that lose as much.
    pub fn sparsity_at_loss(&self, loss: f64) -> Option<Mean> {
        let found: Vec<f64> =
            self.curves.iter().filter_map(|curve| curve.sparsity_at_loss(loss)).collect();
        Mean::of(&found)
    }

    fn over(&self, at: usize, figure: impl Fn(&PrunePoint) -> f64) -> Option<Mean> {
        let points = self.curves.iter().filter_map(|curve| curve.points.get(at));
        Mean::of(&points.map(figure).collect::<Vec<_>>())
    }

    fn point(&self, at: usize) -> PrunePoint {
        let first = self.curves[0].points[at];
        let mean = |figure: &dyn Fn(&PrunePoint) -> f64| {
            self.over(at, figure).expect("every curve has this point").mean
        };
        PrunePoint {
            sparsity: first.sparsity,
            zeros: mean(&|point| point.zeros),
            bytes: mean(&|point| point.bytes as f64).round() as u64,
            bits_per_weight: mean(&|point| point.bits_per_weight),
            pruned: first.pruned.with(mean(&|point| point.pruned.figure())),
            decoded: first.decoded.with(mean(&|point| point.decoded.figure())),
        }
    }
}

impl Reached {
    /// Another figure of the same kind.
    fn with(self, figure: f64) -> Self {
        match self {
            Self::BitsPerByte(_) => Self::BitsPerByte(figure),
            Self::Accuracy(_) => Self::Accuracy(figure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_have_a_mean_curve_and_lose_where_they_lose_in_the_mean() {
        let curve = |figures: &[(f64, f64)]| PruneCurve::of_figures("", figures);
        let curves = vec![
            curve(&[(0.0, 2.0), (0.5, 2.4)]),
            curve(&[(0.0, 2.0), (0.5, 2.25)]),
            curve(&[(0.0, 2.1), (0.5, 2.2)]),
        ];
        let seeds = PruneCurves { name: "plain".into(), curves };
        let mean = seeds.mean();
        assert_eq!((mean.name.as_str(), mean.points[1].sparsity), ("plain", 0.5));
        assert!((mean.points[0].decoded.figure() - 6.1 / 3.0).abs() < 1e-12);
        assert!((mean.points[1].decoded.figure() - 6.85 / 3.0).abs() < 1e-12);
        // The first at 0.25, the second at 0.4, the third not at all.
        let lost = seeds.sparsity_at_loss(0.1).unwrap();
        assert!((lost.mean - 0.325).abs() < 1e-9 && lost.count == 2, "{lost:?}");
        assert_eq!(seeds.decoded(0).unwrap().count, 3);
        assert_eq!(seeds.decoded(2), None);
    }
}
