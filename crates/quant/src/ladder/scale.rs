//! The grid on which row and column scales lie.

/// Scales per octave.
const PER_OCTAVE: f64 = 64.0;
/// Widest range of scales, in octaves to both sides of one.
const OCTAVES: f64 = 24.0;

/// The nearest scale 2^(k/64), which is within 0.6 % of its argument; scales beyond 2^±24, zero and negative
/// ones become the nearest that there is.
pub(super) fn round_scale(scale: f64) -> f64 {
    let exponent = scale.max(f64::MIN_POSITIVE).log2().clamp(-OCTAVES, OCTAVES);
    // In single precision, as it is stored.
    f64::from(((PER_OCTAVE * exponent).round() / PER_OCTAVE).exp2() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_near_and_stay_where_they_are() {
        assert_eq!(round_scale(1.0), 1.0);
        for scale in [0.003, 0.77, 1.004, 5.5, 1000.0] {
            let rounded = round_scale(scale);
            assert!((rounded / scale).ln().abs() < 0.0055, "{scale} {rounded}");
            assert_eq!(round_scale(rounded), rounded);
        }
        assert_eq!([round_scale(0.0), round_scale(-3.0)], [2.0_f64.powi(-24); 2]);
        assert_eq!(round_scale(f64::INFINITY), 2.0_f64.powi(24));
    }
}
