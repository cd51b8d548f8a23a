//! The step and the shrink that lose least for given codes.

use backslash_codec::Reconstruction;

/// Inner products, under some metric, of weights w, codes q and their signs s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LevelProducts {
    pub codes_codes: f64,
    pub codes_signs: f64,
    pub signs_signs: f64,
    pub weights_codes: f64,
    pub weights_signs: f64,
}

impl LevelProducts {
    /// Adds one weight that counts `importance` times.
    pub(super) fn add(&mut self, importance: f64, weight: f64, code: i32) {
        let (code, sign) = (f64::from(code), f64::from(code.signum()));
        self.codes_codes += importance * code * code;
        self.codes_signs += importance * code * sign;
        self.signs_signs += importance * sign * sign;
        self.weights_codes += importance * weight * code;
        self.weights_signs += importance * weight * sign;
    }

    pub(super) fn merged(self, other: Self) -> Self {
        Self {
            codes_codes: self.codes_codes + other.codes_codes,
            codes_signs: self.codes_signs + other.codes_signs,
            signs_signs: self.signs_signs + other.signs_signs,
            weights_codes: self.weights_codes + other.weights_codes,
            weights_signs: self.weights_signs + other.weights_signs,
        }
    }

    /// Step that minimises ‖w − Δ·q‖². `step` where there is nothing to fit.
    pub(super) fn fit_step(&self, step: f32) -> f32 {
        let fitted = (self.weights_codes / self.codes_codes) as f32;
        if fitted > 0.5 * step && fitted < 2.0 * step { fitted } else { step }
    }

    /// Step Δ and shrink θ that minimise ‖w − Δ·(q − θ·s)‖²: least squares in Δ and Δ·θ, then θ on its grid of
    /// 1/256 and Δ again. `step` where there is nothing to fit.
    pub(super) fn fit(&self, step: f32) -> (f32, Reconstruction) {
        let determinant = self.codes_codes * self.signs_signs - self.codes_signs.powi(2);
        let scale = self.weights_codes * self.signs_signs - self.weights_signs * self.codes_signs;
        let offset = self.weights_signs * self.codes_codes - self.weights_codes * self.codes_signs;
        // All magnitudes are alike: a shrink is a change of step.
        let alike = determinant <= 1e-9 * self.codes_codes * self.signs_signs;
        let shrink = if alike { 0 } else { (-256.0 * offset / scale).round() as u8 };
        let theta = f64::from(shrink) / 256.0;
        let square =
            self.codes_codes - 2.0 * theta * self.codes_signs + theta * theta * self.signs_signs;
        let fitted = ((self.weights_codes - theta * self.weights_signs) / square) as f32;
        let reconstruction =
            if shrink == 0 { Reconstruction::Uniform } else { Reconstruction::Shrink(shrink) };
        if fitted.is_finite() && fitted > 0.5 * step && fitted < 2.0 * step {
            (fitted, reconstruction)
        } else {
            (step, Reconstruction::Uniform)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_step_or_shrink_loses_less() {
        let weights = crate::ladder::testing::gaussian(20_000, 4);
        let codes: Vec<i32> = weights.iter().map(|weight| (weight / 0.9).round() as i32).collect();
        let mut products = LevelProducts::default();
        weights.iter().zip(&codes).for_each(|(w, q)| products.add(1.0, f64::from(*w), *q));
        let (step, Reconstruction::Shrink(shrink)) = products.fit(0.9) else { panic!("no shrink") };
        let error = |step: f32, shrink| {
            let value = |code| step * Reconstruction::Shrink(shrink).value(code);
            weights.iter().zip(&codes).map(|(w, q)| f64::from(w - value(*q)).powi(2)).sum::<f64>()
        };
        let best = error(step, shrink);
        for (step, shrink) in [
            (step * 1.002, shrink),
            (step * 0.998, shrink),
            (step, shrink + 1),
            (step, shrink - 1),
            (0.9, shrink),
        ] {
            assert!(error(step, shrink) > best, "{step} {shrink}");
        }
    }

    #[test]
    fn zeros_and_ones_are_fitted_by_the_step_alone() {
        let mut products = LevelProducts::default();
        assert_eq!(products.fit(0.3), (0.3, Reconstruction::Uniform));
        products.add(1.0, 0.2, 1);
        products.add(1.0, -0.4, -1);
        assert_eq!(products.fit(0.35), (0.3, Reconstruction::Uniform));
    }
}
