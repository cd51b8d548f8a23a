//! The shape of a generalised Gaussian, f(w) ∝ exp(−|w/a|^ν): 1 is Laplace, 2 is Gauss.

/// ρ(ν) = Γ(1/ν)·Γ(3/ν) / Γ(2/ν)², the ratio E\[w²\] / E\[|w|\]² of a generalised Gaussian of shape ν
/// (Sharifi and Leon-Garcia 1995).
///
/// ```
/// assert!((backslash_rate::moment_ratio(1.0) - 2.0).abs() < 1e-12); // Laplace
/// assert!((backslash_rate::moment_ratio(2.0) - std::f64::consts::FRAC_PI_2).abs() < 1e-12); // Gauss
/// ```
pub fn moment_ratio(shape: f64) -> f64 {
    let log_gamma = |multiple: f64| libm::lgamma(multiple / shape);
    (log_gamma(1.0) + log_gamma(3.0) - 2.0 * log_gamma(2.0)).exp()
}

/// The shape whose [`moment_ratio`] is `ratio`, by bisection between 0.05 and 20; ratios outside that
/// range give its ends (a uniform distribution has no finite shape).
pub fn shape_from_ratio(ratio: f64) -> f64 {
    let (mut low, mut high) = (0.05_f64, 20.0_f64);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if moment_ratio(middle) > ratio {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The shape as the released BackSlash code finds it: the nearest ratio in a table of the shapes
/// 0.10, 0.11, … 2.99. Estimates are thereby censored at both ends.
///
/// ```
/// use backslash_rate::published_shape;
/// assert_eq!(published_shape(2.0), 1.0);
/// assert_eq!(published_shape(1e6), 0.10);
/// ```
pub fn published_shape(ratio: f64) -> f64 {
    let entry = |index: u32| f64::from(10 + index) / 100.0;
    let distance = |index: &u32| (moment_ratio(entry(*index)) - ratio).abs();
    let nearest = (0..290_u32).min_by(|a, b| distance(a).total_cmp(&distance(b)));
    entry(nearest.expect("the table is not empty"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Moments;
    use rand::{RngExt, SeedableRng};
    use rand_distr::{Distribution, StandardNormal};

    #[test]
    fn the_ratio_agrees_with_the_published_table() {
        // Three entries of the released table.
        assert!((moment_ratio(0.10) - 216.8).abs() < 0.05, "{}", moment_ratio(0.10));
        assert!((moment_ratio(1.0) - 2.0).abs() < 1e-9);
        assert!((moment_ratio(2.0) - std::f64::consts::FRAC_PI_2).abs() < 1e-9);
    }

    #[test]
    fn bisection_inverts_the_ratio() {
        for shape in [0.1, 0.37, 0.5, 1.0, 1.36, 2.0, 2.99, 8.0] {
            let found = shape_from_ratio(moment_ratio(shape));
            assert!((found / shape - 1.0).abs() < 1e-6, "{shape} {found}");
        }
    }

    #[test]
    fn the_shape_of_drawn_weights_is_found() {
        let mut random = rand_pcg::Pcg64::seed_from_u64(5);
        let gauss: Vec<f32> = StandardNormal.sample_iter(&mut random).take(200_000).collect();
        let laplace: Vec<f32> = (0..200_000)
            .map(|_| {
                let uniform: f32 = random.random_range(-0.5..0.5);
                -uniform.signum() * (1.0 - 2.0 * uniform.abs()).max(1e-9).ln()
            })
            .collect();
        for (weights, expected) in [(gauss, 2.0), (laplace, 1.0)] {
            let ratio = Moments::of(&weights).ratio().unwrap();
            assert!((shape_from_ratio(ratio) - expected).abs() < 0.03);
            assert!((published_shape(ratio) - expected).abs() < 0.03);
        }
    }
}
