//! The leading singular directions of a matrix, by block Krylov iteration, and NuMuon's schedule of ranks.

use faer::{Mat, MatRef};
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64;

use super::matrix::product;
use crate::config::{OptimizerConfig, RankSchedule};

/// Multiplications by Gᵀ·G (NuMuon, algorithm 3).
const ITERATIONS: usize = 2;
/// Directions beyond the wanted ones that are iterated along (NuMuon, algorithm 3).
const OVERSAMPLING: usize = 8;
/// Singular values below this share of the largest are rounding errors, whose directions mean nothing.
const NOISE: f32 = 1e-6;

/// Leading singular directions of a matrix G of rows × columns.
pub(super) struct Leading {
    /// Left vectors, rows × k.
    pub(super) left: Mat<f32>,
    /// Right vectors, columns × k.
    pub(super) right: Mat<f32>,
    /// The k singular values, descending.
    pub(super) values: Vec<f32>,
    /// Right vectors from which the next matrix like this can start, columns × (k + 8).
    pub(super) basis: Mat<f32>,
}

impl Leading {
    /// The k leading directions of G, `seed` drawing what of the start `basis` does not give.
    ///
    /// With B₀ an orthonormal basis of the start, B_j that of Gᵀ·G·B_{j−1} for j = 1, 2, and Q a basis of all
    /// of them (Musco and Musco 2015, algorithm 2), G·Q = U·S·Wᵀ gives U and V = Q·W. Directions of next to
    /// no singular value are left out, so there can be fewer than k. `None` if a value is not finite.
    pub(super) fn of(
        matrix: MatRef<'_, f32>,
        k: usize,
        basis: Option<MatRef<'_, f32>>,
        seed: [u128; 2],
    ) -> Option<Self> {
        let columns = matrix.ncols();
        let full = columns.min(matrix.nrows());
        let width = (k + OVERSAMPLING).min(columns);
        let svd;
        let right;
        if (ITERATIONS + 1) * width >= full {
            // The basis would span everything.
            svd = matrix.thin_svd().ok()?;
            right = svd.V().to_owned();
        } else {
            let mut block = start(columns, width, basis, seed).qr().compute_thin_Q();
            let mut blocks = Mat::<f32>::zeros(columns, (ITERATIONS + 1) * width);
            for iteration in 0..=ITERATIONS {
                if iteration > 0 {
                    let image = product(matrix, block.as_ref());
                    block = product(matrix.transpose(), image.as_ref()).qr().compute_thin_Q();
                }
                blocks.subcols_mut(iteration * width, width).copy_from(&block);
            }
            let basis = blocks.qr().compute_thin_Q();
            svd = product(matrix, basis.as_ref()).thin_svd().ok()?;
            right = product(basis.as_ref(), svd.V());
        }
        let values: Vec<f32> = svd.S().column_vector().iter().copied().collect();
        let largest = *values.first()?;
        if !largest.is_finite() {
            return None;
        }
        let significant = values.iter().take_while(|value| **value > NOISE * largest).count();
        let rank = k.min(significant);
        Some(Self {
            left: svd.U().subcols(0, rank).to_owned(),
            basis: right.subcols(0, width.min(right.ncols())).to_owned(),
            right: right.subcols(0, rank).to_owned(),
            values: values[..rank].to_vec(),
        })
    }

    /// U·Vᵀ, rows × columns.
    pub(super) fn polar(&self) -> Mat<f32> {
        product(self.left.as_ref(), self.right.transpose())
    }
}

/// The columns of `basis`, and normal random ones up to `width`.
fn start(
    rows: usize,
    width: usize,
    basis: Option<MatRef<'_, f32>>,
    [seed, stream]: [u128; 2],
) -> Mat<f32> {
    let mut random = Pcg64::new(seed, stream);
    let mut start = Mat::zeros(rows, width);
    let known = basis.map_or(0, |basis| {
        let known = basis.ncols().min(width);
        start.subcols_mut(0, known).copy_from(basis.subcols(0, known));
        known
    });
    for column in known..width {
        let values = start.col_as_slice_mut(column).iter_mut();
        values.for_each(|value| *value = StandardNormal.sample(&mut random));
    }
    start
}

/// The rank of the updates of a step: ⌈r·full⌉, where r goes from `rank_start` to `rank_end` between the
/// shares `rank_from` and `rank_until` of the run, and `progress` is the share of the steps taken.
pub(super) fn scheduled_rank(config: &OptimizerConfig, progress: f64, full: usize) -> usize {
    let OptimizerConfig { rank_start, rank_end, rank_from, rank_until, .. } = *config;
    let way = ((progress - rank_from) / (rank_until - rank_from).max(1e-12)).clamp(0.0, 1.0);
    let way = match config.rank_schedule {
        RankSchedule::Constant => 0.0,
        RankSchedule::Linear => way,
        RankSchedule::Cosine => 0.5 - 0.5 * (std::f64::consts::PI * way).cos(),
    };
    let share = rank_start + way * (rank_end - rank_start);
    // Less a hair, so that 0.3·10 is not rounded up to 4.
    ((share * full as f64 - 1e-9).ceil() as usize).clamp(1, full.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::{distance, normal, with_spectrum};
    use super::*;

    /// Six large singular values above a gap.
    fn with_gap(rows: usize, columns: usize) -> Mat<f32> {
        let values: Vec<f32> =
            (0..64).map(|i| if i < 6 { 10.0 - i as f32 } else { 1.0 / i as f32 }).collect();
        with_spectrum(rows, columns, &values)
    }

    #[test]
    fn above_a_gap_it_is_the_truncated_singular_value_decomposition() {
        for (rows, columns) in [(64, 64), (160, 80), (80, 160)] {
            let matrix = with_gap(rows, columns);
            let leading = Leading::of(matrix.as_ref(), 6, None, [1, 2]).unwrap();
            let svd = matrix.thin_svd().unwrap();
            let exact = product(svd.U().subcols(0, 6), svd.V().subcols(0, 6).transpose());
            let found = distance(leading.polar().as_ref(), exact.as_ref());
            assert!(found < 1e-3, "{rows}×{columns}: {found}");
            for (found, exact) in leading.values.iter().zip(svd.S().column_vector().iter()) {
                assert!((found / exact - 1.0).abs() < 1e-4, "{found} {exact}");
            }
        }
    }

    #[test]
    fn the_update_has_the_rank_that_was_asked_for() {
        let matrix = normal(96, 128, 5);
        for rank in [1, 3, 20, 96] {
            let leading = Leading::of(matrix.as_ref(), rank, None, [1, 2]).unwrap();
            let values = leading.polar().singular_values().unwrap();
            assert!(values[..rank].iter().all(|value| (value - 1.0).abs() < 1e-3), "{values:?}");
            assert!(values[rank..].iter().all(|value| *value < 1e-3), "{values:?}");
        }
    }

    /// On a flat spectrum two iterations from a random start miss some of the leading directions; a start
    /// from the vectors of a matrix nearby finds more.
    #[test]
    fn a_warm_start_comes_nearer() {
        let (matrix, rank) = (normal(200, 200, 5), 8);
        let cold = Leading::of(matrix.as_ref(), rank, None, [1, 2]).unwrap();
        let warm = Leading::of(matrix.as_ref(), rank, Some(cold.basis.as_ref()), [3, 4]).unwrap();
        let caught = |leading: &Leading| leading.values.iter().sum::<f32>();
        assert_eq!(cold.basis.shape(), (200, rank + OVERSAMPLING));
        assert!(caught(&warm) > caught(&cold), "{} {}", caught(&warm), caught(&cold));
    }

    #[test]
    fn directions_of_no_value_are_left_out() {
        let two = with_spectrum(100, 120, &[2.0, 1.0]);
        assert_eq!(Leading::of(two.as_ref(), 9, None, [1, 2]).unwrap().values.len(), 2);
        let zeros = Mat::<f32>::zeros(100, 120);
        let none = Leading::of(zeros.as_ref(), 9, None, [1, 2]).unwrap();
        assert_eq!(none.polar(), zeros);
        let wrong = Mat::full(100, 120, f32::NAN);
        assert!(Leading::of(wrong.as_ref(), 9, None, [1, 2]).is_none());
    }

    #[test]
    fn the_rank_falls_between_its_two_times() {
        let config = OptimizerConfig {
            rank_start: 1.0,
            rank_end: 0.25,
            rank_schedule: RankSchedule::Linear,
            ..OptimizerConfig::default()
        };
        let rank = |config: &OptimizerConfig, progress| scheduled_rank(config, progress, 64);
        assert_eq!([0.0, 0.1, 0.45, 0.8, 1.0].map(|p| rank(&config, p)), [64, 64, 40, 16, 16]);
        let cosine = OptimizerConfig { rank_schedule: RankSchedule::Cosine, ..config.clone() };
        assert_eq!([0.0, 0.1, 0.45, 0.8, 1.0].map(|p| rank(&cosine, p)), [64, 64, 40, 16, 16]);
        assert!(rank(&cosine, 0.2) > rank(&config, 0.2));
        let constant = OptimizerConfig { rank_schedule: RankSchedule::Constant, ..config };
        assert_eq!(rank(&constant, 0.9), 64);
        assert_eq!(scheduled_rank(&OptimizerConfig { rank_end: 0.3, ..cosine }, 1.0, 10), 3);
    }
}
