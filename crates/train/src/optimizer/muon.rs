//! Muon and its relatives: the update of one matrix.
//!
//! All of them keep a momentum M ← μ·M + G and step along a matrix whose singular values are nearly 1, or
//! nearly 1 and 0: the steepest descent where the length of a step is its largest singular value.
//! Orthogonalising forgets the length of M, so a momentum that is a mean of gradients would do the same. With
//! Nesterov's momentum the matrix taken is G + μ·M.

use faer::{Mat, MatRef};

use super::groups::Layout;
use super::low_rank::Leading;
use super::matrix::{scale_columns, square_norm};
use super::orthogonalize::{Polar, orthogonalize};
use crate::config::{OptimizerConfig, UpdateScale};

/// Added to norms that are divided by.
const TINY: f64 = 1e-10;

/// μ of a step: from `momentum_start` it rises linearly to `momentum` over `momentum_warmup_steps`.
pub(super) fn momentum_at(config: &OptimizerConfig, step: u64) -> f64 {
    let way = match config.momentum_warmup_steps {
        0 => 1.0,
        steps => (step as f64 / steps as f64).min(1.0),
    };
    config.momentum_start + way * (config.momentum - config.momentum_start)
}

/// Updates M, and gives M or G + μ·M as inputs × outputs.
pub(super) fn accumulate(
    momentum: f64,
    nesterov: bool,
    layout: Layout,
    sum: &mut [f32],
    gradient: &[f32],
) -> Mat<f32> {
    let momentum = momentum as f32;
    sum.iter_mut().zip(gradient).for_each(|(m, g)| *m = momentum * *m + g);
    if nesterov {
        let ahead: Vec<f32> = sum.iter().zip(gradient).map(|(m, g)| g + momentum * m).collect();
        layout.load(&ahead)
    } else {
        layout.load(sum)
    }
}

/// MuonEq-R (arXiv 2603.28254): the orthogonalised momentum whose rows, one per output, have been divided by
/// their norms, so that outputs with large gradients do not decide alone on the directions.
pub(super) fn row_equalised(mut matrix: Mat<f32>, polar: Polar) -> Mat<f32> {
    scale_columns(&mut matrix, |_, row| {
        let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 }
    });
    orthogonalize(matrix.as_ref(), polar)
}

/// NorMuon (Li et al., arXiv 2510.05491, algorithm 1): with O the orthogonalised momentum and o_i its row of
/// output i,
///
///   v_i ← β₂·v_i + (1−β₂)·mean(o_i²),  Ô_i = o_i/√v_i,
///
/// and Ô is scaled back to the norm of O. Orthogonal matrices have rows of very different norms; this gives
/// every output about the same share of the step. The paper then fixes the root mean square; here, as in its
/// published code, that is left to the scale of the update.
pub(super) fn row_normalised(
    matrix: MatRef<'_, f32>,
    polar: Polar,
    beta2: f64,
    second: &mut [f32],
) -> Mat<f32> {
    let mut update = orthogonalize(matrix, polar);
    let before = square_norm(update.as_ref()).sqrt();
    scale_columns(&mut update, |output, row| {
        let square: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
        let mean = square / row.len() as f64;
        let v = beta2 * f64::from(second[output]) + (1.0 - beta2) * mean;
        second[output] = v as f32;
        (1.0 / (v.sqrt() + TINY)) as f32
    });
    let after = square_norm(update.as_ref()).sqrt();
    &update * faer::Scale((before / (after + TINY)) as f32)
}

/// NuMuon (arXiv 2603.03597): the step of least ⟨M, D⟩ with no singular value above 1 and a sum of them of at
/// most `rank`, which is −U·Vᵀ of the `rank` leading directions. `basis` is where the search for them starts,
/// and becomes where the next one does.
pub(super) fn low_rank(
    matrix: MatRef<'_, f32>,
    polar: Polar,
    rank: usize,
    basis: &mut Vec<f32>,
    seed: [u128; 2],
) -> Mat<f32> {
    let (rows, columns) = matrix.shape();
    if rank < rows.min(columns) {
        let known = basis.len() / columns;
        let start = MatRef::from_column_major_slice(&basis[..], columns, known);
        if let Some(leading) = Leading::of(matrix, rank, Some(start), seed) {
            *basis = leading.basis.col_iter().flat_map(|column| column.iter().copied()).collect();
            return leading.polar();
        }
        // No decomposition: a momentum that is not finite. The weights become so too, and the next loss stops
        // the run.
    }
    orthogonalize(matrix, polar)
}

/// The factor between the orthogonal matrix and the update.
pub(super) fn update_scale(scale: UpdateScale, layout: Layout) -> f64 {
    let (outputs, inputs) = (layout.outputs as f64, layout.inputs as f64);
    match scale {
        UpdateScale::AspectRatio => (outputs / inputs).max(1.0).sqrt(),
        UpdateScale::MatchAdamw => 0.2 * outputs.max(inputs).sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::tests::{distance, normal};
    use super::*;
    use crate::config::Orthogonalization;

    const POLAR: Polar = Polar::exact(Orthogonalization::PolarExpress);

    fn row_norms(matrix: &Mat<f32>) -> Vec<f64> {
        matrix
            .col_iter()
            .map(|row| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt())
            .collect()
    }

    #[test]
    fn the_momentum_is_that_of_the_golf_baseline() {
        let layout = Layout { outputs: 1, inputs: 2, by_output: true };
        let mut sum = [1.0, -2.0];
        let ahead = accumulate(0.5, true, layout, &mut sum, &[3.0, 4.0]);
        assert_eq!(sum, [3.5, 3.0]);
        assert_eq!(layout.store(ahead.as_ref()), [4.75, 5.5]);
        let plain = accumulate(0.5, false, layout, &mut sum, &[0.0, 0.0]);
        assert_eq!(layout.store(plain.as_ref()), [1.75, 1.5]);

        let golf = OptimizerConfig::golf();
        let at = |step| momentum_at(&golf, step);
        assert_eq!(
            [at(0), at(250), at(500), at(9000)],
            [0.85, 0.85 + 0.5 * (0.95 - 0.85), 0.95, 0.95]
        );
        assert_eq!(momentum_at(&OptimizerConfig::default(), 0), 0.95);
    }

    /// After its first step v is mean(o²) times a constant, so all rows get one norm, that of O shared out.
    #[test]
    fn normuon_gives_all_rows_one_norm_and_keeps_that_of_the_matrix() {
        let matrix = normal(20, 48, 3);
        let plain = orthogonalize(matrix.as_ref(), POLAR);
        let mut second = vec![0.0; 48];
        let update = row_normalised(matrix.as_ref(), POLAR, 0.95, &mut second);
        let total = square_norm(plain.as_ref()).sqrt();
        for norm in row_norms(&update) {
            assert!((norm / (total / 48.0_f64.sqrt()) - 1.0).abs() < 1e-4, "{norm}");
        }
        for (v, norm) in second.iter().zip(row_norms(&plain)) {
            assert!((f64::from(*v) / (0.05 * norm * norm / 20.0) - 1.0).abs() < 1e-4);
        }
        let again = row_normalised(normal(20, 48, 4).as_ref(), POLAR, 0.95, &mut second);
        let spread = row_norms(&again);
        assert!((square_norm(again.as_ref()).sqrt() / total - 1.0).abs() < 0.05);
        assert!(spread.iter().any(|norm| (norm / spread[0] - 1.0).abs() > 1e-3));
    }

    #[test]
    fn muoneq_r_does_not_see_the_scale_of_a_row() {
        let matrix = normal(20, 16, 3);
        let mut uneven = matrix.clone();
        scale_columns(&mut uneven, |row, _| 10.0_f32.powi(row as i32 % 4));
        let even = row_equalised(matrix, POLAR);
        assert!(distance(row_equalised(uneven.clone(), POLAR).as_ref(), even.as_ref()) < 1e-3);
        assert!(distance(orthogonalize(uneven.as_ref(), POLAR).as_ref(), even.as_ref()) > 0.1);
    }

    #[test]
    fn numuon_of_full_rank_is_muon_and_below_it_has_that_rank() {
        let matrix = normal(48, 60, 3);
        let mut basis = Vec::new();
        let full = low_rank(matrix.as_ref(), POLAR, 48, &mut basis, [1, 2]);
        assert_eq!(full, orthogonalize(matrix.as_ref(), POLAR));
        assert!(basis.is_empty());
        for rank in [12, 4, 6] {
            let update = low_rank(matrix.as_ref(), POLAR, rank, &mut basis, [1, 2]);
            let values = update.singular_values().unwrap();
            assert_eq!(values.iter().filter(|value| **value > 0.5).count(), rank);
            assert!(values[rank..].iter().all(|value| *value < 1e-3), "{values:?}");
            assert_eq!(basis.len(), 60 * (rank + 8));
        }
    }

    #[test]
    fn updates_scale_with_the_shape() {
        let layout = Layout { outputs: 64, inputs: 16, by_output: true };
        let turned = Layout { outputs: 16, inputs: 64, by_output: true };
        assert_eq!(update_scale(UpdateScale::AspectRatio, layout), 2.0);
        assert_eq!(update_scale(UpdateScale::AspectRatio, turned), 1.0);
        assert_eq!(update_scale(UpdateScale::MatchAdamw, turned), 1.6);
    }
}
