//! Which part of an axis to show.

/// Magnitude beyond which a value is no figure to draw: ticks would lose their meaning.
const DRAWABLE: f64 = 1e12;

/// Whether a chart can place `value`.
pub(super) fn is_drawable(value: f64) -> bool {
    value.abs() <= DRAWABLE
}

/// The shown part of an axis, `low` < `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct AxisRange {
    pub low: f64,
    pub high: f64,
}

impl AxisRange {
    /// Room for all of `values`, with a margin; `None` without values.
    pub fn of_all(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) =
            values.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        (low <= high).then(|| Self { low, high }.with_margin())
    }

    /// Room for the interesting part of `values` where small is good: all of them, unless the worst
    /// lie further above the best than eight times the median does and than 5 % of the best, in
    /// which case the axis ends there.
    pub fn of_best(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (&best, &worst) = (sorted.first()?, sorted.last()?);
        let median = sorted[sorted.len() / 2];
        let limit = best + (8.0 * (median - best)).max(0.05 * best.abs());
        if worst <= limit {
            return Self::of_all([best, worst]);
        }
        Some(Self { low: best - 0.05 * (limit - best), high: limit })
    }

    /// Room for all but the worst tenth of `values`, as a loss falls steeply at the start.
    pub fn of_most(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.truncate(sorted.len() - sorted.len() / 10);
        Self::of_all(sorted)
    }

    pub fn span(&self) -> f64 {
        self.high - self.low
    }

    /// The same range with its lower end at zero or above.
    pub fn not_below_zero(self) -> Self {
        Self { low: self.low.max(0.0), ..self }
    }

    /// Decimals that tell neighbouring ticks apart.
    pub fn tick_decimals(&self) -> usize {
        (1.0 - self.span().log10().floor()).clamp(0.0, 9.0) as usize
    }

    fn with_margin(self) -> Self {
        // A single value gets a range around it, wide enough for ticks in double precision.
        let magnitude = self.low.abs().max(self.high.abs());
        let margin = if self.span() > 1e-6 * magnitude {
            0.05 * self.span()
        } else {
            0.1 * magnitude.max(0.1)
        };
        Self { low: self.low - margin, high: self.high + margin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_points_do_not_flatten_the_rest() {
        let range = AxisRange::of_best([2.30, 2.31, 2.33, 2.36, 6.9]).unwrap();
        assert!(range.low > 2.2 && range.low < 2.30, "{range:?}");
        assert!(range.high > 2.36 && range.high < 2.6, "{range:?}");
    }

    #[test]
    fn near_points_are_all_shown() {
        for values in
            [vec![2.0, 2.1, 2.2, 2.4], vec![2.0, 6.0], vec![-1.0, -0.5], vec![0.0, 1e9, 2e9]]
        {
            let range = AxisRange::of_best(values.iter().copied()).unwrap();
            assert!(
                values.iter().all(|&value| range.low < value && value < range.high),
                "{range:?}"
            );
        }
    }

    #[test]
    fn the_start_of_a_falling_curve_is_cut_off() {
        let values: Vec<f64> = (1..=300).map(|step| 2.0 + 5.0 / f64::from(step)).collect();
        let range = AxisRange::of_most(values).unwrap();
        assert!(range.low < 2.02 && range.high > 2.15 && range.high < 2.2, "{range:?}");
        assert!(AxisRange::of_most([1.0, 9.0]).unwrap().high > 9.0);
    }

    #[test]
    fn one_value_and_none() {
        for value in [2.3, 0.0, -4.0, 1e12, 1e-12] {
            let range = AxisRange::of_best([value, value]).unwrap();
            assert!(range.low < value && value < range.high && range.span() >= 0.01, "{range:?}");
        }
        assert_eq!(AxisRange::of_best([]), None);
        assert_eq!(AxisRange::of_all([]), None);
    }

    #[test]
    fn ticks_have_the_decimals_that_tell_them_apart() {
        let decimals = |low, high| AxisRange { low, high }.tick_decimals();
        assert_eq!([decimals(2.3, 2.7), decimals(0.0, 4.0), decimals(100.0, 900.0)], [2, 1, 0]);
    }

    #[test]
    fn only_finite_moderate_values_are_drawable() {
        assert!(is_drawable(0.0) && is_drawable(-3.0));
        assert!(![f64::NAN, f64::INFINITY, 1e300].into_iter().any(is_drawable));
    }
}
