//! Finds the low-rank prediction of a tensor: encoder only, floating point, the same on every machine.

mod passes;

use super::factors::{Component, Factors, MAX_RANK};
use crate::layout::Layout;

/// Rounds of alternating least squares per component.
const ROUNDS: usize = 12;
/// Fits per component, each with the weights that the one before it implies.
const REFITS: usize = 4;
/// Smaller sides cannot pay for their factors.
const MIN_SIDE: usize = 32;
/// Added to mean squares, so that an empty row or column does not dominate.
const FLOOR: f64 = 0.0001;

/// Scales of rows and columns of a residual: rms(i, j) ≈ rows(i)·columns(j).
struct Scales {
    rows: Vec<f64>,
    columns: Vec<f64>,
}

/// What some components leave of the codes. It is held nowhere: products with it are those with the codes less those with
/// the components, and energies take it row by row.
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

    /// Its product with weights of the columns: a value per row.
    fn times_columns(&self, weights: &[f64]) -> Vec<f64> {
        let mut products = vec![0.0; self.rows()];
        passes::times_columns(self.codes, weights, &mut products);
        for component in &self.components {
            let share = component.unit() * product(&component.columns, weights);
            subtract(&component.rows, share, &mut products);
        }
        products
    }

    /// Its product with weights of the rows: a value per column.
    fn times_rows(&self, weights: &[f64]) -> Vec<f64> {
        let mut products = vec![0.0; self.columns];
        passes::times_rows(self.codes, weights, &mut products);
        for component in &self.components {
            let share = component.unit() * product(&component.rows, weights);
            subtract(&component.columns, share, &mut products);
        }
        products
    }
}

fn product(factors: &[i8], weights: &[f64]) -> f64 {
    factors.iter().zip(weights).map(|(&factor, weight)| f64::from(factor) * weight).sum()
}

fn subtract(factors: &[i8], share: f64, values: &mut [f64]) {
    values.iter_mut().zip(factors).for_each(|(value, &factor)| *value -= share * f64::from(factor));
}

/// The components whose estimated saving, n/2·log2(energy before/after) bits, exceeds what they cost.
/// Each is the best rank-one fit to what the ones before it left, weighted by the inverse variances.
pub(super) fn fit(codes: &[i32], layout: Layout, fineness: f64) -> Factors {
    let (rows, columns) = (layout.rows(), layout.columns);
    if rows < MIN_SIDE || columns < MIN_SIDE || rows * columns != codes.len() {
        return Factors::default();
    }
    let mut residual = Residual { codes, columns, components: Vec::new() };
    let mut scales = Scales::of(&residual);
    while residual.components.len() < MAX_RANK {
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
            let weights: Vec<f64> =
                scales.columns.iter().map(|scale| 1.0 / (scale * scale)).collect();
            let mut sums = vec![0.0; columns];
            passes::add_energies(residual, &weights, &mut scales.rows, &mut sums);
            for (column, sum) in scales.columns.iter_mut().zip(sums) {
                *column = (sum / rows as f64 + FLOOR).sqrt();
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
    let mut left = Vec::new();
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
        left = residual.times_columns(&weights);
        left.iter_mut().for_each(|value| *value /= norm);
        let norm: f64 = left
            .iter()
            .zip(&scales.rows)
            .map(|(value, scale)| value * value / (scale * scale))
            .sum();
        if norm.is_nan() || norm <= 0.0 {
            return None;
        }
        let weights: Vec<f64> = left
            .iter()
            .zip(&scales.rows)
            .map(|(value, scale)| value / (scale * scale) / norm)
            .collect();
        right = residual.times_rows(&weights);
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

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    const ROWS: usize = 45;
    const COLUMNS: usize = 37;

    fn codes(rng: &mut Pcg64) -> Vec<i32> {
        (0..ROWS * COLUMNS).map(|_| rng.random_range(-9..=9)).collect()
    }

    fn component(rng: &mut Pcg64) -> Component {
        let mut side =
            |count: usize| (0..count).map(|_| rng.random_range(-20..=20)).collect::<Vec<i8>>();
        let (rows, columns) = (side(ROWS), side(COLUMNS));
        Component { scale: rng.random_range(1..=40), rows, columns }
    }

    /// What the components leave, element by element.
    fn held(residual: &Residual) -> Vec<Vec<f64>> {
        let at = |row: usize, column: usize| {
            let predicted = residual.components.iter().map(|component| {
                let factors = f64::from(component.rows[row]) * f64::from(component.columns[column]);
                factors * f64::from(component.scale) / 256.0
            });
            f64::from(residual.codes[row * COLUMNS + column]) - predicted.sum::<f64>()
        };
        (0..ROWS).map(|row| (0..COLUMNS).map(|column| at(row, column)).collect()).collect()
    }

    fn assert_near(found: &[f64], expected: impl Iterator<Item = f64>) {
        let expected: Vec<f64> = expected.collect();
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{found} {expected}");
        }
    }

    #[test]
    fn products_and_energies_are_those_of_the_residual() {
        let mut rng = Pcg64::seed_from_u64(1);
        let codes = codes(&mut rng);
        for rank in 0..3 {
            let components = (0..rank).map(|_| component(&mut rng)).collect();
            let residual = Residual { codes: &codes, columns: COLUMNS, components };
            let values = held(&residual);
            let weights: Vec<f64> = (0..ROWS.max(COLUMNS)).map(|_| rng.random()).collect();

            let found = residual.times_columns(&weights[..COLUMNS]);
            let product = |row: &Vec<f64>| row.iter().zip(&weights).map(|(a, b)| a * b).sum();
            assert_near(&found, values.iter().map(product));

            let found = residual.times_rows(&weights[..ROWS]);
            let product = |column| (0..ROWS).map(|row| values[row][column] * weights[row]).sum();
            assert_near(&found, (0..COLUMNS).map(product));

            let mut scales = [0.0_f64; ROWS];
            let mut sums = [1.0; COLUMNS];
            passes::add_energies(&residual, &weights[..COLUMNS], &mut scales, &mut sums);
            let scale = |row: &Vec<f64>| {
                let energy: f64 = row.iter().zip(&weights).map(|(a, weight)| a * a * weight).sum();
                (energy / COLUMNS as f64 + FLOOR).sqrt()
            };
            assert_near(&scales, values.iter().map(scale));
            let sum = |column: usize| {
                1.0 + (0..ROWS).map(|row| (values[row][column] / scales[row]).powi(2)).sum::<f64>()
            };
            assert_near(&sums, (0..COLUMNS).map(sum));
        }
    }

    #[test]
    fn an_outer_product_is_found_and_none_in_noise() {
        let mut rng = Pcg64::seed_from_u64(2);
        let sides: [Vec<f64>; 2] =
            [ROWS, COLUMNS].map(|count| (0..count).map(|_| rng.random_range(-5.0..5.0)).collect());
        let codes: Vec<i32> = sides[0]
            .iter()
            .flat_map(|row| sides[1].iter().map(move |column| (row * column).round() as i32))
            .collect();
        let layout = Layout { count: codes.len(), columns: COLUMNS };
        let factors = fit(&codes, layout, 12.0);
        let energy = |values: &[i32]| values.iter().map(|value| value.pow(2)).sum::<i32>();
        let left = energy(&factors.residual(&codes, COLUMNS));
        assert!(left * 50 < energy(&codes), "{left} of {}", energy(&codes));

        let noise = self::codes(&mut rng);
        assert_eq!(fit(&noise, layout, 12.0), Factors::default());
    }
}
