//! What the kernels share: compiled once per instruction set, matrix tiles, exp, sums.
//!
//! Everything here is plain Rust on slices and arrays, shaped so that the compiler keeps the arrays in
//! vector registers. The entry points of the kernels are compiled for AVX-512, for AVX2 and for the
//! baseline, by [`vectorised`], and everything below them is inlined into each version.

use std::ops::Range;

/// Channels are padded to this many, and sums run in as many lanes.
pub(super) const LANES: usize = 16;

/// Rows and columns of the largest tile of any version; sizes are padded to a multiple.
pub(super) const TILE: usize = 32;

/// Declares a function that exists once per instruction set and picks its version when it is called.
///
/// The body is `kernel::<FMA, ROWS, COLUMNS>(arguments)`: whether a·b + c is one instruction, and the
/// shape of the matrix tile that fills the registers.
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
                if const { TARGET.supports_feature_str("avx512f") } {
                    $kernel::<true, 8, 32>($($argument),*)
                } else if const { TARGET.supports_feature_str("fma") } {
                    $kernel::<true, 4, 16>($($argument),*)
                } else {
                    $kernel::<false, 4, 8>($($argument),*)
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            $kernel::<{ cfg!(target_arch = "aarch64") }, 4, 16>($($argument),*)
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

/// The left factor of a product.
#[derive(Clone, Copy)]
pub(super) enum Left<'a> {
    /// Element (i, k) stands at i·stride + k.
    Rows(&'a [f32], usize),
    /// Element (i, k) stands at k·stride + i.
    Columns(&'a [f32], usize),
}

/// A row-major matrix, as slice and stride.
pub(super) type Matrix<'a> = (&'a [f32], usize);

/// C ← A·B, or C ← C + A·B if `ADD`, for the tiles of C whose sum has terms.
///
/// C is `rows` × `columns`, both multiples of the tile, columns only of [`LANES`]. For the tile that starts
/// at (i, j) the sum runs over `terms(i, j)`; this is how the products skip what the causal mask makes zero.
#[inline(always)]
pub(super) fn multiply<const FMA: bool, const M: usize, const N: usize, const ADD: bool>(
    left: Left<'_>,
    right: Matrix<'_>,
    (out, stride): (&mut [f32], usize),
    (rows, columns): (usize, usize),
    terms: impl Fn(usize, usize) -> Range<usize>,
) {
    let mut j = 0;
    while j < columns {
        let wide = columns - j >= N;
        let mut i = 0;
        while i < rows {
            let terms = terms(i, j);
            let out = (&mut out[i * stride + j..], stride);
            match (left, wide) {
                _ if terms.is_empty() => {}
                (Left::Rows(a, a_stride), true) => {
                    let sums = rows_tile::<FMA, M, N>(
                        (&a[i * a_stride..], a_stride),
                        (&right.0[j..], right.1),
                        terms,
                    );
                    store::<M, N, ADD>(sums, out);
                }
                (Left::Rows(a, a_stride), false) => {
                    let sums = rows_tile::<FMA, M, LANES>(
                        (&a[i * a_stride..], a_stride),
                        (&right.0[j..], right.1),
                        terms,
                    );
                    store::<M, LANES, ADD>(sums, out);
                }
                (Left::Columns(a, a_stride), true) => {
                    let sums = columns_tile::<FMA, M, N>(
                        (&a[i..], a_stride),
                        (&right.0[j..], right.1),
                        terms,
                    );
                    store::<M, N, ADD>(sums, out);
                }
                (Left::Columns(a, a_stride), false) => {
                    let sums = columns_tile::<FMA, M, LANES>(
                        (&a[i..], a_stride),
                        (&right.0[j..], right.1),
                        terms,
                    );
                    store::<M, LANES, ADD>(sums, out);
                }
            }
            i += M;
        }
        j += if wide { N } else { LANES };
    }
}

/// Repeats a body for the rows of a tile, at most 8.
///
/// A loop would leave it to the compiler whether the vectors run along the rows or along the columns.
macro_rules! each_row {
    ($rows:ident, |$row:ident| $body:block) => {
        each_row!(@ $rows, $row, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $rows:ident, $row:ident, $body:block, $($index:literal)*) => {
        $({
            const $row: usize = $index;
            if $row < $rows $body
        })*
    };
}

#[inline(always)]
fn rows_tile<const FMA: bool, const M: usize, const N: usize>(
    (a, a_stride): Matrix<'_>,
    (b, b_stride): Matrix<'_>,
    terms: Range<usize>,
) -> [[f32; N]; M] {
    let count = terms.len();
    let rows: [&[f32]; M] = std::array::from_fn(|i| &a[i * a_stride + terms.start..][..count]);
    let mut sums = [[0.0; N]; M];
    for (k, b) in b[terms.start * b_stride..].chunks(b_stride).take(count).enumerate() {
        let b: &[f32; N] = b.first_chunk().expect("the right factor has the columns of the tile");
        each_row!(M, |I| {
            for j in 0..N {
                sums[I][j] = multiply_add::<FMA>(rows[I][k], b[j], sums[I][j]);
            }
        });
    }
    sums
}

#[inline(always)]
fn columns_tile<const FMA: bool, const M: usize, const N: usize>(
    (a, a_stride): Matrix<'_>,
    (b, b_stride): Matrix<'_>,
    terms: Range<usize>,
) -> [[f32; N]; M] {
    let mut sums = [[0.0; N]; M];
    let a = a[terms.start * a_stride..].chunks(a_stride);
    let b = b[terms.start * b_stride..].chunks(b_stride);
    for (a, b) in a.zip(b).take(terms.len()) {
        let a: &[f32; M] = a.first_chunk().expect("the left factor has the rows of the tile");
        let b: &[f32; N] = b.first_chunk().expect("the right factor has the columns of the tile");
        each_row!(M, |I| {
            for j in 0..N {
                sums[I][j] = multiply_add::<FMA>(a[I], b[j], sums[I][j]);
            }
        });
    }
    sums
}

#[inline(always)]
fn store<const M: usize, const N: usize, const ADD: bool>(
    sums: [[f32; N]; M],
    (out, stride): (&mut [f32], usize),
) {
    for (out, sums) in out.chunks_mut(stride).zip(sums) {
        let out: &mut [f32; N] =
            out.first_chunk_mut().expect("the product has the columns of the tile");
        for j in 0..N {
            out[j] = if ADD { out[j] + sums[j] } else { sums[j] };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::fused::check::random;

    /// The product of every version, whatever this processor runs.
    fn check_multiply<const FMA: bool, const M: usize, const N: usize>() {
        let (rows, columns, depth) = (16, 48, 37);
        let (a, b) = (random(rows * depth, 1), random(depth * columns, 2));
        let mut across = vec![0.0; a.len()];
        for i in 0..rows {
            for k in 0..depth {
                across[k * rows + i] = a[i * depth + k];
            }
        }
        for left in [Left::Rows(&a, depth), Left::Columns(&across, rows)] {
            let mut out = vec![1.0; rows * columns];
            // The terms of a tile start and end where the tile says.
            multiply::<FMA, M, N, true>(
                left,
                (&b, columns),
                (&mut out, columns),
                (rows, columns),
                |i, _| i..i + 20,
            );
            for i in 0..rows {
                for j in 0..columns {
                    let first = i / M * M;
                    let sum: f32 =
                        (first..first + 20).map(|k| a[i * depth + k] * b[k * columns + j]).sum();
                    assert!((out[i * columns + j] - 1.0 - sum).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn the_tiles_of_all_versions_multiply() {
        check_multiply::<true, 8, 32>();
        check_multiply::<true, 4, 16>();
        check_multiply::<false, 4, 8>();
    }

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
