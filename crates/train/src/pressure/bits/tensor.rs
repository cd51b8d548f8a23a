//! One tensor's step and model.

use std::borrow::Cow;

use backslash_codec::{Origin, round_scale};
use backslash_model::NamedTensor;
use backslash_quant::LineScales;
use backslash_rate::{
    LaplaceMixture, LineLevels, LineSums, Moments, RateSums, add_uniform_noise, gain_by_moving,
    round_some_to_step, round_to_step,
};
use rayon::prelude::*;

use super::gains::RowGains;
use crate::adamw::{CHUNK, ScalarAdam};
use crate::sensitivity::SquaredGradients;

/// Exponent p of a line's step, which goes with h^−p where a squared error there costs h. At a high rate ½ is best for
/// weights that do not move; while they still do, half of that has lost least.
const LINE_POWER: f64 = 0.25;

/// How weights are rounded where the loss is computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounding {
    /// What steps are multiplied by.
    pub(super) coarser: f32,
    /// Share of the weights that are rounded.
    pub(super) share: f32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorRate {
    /// Where the tensor stands among the weights.
    pub(super) at: usize,
    pub(super) name: String,
    rows: usize,
    /// Weights of a row.
    columns: usize,
    /// Steps of its rows and columns over that of the tensor, where these have their own.
    pub(super) scales: Option<LineScales>,
    /// Those of rows as parameters, where they are learned.
    gains: Option<RowGains>,
    /// What the decoder draws, where it does.
    pub(super) origin: Option<Origin>,
    /// Its values, or none.
    start: Vec<f32>,
    pub(super) log_step: f64,
    pub(super) mixture: LaplaceMixture,
    /// Levels of rows and columns by the codes of the step before, once one has rounded.
    levels: Option<LineLevels>,
    pub(super) adam: ScalarAdam<4>,
    /// Gradient of J by ln Δ, logit, ln s₀, ln s₁, waiting for the update.
    pub(super) gradient: [f64; 4],
}

impl TensorRate {
    pub(super) fn new(
        at: usize,
        tensor: &NamedTensor,
        origin: Option<Origin>,
        initial_step: f64,
    ) -> Self {
        let mut start = Vec::new();
        if let Some(origin) = origin {
            start.resize(tensor.data.len(), 0.0);
            origin.draw(0, &mut start);
        }
        let columns = tensor.shape[1..].iter().product::<usize>().max(1);
        let mut rate = Self {
            at,
            name: tensor.name.clone(),
            rows: tensor.data.len() / columns,
            columns,
            scales: None,
            gains: None,
            origin,
            start,
            log_step: 0.0,
            mixture: LaplaceMixture::around(1.0),
            levels: None,
            adam: ScalarAdam::default(),
            gradient: [0.0; 4],
        };
        rate.begin_with(tensor, initial_step);
        rate
    }

    /// Step and model are those for the weights as they are.
    pub(super) fn begin_with(&mut self, tensor: &NamedTensor, initial_step: f64) {
        let scale = expected_scale(&self.moved(0, &tensor.data), &tensor.shape);
        self.log_step = (initial_step * scale).ln();
        self.mixture = LaplaceMixture::around(scale);
        self.levels = None;
    }

    /// Columns, and rows if asked for, get steps by the squared gradients of all weights.
    pub(super) fn scale_lines(&mut self, squares: &SquaredGradients, rows_too: bool) {
        let rows = match rows_too {
            true => scales_by(&squares.by_row(self.at)),
            false => vec![1.0; self.rows],
        };
        let columns = scales_by(&squares.by_column(self.at));
        self.scales = Some(LineScales { rows, columns });
    }

    /// From now on the scales of rows are learned.
    pub(super) fn learn_rows(&mut self) {
        self.gains = self.scales.as_ref().map(|scales| RowGains::of(&scales.rows));
    }

    /// Where scales of rows are learned, keeps their gradients, by that of the loss at the points.
    pub(super) fn take_gains(&mut self, gradient: &[f32], points: &[f32]) {
        if let Some(gains) = &mut self.gains {
            gains.take_gradient(gradient, points, &self.start, self.columns);
        }
    }

    /// Where scales of rows are learned, moves them, and the weights with them.
    pub(super) fn move_gains(&mut self, time: u64, learning_rate: f64, weights: &mut [f32]) {
        let (Some(gains), Some(scales)) = (&mut self.gains, &mut self.scales) else { return };
        let factors = gains.update(time, learning_rate, &mut scales.rows);
        let rows = weights.chunks_mut(self.columns).zip(factors).enumerate();
        for (row, (weights, factor)) in rows.filter(|(_, (_, factor))| *factor != 1.0) {
            let start = self.start.get(row * self.columns..).unwrap_or(&[]);
            let starts = start.iter().copied().chain(std::iter::repeat(0.0));
            for (weight, start) in weights.iter_mut().zip(starts) {
                *weight = start + factor * (*weight - start);
            }
        }
    }

    /// The scales of rows and columns, as numbers for a checkpoint, and what the learned ones remember.
    pub(super) fn scale_numbers(&self) -> impl Iterator<Item = f64> {
        let scales = self.scales.iter();
        let scales =
            scales.flat_map(|s| s.rows.iter().chain(&s.columns).map(|scale| f64::from(*scale)));
        scales.chain(self.gains.iter().flat_map(RowGains::numbers))
    }

    /// Takes over [`TensorRate::scale_numbers`] of a tensor that has scales; `false` if there are not enough.
    pub(super) fn restore_scales(
        &mut self,
        learned: bool,
        numbers: &mut impl Iterator<Item = f64>,
    ) -> bool {
        let mut take = |count| numbers.take(count).map(|scale| scale as f32).collect::<Vec<f32>>();
        let (rows, columns) = (take(self.rows), take(self.columns));
        let complete = columns.len() == self.columns;
        self.scales = Some(LineScales { rows, columns });
        if learned {
            self.learn_rows();
        }
        complete && self.gains.as_mut().is_none_or(|gains| gains.restore(numbers))
    }

    /// The levels of rows and columns, as numbers for a checkpoint; none before a step has rounded.
    pub(super) fn level_numbers(&self) -> impl Iterator<Item = f64> {
        self.levels.iter().flat_map(LineLevels::numbers)
    }

    /// Takes over [`TensorRate::level_numbers`] of a tensor that has been rounded; `false` if they are not there.
    pub(super) fn restore_levels(&mut self, numbers: &mut impl Iterator<Item = f64>) -> bool {
        self.levels = LineLevels::from_numbers(self.rows, self.columns, numbers);
        self.levels.is_some()
    }

    pub(super) fn step(&self) -> f32 {
        self.log_step.exp() as f32
    }

    /// Every weight with uniform noise of `coarser` steps, drawn by `key`.
    pub(super) fn add_noise(&self, weights: &[f32], coarser: f32, key: u64, points: &mut [f32]) {
        let step = coarser * self.step();
        self.make_points(weights, points, |first, moved, points| {
            add_uniform_noise(moved, step, key, first as u64, points);
        });
    }

    /// Weights as the codes of their steps stand for them; `key` draws which are rounded, where not all are.
    pub(super) fn round(&self, weights: &[f32], rounding: Rounding, key: u64, points: &mut [f32]) {
        let Rounding { coarser, share } = rounding;
        let step = coarser * self.step();
        self.make_points(weights, points, |first, moved, points| match share < 1.0 {
            true => round_some_to_step(moved, step, share, key, first as u64, points),
            false => round_to_step(moved, step, points),
        });
    }

    /// Points are where weights start plus what `quantise` makes of how far they have moved, in the steps of their rows and
    /// columns; it is told where a chunk begins.
    fn make_points(
        &self,
        weights: &[f32],
        points: &mut [f32],
        quantise: impl Fn(usize, &[f32], &mut [f32]) + Sync,
    ) {
        let rows = self.rows_of_chunk();
        let cut = rows * self.columns;
        let chunks = points.par_chunks_mut(cut).zip(weights.par_chunks(cut)).enumerate();
        chunks.for_each(|(chunk, (points, weights))| {
            let first = chunk * cut;
            quantise(first, &self.moved(first, weights), points);
            self.put_back(chunk * rows, points);
        });
    }

    /// Makes points of rows, of which the first is number `row`, of how far they are from the start.
    fn put_back(&self, row: usize, points: &mut [f32]) {
        if let Some(scales) = &self.scales {
            scales.multiply(row, points);
        }
        let start = self.start.get(row * self.columns..).unwrap_or(&[]);
        points.iter_mut().zip(start).for_each(|(point, start)| *point += start);
    }

    /// Adds `weight_of_bit` times the gradient of the code length at points with noise; the sums over them, and
    /// Σ g·(point − w).
    pub(super) fn accumulate_noisy(
        &self,
        weights: &[f32],
        points: &[f32],
        weight_of_bit: f64,
        gradient: &mut [f32],
    ) -> (RateSums, f64) {
        let code_length = self.mixture.at_step(self.step());
        let rows = self.rows_of_chunk();
        let cut = rows * self.columns;
        let points = points.par_chunks(cut).zip(weights.par_chunks(cut));
        let chunks = gradient.par_chunks_mut(cut).zip(points).enumerate();
        let parts = chunks.map(|(chunk, (gradient, (points, weights)))| {
            let moved = self.moved(chunk * cut, points);
            let sums = self.unscaled(chunk * rows, gradient, |gradient| {
                code_length.accumulate(&moved, weight_of_bit as f32, gradient)
            });
            (sums, gain_by_moving(gradient, points, weights))
        });
        total(parts.collect())
    }

    /// Lets `add` add a gradient by how far rows, of which the first is number `row`, have moved in their own steps.
    fn unscaled<T>(
        &self,
        row: usize,
        gradient: &mut [f32],
        add: impl FnOnce(&mut [f32]) -> T,
    ) -> T {
        let Some(scales) = &self.scales else { return add(gradient) };
        let mut by_moved = vec![0.0; gradient.len()];
        let result = add(&mut by_moved);
        scales.divide(row, &mut by_moved);
        gradient.iter_mut().zip(by_moved).for_each(|(gradient, added)| *gradient += added);
        result
    }

    /// As [`TensorRate::accumulate_noisy`] with the code lengths of the codes, whose rows and columns have scales of their
    /// own: those of the codes of the step before, so that trainings whose tensors are split can do the same with one sum
    /// over all parts in a step. The first codes have their own.
    pub(super) fn accumulate_rounded(
        &mut self,
        weights: &[f32],
        points: &[f32],
        weight_of_bit: f64,
        gradient: &mut [f32],
    ) -> (RateSums, f64) {
        let (lines, moved) = self.lines(weights);
        let next = lines.levels();
        let levels = self.levels.replace(next.clone()).unwrap_or(next);
        let tables = self.mixture.codes_at_levels(self.step(), levels, lines.largest());
        let rows = self.rows_of_chunk();
        let cut = rows * self.columns;
        let weights = weights.par_chunks(cut).zip(moved);
        let points = points.par_chunks(cut).zip(weights);
        let chunks = gradient.par_chunks_mut(cut).zip(points).enumerate();
        let parts = chunks.map(|(chunk, (gradient, (points, (weights, moved))))| {
            let sums = self.unscaled(chunk * rows, gradient, |gradient| {
                tables.accumulate(chunk * rows, &moved, weight_of_bit as f32, gradient)
            });
            (sums, gain_by_moving(gradient, points, weights))
        });
        total(parts.collect())
    }

    /// Whole rows that are treated together.
    fn rows_of_chunk(&self) -> usize {
        CHUNK.div_ceil(self.columns)
    }

    /// What tells rows and columns of the codes apart, and how far the weights of each chunk have moved.
    fn lines<'a>(&self, weights: &'a [f32]) -> (LineSums, Vec<Cow<'a, [f32]>>) {
        let cut = self.rows_of_chunk() * self.columns;
        let chunks = weights.par_chunks(cut).enumerate();
        let of_chunk = |(chunk, weights)| {
            let moved = self.moved(chunk * cut, weights);
            (LineSums::of(&moved, self.columns, self.step()), moved)
        };
        let (parts, moved): (Vec<_>, Vec<_>) = chunks.map(of_chunk).unzip();
        let mut lines = LineSums::default();
        parts.into_iter().for_each(|part| lines.append(part));
        (lines, moved)
    }

    /// How far weights of whole rows, the first of which stands at `first`, are from where the decoder starts, in the steps
    /// of their rows and columns.
    fn moved<'a>(&self, first: usize, weights: &'a [f32]) -> Cow<'a, [f32]> {
        let mut moved = match self.start.get(first..) {
            Some(start) if !start.is_empty() => {
                weights.iter().zip(start).map(|(weight, start)| weight - start).collect()
            }
            _ => Cow::Borrowed(weights),
        };
        if let Some(scales) = &self.scales {
            scales.divide(first / self.columns, moved.to_mut());
        }
        moved
    }
}

/// The sum of what parts of a tensor give, in their order.
fn total(parts: Vec<(RateSums, f64)>) -> (RateSums, f64) {
    let mut sums = RateSums::default();
    let mut through_points = 0.0;
    for (part, through) in parts {
        sums += part;
        through_points += through;
    }
    (sums, through_points)
}

/// Root mean square of the weights, or that of a uniformly drawn layer where all are zero.
fn expected_scale(weights: &[f32], shape: &[usize]) -> f64 {
    let rms = Moments::of(weights).root_mean_square();
    let inputs: usize = shape[1..].iter().product();
    if rms > 0.0 { rms } else { 1.0 / (3.0 * inputs as f64).sqrt() }
}

/// h^−p over the geometric mean of all, p being [`LINE_POWER`], in half octaves and at most three octaves.
fn scales_by(sensitivities: &[f64]) -> Vec<f32> {
    let log = |h: &f64| h.max(f64::MIN_POSITIVE).log2();
    let middle = sensitivities.iter().map(log).sum::<f64>() / sensitivities.len().max(1) as f64;
    let half_octaves = |h| (2.0 * LINE_POWER * (middle - log(h))).round().clamp(-6.0, 6.0);
    let scale = |h| round_scale((0.5 * half_octaves(h)).exp2() as f32);
    sensitivities.iter().map(scale).collect()
}
