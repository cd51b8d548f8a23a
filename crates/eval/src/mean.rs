//! Means over seeds or models, and how certain they are.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean of some figures, such as those of several seeds, and its uncertainty.
///
/// ```
/// use backslash_eval::Mean;
///
/// let gains = Mean::of(&[13.0, 15.0, 17.0]).expect("three figures");
/// let (least, greatest) = gains.interval().expect("three figures");
/// assert!(gains.mean == 15.0 && least > 10.0 && greatest < 20.0 && gains.is_certain());
/// assert_eq!(Mean::of(&[13.0]).expect("one figure").interval(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the figures, over n − 1; 0 of a single one.
    pub deviation: f64,
    /// Number of figures, n.
    pub count: usize,
}

impl Mean {
    /// Of these figures; none without any.
    pub fn of(figures: &[f64]) -> Option<Self> {
        let count = figures.len();
        if count == 0 {
            return None;
        }
        let mean = figures.iter().sum::<f64>() / count as f64;
        let squares: f64 = figures.iter().map(|figure| (figure - mean).powi(2)).sum();
        let deviation = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        Some(Self { mean, deviation, count })
    }

    /// The 95 % confidence interval of the mean, mean ± t·s/√n with t the 0.975 quantile of Student's t with n − 1
    /// degrees of freedom and s the deviation; `None` of a single figure.
    pub fn interval(&self) -> Option<(f64, f64)> {
        if self.count < 2 {
            return None;
        }
        let student = StudentsT::new(0.0, 1.0, (self.count - 1) as f64).expect("n − 1 ≥ 1");
        let half = student.inverse_cdf(0.975) * self.deviation / (self.count as f64).sqrt();
        Some((self.mean - half, self.mean + half))
    }

    /// The [`Mean::interval`] where a chart shows it: of three figures at least, since that of two is thirteen times as wide
    /// as what they differ by.
    pub fn band(&self) -> Option<(f64, f64)> {
        self.interval().filter(|_| self.count > 2)
    }

    /// Whether zero is outside the [`Mean::interval`]. Of a single figure nothing is certain.
    pub fn is_certain(&self) -> bool {
        self.interval().is_some_and(|(least, greatest)| least > 0.0 || greatest < 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables_of_students_t() {
        // Quantiles at 0.975 with 1, 2 and 9 degrees of freedom, as printed in tables.
        for (count, quantile) in [(2, 12.706), (3, 4.303), (10, 2.262)] {
            let figures: Vec<f64> = (0..count).map(|k| f64::from(k) * 0.5).collect();
            let mean = Mean::of(&figures).unwrap();
            let (least, greatest) = mean.interval().unwrap();
            let t = 0.5 * (greatest - least) * f64::from(count).sqrt() / mean.deviation;
            assert!((t - quantile).abs() < 6e-4, "{count}: {t}");
            assert!((0.5 * (greatest + least) - mean.mean).abs() < 1e-12);
        }
    }

    #[test]
    fn a_difference_within_the_interval_is_not_certain() {
        assert!(!Mean::of(&[1.0, 2.0, 6.0]).unwrap().is_certain());
        assert!(Mean::of(&[-1.0, -1.1, -1.2]).unwrap().is_certain());
        assert!(!Mean::of(&[1.0]).unwrap().is_certain());
        assert_eq!(Mean::of(&[]), None);
        assert_eq!(Mean::of(&[1.0, 2.0]).unwrap().band(), None);
    }
}
