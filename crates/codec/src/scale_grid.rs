//! The logarithmic grid of scales: 32 values per octave, the same bits on every machine.

/// Values per octave.
pub(crate) const PER_OCTAVE: i32 = 32;
/// Least and greatest index: from the smallest normal f32, 2^-126, to the last value below 2^128.
pub(crate) const INDICES: std::ops::RangeInclusive<i32> = -126 * PER_OCTAVE..=128 * PER_OCTAVE - 1;

/// 2^(23 + i/32) rounded to the nearest integer. Part of the file format.
#[rustfmt::skip]
const MANTISSAS: [u32; 32] = [
    8_388_608, 8_572_295, 8_760_003, 8_951_823, 9_147_842, 9_348_154, 9_552_851, 9_762_032,
    9_975_792, 10_194_234, 10_417_458, 10_645_571, 10_878_679, 11_116_891, 11_360_319, 11_609_078,
    11_863_283, 12_123_055, 12_388_516, 12_659_789, 12_937_002, 13_220_286, 13_509_772, 13_805_598,
    14_107_901, 14_416_824, 14_732_511, 15_055_111, 15_384_775, 15_721_658, 16_065_917, 16_417_715,
];

/// Bits of an f32 below its exponent, and the leading bit that they leave out.
const FRACTION_BITS: u32 = 23;
const LEADING: u32 = 1 << FRACTION_BITS;

/// The value of the grid ±2^(k/32) that is nearest to a scale; halfway goes to the larger magnitude.
///
/// Scales on this grid cost about 5 bits each in a file, against 10 as f16 and 24 as f32. The relative
/// error is at most 1.1 %, and (ln 2/32)²/12 = 3.9·10⁻⁵ of the energy in the mean, −44 dB: where the codes are
/// chosen for the rounded scale, nothing but a step that is 1 % off. Twice as fine a grid would cost one
/// bit more per scale.
///
/// The grid has the normal f32 values only: magnitudes above its last value, 2^(4095/32), go to that;
/// zero, subnormal numbers, infinities and NaN come back unchanged. A file stores scales in the compact form
/// only where all of a vector are on the grid and positive.
///
/// ```
/// use backslash_codec::round_scale;
/// assert_eq!(round_scale(0.51), 0.5109486); // 2^(-31/32)
/// assert_eq!(round_scale(-4.0), -4.0);
/// assert_eq!(round_scale(0.0), 0.0);
/// assert_eq!(round_scale(round_scale(3.3)), round_scale(3.3));
/// ```
#[must_use]
pub fn round_scale(scale: f32) -> f32 {
    if !scale.is_normal() {
        return scale;
    }
    let bits = scale.abs().to_bits();
    let mantissa = LEADING | (bits % LEADING);
    // The first value of the next octave ends this one.
    let above = |index: usize| MANTISSAS.get(index + 1).copied().unwrap_or(2 * LEADING);
    let nearest = (0..MANTISSAS.len()).filter(|&i| 2 * mantissa >= MANTISSAS[i] + above(i)).count();
    let octave = (bits >> FRACTION_BITS) as i32 - 127;
    value((octave * PER_OCTAVE + nearest as i32).min(*INDICES.end())).copysign(scale)
}

/// 2^(index/32).
pub(crate) fn value(index: i32) -> f32 {
    debug_assert!(INDICES.contains(&index), "{index}");
    let mantissa = MANTISSAS[index.rem_euclid(PER_OCTAVE) as usize];
    let exponent = (index.div_euclid(PER_OCTAVE) + 127) as u32;
    f32::from_bits((exponent << FRACTION_BITS) | (mantissa % LEADING))
}

/// The index of a positive value of the grid; `None` for anything else.
pub(crate) fn index(scale: f32) -> Option<i32> {
    if !scale.is_normal() || scale < 0.0 {
        return None;
    }
    let bits = scale.to_bits();
    let fraction = MANTISSAS.binary_search(&(LEADING | (bits % LEADING))).ok()?;
    Some(((bits >> FRACTION_BITS) as i32 - 127) * PER_OCTAVE + fraction as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_grid_is_the_nearest_f32_to_its_power_of_two() {
        for k in INDICES {
            let exact = libm::exp2(f64::from(k) / 32.0);
            assert_eq!(value(k), exact as f32, "{k}");
            assert_eq!(index(value(k)), Some(k));
            assert_eq!(round_scale(value(k)), value(k));
            assert_eq!(round_scale(-value(k)), -value(k));
        }
    }

    #[test]
    fn what_is_off_the_grid_has_no_index() {
        let next = f32::from_bits(value(7).to_bits() + 1);
        for off in [0.0, -0.0, -1.0, next, 1e-40, f32::INFINITY, f32::NAN, f32::MAX] {
            assert_eq!(index(off), None, "{off}");
        }
        for unchanged in [0.0_f32, -0.0, 1e-40, f32::NEG_INFINITY, f32::NAN] {
            assert_eq!(round_scale(unchanged).to_bits(), unchanged.to_bits());
        }
        assert_eq!(round_scale(f32::MAX), value(*INDICES.end()));
        assert_eq!(round_scale(-f32::MAX), -value(*INDICES.end()));
    }

    proptest! {
        #[test]
        fn no_value_of_the_grid_is_nearer(bits in 0x80_0000..0x7f80_0000_u32) {
            let scale = f32::from_bits(bits);
            let rounded = round_scale(scale);
            let k = index(rounded).unwrap();
            let distance = |value: f32| (f64::from(value) - f64::from(scale)).abs();
            for other in [k - 1, k + 1].into_iter().filter(|other| INDICES.contains(other)) {
                prop_assert!(distance(rounded) <= distance(value(other)));
            }
            if k < *INDICES.end() {
                prop_assert!(distance(rounded) < 0.0110 * f64::from(scale));
            }
        }
    }
}
