//! Tensors as matrices, and their products.
//!
//! A matrix W of outputs × inputs is held as Wᵀ, so that each column, which is contiguous in memory, has the
//! weights of one output. Everything here runs on one thread and is the same on any number of them; the
//! tensors of a network are what is divided between threads.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use super::groups::Layout;

impl Layout {
    /// The values as an inputs × outputs matrix.
    pub(super) fn load(self, values: &[f32]) -> Mat<f32> {
        let Self { outputs, inputs, by_output } = self;
        if by_output {
            MatRef::from_column_major_slice(values, inputs, outputs).to_owned()
        } else {
            MatRef::from_row_major_slice(values, inputs, outputs).to_owned()
        }
    }

    /// The values of an inputs × outputs matrix in the tensor's order.
    pub(super) fn store(self, matrix: MatRef<'_, f32>) -> Vec<f32> {
        let in_order = if self.by_output { matrix } else { matrix.transpose() };
        in_order.col_iter().flat_map(|column| column.iter().copied()).collect()
    }

    /// The smaller of the two sides.
    pub(super) fn full_rank(self) -> usize {
        self.outputs.min(self.inputs)
    }
}

/// A·B.
pub(super) fn product(left: MatRef<'_, f32>, right: MatRef<'_, f32>) -> Mat<f32> {
    let mut product = Mat::zeros(left.nrows(), right.ncols());
    matmul(product.as_mut(), Accum::Replace, left, right, 1.0, Par::Seq);
    product
}

/// ‖A‖_F², in double precision.
pub(super) fn square_norm(matrix: MatRef<'_, f32>) -> f64 {
    matrix.col_iter().map(|column| column.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()).sum()
}

/// Multiplies every column by a factor of its own.
pub(super) fn scale_columns(matrix: &mut Mat<f32>, mut factor: impl FnMut(usize, &[f32]) -> f32) {
    for column in 0..matrix.ncols() {
        let values = matrix.col_as_slice_mut(column);
        let factor = factor(column, values);
        values.iter_mut().for_each(|value| *value *= factor);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rand_distr::{Distribution, StandardNormal};
    use rand_pcg::Pcg64;

    use super::*;

    /// Independent normal entries.
    pub(crate) fn normal(rows: usize, columns: usize, seed: u64) -> Mat<f32> {
        let mut random = Pcg64::new(u128::from(seed), 0);
        Mat::from_fn(rows, columns, |_, _| StandardNormal.sample(&mut random))
    }

    /// A matrix of these singular values between random directions.
    pub(crate) fn with_spectrum(rows: usize, columns: usize, values: &[f32]) -> Mat<f32> {
        let left = normal(rows, values.len(), 1).qr().compute_thin_Q();
        let mut right = normal(columns, values.len(), 2).qr().compute_thin_Q();
        scale_columns(&mut right, |column, _| values[column]);
        product(left.as_ref(), right.transpose())
    }

    /// ‖A − B‖_F / ‖B‖_F.
    pub(crate) fn distance(a: MatRef<'_, f32>, b: MatRef<'_, f32>) -> f64 {
        (square_norm((a - b).as_ref()) / square_norm(b)).sqrt()
    }

    #[test]
    fn both_layouts_give_one_matrix_and_come_back() {
        let by_output = Layout { outputs: 2, inputs: 3, by_output: true };
        let by_input = Layout { by_output: false, ..by_output };
        let (rows, transposed) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        let matrix = by_output.load(&rows);
        assert_eq!((matrix.shape(), matrix[(2, 0)], matrix[(0, 1)]), ((3, 2), 3.0, 4.0));
        assert_eq!(by_input.load(&transposed), matrix);
        assert_eq!(by_output.store(matrix.as_ref()), rows);
        assert_eq!(by_input.store(matrix.as_ref()), transposed);
        assert_eq!(square_norm(matrix.as_ref()), 91.0);
    }
}
