//! A power that compilers turn into vector instructions.

/// xʸ for x > 0, with a relative error below 10⁻⁶·(1 + |y·ln x|); results beyond e^±87 are that.
///
/// x = m·2ᵉ with m in [√½, √2), whose logarithm is a polynomial (that of Cephes), and the exponential of y·ln x is 2ⁿ
/// times a Taylor polynomial. No branches and no table, so a loop over a slice vectorises; the library's `powf` does not.
#[inline(always)]
pub(crate) fn power(x: f32, y: f32) -> f32 {
    exponential(y * logarithm(x))
}

#[inline(always)]
fn logarithm(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    // Exponents are counted from √½, so that the mantissa lies around 1.
    let shifted = bits.wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let exponent = (shifted as i32) >> 23;
    let mantissa = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23));
    let z = mantissa - 1.0;
    let mut series = 0.0;
    for coefficient in COEFFICIENTS {
        series = series * z + coefficient;
    }
    let exponent = exponent as f32;
    let square = z * z;
    // ln 2 in two parts, the first of which is exact in products with an exponent.
    let low = series * z * square - 2.121_944_4e-4 * exponent - 0.5 * square;
    z + low + 0.693_359_4 * exponent
}

#[inline(always)]
fn exponential(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³: adding it leaves no fraction bits
    let clamped = x.clamp(-87.0, 87.0);
    let whole = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (clamped - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let mut series = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * r + coefficient;
    }
    series * f32::from_bits(((whole as i32 + 127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::power;

    #[test]
    fn it_agrees_with_the_library() {
        let mut x = 1e-12_f32;
        while x < 1e9 {
            for y in [-0.9_f32, -0.5, -0.01, 0.0, 0.36, 1.0, 1.99] {
                let exact = f64::from(x).powf(f64::from(y));
                let error = (f64::from(power(x, y)) / exact - 1.0).abs();
                let bound = 1e-6 * (1.0 + f64::from((y * x.ln()).abs()));
                assert!(error < bound, "{x} {y}: {error}");
            }
            x *= 1.000_7;
        }
        assert_eq!(power(0.3, 0.0), 1.0);
        assert_eq!(power(1.0, 1.7), 1.0);
    }
}
