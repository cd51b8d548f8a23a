//! Matrix products of operands rounded to bf16, summed in f32, for the CPU.
//!
//! Operands are [packed](packed) once into tiles that all kernels read: [`amx`] multiplies whole tiles, [`avx512`] pairs of
//! values per lane, [`portable`] is plain Rust that says what they compute. [`product`] picks the best one of the processor.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod packed;
mod portable;

use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

pub(super) use self::packed::Tiles;
use self::packed::{SIDE, Strip};
use super::matrix::MatrixView;

/// Rows and columns of the result that a kernel makes at once: two tiles each way.
pub(super) const BLOCK: usize = 2 * SIDE;

/// Inner positions of tiles that are multiplied before the next: what a product reads again and again then stays in the
/// cache.
const PART: usize = 32;

/// A block of the result, row-major.
#[repr(align(64))]
struct Block([f32; BLOCK * BLOCK]);

/// The product of two rows of tiles and two columns of tiles, both of the same depth.
type Kernel = fn(rows: Strip<'_>, columns: Strip<'_>, block: &mut Block);

/// What the processor multiplies bf16 with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    Portable,
}

impl Instructions {
    /// The fastest that this processor has.
    fn best() -> Self {
        static BEST: OnceLock<Instructions> = OnceLock::new();
        *BEST.get_or_init(|| {
            let mut known = Self::known().into_iter();
            known.find(|instructions| instructions.are_here()).unwrap_or(Self::Portable)
        })
    }

    /// All of this architecture, the fastest first.
    fn known() -> Vec<Self> {
        vec![
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512,
            Self::Portable,
        ]
    }

    fn are_here(self) -> bool {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => amx::is_here(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::is_here(),
            Self::Portable => true,
        }
    }

    /// Lets `work` multiply on this thread.
    fn with_kernel<T>(self, work: impl FnOnce(Kernel) -> T) -> T {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx => amx::with_tiles(|| work(amx::multiply)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => work(avx512::multiply),
            Self::Portable => work(portable::multiply),
        }
    }
}

/// What multiplies blocks on this thread.
#[derive(Clone, Copy)]
pub(super) struct Multiplier(Kernel);

/// Lets `work` multiply blocks, all of it on this thread.
pub(super) fn with_multiplier<T>(work: impl FnOnce(Multiplier) -> T) -> T {
    Instructions::best().with_kernel(|kernel| work(Multiplier(kernel)))
}

/// A result that is made block by block, with so many rows and columns, in a row-major matrix of a stride.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
}

impl Blocks {
    /// C ← A·B, in the block that begins at (i, j) over the first `depth(i, j)` inner positions, up to whole tiles; where
    /// these are none C stays.
    pub(super) fn set(
        self,
        multiplier: Multiplier,
        left: &Tiles,
        right: &Tiles,
        out: &mut [f32],
        depth: impl Fn(usize, usize) -> usize,
    ) {
        self.each(multiplier, left, right, out, depth, |out, block| out.copy_from_slice(block));
    }

    /// C ← C + A·B, as [`Blocks::set`].
    pub(super) fn add(
        self,
        multiplier: Multiplier,
        left: &Tiles,
        right: &Tiles,
        out: &mut [f32],
        depth: impl Fn(usize, usize) -> usize,
    ) {
        self.each(multiplier, left, right, out, depth, |out, block| {
            out.iter_mut().zip(block).for_each(|(out, block)| *out += block);
        });
    }

    fn each(
        self,
        Multiplier(multiply): Multiplier,
        left: &Tiles,
        right: &Tiles,
        out: &mut [f32],
        depth: impl Fn(usize, usize) -> usize,
        store: impl Fn(&mut [f32], &[f32]),
    ) {
        let mut block = Block([0.0; BLOCK * BLOCK]);
        for i in (0..self.rows).step_by(BLOCK) {
            for j in (0..self.columns).step_by(BLOCK) {
                let depth = depth(i, j).div_ceil(BLOCK);
                if depth == 0 {
                    continue;
                }
                let (rows, columns) = (left.strip(i / BLOCK), right.strip(j / BLOCK));
                let depth = depth.min(rows.len());
                multiply(&rows[..depth], &columns[..depth], &mut block);
                let width = BLOCK.min(self.columns - j);
                let lines =
                    out[i * self.stride..].chunks_mut(self.stride).zip(block.0.chunks(BLOCK));
                for (line, block) in lines.take(self.rows - i) {
                    store(&mut line[j..j + width], &block[..width]);
                }
            }
        }
    }
}

/// Whether this processor multiplies bf16 faster than f32.
pub(crate) fn is_fast_here() -> bool {
    Instructions::best() != Instructions::Portable
}

/// A·B row-major, of A and B rounded to bf16 and summed in `f32`; the same for any number of threads.
///
/// ```
/// use backslash_model::{MatrixView, product_in_bf16};
/// let (a, b) = ([1.0, 2.0], [3.0, 0.5]);
/// let outer = product_in_bf16(MatrixView::new(&a, 1), MatrixView::new(&b, 2));
/// assert_eq!(outer, [3.0, 0.5, 6.0, 1.0]);
/// let square = product_in_bf16(MatrixView::new(&a, 2), MatrixView::new(&a, 2).transposed());
/// assert_eq!(square, [5.0]);
/// ```
///
/// # Panics
/// If A has not as many columns as B has rows.
pub fn product(left: MatrixView<'_>, right: MatrixView<'_>) -> Vec<f32> {
    product_with(Instructions::best(), left, right)
}

fn product_with(
    instructions: Instructions,
    left: MatrixView<'_>,
    right: MatrixView<'_>,
) -> Vec<f32> {
    assert_eq!(left.columns(), right.rows(), "columns of A, rows of B");
    let (rows, columns) = (left.rows(), right.columns());
    if rows * columns == 0 || left.columns() == 0 {
        return vec![0.0; rows * columns];
    }
    let (left, right) = (Tiles::of_left(left), Tiles::of_right(right));
    let multiply = |row_block: usize, part: Range<usize>, store: &mut dyn FnMut(usize, &Block)| {
        instructions.with_kernel(|multiply| {
            let rows = &left.strip(row_block)[part.clone()];
            let mut block = Block([0.0; BLOCK * BLOCK]);
            for column_block in 0..columns.div_ceil(BLOCK) {
                multiply(rows, &right.strip(column_block)[part.clone()], &mut block);
                store(column_block * BLOCK, &block);
            }
        });
    };
    let mut parts = (0..left.depth()).step_by(PART).map(|at| at..left.depth().min(at + PART));
    let mut result = Vec::with_capacity(rows * columns);
    if let Some(part) = parts.next() {
        let places = &mut result.spare_capacity_mut()[..rows * columns];
        places.par_chunks_mut(BLOCK * columns).enumerate().for_each(|(row_block, places)| {
            multiply(row_block, part.clone(), &mut |first, block| {
                let width = BLOCK.min(columns - first);
                for (row, block) in places.chunks_mut(columns).zip(block.0.chunks(BLOCK)) {
                    row[first..first + width].write_copy_of_slice(&block[..width]);
                }
            });
        });
        // SAFETY: every block of columns of every block of rows has been written.
        #[allow(unsafe_code)]
        unsafe {
            result.set_len(rows * columns);
        }
    }
    for part in parts {
        result.par_chunks_mut(BLOCK * columns).enumerate().for_each(|(row_block, sums)| {
            multiply(row_block, part.clone(), &mut |first, block| {
                let width = BLOCK.min(columns - first);
                for (row, block) in sums.chunks_mut(columns).zip(block.0.chunks(BLOCK)) {
                    let row = row[first..first + width].iter_mut();
                    row.zip(block).for_each(|(sum, product)| *sum += product);
                }
            });
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::fused::check::{random, with_threads};

    fn rounded(x: f32) -> f64 {
        f64::from(half::bf16::from_f32(x).to_f32())
    }

    /// In f64, of operands rounded to bf16 by another library.
    fn expected(left: &MatrixView<'_>, right: &MatrixView<'_>) -> Vec<f64> {
        let mut result = Vec::new();
        for row in 0..left.rows() {
            for column in 0..right.columns() {
                let terms = (0..left.columns())
                    .map(|k| rounded(left.at(row, k)) * rounded(right.at(k, column)));
                result.push(terms.sum());
            }
        }
        result
    }

    #[test]
    fn every_kernel_gives_the_product_of_rounded_operands() {
        for [rows, inner, columns] in
            [[1, 1, 1], [32, 32, 32], [33, 31, 65], [7, 100, 40], [64, 193, 48], [5, 2100, 40]]
        {
            let (a, b) = (random(rows * inner, 1), random(inner * columns, 2));
            let lefts = [MatrixView::new(&a, inner), MatrixView::new(&a, rows).transposed()];
            let rights = [MatrixView::new(&b, columns), MatrixView::new(&b, inner).transposed()];
            for left in &lefts {
                for right in &rights {
                    let expected = expected(left, right);
                    for instructions in Instructions::known() {
                        if !instructions.are_here() {
                            eprintln!("not on this processor: {instructions:?}");
                            continue;
                        }
                        let found = product_with(instructions, *left, *right);
                        for (found, expected) in found.iter().zip(&expected) {
                            let close =
                                (f64::from(*found) - expected).abs() <= 1e-6 * (4 * inner) as f64;
                            assert!(
                                close,
                                "{instructions:?} {rows}×{inner}×{columns}: {found} {expected}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (a, b) = (random(300 * 70, 1), random(70 * 90, 2));
        let multiply = || product(MatrixView::new(&a, 70), MatrixView::new(&b, 90));
        assert_eq!(with_threads(1, multiply), with_threads(2, multiply));
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for value in [f32::NAN, f32::INFINITY, -f32::NAN] {
            let product = product(MatrixView::new(&[value], 1), MatrixView::new(&[1.0], 1));
            assert!(!product[0].is_finite(), "{value}");
        }
        assert_eq!(product(MatrixView::new(&[], 3), MatrixView::new(&[0.0; 6], 2)), [0.0; 0]);
    }
}
