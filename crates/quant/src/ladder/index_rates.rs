//! What indices on a trellis cost, where each row and each column has a magnitude of its own.

use faer::Mat;

use super::trellis::indices;

/// Largest magnitude of an index with a code length of its own.
const LARGEST: usize = 40;
/// Occurrences by which a table is drawn towards a geometric distribution.
const PRIOR: f64 = 16.0;
/// Classes of expected magnitude: two per octave, from 2^−7 to 2^9.
const CLASSES: usize = 33;
const CLASSES_PER_OCTAVE: f64 = 2.0;
const LEAST_LOG: f64 = -7.0;
/// Codes of average magnitude that keep the mean of an empty line finite.
const LINE_PRIOR: f64 = 32.0;

/// Occurrences by quantiser and magnitude.
type Counts = [[f64; LARGEST + 1]; 2];
const NO_COUNTS: Counts = [[0.0; LARGEST + 1]; 2];

/// Code lengths of a class by quantiser and magnitude, signs included.
pub(super) struct Lengths {
    bits: Counts,
    /// Bits for every step of magnitude beyond the table.
    beyond: f64,
}

impl Lengths {
    /// From occurrences, drawn towards a geometric distribution of mean `magnitude`.
    fn of(counts: &Counts, magnitude: f64) -> Self {
        let ratio = magnitude / (1.0 + magnitude);
        let bits = counts.map(|counts| {
            let total = counts.iter().sum::<f64>() + PRIOR;
            let mut share = 1.0 - ratio;
            let mut bits = [0.0; LARGEST + 1];
            for (index, (bits, count)) in bits.iter_mut().zip(counts).enumerate() {
                let sign = f64::from(u8::from(index > 0));
                *bits = (total / (count + PRIOR * share)).log2() + sign;
                share *= ratio;
            }
            bits
        });
        Self { bits, beyond: -ratio.log2() }
    }

    /// Bits that an index of this magnitude costs.
    pub(super) fn bits(&self, quantiser: usize, magnitude: i32) -> f64 {
        let magnitude = magnitude as usize;
        let inside = magnitude.min(LARGEST);
        self.bits[quantiser][inside] + self.beyond * (magnitude - inside) as f64
    }
}

/// Code lengths for every row and column, as a coder has them that adapts to both.
pub(super) struct IndexRates {
    /// log₂ of the mean magnitude of each row, and of each column relative to the mean of all.
    rows: Vec<f64>,
    columns: Vec<f64>,
    classes: Vec<Lengths>,
}

impl IndexRates {
    /// Geometric distributions of the magnitudes that weights have in steps of their columns.
    pub(super) fn expected(weights: &Mat<f64>, steps: &[f64]) -> Self {
        let magnitude = |row, column| f64::abs(weights[(row, column)]) / steps[column];
        let (rows, columns) = log_means(weights.shape(), magnitude);
        Self { rows, columns, classes: lengths(&vec![NO_COUNTS; CLASSES]) }
    }

    /// The same classes, with the code lengths that earlier codes have in each.
    pub(super) fn measured(self, codes: &Mat<f64>, rows_per_run: usize) -> Self {
        let mut counts = vec![NO_COUNTS; CLASSES];
        for (column, log) in self.columns.iter().enumerate() {
            let indices = indices(codes.col_as_slice(column), rows_per_run);
            for ((quantiser, index), row) in indices.zip(&self.rows) {
                let magnitude = (index.unsigned_abs() as usize).min(LARGEST);
                counts[class(*row, *log)][quantiser][magnitude] += 1.0;
            }
        }
        Self { classes: lengths(&counts), ..self }
    }

    /// The code lengths of one place in the matrix.
    pub(super) fn lengths(&self, row: usize, column: usize) -> &Lengths {
        &self.classes[class(self.rows[row], self.columns[column])]
    }
}

fn lengths(counts: &[Counts]) -> Vec<Lengths> {
    let magnitude = |class: usize| (LEAST_LOG + class as f64 / CLASSES_PER_OCTAVE).exp2();
    let classes = counts.iter().enumerate();
    classes.map(|(class, counts)| Lengths::of(counts, magnitude(class))).collect()
}

/// The class of the expected magnitude 2^(row + column).
fn class(row: f64, column: f64) -> usize {
    let class = ((row + column - LEAST_LOG) * CLASSES_PER_OCTAVE).round();
    (class.max(0.0) as usize).min(CLASSES - 1)
}

/// log₂ of the mean magnitude of each row, and of each column relative to the mean of all.
fn log_means(
    (rows, columns): (usize, usize),
    magnitude: impl Fn(usize, usize) -> f64,
) -> (Vec<f64>, Vec<f64>) {
    let (mut row_sums, mut column_sums) = (vec![0.0; rows], vec![0.0; columns]);
    for (column, column_sum) in column_sums.iter_mut().enumerate() {
        for (row, row_sum) in row_sums.iter_mut().enumerate() {
            let magnitude = magnitude(row, column);
            *row_sum += magnitude;
            *column_sum += magnitude;
        }
    }
    let mean = (row_sums.iter().sum::<f64>() / (rows * columns).max(1) as f64).max(1e-9);
    let log = |sum: f64, count: usize| {
        ((sum + LINE_PRIOR * mean) / (count as f64 + LINE_PRIOR) / mean).log2()
    };
    let row_logs = row_sums.iter().map(|sum| log(*sum, columns) + mean.log2()).collect();
    (row_logs, column_sums.iter().map(|sum| log(*sum, rows)).collect())
}
