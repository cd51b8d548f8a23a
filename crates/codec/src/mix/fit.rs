//! Finds the low-rank prediction of a tensor: encoder only, floating point, the same on every machine.

use super::factors::{Component, Factors, MAX_RANK};
use crate::layout::Layout;

/// Rounds of alternating least squares per component.
const ROUNDS: usize = 12;
/// Fits per component, each with the weights that the one before it implies.
const REFITS: usize = 4;
/// Smaller sides cannot pay for their factors.
const MIN_SIDE: usize = 32;

/// Scales of rows and columns of a residual: rms(i, j) ≈ rows(i)·columns(j).
struct Scales {
    rows: Vec<f64>,
    columns: Vec<f64>,
}

/// What some components leave of the codes, computed row by row: held whole, in double precision, it would take
/// eight bytes per code.
#[derive(Clone)]
struct Residual<'a> {
    codes: &'a [i32],
    columns: usize,
    components: Vec<Component>,
}

impl Residual<'_> {
    fn rows(&self) -> usize {
        self.codes.len() / self.columns
    }

    fn without(&self, component: Component) -> Self {
        let mut after = self.clone();
        after.components.push(component);
        after
    }

    /// Calls `visit` with the number and the values of each row, in order.
    fn for_each_row(&self, mut visit: impl FnMut(usize, &[f64])) {
        let mut values = vec![0.0; self.columns];
        for (row, codes) in self.codes.chunks_exact(self.columns).enumerate() {
            values.iter_mut().zip(codes).for_each(|(value, &code)| *value = f64::from(code));
            for component in &self.components {
                let factor = f64::from(component.rows[row]) * f64::from(component.scale) / 256.0;
                let predicted = component.columns.iter().map(|&column| factor * f64::from(column));
                values.iter_mut().zip(predicted).for_each(|(value, part)| *value -= part);
            }
            visit(row, &values);
        }
    }
}

/// The components whose estimated saving, n/2·log2(energy before/after) bits, exceeds what they cost.
/// Each is the best rank-one fit to what the ones before it left, weighted by the inverse variances.
pub(super) fn fit(codes: &[i32], layout: Layout, fineness: f64) -> Factors {
    let (rows, columns) = (layout.rows(), layout.columns);
    if rows < MIN_SIDE || columns < MIN_SIDE || rows * columns != codes.len() {
        return Factors::default();
    }
    let mut residual = Residual { codes, columns, components: Vec::new() };
    while residual.components.len() < MAX_RANK {
        let mut scales = Scales::of(&residual);
        let before = mean_log(&scales);
        let mut best = None;
        // The right weights are the variances of what a component leaves, known only after a fit.
        for _ in 0..REFITS {
            let Some(component) = rank_one(&residual, &scales, fineness) else { break };
            let after = residual.without(component.clone());
            scales = Scales::of(&after);
            best = Some((component, after));
        }
        let Some((component, after)) = best else { break };
        let saving = (before - mean_log(&scales)) * codes.len() as f64;
        if saving <= cost_bits(&component) {
            break;
        }
        residual = after;
    }
    Factors { components: residual.components }
}

impl Scales {
    fn of(residual: &Residual) -> Self {
        let (rows, columns) = (residual.rows(), residual.columns);
        let mut scales = Self { rows: vec![1.0; rows], columns: vec![1.0; columns] };
        for _ in 0..3 {
            let mut sums = vec![0.0; columns];
            residual.for_each_row(|row, values| {
                let energy = values
                    .iter()
                    .zip(&scales.columns)
                    .map(|(value, scale)| (value / scale) * (value / scale));
                // The floor keeps an empty row from dominating.
                let row_scale = (energy.sum::<f64>() / columns as f64 + 0.0001).sqrt();
                scales.rows[row] = row_scale;
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += (value / row_scale) * (value / row_scale);
                }
            });
            for (column, sum) in scales.columns.iter_mut().zip(sums) {
                *column = (sum / rows as f64 + 0.0001).sqrt();
            }
        }
        scales
    }
}

/// Mean of log2 rms over all elements.
fn mean_log(scales: &Scales) -> f64 {
    let mean = |values: &[f64]| {
        values.iter().map(|&value| libm::log2(value)).sum::<f64>() / values.len() as f64
    };
    mean(&scales.rows) + mean(&scales.columns)
}

/// The best outer product, quantised.
fn rank_one(residual: &Residual, scales: &Scales, fineness: f64) -> Option<Component> {
    let (rows, columns) = (scales.rows.len(), scales.columns.len());
    let mut left = vec![0.0; rows];
    // A fixed start that is orthogonal to no likely direction.
    let mut right: Vec<f64> = scales
        .columns
        .iter()
        .enumerate()
        .map(|(j, scale)| scale * (1.0 + 0.5 * ((j * 7919 % 101) as f64 / 50.0 - 1.0)))
        .collect();
    for _ in 0..ROUNDS {
        let weights: Vec<f64> = right
            .iter()
            .zip(&scales.columns)
            .map(|(value, scale)| value / (scale * scale))
            .collect();
        let norm: f64 = right.iter().zip(&weights).map(|(value, weight)| value * weight).sum();
        residual.for_each_row(|row, values| left[row] = dot(values, &weights) / norm);
        let norm: f64 = left
            .iter()
            .zip(&scales.rows)
            .map(|(value, scale)| value * value / (scale * scale))
            .sum();
        if norm.is_nan() || norm <= 0.0 {
            return None;
        }
        right.fill(0.0);
        residual.for_each_row(|row, values| {
            let scale = scales.rows[row];
            let weight = left[row] / (scale * scale) / norm;
            right.iter_mut().zip(values).for_each(|(right, value)| *right += weight * value);
        });
    }
    let rms = |values: &[f64], scales: &[f64]| {
        let sum: f64 =
            values.iter().zip(scales).map(|(value, scale)| (value / scale) * (value / scale)).sum();
        (sum / values.len() as f64).sqrt()
    };
    let (left_rms, right_rms) = (rms(&left, &scales.rows), rms(&right, &scales.columns));
    // Energy of the component relative to the residual's: a step of √(12/(n·energy)) costs as much in
    // residual energy as one bit less of precision would save.
    let energy = left_rms * left_rms * right_rms * right_rms;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let step = |count: usize| (fineness / (count as f64 * energy)).sqrt().min(2.0);
    let left_step = (step(columns) * left_rms * mean(&scales.rows)).max(peak(&left) / 127.0);
    let right_step = (step(rows) * right_rms * mean(&scales.columns)).max(peak(&right) / 127.0);
    let quantise = |values: &[f64], step: f64| -> Vec<i8> {
        values.iter().map(|value| (value / step).round() as i8).collect()
    };
    let scale = 256.0 * left_step * right_step;
    if !(0.5..1e6).contains(&scale) {
        return None;
    }
    let scale = scale.round();
    Some(Component {
        scale: scale as i32,
        rows: quantise(&left, left_step),
        columns: quantise(&right, right_step),
    })
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn peak(values: &[f64]) -> f64 {
    values.iter().fold(1e-9, |peak: f64, value| peak.max(value.abs()))
}

/// Entropy of the factors and a few bytes of overhead, in bits.
fn cost_bits(component: &Component) -> f64 {
    let entropy = |values: &[i8]| {
        let mut counts = [0_u32; 256];
        values.iter().for_each(|&value| counts[value as u8 as usize] += 1);
        let total = values.len() as f64;
        counts
            .iter()
            .filter(|&&count| count > 0)
            .map(|&count| f64::from(count) * libm::log2(total / f64::from(count)))
            .sum::<f64>()
    };
    entropy(&component.rows) + entropy(&component.columns) + 300.0
}
