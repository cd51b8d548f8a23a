//! Absolute moments of weights.

/// Count, sum of absolute values and sum of squares of some weights, in double precision.
///
/// Moments of two sets are added to give those of their union, so that tensors, shards and threads can
/// each count their own.
///
/// ```
/// use backslash_rate::Moments;
///
/// let moments = Moments::of(&[3.0, -4.0]);
/// assert_eq!(moments.mean_absolute(), 3.5);
/// assert_eq!(moments.root_mean_square(), 12.5_f64.sqrt());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Number of weights.
    pub count: u64,
    /// Σ|w|.
    pub absolute: f64,
    /// Σw².
    pub square: f64,
}

impl Moments {
    /// The moments of a slice.
    pub fn of(weights: &[f32]) -> Self {
        let mut moments = Self::default();
        moments.extend(weights);
        moments
    }

    /// Adds more weights: the moments of pieces, one after the other, are those of the whole to the last bit.
    pub fn extend(&mut self, weights: &[f32]) {
        self.count += weights.len() as u64;
        for weight in weights {
            let weight = f64::from(*weight);
            self.absolute += weight.abs();
            self.square += weight * weight;
        }
    }

    /// Mean of |w|; zero for no weights.
    pub fn mean_absolute(&self) -> f64 {
        self.absolute / (self.count.max(1)) as f64
    }

    /// √(mean of w²); zero for no weights.
    pub fn root_mean_square(&self) -> f64 {
        (self.square / (self.count.max(1)) as f64).sqrt()
    }

    /// E\[w²\] / E\[|w|\]², which fixes the shape of a generalised Gaussian; `None` if all weights are zero.
    pub fn ratio(&self) -> Option<f64> {
        let mean = self.mean_absolute();
        (mean > 0.0).then(|| self.square / self.count as f64 / (mean * mean))
    }
}

impl std::ops::AddAssign for Moments {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.absolute += other.absolute;
        self.square += other.square;
    }
}
