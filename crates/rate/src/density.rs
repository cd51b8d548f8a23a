//! The density of a generalised Gaussian that is fitted to weights, and how well it fits.

/// The zero-mean density f(w) = ν / (2·a·Γ(1/ν)) · exp(−|w/a|^ν) with shape ν and scale a: ν = 1 is Laplace, ν = 2 is
/// Gauss.
///
/// ```
/// use backslash_rate::GeneralisedGaussian;
///
/// let weights = [0.5, -0.5, 0.25, -1.0, 0.01];
/// let gauss = GeneralisedGaussian::of_shape(2.0, &weights).unwrap();
/// let fitted = GeneralisedGaussian::fitted(&weights).unwrap();
/// assert!(fitted.log_likelihood(&weights) >= gauss.log_likelihood(&weights));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeneralisedGaussian {
    /// Shape ν.
    pub shape: f64,
    /// Scale a, in the unit of the weights.
    pub scale: f64,
}

/// Shapes between which a fit looks.
const SHAPES: [f64; 2] = [0.1, 10.0];
/// Width of the interval in ln ν at which the search ends: the shape is then known to 0.2 %.
const ENOUGH: f64 = 2e-3;

impl GeneralisedGaussian {
    /// The scale of greatest likelihood at a given shape, a = (ν·mean |w|^ν)^(1/ν); `None` where all weights are zero.
    pub fn of_shape(shape: f64, weights: &[f32]) -> Option<Self> {
        Self::at(shape, &Magnitudes::of(weights))
    }

    /// Shape and scale of greatest likelihood, the shape between 0.1 and 10; `None` where all weights are zero.
    ///
    /// The likelihood at the best scale is searched along ln ν by golden sections, which asks for about twenty passes over
    /// the weights. Where many of them are exactly zero no shape is best, since a smaller one always fits better: the least
    /// shape that is looked at is then the answer.
    pub fn fitted(weights: &[f32]) -> Option<Self> {
        let magnitudes = Magnitudes::of(weights);
        let at = |log_shape: f64| Self::at(log_shape.exp(), &magnitudes);
        let likelihood = |log_shape: f64| Some(at(log_shape)?.at_best_scale());
        let golden = 0.5 * (5.0_f64.sqrt() - 1.0);
        let [mut low, mut high] = SHAPES.map(f64::ln);
        let inner =
            |low: f64, high: f64| [high - golden * (high - low), low + golden * (high - low)];
        let [mut left, mut right] = inner(low, high);
        let (mut of_left, mut of_right) = (likelihood(left)?, likelihood(right)?);
        while high - low > ENOUGH {
            if of_left > of_right {
                (high, right, of_right) = (right, left, of_left);
                left = inner(low, high)[0];
                of_left = likelihood(left)?;
            } else {
                (low, left, of_left) = (left, right, of_right);
                right = inner(low, high)[1];
                of_right = likelihood(right)?;
            }
        }
        // The members that have names are fits too, and the end of a search is not exactly at them.
        let found = [Some(0.5 * (low + high)), Some(0.0), Some(2.0_f64.ln())];
        let found = found.into_iter().flatten().filter_map(at);
        found.max_by(|one, other| one.at_best_scale().total_cmp(&other.at_best_scale()))
    }

    /// f(w), per unit of the weights.
    pub fn density(&self, weight: f64) -> f64 {
        (self.log_normaliser() - (weight.abs() / self.scale).powf(self.shape)).exp()
    }

    /// Mean of ln f(w), in nats per weight.
    pub fn log_likelihood(&self, weights: &[f32]) -> f64 {
        let powers =
            weights.iter().map(|weight| (f64::from(weight.abs()) / self.scale).powf(self.shape));
        self.log_normaliser() - powers.sum::<f64>() / weights.len() as f64
    }

    fn at(shape: f64, magnitudes: &Magnitudes) -> Option<Self> {
        let scale = (shape * magnitudes.mean_power(shape)).powf(1.0 / shape);
        (scale.is_normal()).then_some(Self { shape, scale })
    }

    /// The mean of ln f(w) over the weights that the scale was fitted to: there the mean of |w/a|^ν is 1/ν.
    fn at_best_scale(&self) -> f64 {
        self.log_normaliser() - 1.0 / self.shape
    }

    fn log_normaliser(&self) -> f64 {
        (self.shape / (2.0 * self.scale)).ln() - libm::lgamma(1.0 / self.shape)
    }
}

/// ln|w| of the weights that are not zero, which makes a power of all of them one exponential each.
struct Magnitudes {
    logarithms: Vec<f32>,
    count: usize,
}

impl Magnitudes {
    fn of(weights: &[f32]) -> Self {
        let logarithms = weights.iter().filter(|weight| **weight != 0.0);
        Self {
            logarithms: logarithms.map(|weight| weight.abs().ln()).collect(),
            count: weights.len(),
        }
    }

    /// Mean of |w|^ν; zero for no weights.
    fn mean_power(&self, shape: f64) -> f64 {
        let powers = self.logarithms.iter().map(|logarithm| (shape * f64::from(*logarithm)).exp());
        powers.sum::<f64>() / self.count.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_distr::{Distribution, StandardNormal};

    fn gauss() -> Vec<f32> {
        let random = rand_pcg::Pcg64::seed_from_u64(5);
        StandardNormal.sample_iter(random).take(100_000).collect()
    }

    fn laplace() -> Vec<f32> {
        let mut random = rand_pcg::Pcg64::seed_from_u64(7);
        let mut draw = || {
            let uniform: f32 = random.random_range(-0.5..0.5);
            -0.2 * uniform.signum() * (1.0 - 2.0 * uniform.abs()).max(1e-9).ln()
        };
        (0..100_000).map(|_| draw()).collect()
    }

    #[test]
    fn the_density_that_weights_were_drawn_from_is_found() {
        for (weights, shape, scale) in [(gauss(), 2.0, 2.0_f64.sqrt()), (laplace(), 1.0, 0.2)] {
            let fitted = GeneralisedGaussian::fitted(&weights).unwrap();
            assert!((fitted.shape - shape).abs() < 0.03, "{fitted:?}");
            assert!((fitted.scale / scale - 1.0).abs() < 0.03, "{fitted:?}");
            let others = [0.5, 1.0, 1.5, 2.0, 4.0];
            for other in others.map(|shape| GeneralisedGaussian::of_shape(shape, &weights).unwrap())
            {
                assert!(fitted.log_likelihood(&weights) >= other.log_likelihood(&weights) - 1e-5);
            }
        }
    }

    #[test]
    fn likelihoods_are_those_of_the_textbook() {
        let weights = gauss();
        let count = weights.len() as f64;
        let variance = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / count;
        let expected = -0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E * variance).ln();
        let gauss = GeneralisedGaussian::of_shape(2.0, &weights).unwrap();
        assert!((gauss.log_likelihood(&weights) - expected).abs() < 1e-5);
        let mean = weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / count;
        let laplace = GeneralisedGaussian::of_shape(1.0, &weights).unwrap();
        assert!((laplace.log_likelihood(&weights) + (2.0 * mean).ln() + 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_density_has_an_area_of_one() {
        for shape in [0.7, 1.0, 1.6, 2.0, 5.0] {
            let density = GeneralisedGaussian { shape, scale: 0.3 };
            let middle = |index: i32| (f64::from(index) + 0.5) * 1e-3;
            let area: f64 =
                (-40_000..40_000).map(|index| 1e-3 * density.density(middle(index))).sum();
            assert!((area - 1.0).abs() < 1e-3, "{shape}: {area}");
        }
    }

    #[test]
    fn zeros_alone_have_no_density_and_many_of_them_the_least_shape() {
        assert_eq!(GeneralisedGaussian::fitted(&[0.0; 9]), None);
        assert_eq!(GeneralisedGaussian::fitted(&[]), None);
        let mut weights = vec![0.0_f32; 900];
        weights.extend([0.3, -0.2, 0.1]);
        assert!(GeneralisedGaussian::fitted(&weights).unwrap().shape < 0.11);
    }
}
