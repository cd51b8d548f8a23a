//! U·Vᵀ of a matrix U·S·Vᵀ, nearly, by matrix products alone.
//!
//! An odd polynomial of the singular values can be had without the decomposition:
//!
//!   X ← a·X + b·(X·Xᵀ)·X + c·(X·Xᵀ)²·X  maps each singular value x to  a·x + b·x³ + c·x⁵.
//!
//! A few such steps bring all of (0, 1] near 1, the steeper the slope Πa at 0, the smaller the values that
//! still get there.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatRef, Par, unzip, zip};

use backslash_model::{MatrixView, Precision, product_in_bf16};

use super::matrix::square_norm;
use crate::config::Orthogonalization;

type Quintic = [f32; 3];

/// Muon's quintic, five times (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>). It never
/// converges: values from 1e-2 on end in \[0.681, 1.135\], those from 1e-3 on in \[0.470, 1.203\].
const NEWTON_SCHULZ: [Quintic; 5] = [[3.4445, -4.7750, 2.0315]; 5];

/// The quintics that are best one after the other for values from 1e-3 on (Amsel et al., arXiv 2505.16932,
/// algorithm 1), with the safety factors of the implementation in modded-nanogpt, which are contained in
/// these digits. Values from 1e-3 on end in \[0.858, 1.142\].
#[expect(clippy::excessive_precision, reason = "as published")]
const POLAR_EXPRESS: [Quintic; 5] = [
    [8.156554524902461, -22.48329292557795, 15.878769915207462],
    [4.042929935166739, -2.808917465908714, 0.5000178451051316],
    [3.8916678022926607, -2.772484153217685, 0.5060648178503393],
    [3.285753657755655, -2.3681294933425376, 0.46449024233003106],
    [2.3465413258596377, -1.7097828382687081, 0.42323551169305323],
];

/// Which polynomials, and what the operands of their products are rounded to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Polar {
    pub(super) polynomials: Orthogonalization,
    pub(super) precision: Precision,
}

impl Polar {
    /// Without rounding.
    pub(super) const fn exact(polynomials: Orthogonalization) -> Self {
        Self { polynomials, precision: Precision::Fp32 }
    }
}

/// The orthogonalised matrix; zero for a matrix of zeros.
pub(super) fn orthogonalize(matrix: MatRef<'_, f32>, polar: Polar) -> Mat<f32> {
    if matrix.nrows() > matrix.ncols() {
        // X·Xᵀ is smaller the other way.
        return orthogonalize(matrix.transpose(), polar).transpose().to_owned();
    }
    let norm = square_norm(matrix).sqrt();
    // Frobenius norms bound the largest singular value. Polar Express leaves room for rounding errors above 1,
    // where its first polynomial falls steeply.
    let (bound, steps) = match polar.polynomials {
        Orthogonalization::NewtonSchulz => (norm + 1e-7, &NEWTON_SCHULZ),
        Orthogonalization::PolarExpress => (1.02 * norm + 1e-6, &POLAR_EXPRESS),
    };
    let x = matrix * faer::Scale((1.0 / bound) as f32);
    match polar.precision {
        Precision::Fp32 => iterated(x, steps),
        Precision::Bf16 => iterated_in_bf16(&x, steps),
    }
}

fn iterated(mut x: Mat<f32>, steps: &[Quintic]) -> Mat<f32> {
    for &[a, b, c] in steps {
        let square = symmetric(x.as_ref(), x.transpose());
        let mut polynomial = symmetric(square.as_ref(), square.as_ref());
        zip!(&mut polynomial, &square)
            .for_each(|unzip!(polynomial, square)| *polynomial = b * *square + c * *polynomial);
        let mut next = &x * faer::Scale(a);
        matmul(next.as_mut(), Accum::Add, &polynomial, &x, 1.0, Par::Seq);
        x = next;
    }
    x
}

/// As [`iterated`], with operands of products rounded to bf16.
fn iterated_in_bf16(x: &Mat<f32>, steps: &[Quintic]) -> Mat<f32> {
    let (rows, columns) = x.shape();
    // Xᵀ row-major, which is X by columns.
    let mut across: Vec<f32> = x.col_iter().flat_map(|column| column.iter().copied()).collect();
    for &[a, b, c] in steps {
        let view = MatrixView::new(&across, rows);
        let square = product_in_bf16(view.transposed(), view);
        let square_view = MatrixView::new(&square, rows);
        let mut polynomial = product_in_bf16(square_view, square_view);
        polynomial.iter_mut().zip(&square).for_each(|(p, s)| *p = b * s + c * *p);
        // The polynomial is symmetric: Xᵀ·P is (P·X)ᵀ.
        let product = product_in_bf16(view, MatrixView::new(&polynomial, rows));
        across.iter_mut().zip(product).for_each(|(x, product)| *x = a * *x + product);
    }
    MatRef::from_column_major_slice(&across, rows, columns).to_owned()
}

/// A product that is known to be symmetric, at half the cost.
fn symmetric(left: MatRef<'_, f32>, right: MatRef<'_, f32>) -> Mat<f32> {
    let mut product = Mat::zeros(left.nrows(), left.nrows());
    triangular::matmul(
        product.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        left,
        BlockStructure::Rectangular,
        right,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    for column in 1..product.ncols() {
        for row in 0..column {
            product[(row, column)] = product[(column, row)];
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::super::matrix::product;
    use super::super::matrix::tests::{distance, normal, with_spectrum};
    use super::*;

    const METHODS: [Polar; 2] = [
        Polar::exact(Orthogonalization::NewtonSchulz),
        Polar::exact(Orthogonalization::PolarExpress),
    ];

    /// The bands of the scalar polynomials, for values that are spread evenly in their logarithm, and for one.
    #[test]
    fn singular_values_end_in_the_published_bands() {
        for (method, least, band) in [
            (Orthogonalization::NewtonSchulz, 1e-2_f32, 0.681..=1.135),
            (Orthogonalization::NewtonSchulz, 1e-3, 0.470..=1.203),
            (Orthogonalization::PolarExpress, 1e-3, 0.858..=1.142),
        ] {
            // Their norm is below 2.43, so the last is above 1.02 times the least share of it.
            let spread: Vec<f32> = (0..40).map(|i| (2.5 * least).powf(i as f32 / 39.0)).collect();
            for values in [&spread[..], &[1.0]] {
                for (rows, columns) in [(48, 48), (40, 72), (72, 40)] {
                    let matrix = with_spectrum(rows, columns, values);
                    let found = orthogonalize(matrix.as_ref(), Polar::exact(method))
                        .singular_values()
                        .unwrap();
                    let (signal, noise) = found.split_at(values.len());
                    assert!(
                        signal.iter().all(|value| band.contains(value)),
                        "{method:?} {signal:?}"
                    );
                    assert!(noise.iter().all(|value| *value < 1e-2), "{method:?} {noise:?}");
                }
            }
        }
    }

    #[test]
    fn the_result_has_the_singular_vectors_of_the_matrix() {
        for method in METHODS {
            for (rows, columns) in [(24, 24), (16, 40), (40, 16)] {
                let matrix = normal(rows, columns, 7);
                let svd = matrix.thin_svd().unwrap();
                let result = orthogonalize(matrix.as_ref(), method);
                let rotated =
                    product(product(svd.U().transpose(), result.as_ref()).as_ref(), svd.V());
                let off_diagonal = (0..rotated.nrows())
                    .flat_map(|row| (0..rotated.ncols()).map(move |column| (row, column)))
                    .filter(|(row, column)| row != column)
                    .map(|at| rotated[at].abs());
                assert!(off_diagonal.fold(0.0, f32::max) < 1e-3, "{method:?}");
            }
        }
    }

    /// Polar Express ends at orthogonal rows up to the width of its band; a wide normal matrix is well
    /// conditioned.
    #[test]
    fn rows_become_orthogonal() {
        let result = orthogonalize(
            normal(32, 96, 3).as_ref(),
            Polar::exact(Orthogonalization::PolarExpress),
        );
        let gram = product(result.as_ref(), result.transpose());
        let identity = Mat::<f32>::identity(32, 32);
        assert!(distance(gram.as_ref(), identity.as_ref()) < 0.3);
        let off_diagonal = (0..32).flat_map(|i| (0..i).map(move |j| (i, j)));
        assert!(off_diagonal.map(|at| gram[at].abs()).fold(0.0, f32::max) < 0.2);
    }

    /// Rounding to 8 bits errs by up to 2⁻⁹, of which the slopes of the polynomials make up to some 30 times as much where
    /// singular values are small.
    #[test]
    fn in_bf16_the_result_is_nearly_the_same() {
        for method in METHODS {
            for (rows, columns) in [(40, 40), (16, 70), (70, 16)] {
                let matrix = normal(rows, columns, 8);
                let rounded = Polar { precision: Precision::Bf16, ..method };
                let [rounded, exact] =
                    [rounded, method].map(|polar| orthogonalize(matrix.as_ref(), polar));
                let error = distance(rounded.as_ref(), exact.as_ref());
                assert!(0.0 < error && error < 0.1, "{method:?} {rows} {columns}: {error}");
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let rounded = METHODS.map(|method| Polar { precision: Precision::Bf16, ..method });
        for method in [METHODS, rounded].concat() {
            let zeros = Mat::<f32>::zeros(5, 3);
            assert_eq!(orthogonalize(zeros.as_ref(), method), zeros);
        }
    }
}
