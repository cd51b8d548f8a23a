//! One tensor's step and model.

use std::borrow::Cow;

use backslash_codec::{Origin, round_scale};
use backslash_model::NamedTensor;
use backslash_quant::LineScales;
use backslash_rate::{
    LaplaceMixture, LineFactors, LineLevels, LineSums, Moments, RateSums, add_uniform_noise,
    gain_by_moving, gains_by_scaling, round_some_to_step, round_to_step,
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

/// What the price of rows amounts to.
#[derive(Debug, Default)]
pub(super) struct Priced {
    /// Over their code lengths.
    pub(super) sums: RateSums,
    /// Σ g·(point − w), with g the gradient of loss and rate at the points.
    pub(super) through_points: f64,
    /// Gradient of the loss by the logarithm of each row's scale, where these are learned.
    by_log_scales: Vec<f64>,
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

    /// Adds `weight_of_bit` times the gradient of the code length at points with noise. Where scales of rows are learned,
    /// their gradients are kept.
    pub(super) fn accumulate_noisy(
        &mut self,
        weights: &[f32],
        points: &[f32],
        weight_of_bit: f64,
        gradient: &mut [f32],
    ) -> Priced {
        let code_length = self.mixture.at_step(self.step());
        let rows = self.rows_of_chunk();
        let cut = rows * self.columns;
        let points = points.par_chunks(cut).zip(weights.par_chunks(cut));
        let chunks = gradient.par_chunks_mut(cut).zip(points).enumerate();
        let parts = chunks.map(|(chunk, (gradient, (points, weights)))| {
            let by_log_scales = self.by_log_scales(chunk * cut, gradient, points);
            let moved = self.moved(chunk * cut, points);
            let sums = self.unscaled(chunk * rows, gradient, |gradient| {
                code_length.accumulate(&moved, weight_of_bit as f32, gradient)
            });
            Priced {
                sums,
                through_points: gain_by_moving(gradient, points, weights),
                by_log_scales,
            }
        });
        let parts = parts.collect();
        self.total(parts)
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
    /// own: those of the codes of the step before, so that all of it is one pass, and trainings whose tensors are split can
    /// do the same with one sum over all parts in a step. The first codes have their own.
    pub(super) fn accumulate_rounded(
        &mut self,
        weights: &[f32],
        points: &[f32],
        weight_of_bit: f64,
        gradient: &mut [f32],
    ) -> Priced {
        let (step, columns, rows) = (self.step(), self.columns, self.rows_of_chunk());
        let levels = self.levels.take().unwrap_or_else(|| self.lines(weights).levels());
        let tables = self.mixture.codes_at_levels(step, levels);
        let cut = rows * columns;
        let pairs = points.par_chunks(cut).zip(weights.par_chunks(cut));
        let chunks = gradient.par_chunks_mut(cut).zip(pairs).enumerate();
        let parts: Vec<_> = chunks
            .map(|(chunk, (gradient, (points, weights)))| {
                let by_log_scales = self.by_log_scales(chunk * cut, gradient, points);
                let (row, moved) = (chunk * rows, self.moved(chunk * cut, weights));
                let lines = LineSums::of(&moved, columns, step);
                let weight_of_bit = weight_of_bit as f32;
                let sums = match &self.scales {
                    Some(LineScales { rows, columns }) => {
                        let factors = LineFactors { rows: &rows[row..], columns };
                        tables.accumulate_scaled(row, &moved, factors, weight_of_bit, gradient)
                    }
                    None => tables.accumulate(row, &moved, weight_of_bit, gradient),
                };
                let through_points = gain_by_moving(gradient, points, weights);
                (lines, Priced { sums, through_points, by_log_scales })
            })
            .collect();
        let (lines, parts) = parts.into_iter().unzip();
        self.levels = Some(joined(lines).levels());
        self.total(parts)
    }

    /// The gradients by the logarithms of learned scales of rows, the first of which stands at `first`, by that of the loss
    /// at the points; none where scales are not learned.
    fn by_log_scales(&self, first: usize, gradient: &[f32], points: &[f32]) -> Vec<f64> {
        let start = self.start.get(first..).unwrap_or(&[]);
        match self.gains {
            Some(_) => gains_by_scaling(gradient, points, start, self.columns),
            None => Vec::new(),
        }
    }

    /// The sum of what parts of the tensor give, in their order, of which the gradients of scales are kept.
    fn total(&mut self, parts: Vec<Priced>) -> Priced {
        let mut total = Priced::default();
        for part in parts {
            total.sums += part.sums;
            total.through_points += part.through_points;
            total.by_log_scales.extend(part.by_log_scales);
        }
        if let Some(gains) = &mut self.gains {
            gains.take_gradients(total.by_log_scales.drain(..));
        }
        total
    }

    /// Whole rows that are treated together.
    fn rows_of_chunk(&self) -> usize {
        CHUNK.div_ceil(self.columns)
    }

    /// What tells rows and columns of the codes apart.
    fn lines(&self, weights: &[f32]) -> LineSums {
        let cut = self.rows_of_chunk() * self.columns;
        let chunks = weights.par_chunks(cut).enumerate();
        let of_chunk = |(chunk, weights)| {
            LineSums::of(&self.moved(chunk * cut, weights), self.columns, self.step())
        };
        joined(chunks.map(of_chunk).collect())
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

/// The sums of all rows, by those of parts that follow one another.
fn joined(parts: Vec<LineSums>) -> LineSums {
    let mut lines = LineSums::default();
    parts.into_iter().for_each(|part| lines.append(part));
    lines
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
