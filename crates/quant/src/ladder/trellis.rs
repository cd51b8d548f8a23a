//! Codes on a trellis, chosen together for the least error plus rate.

use backslash_codec::QuantizedTensor;
use backslash_codec::trellis::{STATES, next_state, quantiser, rows_per_run};
use faer::Mat;
use rayon::prelude::*;

use super::gptq::row_major;
use super::index_rates::{IndexRates, Lengths};
use super::levels::LevelProducts;
use super::rung::{Gain, THEORETICAL_SLOPE, tensor_of};
use crate::Weights;

/// Passes over the matrix; each knows what the codes of the one before cost.
const PASSES: u32 = 8;

/// The states and parities from which each state is reached.
const PREDECESSORS: [[(usize, usize); 2]; STATES] = predecessors();

const fn predecessors() -> [[(usize, usize); 2]; STATES] {
    let mut found = [[(0, 0); 2]; STATES];
    let mut count = [0; STATES];
    let mut state = 0;
    while state < STATES {
        let mut parity = 0;
        while parity < 2 {
            let next = next_state(state, parity as i32);
            found[next][count[next]] = (state, parity);
            count[next] += 1;
            parity += 1;
        }
        state += 1;
    }
    found
}

/// How codes are chosen along a trellis.
#[derive(Clone, Copy)]
pub(super) struct Trellis {
    /// Rows after which it starts again.
    pub rows_per_run: usize,
    /// What a bit is worth, in squares of the fine step, half of that of each quantiser.
    pub slope: f64,
}

impl Trellis {
    /// The trellis of a tensor, if its shape has one; a bit is worth `strength`·(ln 2)/6 squared steps of a quantiser.
    pub(super) fn of(shape: &[usize], strength: f64) -> Option<Self> {
        let rows_per_run = rows_per_run(shape)?;
        Some(Self { rows_per_run, slope: strength * THEORETICAL_SLOPE * 4.0 })
    }
}

/// The best index of each parity in each quantiser: what it costs, and its magnitude.
type Candidates = [[(f64, i32); 2]; 2];

/// Codes n of a column that lie on the trellis and minimise Σ (t − n)² + slope·bits(n), by the algorithm of Viterbi.
/// Targets t are in units of the fine step; `lengths` gives the code lengths of a row.
pub(super) fn choose<'a>(
    targets: &[f64],
    trellis: Trellis,
    lengths: impl Fn(usize) -> &'a Lengths,
    codes: &mut [f64],
) {
    let runs = targets.chunks(trellis.rows_per_run).zip(codes.chunks_mut(trellis.rows_per_run));
    for (run, (targets, codes)) in runs.enumerate() {
        let first = run * trellis.rows_per_run;
        choose_run(targets, trellis.slope, |row| lengths(first + row), codes);
    }
}

fn choose_run<'a>(
    targets: &[f64],
    slope: f64,
    lengths: impl Fn(usize) -> &'a Lengths,
    codes: &mut [f64],
) {
    let mut costs = [f64::INFINITY; STATES];
    costs[0] = 0.0;
    // Per row the magnitudes of the candidates, and a bit per state: which predecessor it came from.
    let mut path: Vec<([[i32; 2]; 2], u8)> = Vec::with_capacity(targets.len());
    for (row, target) in targets.iter().enumerate() {
        let candidates = candidates(target.abs(), slope, lengths(row));
        let mut next = [0.0; STATES];
        let mut came_from = 0_u8;
        for (state, predecessors) in PREDECESSORS.iter().enumerate() {
            let [first, second] = predecessors
                .map(|(before, parity)| costs[before] + candidates[quantiser(before)][parity].0);
            next[state] = first.min(second);
            came_from |= u8::from(second < first) << state;
        }
        costs = next;
        path.push((candidates.map(|best| best.map(|(_, magnitude)| magnitude)), came_from));
    }
    let mut state = (0..STATES).min_by(|a, b| costs[*a].total_cmp(&costs[*b])).unwrap_or(0);
    let steps = path.iter().zip(targets).zip(codes);
    for (((magnitudes, came_from), target), code) in steps.rev() {
        let (before, parity) = PREDECESSORS[state][usize::from(came_from >> state & 1)];
        let quantiser = quantiser(before);
        *code = value(magnitudes[quantiser][parity], quantiser).copysign(*target);
        state = before;
    }
}

/// Of the indices around a target's magnitude, and zero, the cheapest of each parity.
fn candidates(target: f64, slope: f64, lengths: &Lengths) -> Candidates {
    let mut best = [[(f64::INFINITY, 0); 2]; 2];
    for (quantiser, best) in best.iter_mut().enumerate() {
        let below = ((target + quantiser as f64) / 2.0) as i32;
        let nearest = below.max(1);
        // Of both parities those around the target, one more towards zero, and zero.
        for index in [0, nearest - 1, nearest, nearest + 1, (below - 1).max(0)] {
            let error = target - value(index, quantiser);
            let cost = error * error + slope * lengths.bits(quantiser, index);
            let best = &mut best[(index & 1) as usize];
            if cost < best.0 {
                *best = (cost, index);
            }
        }
    }
    best
}

/// The code of an index that is not negative.
fn value(index: i32, quantiser: usize) -> f64 {
    f64::from(2 * index) - f64::from(u8::from(index > 0)) * quantiser as f64
}

/// Quantiser and index of each code of a column.
pub(super) fn indices(codes: &[f64], rows_per_run: usize) -> impl Iterator<Item = (usize, i32)> {
    codes.chunks(rows_per_run).flat_map(|codes| {
        let mut state = 0;
        codes.iter().map(move |code| {
            let quantiser = quantiser(state);
            let index = backslash_codec::trellis::index(*code as i32, quantiser);
            let index = index.expect("chosen on the trellis");
            state = next_state(state, index);
            (quantiser, index)
        })
    })
}

/// Rate-aware codes on the trellis without error feedback, column by column, read back at the multiple of the step
/// that loses least, or with an unbiased gain at the step itself.
pub(super) fn quantize(
    weights: &Weights<'_>,
    matrix: &Mat<f64>,
    step: f32,
    trellis: Trellis,
    gain: Gain,
) -> QuantizedTensor {
    let (rows, columns) = matrix.shape();
    let steps = vec![f64::from(step); columns];
    let fine = 0.5 * f64::from(step);
    let mut rates = IndexRates::expected(matrix, &steps);
    let mut codes = Mat::zeros(rows, columns);
    for pass in 1..=PASSES {
        let chosen: Vec<Vec<f64>> = (0..columns)
            .into_par_iter()
            .map(|column| {
                let targets: Vec<f64> =
                    matrix.col_as_slice(column).iter().map(|weight| weight / fine).collect();
                let mut codes = vec![0.0; rows];
                choose(&targets, trellis, |row| rates.lengths(row, column), &mut codes);
                codes
            })
            .collect();
        for (column, chosen) in chosen.iter().enumerate() {
            codes.col_as_slice_mut(column).copy_from_slice(chosen);
        }
        if pass < PASSES {
            rates = rates.measured(&codes, trellis.rows_per_run);
        }
    }
    let codes = row_major(&codes);
    if gain == Gain::Unbiased {
        return tensor_of(weights, codes, 0.5 * step);
    }
    let mut products = LevelProducts::default();
    weights.data.iter().zip(&codes).for_each(|(w, code)| products.add(1.0, f64::from(*w), *code));
    tensor_of(weights, codes, products.fit_step(0.5 * step))
}
