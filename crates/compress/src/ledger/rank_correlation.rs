//! Whether two figures put things in the same order.

/// Spearman's rank correlation: Pearson's correlation of the ranks, equal values sharing the mean of their ranks. None
/// for fewer than two pairs, a NaN, or figures that are all equal.
///
/// ```
/// use backslash_compress::ledger::rank_correlation;
///
/// assert_eq!(rank_correlation(&[1.0, 2.0, 30.0], &[0.1, 0.2, 0.3]), Some(1.0));
/// assert_eq!(rank_correlation(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 4.0, 3.0]), Some(0.8));
/// assert_eq!(rank_correlation(&[1.0, 1.0], &[1.0, 2.0]), None);
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn rank_correlation(left: &[f64], right: &[f64]) -> Option<f64> {
    assert_eq!(left.len(), right.len(), "figures in pairs");
    if left.iter().chain(right).any(|value| value.is_nan()) {
        return None;
    }
    // Deviations from the mean rank, which is that of the middle whatever the ties.
    let middle = (left.len() as f64 - 1.0) / 2.0;
    let deviations = |values: &[f64]| -> Vec<f64> {
        mean_ranks(values).into_iter().map(|rank| rank - middle).collect()
    };
    let (left, right) = (deviations(left), deviations(right));
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = (product(&left, &left) * product(&right, &right)).sqrt();
    (scale > 0.0).then(|| product(&left, &right) / scale)
}

/// Ranks from zero; equal values get the mean of the ranks they take up.
fn mean_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let mean = first as f64 + (tied.len() as f64 - 1.0) / 2.0;
        tied.iter().for_each(|index| ranks[*index] = mean);
        first += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    /// By definition: a rank is the number of smaller values and half of the equal ones; then Pearson.
    fn slow(left: &[f64], right: &[f64]) -> f64 {
        let ranks = |values: &[f64]| -> Vec<f64> {
            let rank = |value: &f64| {
                let smaller = values.iter().filter(|other| *other < value).count() as f64;
                let equal = values.iter().filter(|other| *other == value).count() as f64;
                smaller + equal / 2.0
            };
            values.iter().map(rank).collect()
        };
        let (left, right) = (ranks(left), ranks(right));
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (mean_left, mean_right) = (mean(&left), mean(&right));
        let pairs = || left.iter().zip(&right).map(|(l, r)| (l - mean_left, r - mean_right));
        let covariance: f64 = pairs().map(|(l, r)| l * r).sum();
        let variances: (f64, f64) =
            pairs().fold((0.0, 0.0), |sum, (l, r)| (sum.0 + l * l, sum.1 + r * r));
        covariance / (variances.0 * variances.1).sqrt()
    }

    #[test]
    fn it_is_the_definition_with_ties_too() {
        let mut random = rand_pcg::Pcg64::seed_from_u64(3);
        for count in [2, 3, 7, 40] {
            for distinct in [3, 10, 1_000_000] {
                let mut draw = |_| f64::from(random.random_range(0..distinct));
                let left: Vec<f64> = (0..count).map(&mut draw).collect();
                let right: Vec<f64> = (0..count).map(&mut draw).collect();
                match rank_correlation(&left, &right) {
                    Some(found) => assert!((found - slow(&left, &right)).abs() < 1e-12),
                    None => assert!(slow(&left, &right).is_nan()),
                }
            }
        }
    }

    #[test]
    fn without_order_there_is_none() {
        assert_eq!(rank_correlation(&[], &[]), None);
        assert_eq!(rank_correlation(&[1.0], &[2.0]), None);
        assert_eq!(rank_correlation(&[1.0, f64::NAN, 2.0], &[1.0, 2.0, 3.0]), None);
        let reversed = [f64::INFINITY, 5.0, -1.0, f64::NEG_INFINITY];
        assert_eq!(rank_correlation(&[1.0, 2.0, 3.0, 4.0], &reversed), Some(-1.0));
    }
}
