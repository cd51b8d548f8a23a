//! How weights are distributed, and which density fits them.

use backslash_rate::{GeneralisedGaussian, Moments};
use serde::Serialize;

/// Bins on either side of the one about zero.
const SIDE: usize = 30;
/// Root mean squares from zero to the outermost edges.
const EXTENT: f64 = 4.0;

/// Counts of weights in bins of equal width about zero, and the densities that fit them best.
///
/// ```
/// use backslash_eval::WeightHistogram;
///
/// let weights: Vec<f32> = (0..999).map(|i| (i as f32 - 499.0) / 500.0).collect();
/// let histogram = WeightHistogram::of("flat", &weights).expect("not all are zero");
/// assert_eq!(histogram.counts.iter().sum::<u64>() + histogram.outside, 999);
/// let [generalised, gauss, laplace] = &histogram.fits;
/// assert!(generalised.log_likelihood > gauss.log_likelihood && gauss.log_likelihood > laplace.log_likelihood);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightHistogram {
    /// What the weights are of.
    pub name: String,
    /// How many there are.
    pub weights: u64,
    /// How many of them are exactly zero.
    pub zeros: u64,
    /// Root mean square.
    pub root_mean_square: f64,
    /// Width of a bin; the middle one is centred on zero.
    pub bin_width: f64,
    /// Weights in each bin, from the most negative on.
    pub counts: Vec<u64>,
    /// Weights beyond the outermost bins.
    pub outside: u64,
    /// Generalised Gaussian, Gaussian and Laplace, each at its greatest likelihood.
    pub fits: [DensityFit; 3],
}

/// A density at its greatest likelihood.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DensityFit {
    /// Name of the family.
    pub family: &'static str,
    /// Shape ν: 1 is Laplace, 2 is Gauss.
    pub shape: f64,
    /// Scale a in exp(−|w/a|^ν).
    pub scale: f64,
    /// Mean of the logarithm of the density, in nats per weight.
    pub log_likelihood: f64,
}

impl DensityFit {
    /// The density at a weight, per unit of the weights.
    pub fn density(&self, weight: f64) -> f64 {
        GeneralisedGaussian { shape: self.shape, scale: self.scale }.density(weight)
    }
}

impl WeightHistogram {
    /// The histogram of some weights, out to four root mean squares; `None` where all are zero.
    pub fn of(name: &str, weights: &[f32]) -> Option<Self> {
        let root_mean_square = Moments::of(weights).root_mean_square();
        let fit = |family, density: GeneralisedGaussian| DensityFit {
            family,
            shape: density.shape,
            scale: density.scale,
            log_likelihood: density.log_likelihood(weights),
        };
        let fits = [
            fit("generalised Gaussian", GeneralisedGaussian::fitted(weights)?),
            fit("Gaussian", GeneralisedGaussian::of_shape(2.0, weights)?),
            fit("Laplace", GeneralisedGaussian::of_shape(1.0, weights)?),
        ];
        let bin_width = 2.0 * EXTENT * root_mean_square / (2 * SIDE + 1) as f64;
        let mut counts = vec![0; 2 * SIDE + 1];
        let mut outside = 0;
        for weight in weights {
            let bin = (f64::from(*weight) / bin_width).round() + SIDE as f64;
            match counts.get_mut(bin as usize) {
                Some(count) if bin >= 0.0 => *count += 1,
                _ => outside += 1,
            }
        }
        Some(Self {
            name: name.to_owned(),
            weights: weights.len() as u64,
            zeros: weights.iter().filter(|weight| **weight == 0.0).count() as u64,
            root_mean_square,
            bin_width,
            counts,
            outside,
            fits,
        })
    }

    /// Lower and upper edge of a bin, and the share of the weights in it over its width.
    pub fn bin(&self, index: usize) -> (f64, f64, f64) {
        let middle = (index as f64 - SIDE as f64) * self.bin_width;
        let density = self.counts[index] as f64 / self.weights as f64 / self.bin_width;
        (middle - 0.5 * self.bin_width, middle + 0.5 * self.bin_width, density)
    }

    /// The family whose likelihood is greatest of those that have no shape to choose.
    pub fn better_named(&self) -> &DensityFit {
        let [_, gauss, laplace] = &self.fits;
        if gauss.log_likelihood >= laplace.log_likelihood { gauss } else { laplace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_is_in_the_bin_that_holds_it() {
        let weights = [0.0, 0.0, 0.1, -0.1, 0.31, 9.0, -9.0];
        let histogram = WeightHistogram::of("w", &weights).unwrap();
        assert_eq!((histogram.weights, histogram.zeros, histogram.outside), (7, 2, 0));
        for weight in weights {
            let weight = f64::from(weight);
            let holds = |index: &usize| {
                let (low, high, _) = histogram.bin(*index);
                low <= weight && weight < high
            };
            let index = (0..histogram.counts.len()).find(holds).unwrap();
            assert!(histogram.counts[index] > 0, "{weight}");
        }
        let area: f64 = (0..61).map(|index| histogram.bin(index).2 * histogram.bin_width).sum();
        assert!((area - 1.0).abs() < 1e-12);
    }

    #[test]
    fn far_weights_are_outside_and_zeros_alone_have_no_histogram() {
        let mut weights = vec![0.01_f32; 1000];
        weights.push(100.0);
        assert_eq!(WeightHistogram::of("far", &weights).unwrap().outside, 1);
        assert_eq!(WeightHistogram::of("zeros", &[0.0; 5]), None);
    }
}
