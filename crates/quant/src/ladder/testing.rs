//! Weights and inputs for tests.

use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

use super::Covariance;

/// Independent standard normal numbers.
pub(super) fn gaussian(count: usize, seed: u64) -> Vec<f32> {
    let mut random = rand_pcg::Pcg64::seed_from_u64(seed);
    StandardNormal.sample_iter(&mut random).take(count).collect()
}

/// Moments of inputs A·x for Gaussian x, where A has entries of a quarter beside a diagonal of e^(spread·normal).
pub(super) fn correlated(width: usize, spread: f32, seed: u64) -> Covariance {
    let (mixing, scales) = (gaussian(width * width, seed), gaussian(width, seed + 1));
    let inputs: Vec<f32> = gaussian(4 * width * width, seed + 2)
        .chunks(width)
        .flat_map(|sample| {
            (0..width)
                .map(|i| {
                    let row = &mixing[i * width..(i + 1) * width];
                    let mixed: f32 = row.iter().zip(sample).map(|(a, x)| a * x).sum();
                    (spread * scales[i]).exp() * (sample[i] + 0.25 * mixed)
                })
                .collect::<Vec<f32>>()
        })
        .collect();
    let mut covariance = Covariance::new(width).unwrap();
    covariance.accumulate(&inputs).unwrap();
    covariance
}
