//! Which weights are the smallest.

/// Among which weights the smallest are sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All tensors together: those of small weights lose more than others.
    Global,
    /// Each tensor by itself: all lose the same share.
    PerTensor,
}

/// For every tensor and every weight, whether it is among the `share` (0 to 1) of smallest magnitude. Of equal magnitudes
/// the first are.
///
/// ```
/// use backslash_eval::prune::{Scope, smallest};
///
/// let magnitudes = [vec![1.0, 2.0], vec![3.0, 4.0]];
/// assert_eq!(smallest(&magnitudes, 0.5, Scope::Global), [[true, true], [false, false]]);
/// assert_eq!(smallest(&magnitudes, 0.5, Scope::PerTensor), [[true, false], [true, false]]);
/// ```
pub fn smallest(magnitudes: &[Vec<f32>], share: f64, scope: Scope) -> Vec<Vec<bool>> {
    match scope {
        Scope::Global => smallest_of_all(magnitudes, share),
        Scope::PerTensor => {
            let alone = |tensor: &Vec<f32>| smallest_of_all(std::slice::from_ref(tensor), share);
            magnitudes.iter().flat_map(alone).collect()
        }
    }
}

fn smallest_of_all(magnitudes: &[Vec<f32>], share: f64) -> Vec<Vec<bool>> {
    let mut all: Vec<f32> = magnitudes.iter().flatten().copied().collect();
    let count = (share.clamp(0.0, 1.0) * all.len() as f64).round() as usize;
    if count == 0 {
        return magnitudes.iter().map(|tensor| vec![false; tensor.len()]).collect();
    }
    let (_, limit, _) = all.select_nth_unstable_by(count - 1, f32::total_cmp);
    let limit = *limit;
    let below = magnitudes.iter().flatten().filter(|magnitude| **magnitude < limit).count();
    let mut equal = count - below;
    let mut is_small = |magnitude: &f32| {
        let is_tie = *magnitude == limit && equal > 0;
        equal -= usize::from(is_tie);
        *magnitude < limit || is_tie
    };
    magnitudes.iter().map(|tensor| tensor.iter().map(&mut is_small).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn magnitudes() -> [Vec<f32>; 2] {
        let small = (0..60).map(|i| (i * 7 % 60) as f32);
        let large = (0..40).map(|i| 30.0 + (i * 3 % 40) as f32);
        [small.collect(), large.collect()]
    }

    #[test]
    fn no_weight_that_is_kept_is_smaller_than_one_that_is_pruned() {
        for share in [0.0, 0.13, 0.5, 0.95, 1.0] {
            let magnitudes = magnitudes();
            let mask = smallest(&magnitudes, share, Scope::Global);
            let pairs = || magnitudes.iter().flatten().zip(mask.iter().flatten());
            let of =
                |pruned: bool| pairs().filter(move |pair| *pair.1 == pruned).map(|pair| *pair.0);
            assert_eq!(of(true).count(), (100.0 * share).round() as usize);
            let largest = of(true).fold(f32::MIN, f32::max);
            assert!(of(false).all(|kept| kept >= largest), "{share}");
        }
    }

    #[test]
    fn every_tensor_loses_its_share_by_itself() {
        let mask = smallest(&magnitudes(), 0.25, Scope::PerTensor);
        let pruned = mask.map_counts();
        assert_eq!(pruned, [15, 10]);
    }

    #[test]
    fn of_equal_magnitudes_exactly_as_many_as_asked_for_are_pruned() {
        let mask = smallest(&[vec![1.0; 6], vec![1.0; 4]], 0.7, Scope::Global);
        assert_eq!(mask.map_counts(), [6, 1]);
    }

    trait MapCounts {
        fn map_counts(&self) -> Vec<usize>;
    }

    impl MapCounts for Vec<Vec<bool>> {
        fn map_counts(&self) -> Vec<usize> {
            self.iter().map(|tensor| tensor.iter().filter(|pruned| **pruned).count()).collect()
        }
    }
}
