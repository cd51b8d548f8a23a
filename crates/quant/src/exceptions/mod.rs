//! Ways to spend bytes on a part of a matrix: what a ledger prices against finer steps.

mod low_rank;
mod protected;

pub use low_rank::{LowRank, low_rank_correction};
pub use protected::{column_errors, quantize_protected};

#[cfg(test)]
mod testing {
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    use crate::Covariance;

    /// Independent standard normal numbers.
    pub fn gaussian(count: usize, seed: u64) -> Vec<f32> {
        let mut random = rand_pcg::Pcg64::seed_from_u64(seed);
        StandardNormal.sample_iter(&mut random).take(count).collect()
    }

    /// Moments of inputs of which each is half the one before it, and noise.
    pub fn correlated(width: usize, seed: u64) -> Covariance {
        let mut inputs = gaussian(40 * width * width, seed);
        for sample in inputs.chunks_mut(width) {
            (1..width).for_each(|input| sample[input] += 0.5 * sample[input - 1]);
        }
        let mut covariance = Covariance::new(width).unwrap();
        covariance.accumulate(&inputs).unwrap();
        covariance
    }
}
