//! The regulariser's passes over float32 weights on the CPU. `backslash.torch` has the same as PyTorch operations, for all
//! other devices and types; here each is one pass on as many threads as PyTorch has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use backslash_rate::backslash::Pull;
use backslash_rate::{
    LaplaceMixture, LineLevels, LineSums, Moments, RateSums, add_uniform_noise, round_some_to_step,
    round_to_step,
};
use numpy::{PyArray1, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Weights that one task treats; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;
/// Terms of a sum that are added side by side.
const LANES: usize = 16;

/// Where the part of a matrix that a rank holds stands in the whole.
#[derive(FromPyObject, Clone, Copy)]
pub(crate) struct Block {
    first_row: u64,
    first_column: u64,
    /// Of the part.
    columns: usize,
    /// Of the whole.
    all_columns: u64,
}

impl Block {
    /// Lets `quantise` treat rows of the part, of which the first is number `row`, in pieces whose weights follow each other in
    /// the whole too; it is told where in the whole a piece begins.
    fn in_pieces(
        &self,
        row: usize,
        weights: &[f32],
        points: &mut [f32],
        quantise: impl Fn(u64, &[f32], &mut [f32]),
    ) {
        let first = (self.first_row + row as u64) * self.all_columns + self.first_column;
        if self.columns as u64 == self.all_columns {
            return quantise(first, weights, points);
        }
        let rows = weights.chunks(self.columns).zip(points.chunks_mut(self.columns));
        for (row, (weights, points)) in (0_u64..).zip(rows) {
            quantise(first + row * self.all_columns, weights, points);
        }
    }

    /// Whole rows that one task treats.
    fn rows_of_chunk(&self) -> usize {
        CHUNK.div_ceil(self.columns)
    }

    /// Refuses a part of anything but whole rows.
    fn check(&self, weights: usize) -> PyResult<()> {
        match self.columns > 0 && weights.is_multiple_of(self.columns) {
            true => Ok(()),
            false => Err(PyValueError::new_err("weights are not whole rows")),
        }
    }
}

/// What a part of a tensor is quantised by.
#[derive(FromPyObject, Clone, Copy)]
pub(crate) struct Quantiser {
    step: f32,
    /// Share of the weights that are rounded.
    share: f32,
    key: u64,
}

/// ln Δ's float32 step, the logit and ln s of both components.
type Model = (f32, f64, [f64; 2]);

/// `masters` ← `weights` ← `weights` + Δ·u.
#[pyfunction]
pub(crate) fn add_noise(
    py: Python<'_>,
    threads: usize,
    mut weights: PyReadwriteArray1<'_, f32>,
    mut masters: PyReadwriteArray1<'_, f32>,
    block: Block,
    quantiser: Quantiser,
) -> PyResult<()> {
    let (weights, masters) = (weights.as_slice_mut()?, masters.as_slice_mut()?);
    check_lengths(weights.len(), &[masters.len()])?;
    block.check(weights.len())?;
    let rows = block.rows_of_chunk();
    let cut = rows * block.columns;
    on(py, threads, || {
        let chunks = weights.par_chunks_mut(cut).zip(masters.par_chunks_mut(cut)).enumerate();
        chunks.for_each(|(chunk, (weights, masters))| {
            masters.copy_from_slice(weights);
            block.in_pieces(chunk * rows, masters, weights, |offset, from, to| {
                add_uniform_noise(from, quantiser.step, quantiser.key, offset, to);
            });
        });
    })
}

/// Sums of the magnitudes of codes over rows and columns, and the largest of them.
type Lines<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>, f32);

/// `masters` ← `weights` ← Δ·round(`weights`/Δ), or that of a share of them.
#[pyfunction]
pub(crate) fn round_weights<'py>(
    py: Python<'py>,
    threads: usize,
    mut weights: PyReadwriteArray1<'_, f32>,
    mut masters: PyReadwriteArray1<'_, f32>,
    block: Block,
    quantiser: Quantiser,
) -> PyResult<Lines<'py>> {
    let (weights, masters) = (weights.as_slice_mut()?, masters.as_slice_mut()?);
    check_lengths(weights.len(), &[masters.len()])?;
    block.check(weights.len())?;
    let rows = block.rows_of_chunk();
    let cut = rows * block.columns;
    let Quantiser { step, share, key } = quantiser;
    let lines = on(py, threads, || {
        let chunks = weights.par_chunks_mut(cut).zip(masters.par_chunks_mut(cut)).enumerate();
        let parts: Vec<LineSums> = chunks
            .map(|(chunk, (weights, masters))| {
                masters.copy_from_slice(weights);
                block.in_pieces(chunk * rows, masters, weights, |offset, from, to| {
                    match share < 1.0 {
                        true => round_some_to_step(from, step, share, key, offset, to),
                        false => round_to_step(from, step, to),
                    }
                });
                LineSums::of(masters, block.columns, step)
            })
            .collect();
        let mut lines = LineSums::default();
        parts.into_iter().for_each(|part| lines.append(part));
        lines
    })?;
    let [rows, columns] = [lines.rows(), lines.columns()];
    let [rows, columns] = [rows, columns].map(|sums| PyArray1::from_slice(py, sums));
    Ok((rows, columns, lines.largest()))
}

/// Sums of a part: bits, by ln Δ at fixed points, by the logit, by ln s of both components, and Σ g·(point − w).
type Sums = [f64; 6];

/// Adds `weight_of_bit` times the gradient of the code length at points with noise; then `points` ← `masters`.
#[pyfunction]
pub(crate) fn add_rate_of_noise(
    py: Python<'_>,
    threads: usize,
    masters: PyReadonlyArray1<'_, f32>,
    mut points: PyReadwriteArray1<'_, f32>,
    mut gradient: PyReadwriteArray1<'_, f32>,
    model: Model,
    weight_of_bit: f32,
) -> PyResult<Sums> {
    let masters = masters.as_slice()?;
    let (points, gradient) = (points.as_slice_mut()?, gradient.as_slice_mut()?);
    check_lengths(masters.len(), &[points.len(), gradient.len()])?;
    let (step, logit, log_scales) = model;
    let code_length = LaplaceMixture { logit, log_scales }.at_step(step);
    let slices = (masters, points, gradient);
    price_chunks(py, threads, CHUNK, slices, |_, _, points, gradient| {
        code_length.accumulate(points, weight_of_bit, gradient)
    })
}

/// As [`add_rate_of_noise`] with the code lengths of the codes, by the levels of the rows and columns of the part in the whole.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "all of it changes from step to step")]
pub(crate) fn add_rate_of_codes(
    py: Python<'_>,
    threads: usize,
    masters: PyReadonlyArray1<'_, f32>,
    mut points: PyReadwriteArray1<'_, f32>,
    mut gradient: PyReadwriteArray1<'_, f32>,
    model: Model,
    weight_of_bit: f32,
    row_levels: PyReadonlyArray1<'_, i16>,
    column_levels: PyReadonlyArray1<'_, i16>,
    largest: f32,
) -> PyResult<Sums> {
    let masters = masters.as_slice()?;
    let (points, gradient) = (points.as_slice_mut()?, gradient.as_slice_mut()?);
    let levels = LineLevels {
        rows: row_levels.as_slice()?.to_vec(),
        columns: column_levels.as_slice()?.to_vec(),
        largest,
    };
    let (rows, columns) = (levels.rows.len(), levels.columns.len());
    check_lengths(rows * columns, &[masters.len(), points.len(), gradient.len()])?;
    let (step, logit, log_scales) = model;
    let tables = LaplaceMixture { logit, log_scales }.codes_at_levels(step, levels);
    let rows = CHUNK.div_ceil(columns.max(1));
    let slices = (masters, points, gradient);
    price_chunks(py, threads, rows * columns.max(1), slices, |chunk, masters, _, gradient| {
        tables.accumulate(chunk * rows, masters, weight_of_bit, gradient)
    })
}

/// Lets `price` add the rate to the gradients of all chunks of `cut` weights, given their number, masters and points; then
/// `points` ← `masters`.
fn price_chunks(
    py: Python<'_>,
    threads: usize,
    cut: usize,
    (masters, points, gradient): (&[f32], &mut [f32], &mut [f32]),
    price: impl Fn(usize, &[f32], &[f32], &mut [f32]) -> RateSums + Sync + Send,
) -> PyResult<Sums> {
    on(py, threads, || {
        let chunks = gradient.par_chunks_mut(cut).zip(points.par_chunks_mut(cut));
        let chunks = chunks.zip(masters.par_chunks(cut)).enumerate();
        let parts = chunks.map(|(chunk, ((gradient, points), masters))| {
            let sums = price(chunk, masters, points, gradient);
            let through = moved(gradient, points, masters);
            points.copy_from_slice(masters);
            (sums, through)
        });
        total(parts.collect())
    })
}

/// (Σ|w|, Σw²).
#[pyfunction]
pub(crate) fn moments(
    py: Python<'_>,
    threads: usize,
    weights: PyReadonlyArray1<'_, f32>,
) -> PyResult<(f64, f64)> {
    let weights = weights.as_slice()?;
    on(py, threads, || {
        let parts: Vec<Moments> = weights.par_chunks(CHUNK).map(Moments::of).collect();
        parts.iter().fold((0.0, 0.0), |sums, part| (sums.0 + part.absolute, sums.1 + part.square))
    })
}

/// θ ← θ − weight·ν·sign(θ)·(|θ|+ε)^(ν−1).
#[pyfunction]
pub(crate) fn pull(
    py: Python<'_>,
    threads: usize,
    mut weights: PyReadwriteArray1<'_, f32>,
    weight: f64,
    shape: f64,
    epsilon: f64,
) -> PyResult<()> {
    let weights = weights.as_slice_mut()?;
    let pull = Pull { lambda: weight, shape, epsilon, parameters: 1 };
    on(py, threads, || weights.par_chunks_mut(CHUNK).for_each(|chunk| pull.step(chunk)))
}

/// Runs `work` on so many threads, without the interpreter's lock.
fn on<T: Send>(py: Python<'_>, threads: usize, work: impl FnOnce() -> T + Send) -> PyResult<T> {
    let pool = pool(threads)?;
    Ok(py.detach(|| pool.install(work)))
}

/// The pool of so many threads, which is kept.
fn pool(threads: usize) -> PyResult<Arc<ThreadPool>> {
    static POOLS: OnceLock<Mutex<HashMap<usize, Arc<ThreadPool>>>> = OnceLock::new();
    let pools = POOLS.get_or_init(Mutex::default);
    let mut pools = pools.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(pool) = pools.get(&threads) {
        return Ok(pool.clone());
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = Arc::new(pool.map_err(|error| PyRuntimeError::new_err(error.to_string()))?);
    pools.insert(threads, pool.clone());
    Ok(pool)
}

/// Σ g·(point − w).
fn moved(gradient: &[f32], points: &[f32], weights: &[f32]) -> f64 {
    let mut lanes = [0.0_f32; LANES];
    let terms = points.chunks(LANES).zip(weights.chunks(LANES));
    for (gradient, (points, weights)) in gradient.chunks(LANES).zip(terms) {
        let terms = gradient.iter().zip(points.iter().zip(weights));
        for (lane, (gradient, (point, weight))) in lanes.iter_mut().zip(terms) {
            *lane += gradient * (point - weight);
        }
    }
    lanes.iter().map(|lane| f64::from(*lane)).sum()
}

/// The sum of what parts give, in their order.
fn total(parts: Vec<(RateSums, f64)>) -> Sums {
    let (mut sums, mut through_points) = (RateSums::default(), 0.0);
    for (part, through) in parts {
        sums += part;
        through_points += through;
    }
    let RateSums { bits, by_log_step, by_logit, by_log_scales: [first, second] } = sums;
    [bits, by_log_step, by_logit, first, second, through_points]
}

fn check_lengths(expected: usize, others: &[usize]) -> PyResult<()> {
    match others.iter().all(|length| *length == expected) {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!("{others:?} are not all {expected}"))),
    }
}
