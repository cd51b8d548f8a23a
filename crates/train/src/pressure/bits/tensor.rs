//! One tensor's step and model.

use std::borrow::Cow;

use backslash_codec::Origin;
use backslash_model::NamedTensor;
use backslash_rate::{
    LaplaceMixture, LineSums, Moments, RateSums, add_uniform_noise, round_to_step,
};
use rayon::prelude::*;

use crate::adamw::{CHUNK, ScalarAdam};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorRate {
    /// Where the tensor stands among the weights.
    pub(super) at: usize,
    pub(super) name: String,
    /// Weights of a row.
    columns: usize,
    /// What the decoder draws, where it does.
    pub(super) origin: Option<Origin>,
    /// Its values, or none.
    start: Vec<f32>,
    pub(super) log_step: f64,
    pub(super) mixture: LaplaceMixture,
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
        let mut rate = Self {
            at,
            name: tensor.name.clone(),
            columns: tensor.shape[1..].iter().product::<usize>().max(1),
            origin,
            start,
            log_step: 0.0,
            mixture: LaplaceMixture::around(1.0),
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
    }

    pub(super) fn step(&self) -> f32 {
        self.log_step.exp() as f32
    }

    /// Every weight with uniform noise of one step, drawn by `key`.
    pub(super) fn add_noise(&self, weights: &[f32], key: u64, points: &mut [f32]) {
        self.make_points(weights, points, |first, moved, points| {
            add_uniform_noise(moved, self.step(), key, first as u64, points);
        });
    }

    /// Every weight as its code stands for it.
    pub(super) fn round(&self, weights: &[f32], points: &mut [f32]) {
        self.make_points(weights, points, |_, moved, points| {
            round_to_step(moved, self.step(), points);
        });
    }

    /// Points are where weights start plus what `quantise` makes of how far they have moved; it is told where a chunk
    /// begins.
    fn make_points(
        &self,
        weights: &[f32],
        points: &mut [f32],
        quantise: impl Fn(usize, &[f32], &mut [f32]) + Sync,
    ) {
        let chunks = points.par_chunks_mut(CHUNK).zip(weights.par_chunks(CHUNK)).enumerate();
        chunks.for_each(|(chunk, (points, weights))| {
            let first = chunk * CHUNK;
            quantise(first, &self.moved(first, weights), points);
            let start = self.start.get(first..).unwrap_or(&[]);
            points.iter_mut().zip(start).for_each(|(point, start)| *point += start);
        });
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
        let points = points.par_chunks(CHUNK).zip(weights.par_chunks(CHUNK));
        let chunks = gradient.par_chunks_mut(CHUNK).zip(points).enumerate();
        let parts = chunks.map(|(chunk, (gradient, (points, weights)))| {
            let moved = self.moved(chunk * CHUNK, points);
            let sums = code_length.accumulate(&moved, weight_of_bit as f32, gradient);
            (sums, moved_by_step(gradient, points, weights))
        });
        total(parts.collect())
    }

    /// As [`TensorRate::accumulate_noisy`] at the points of the codes, whose rows and columns have scales of their own.
    pub(super) fn accumulate_rounded(
        &self,
        weights: &[f32],
        weight_of_bit: f64,
        gradient: &mut [f32],
    ) -> (RateSums, f64) {
        let tables = self.mixture.codes_at_step(self.step(), &self.lines(weights));
        let rows = self.rows_of_chunk();
        let cut = rows * self.columns;
        let chunks = gradient.par_chunks_mut(cut).zip(weights.par_chunks(cut)).enumerate();
        let parts = chunks.map(|(chunk, (gradient, weights))| {
            let moved = self.moved(chunk * cut, weights);
            tables.accumulate(chunk * rows, &moved, weight_of_bit as f32, gradient)
        });
        total(parts.collect())
    }

    /// Whole rows that are treated together.
    fn rows_of_chunk(&self) -> usize {
        CHUNK.div_ceil(self.columns)
    }

    /// What tells rows and columns of the codes apart.
    fn lines(&self, weights: &[f32]) -> LineSums {
        let cut = self.rows_of_chunk() * self.columns;
        let parts: Vec<LineSums> = weights
            .par_chunks(cut)
            .enumerate()
            .map(|(chunk, weights)| {
                LineSums::of(&self.moved(chunk * cut, weights), self.columns, self.step())
            })
            .collect();
        let mut lines = LineSums::default();
        parts.into_iter().for_each(|part| lines.append(part));
        lines
    }

    /// How far weights, the first of which stands at `first`, are from where the decoder starts.
    fn moved<'a>(&self, first: usize, weights: &'a [f32]) -> Cow<'a, [f32]> {
        match self.start.get(first..) {
            Some(start) if !start.is_empty() => {
                weights.iter().zip(start).map(|(weight, start)| weight - start).collect()
            }
            _ => Cow::Borrowed(weights),
        }
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

/// Σ g·(point − w): the gradient by ln Δ that passes through the points.
fn moved_by_step(gradient: &[f32], points: &[f32], weights: &[f32]) -> f64 {
    let terms = gradient.iter().zip(points.iter().zip(weights));
    terms.map(|(g, (point, weight))| f64::from(*g) * f64::from(point - weight)).sum()
}
