//! What the kernels share: compiled once per instruction set, exp, sums.
//!
//! Everything here is plain Rust on slices and arrays, shaped so that the compiler keeps the arrays in
//! vector registers. The entry points of the kernels are compiled for AVX-512, for AVX2 and for the
//! baseline, by [`vectorised`], and everything below them is inlined into each version.

/// Channels are padded to this many, and sums run in as many lanes.
pub(super) const LANES: usize = 16;

/// Declares a function that exists once per instruction set and picks its version when it is called.
///
/// The body is `kernel::<FMA>(arguments)`: whether a·b + c is one instruction.
macro_rules! vectorised {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $kernel:ident) => {
        $(#[$attribute])*
        #[multiversion::multiversion(targets(
            "x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma",
            "x86_64+avx2+fma"
        ))]
        $visibility fn $name($($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                const TARGET: multiversion::target::Target = multiversion::target::selected_target!();
                $kernel::<{ TARGET.supports_feature_str("fma") }>($($argument),*)
            }
            #[cfg(not(target_arch = "x86_64"))]
            $kernel::<{ cfg!(target_arch = "aarch64") }>($($argument),*)
        }
    };
}
pub(super) use vectorised;

/// a·b + c, rounded once where the processor has the instruction.
#[inline(always)]
pub(super) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// eˣ with a relative error below 3·10⁻⁷; x is clamped to ±87, where `f32` is still a normal number.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, eʳ by its Taylor polynomial of degree 7, 2ⁿ by its exponent bits.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 87.0);
    let shifted = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -0.693_359_4, x);
    let r = multiply_add::<FMA>(n, 2.121_944_4e-4, r);
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = multiply_add::<FMA>(sum, r, coefficient);
    }
    let power = shifted.to_bits().wrapping_add(127) << 23;
    sum * f32::from_bits(power)
}

/// tanh x with a relative error below 4·10⁻⁷.
#[inline(always)]
pub(super) fn tanh<const FMA: bool>(x: f32) -> f32 {
    let square = x * x;
    let mut series = 62.0 / 2835.0;
    for coefficient in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        series = multiply_add::<FMA>(series, square, coefficient);
    }
    let e = exp::<FMA>(-2.0 * x.abs());
    let saturating = ((1.0 - e) / (1.0 + e)).copysign(x);
    if square < 0.04 { series * x } else { saturating }
}

/// Σ f(a, b) over two slices of one length, in a fixed order.
#[inline(always)]
pub(super) fn sum_over(a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] = f(a[i], b[i], lanes[i]);
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] = f(*a, *b, lanes[i]);
    }
    total(lanes)
}

/// Σ a·b.
#[inline(always)]
pub(super) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    sum_over(a, b, multiply_add::<FMA>)
}

/// The largest value, −∞ for none.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = larger(chunk[i], lanes[i]);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |a, b| larger(*b, a))
}

/// The sum of the lanes, by halves.
#[inline(always)]
pub(super) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_are_accurate() {
        for i in -80_000..80_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp::<true>(x)) / exact - 1.0).abs() < 3e-7, "{x}");
            assert!((f64::from(exp::<false>(x)) / exact - 1.0).abs() < 3e-7, "{x}");
            let exact = f64::from(x * 0.1).tanh();
            let found = f64::from(tanh::<true>(x * 0.1));
            assert!((found - exact).abs() <= 4e-7 * exact.abs(), "{x}");
        }
        assert_eq!(exp::<true>(0.0), 1.0);
        assert!(exp::<true>(f32::NEG_INFINITY) < 1e-37);
        assert!(exp::<true>(f32::NAN).is_nan() && tanh::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn sums_take_every_value_once() {
        for length in [0, 1, 15, 16, 17, 100] {
            let ones = vec![1.0; length];
            assert_eq!(dot::<true>(&ones, &ones), length as f32);
        }
        assert_eq!(largest(&[-3.0, -1.0, -2.0]), -1.0);
    }
}
