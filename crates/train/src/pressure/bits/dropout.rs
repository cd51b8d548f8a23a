//! Coarser steps than a file will have, now and then, so that the network stays good where those of its file are coarser than
//! those it has learned.

use std::f32::consts::SQRT_2;

/// What steps are multiplied by where the loss is computed: √2 or 2, each in half of that share of the keys, and else 1.
pub(super) fn coarsening(share: f64, key: u64) -> f32 {
    // The upper 53 bits, as a number from 0 to below 1.
    let position = (key >> 11) as f64 / (1_u64 << 53) as f64;
    match position / share {
        part if part < 0.5 => SQRT_2,
        part if part < 1.0 => 2.0,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_factor_has_its_share() {
        let keys = || (0..100_000_u64).map(|at| super::super::noise_key(7, at, usize::MAX));
        for share in [0.0, 0.1, 0.5, 1.0] {
            let of = |factor: f32| {
                let found = keys().filter(|key| coarsening(share, *key) == factor);
                found.count() as f64 / 1e5
            };
            for (factor, expected) in
                [(1.0, 1.0 - share), (SQRT_2, share / 2.0), (2.0, share / 2.0)]
            {
                assert!((of(factor) - expected).abs() < 0.006, "{share} {factor}: {}", of(factor));
            }
        }
    }
}
