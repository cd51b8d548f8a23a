//! The stand-ins for rounding that training computes its loss with.

use multiversion::multiversion;

/// A stream of uniform numbers in ±½ that depends on the key and the position only (SplitMix64 over
/// the position), so any part of any tensor can be computed alone, in any order and on any thread.
#[inline(always)]
fn uniform(key: u64, position: u64) -> f32 {
    let mut z = key.wrapping_add(position.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f32 * (1.0 / 16_777_216.0) - (0.5 - 1.0 / 33_554_432.0)
}

/// `noisy` = w + Δ·u with u uniform in ±½: the smooth quantiser. Its expectation over u is what the rate
/// and the loss of a uniform quantiser of step Δ look like on average.
///
/// `key` fixes the noise; `offset` is the position of the first weight in its tensor, so that a tensor
/// treated in pieces has the same noise as one treated whole.
///
/// # Panics
/// If the slices differ in length.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
pub fn add_uniform_noise(weights: &[f32], step: f32, key: u64, offset: u64, noisy: &mut [f32]) {
    assert_eq!(weights.len(), noisy.len());
    for (index, (weight, noisy)) in weights.iter().zip(noisy).enumerate() {
        *noisy = weight + step * uniform(key, offset + index as u64);
    }
}

/// `rounded` = Δ·round(w/Δ), ties to even: what the decoder of a uniform quantiser gives back.
///
/// # Panics
/// If the slices differ in length.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
pub fn round_to_step(weights: &[f32], step: f32, rounded: &mut [f32]) {
    assert_eq!(weights.len(), rounded.len());
    let codes_per_unit = 1.0 / step;
    for (weight, rounded) in weights.iter().zip(rounded) {
        *rounded = (weight * codes_per_unit).round_ties_even() * step;
    }
}

/// As [`round_to_step`] for a share of the weights; the others stay as they are (Quant-Noise, Fan et al., arXiv 2004.07320):
/// their gradients are those of a network that is not quantised at that weight.
///
/// `key` fixes which they are; `offset` is the position of the first weight in its tensor, as in [`add_uniform_noise`].
///
/// # Panics
/// If the slices differ in length.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
pub fn round_some_to_step(
    weights: &[f32],
    step: f32,
    share: f32,
    key: u64,
    offset: u64,
    rounded: &mut [f32],
) {
    assert_eq!(weights.len(), rounded.len());
    let codes_per_unit = 1.0 / step;
    let limit = share - 0.5;
    for (index, (weight, rounded)) in weights.iter().zip(rounded).enumerate() {
        let all = (weight * codes_per_unit).round_ties_even() * step;
        *rounded = if uniform(key, offset + index as u64) < limit { all } else { *weight };
    }
}

/// Σ g·(p − w): what a gradient gains by points p in the place of weights w.
///
/// # Panics
/// If the slices differ in length.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
pub fn gain_by_moving(gradient: &[f32], points: &[f32], weights: &[f32]) -> f64 {
    assert!(gradient.len() == points.len() && points.len() == weights.len());
    gain(gradient, points, weights)
}

/// Σ g·(p − o) of each row of so many columns: by what a gradient grows with the logarithm of a scale by which a row's points p
/// are further from their origins o. Without origins these are zero.
///
/// # Panics
/// If there are not as many points as gradients, fewer origins, but not none, or no columns.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
pub fn gains_by_scaling(
    gradient: &[f32],
    points: &[f32],
    origins: &[f32],
    columns: usize,
) -> Vec<f64> {
    assert_eq!(gradient.len(), points.len());
    let zeros = vec![0.0; columns];
    let rows = gradient.chunks(columns).zip(points.chunks(columns)).enumerate();
    let mut gains = Vec::with_capacity(rows.len());
    for (row, (gradient, points)) in rows {
        let origins = match origins.is_empty() {
            true => &zeros[..points.len()],
            false => &origins[row * columns..][..points.len()],
        };
        gains.push(gain(gradient, points, origins));
    }
    gains
}

#[inline(always)]
fn gain(gradient: &[f32], points: &[f32], weights: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f64; LANES];
    let mut add = |gradient: &[f32], points: &[f32], weights: &[f32]| {
        let terms = gradient.iter().zip(points.iter().zip(weights));
        for (lane, (g, (point, weight))) in lanes.iter_mut().zip(terms) {
            *lane += f64::from(*g) * f64::from(point - weight);
        }
    };
    let [gradient, points, weights] = [gradient, points, weights].map(<[f32]>::as_chunks::<LANES>);
    for (gradient, (points, weights)) in gradient.0.iter().zip(points.0.iter().zip(weights.0)) {
        add(gradient, points, weights);
    }
    add(gradient.1, points.1, weights.1);
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_uniform_over_one_step_and_independent_of_the_cut() {
        let count = 100_000;
        let weights = vec![0.25_f32; count];
        let mut whole = vec![0.0; count];
        add_uniform_noise(&weights, 0.1, 42, 0, &mut whole);
        let mut parts = vec![0.0; count];
        add_uniform_noise(&weights[..777], 0.1, 42, 0, &mut parts[..777]);
        add_uniform_noise(&weights[777..], 0.1, 42, 777, &mut parts[777..]);
        assert_eq!(whole, parts);

        let offsets: Vec<f64> = whole.iter().map(|x| (f64::from(*x) - 0.25) / 0.1).collect();
        assert!(offsets.iter().all(|u| u.abs() <= 0.500_01));
        let mean = offsets.iter().sum::<f64>() / count as f64;
        let variance = offsets.iter().map(|u| u * u).sum::<f64>() / count as f64;
        assert!(mean.abs() < 0.004, "{mean}");
        assert!((variance * 12.0 - 1.0).abs() < 0.01, "{variance}");
        let lag: f64 = offsets.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / count as f64;
        assert!((lag / variance).abs() < 0.01, "{lag}");
    }

    #[test]
    fn rounding_lands_on_multiples_no_further_than_half_a_step() {
        let weights: Vec<f32> = (-500..500).map(|i| i as f32 * 0.013).collect();
        let mut rounded = vec![0.0; weights.len()];
        round_to_step(&weights, 0.25, &mut rounded);
        for (weight, rounded) in weights.iter().zip(&rounded) {
            assert_eq!((rounded / 0.25).fract(), 0.0);
            assert!((weight - rounded).abs() <= 0.125 + 1e-6);
        }
    }

    #[test]
    fn gains_are_those_of_a_sum_in_order() {
        for count in [0, 1, 15, 16, 48, 1001] {
            let of = |k: usize| (0..count).map(|i| ((i * k) % 97) as f32 * 0.01 - 0.3).collect();
            let [gradient, points, weights]: [Vec<f32>; 3] = [31, 57, 11].map(of);
            let terms = gradient.iter().zip(points.iter().zip(&weights));
            let terms: Vec<f64> =
                terms.map(|(g, (p, w))| f64::from(*g) * f64::from(p - w)).collect();
            let expected: f64 = terms.iter().sum();
            let found = gain_by_moving(&gradient, &points, &weights);
            assert!((found - expected).abs() < 1e-9, "{count}: {found} {expected}");
            for columns in [1, 7, 16, 50, count + 1] {
                let gains = gains_by_scaling(&gradient, &points, &weights, columns);
                let expected: Vec<f64> =
                    terms.chunks(columns).map(|row| row.iter().sum()).collect();
                assert_eq!(gains.len(), expected.len());
                for (gain, expected) in gains.iter().zip(expected) {
                    assert!(
                        (gain - expected).abs() < 1e-9,
                        "{count}, {columns}: {gain} {expected}"
                    );
                }
                let zeros = vec![0.0; count];
                let without = gains_by_scaling(&gradient, &points, &[], columns);
                assert_eq!(without, gains_by_scaling(&gradient, &points, &zeros, columns));
            }
        }
    }

    #[test]
    fn a_share_is_rounded_whatever_the_cut() {
        let count = 100_000;
        let weights: Vec<f32> = (0..count).map(|i| 0.1 + (i % 7) as f32).collect();
        let mut points = vec![0.0; count];
        for share in [0.0, 0.3, 0.5, 1.0] {
            round_some_to_step(&weights, 1.0, share, 42, 0, &mut points);
            let mut parts = vec![0.0; count];
            round_some_to_step(&weights[..777], 1.0, share, 42, 0, &mut parts[..777]);
            round_some_to_step(&weights[777..], 1.0, share, 42, 777, &mut parts[777..]);
            assert_eq!(points, parts);
            let rounded = points.iter().zip(&weights).filter(|(point, weight)| {
                assert!(point == weight || **point == weight.round(), "{point} {weight}");
                point != weight
            });
            let found = rounded.count() as f64 / count as f64;
            assert!((found - f64::from(share)).abs() < 0.005, "{share}: {found}");
        }
    }
}
