//! The grid on which row and column scales lie.

/// Widest range of scales, in octaves to both sides of one.
const OCTAVES: f64 = 24.0;

/// The nearest scale of the file format's logarithmic grid, as it is stored; scales beyond 2^±24, zero and
/// negative ones become the nearest within.
pub(super) fn round_scale(scale: f64) -> f64 {
    let within = scale.max((-OCTAVES).exp2()).min(OCTAVES.exp2());
    f64::from(backslash_codec::round_scale(within as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_near_and_stay_where_they_are() {
        assert_eq!(round_scale(1.0), 1.0);
        for scale in [0.003, 0.77, 1.004, 5.5, 1000.0] {
            let rounded = round_scale(scale);
            assert!((rounded / scale).ln().abs() < 0.011, "{scale} {rounded}");
            assert_eq!(round_scale(rounded), rounded);
        }
        assert_eq!([round_scale(0.0), round_scale(-3.0)], [2.0_f64.powi(-24); 2]);
        assert_eq!(round_scale(f64::INFINITY), 2.0_f64.powi(24));
    }
}
