//! Columns that get a finer step than the others.

use backslash_codec::{QuantizedTensor, round_scale};
use faer::linalg::solvers::Solve;
use faer::{Mat, Side};

use crate::uniform::MAX_CODE;
use crate::{Covariance, LadderOptions, QuantError, Rung, Weights, quantize_matrix};

/// What each column adds to the weighted error by itself: Σ_r e_ri²·Σ_ii; without a metric Σ_r e_ri².
///
/// # Panics
/// If the lengths differ, or the metric is of another width.
#[must_use]
pub fn column_errors(
    weights: &[f32],
    decoded: &[f32],
    columns: usize,
    metric: Option<&Covariance>,
) -> Vec<f64> {
    assert_eq!(weights.len(), decoded.len(), "weights and decoded weights");
    let mut errors = vec![0.0; columns];
    for (weights, decoded) in weights.chunks(columns).zip(decoded.chunks(columns)) {
        for (error, (weight, decoded)) in errors.iter_mut().zip(weights.iter().zip(decoded)) {
            *error += (f64::from(*weight) - f64::from(*decoded)).powi(2);
        }
    }
    if let Some(metric) = metric {
        assert_eq!(metric.width(), columns, "columns of the metric");
        errors.iter_mut().zip(metric.diagonal()).for_each(|(error, moment)| *error *= moment);
    }
    errors
}

/// Quantises a matrix with the steps of some columns divided by `finer`, in the format there is: by column scales.
///
/// `whole` is the same matrix without protection, at the same `step`; its column steps are those that are divided.
/// For the rungs with error feedback the protected columns come last, so that they make up for the errors of the
/// others as well as for their own: with p the protected and r the remaining inputs, the others are quantised under
/// the metric that is left then, Σ_rr − Σ_rp·Σ_pp⁻¹·Σ_pr, and the protected weights move by E_r·Σ_rp·Σ_pp⁻¹ before
/// they are rounded. Not for the rungs with codes on a trellis: rounded columns leave it, and the tensor is then coded
/// without.
///
/// # Errors
/// Those of [`quantize_matrix`]; and if the finer step is too fine.
///
/// # Panics
/// If `protected` is not in ascending order, or names a column that does not exist or all that do.
#[expect(clippy::too_many_arguments, reason = "those of quantize_matrix and which columns")]
pub fn quantize_protected(
    rung: Rung,
    weights: &Weights<'_>,
    metric: Option<&Covariance>,
    step: f32,
    options: &LadderOptions,
    whole: &QuantizedTensor,
    protected: &[usize],
    finer: f32,
) -> Result<QuantizedTensor, QuantError> {
    let (rows, columns) = (whole.rows(), whole.columns());
    assert!(protected.is_sorted(), "protected columns in ascending order");
    assert!(protected.len() < columns, "at least one column that is not protected");
    let open: Vec<usize> =
        (0..columns).filter(|column| protected.binary_search(column).is_err()).collect();
    let select = |picked: &[usize]| -> Vec<f32> {
        weights.data.chunks(columns).flat_map(|row| picked.iter().map(|i| row[*i])).collect()
    };
    let split = match metric {
        Some(metric) => Some(Split::of(metric, &open, protected, rung, options.ridge)?),
        None => None,
    };
    let data = select(&open);
    let remaining = Weights { name: weights.name, shape: &[rows, open.len()], data: &data };
    let open_step = match &split {
        // Steps c/L_ii with a geometric mean of `step`: c has to stay, whatever columns are left.
        Some(split) if matches!(rung, Rung::Watersic | Rung::WatersicRate) => {
            let all = metric.expect("a split has a metric").pivot_mean(options.ridge)?;
            step * (all / split.open.pivot_mean(options.ridge)?).sqrt() as f32
        }
        _ => step,
    };
    let open_metric = split.as_ref().map(|split| &split.open);
    let coded = quantize_matrix(rung, &remaining, open_metric, open_step, options)?;

    let mut targets = Mat::from_fn(rows, protected.len(), |row, column| {
        f64::from(weights.data[row * columns + protected[column]])
    });
    if let Some(Split { feedback: Some(feedback), .. }) = &split {
        let decoded = coded.dequantize();
        let errors = Mat::from_fn(rows, open.len(), |row, column| {
            let index = row * open.len() + column;
            f64::from(data[index]) - f64::from(decoded[index])
        });
        targets += &errors * feedback;
    }
    let scale_of = |tensor: &QuantizedTensor, column: usize| -> f32 {
        tensor.column_scales.as_ref().map_or(1.0, |scales| scales[column])
    };
    let mut tensor = QuantizedTensor {
        shape: weights.shape.to_vec(),
        codes: vec![0; weights.data.len()],
        column_scales: Some(vec![1.0; columns]),
        ..coded.clone()
    };
    let scales = tensor.column_scales.as_mut().expect("just made");
    for (position, column) in open.iter().enumerate() {
        scales[*column] = scale_of(&coded, position);
        for row in 0..rows {
            tensor.codes[row * columns + column] = coded.codes[row * open.len() + position];
        }
    }
    for (position, &column) in protected.iter().enumerate() {
        let column_step = whole.step * scale_of(whole, column) / finer;
        scales[column] = round_scale(column_step / coded.step);
        let column_step = f64::from(coded.step) * f64::from(scales[column]);
        for row in 0..rows {
            let row_scale = coded.row_scales.as_ref().map_or(1.0, |scales| scales[row]);
            let target = targets[(row, position)];
            let code = (target / (column_step * f64::from(row_scale))).round_ties_even();
            if code.abs() >= f64::from(MAX_CODE) {
                let (name, weight) = (weights.name.to_owned(), target as f32);
                let least = step * (2.0 * code.abs() / f64::from(MAX_CODE)) as f32;
                return Err(QuantError::StepTooFine { name, step, weight, least });
            }
            tensor.codes[row * columns + column] = code as i32;
        }
    }
    Ok(tensor)
}

/// A metric cut at the protected inputs.
struct Split {
    /// The metric that the other columns are quantised under.
    open: Covariance,
    /// Σ_rp·Σ_pp⁻¹ where the protected columns make up for errors, of others × protected.
    feedback: Option<Mat<f64>>,
}

impl Split {
    fn of(
        metric: &Covariance,
        open: &[usize],
        protected: &[usize],
        rung: Rung,
        ridge: f64,
    ) -> Result<Self, QuantError> {
        let part = |rows: &[usize], columns: &[usize]| {
            Mat::from_fn(rows.len(), columns.len(), |i, j| metric.moment(rows[i], columns[j]))
        };
        let mut left = part(open, open);
        let mut feedback = None;
        if rung.needs_covariance() && !protected.is_empty() {
            let mut own = part(protected, protected);
            let diagonal = metric.diagonal();
            let mean = diagonal.iter().sum::<f64>() / diagonal.len() as f64;
            (0..protected.len()).for_each(|i| own[(i, i)] += ridge.max(1e-9) * mean);
            let cross = part(protected, open);
            let factor = own.llt(Side::Lower).map_err(|_| QuantError::NotPositive { ridge })?;
            let solved = factor.solve(&cross);
            left -= cross.transpose() * &solved;
            feedback = Some(solved.transpose().to_owned());
        }
        let moments: Vec<f64> = (0..open.len())
            .flat_map(|i| {
                let left = &left;
                // Rounding errors must not make a variance negative.
                (0..open.len()).map(
                    move |j| {
                        if i == j { left[(i, j)].max(0.0) } else { left[(i, j)] }
                    },
                )
            })
            .collect();
        let samples = metric.samples();
        Ok(Self { open: Covariance::from_moments(open.len(), samples, &moments)?, feedback })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exceptions::testing::{correlated, gaussian};
    use crate::weighted_error;

    const ROWS: usize = 300;
    const COLUMNS: usize = 24;
    const PROTECTED: [usize; 3] = [2, 9, 23];

    fn both(
        rung: Rung,
        metric: Option<&Covariance>,
    ) -> (QuantizedTensor, QuantizedTensor, Vec<f32>) {
        let data = gaussian(ROWS * COLUMNS, 11);
        let weights = Weights { name: "w", shape: &[ROWS, COLUMNS], data: &data };
        let options = LadderOptions::default();
        let whole = quantize_matrix(rung, &weights, metric, 0.8, &options).unwrap();
        let protected =
            quantize_protected(rung, &weights, metric, 0.8, &options, &whole, &PROTECTED, 4.0)
                .unwrap();
        protected.validate("w").unwrap();
        (whole, protected, data)
    }

    #[test]
    fn only_the_protected_columns_change_without_feedback() {
        let (whole, protected, data) = both(Rung::Rtn, None);
        let (before, after) = (whole.dequantize(), protected.dequantize());
        let errors = |decoded: &[f32]| column_errors(&data, decoded, COLUMNS, None);
        for (column, (before, after)) in errors(&before).into_iter().zip(errors(&after)).enumerate()
        {
            if PROTECTED.contains(&column) {
                // A quarter of the step is a sixteenth of the error.
                assert!((0.04..0.1).contains(&(after / before)), "{column}: {after} {before}");
            } else {
                assert!((after / before - 1.0).abs() < 0.02, "{column}: {after} {before}");
            }
        }
    }

    /// D = c²/12 per column: three of 24 at a sixteenth leave (21 + 3/16)/24.
    #[test]
    fn error_feedback_keeps_its_cost_per_column() {
        let metric = correlated(COLUMNS, 12);
        let (whole, protected, data) = both(Rung::Watersic, Some(&metric));
        let error = |tensor: &QuantizedTensor| {
            weighted_error(&data, &tensor.dequantize(), &metric).unwrap()
        };
        let ratio = error(&protected) / error(&whole);
        let expected = (21.0 + 3.0 / 16.0) / 24.0;
        assert!((ratio / expected - 1.0).abs() < 0.05, "{ratio} against {expected}");
    }

    #[test]
    fn an_input_that_counts_more_stands_out() {
        let metric = Covariance::from_moments(2, 1, &[1.0, 0.0, 0.0, 9.0]).unwrap();
        let errors = column_errors(&[1.0, 1.0, 2.0, 2.0], &[0.0, 1.5, 2.0, 3.0], 2, Some(&metric));
        assert_eq!(errors, [1.0, 9.0 * 1.25]);
    }
}
