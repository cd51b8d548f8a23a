//! What codes cost under a mixture, looked up: rounded weights take few values.

use std::ops::RangeInclusive;

use multiversion::multiversion;

use crate::lines::LineLevels;
use crate::{CodeLength, LaplaceMixture, RateSums};

/// Most entries of a class, the last of which stands for all codes that are computed one by one.
const LARGEST: usize = 128;
/// Classes of scale, four per octave, the middle one being that of the whole matrix.
const CLASSES: usize = 33;
const LEVELS_PER_CLASS_LOG2: u32 = 2;
/// Counts of each code that are kept apart, so that equal codes in a row do not wait for one another.
const COUNTERS: usize = 4;
/// Slopes of a table, those that stay empty included: a power of two, so that a masked entry is known to be within.
const SLOPES: usize = (CLASSES * LARGEST).next_power_of_two();

/// The code lengths of the codes of a matrix, with their derivatives.
///
/// The weights of a row and a column have the scales of a [`LaplaceMixture`] times those of their row and their column,
/// as a coder has it that adapts to both. For the same levels, what [`CodeLength::accumulate`] computes for every point,
/// this reads from tables of the codes q, at the points q·Δ.
#[derive(Clone, Debug)]
pub struct CodeTables {
    step: f32,
    levels: LineLevels,
    /// log₂ of the entries of a class.
    width_log2: u32,
    classes: Vec<CodeLength>,
    /// ∂bits/∂x by class and magnitude; the last entry of a class is 0, for codes that are not in the table.
    slopes: Box<[f32; SLOPES]>,
    sums: Vec<RateSums>,
}

/// What the codes of a matrix are multiplied by, beside the step: that of row i and column j by r_i·c_j.
#[derive(Clone, Copy, Debug)]
pub struct LineFactors<'a> {
    /// r, by row.
    pub rows: &'a [f32],
    /// c, by column.
    pub columns: &'a [f32],
}

impl LaplaceMixture {
    /// The code lengths of the codes of a matrix, or of a part of one, by the levels of its rows and columns. The tables go as
    /// far as the largest magnitude of its codes: larger ones are computed one by one.
    pub fn codes_at_levels(&self, step: f32, levels: LineLevels) -> CodeTables {
        let entries = (levels.largest.min(LARGEST as f32) as usize + 2).next_power_of_two();
        let width = entries.min(LARGEST);
        let of_class = |class: usize| {
            let octaves = (class as f64 - (CLASSES / 2) as f64) / 4.0;
            let wider = octaves * std::f64::consts::LN_2;
            Self { log_scales: self.log_scales.map(|log| log + wider), ..*self }.at_step(step)
        };
        let classes: Vec<CodeLength> = (0..CLASSES).map(of_class).collect();
        let mut slopes = Box::new([0.0; SLOPES]);
        let mut sums = vec![RateSums::default(); CLASSES * width];
        for class in classes_of(&levels) {
            let code_length = &classes[class];
            for magnitude in 0..width - 1 {
                let (entry, mut slope) = (class * width + magnitude, [0.0]);
                let point = magnitude as f32 * step;
                sums[entry] = code_length.accumulate(&[point], 1.0, &mut slope);
                // At zero the code length is least.
                slopes[entry] = if magnitude == 0 { 0.0 } else { slope[0] };
            }
        }
        let width_log2 = width.ilog2();
        CodeTables { step, levels, width_log2, classes, slopes, sums }
    }
}

/// The classes that rows and columns of these levels can have.
fn classes_of(levels: &LineLevels) -> RangeInclusive<usize> {
    let extremes = |lines: &[i16]| {
        [lines.iter().min(), lines.iter().max()].map(|level| level.copied().unwrap_or(0))
    };
    let [rows, columns] = [&levels.rows, &levels.columns].map(|lines| extremes(lines));
    usize::from(class_of(rows[0], columns[0]))..=usize::from(class_of(rows[1], columns[1]))
}

/// The class of weights in a row and a column of these levels.
#[inline(always)]
fn class_of(row: i16, column: i16) -> u16 {
    const MIDDLE: i16 = (CLASSES / 2) as i16;
    const HALF_CLASS: i16 = 1 << (LEVELS_PER_CLASS_LOG2 - 1);
    let class = (row + column + HALF_CLASS) >> LEVELS_PER_CLASS_LOG2;
    (class + MIDDLE).clamp(0, 2 * MIDDLE) as u16
}

impl CodeTables {
    /// Rounds rows of weights w, the first being row `first_row`, to codes q = round(w/Δ), ties to even, and adds
    /// `weight_of_bit` · ∂bits/∂x at x = q·Δ to each entry of `gradient`. Returned are the sums over the codes.
    ///
    /// ```
    /// use backslash_rate::{LaplaceMixture, LineSums};
    ///
    /// let (mixture, step) = (LaplaceMixture::around(0.1), 0.25);
    /// let weights = [0.3, 0.1, -0.2, 0.0, 0.1, 0.1]; // two rows of three
    /// let lines = LineSums::of(&weights, 3, step);
    /// let tables = mixture.codes_at_levels(step, lines.levels());
    /// let mut gradient = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
    /// let sums = tables.accumulate(0, &weights, 1.0, &mut gradient);
    /// // A code of 1 costs more than one of 0, whose cost does not depend on the weight.
    /// assert!(gradient[0] > 0.0 && gradient[1] == 0.0 && gradient[2] < 1.0);
    /// assert!(sums.bits > 2.0 && sums.bits < 20.0);
    /// ```
    ///
    /// # Panics
    /// If the slices differ in length, or hold more rows than follow the first, or no whole ones.
    pub fn accumulate(
        &self,
        first_row: usize,
        weights: &[f32],
        weight_of_bit: f32,
        gradient: &mut [f32],
    ) -> RateSums {
        let columns = self.levels.columns.len();
        let ones = vec![1.0; columns.max(weights.len() / columns.max(1))];
        let factors = LineFactors { rows: &ones, columns: &ones };
        self.accumulate_scaled(first_row, weights, factors, weight_of_bit, gradient)
    }

    /// As [`CodeTables::accumulate`] where x is what the code in row i and column j stands for over r_i·c_j, as `weights` are,
    /// and `gradient` is by what the code stands for: added is `weight_of_bit` · ∂bits/∂x / r_i·c_j. The factors are those of
    /// these rows, and of all columns.
    ///
    /// # Panics
    /// Those of [`CodeTables::accumulate`], and if there are fewer factors than rows or columns.
    pub fn accumulate_scaled(
        &self,
        first_row: usize,
        weights: &[f32],
        factors: LineFactors<'_>,
        weight_of_bit: f32,
        gradient: &mut [f32],
    ) -> RateSums {
        let columns = self.levels.columns.len();
        assert_eq!(weights.len(), gradient.len());
        assert!(weights.len().is_multiple_of(columns.max(1)), "whole rows");
        if columns == 0 {
            return RateSums::default();
        }
        let rows = weights.len() / columns;
        let levels = &self.levels.rows[first_row..first_row + rows];
        let factors =
            LineFactors { rows: &factors.rows[..rows], columns: &factors.columns[..columns] };
        let mut entries = vec![0; weights.len()];
        read(self, levels, weights, factors, weight_of_bit, gradient, &mut entries);
        let mut counts = vec![[0; COUNTERS]; self.sums.len()];
        count(&entries, &mut counts);
        let last = (1 << self.width_log2) - 1;
        let mut sums = RateSums::default();
        let mut beyond = false;
        for (entry, (each, counts)) in self.sums.iter().zip(counts).enumerate() {
            let count: u32 = counts.iter().sum();
            match entry & last == last {
                true => beyond |= count > 0,
                false if count > 0 => sums += each.times(f64::from(count)),
                false => (),
            }
        }
        if beyond {
            sums += self.compute(weights, factors, weight_of_bit, gradient, &entries);
        }
        sums
    }

    /// The codes that are not in the table.
    fn compute(
        &self,
        weights: &[f32],
        factors: LineFactors<'_>,
        weight_of_bit: f32,
        gradient: &mut [f32],
        entries: &[u16],
    ) -> RateSums {
        let last = (1 << self.width_log2) - 1;
        let mut sums = RateSums::default();
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| *entry & last == last)
        {
            let point = round(weights[index], 1.0 / self.step) * self.step;
            let code_length = &self.classes[usize::from(entry >> self.width_log2)];
            let (row, column) = (index / factors.columns.len(), index % factors.columns.len());
            let factor = factors.rows[row] * factors.columns[column];
            let gradient = &mut gradient[index..=index];
            sums += code_length.accumulate(&[point], weight_of_bit / factor, gradient);
        }
        sums
    }
}

#[inline(always)]
fn round(weight: f32, codes_per_unit: f32) -> f32 {
    (weight * codes_per_unit).round_ties_even()
}

/// A small whole number: after 2²³ is added it is what the mantissa ends in, which takes fewer instructions than a conversion
/// that minds numbers out of range.
#[inline(always)]
fn whole(number: f32) -> u16 {
    (number + 8_388_608.0).to_bits() as u16
}

/// The entries of codes of rows, and the gradient of those that are in the table.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn read<'a>(
    tables: &CodeTables,
    levels: &[i16],
    weights: &[f32],
    factors: LineFactors<'a>,
    weight_of_bit: f32,
    gradient: &mut [f32],
    entries: &mut [u16],
) {
    let codes_per_unit = 1.0 / tables.step;
    let slopes = &*tables.slopes;
    let last = ((1 << tables.width_log2) - 1) as f32;
    let columns = tables.levels.columns.len();
    let rows = weights.chunks(columns).zip(gradient.chunks_mut(columns));
    let rows = rows.zip(entries.chunks_mut(columns)).zip(levels.iter().zip(factors.rows));
    for (((weights, gradient), entries), (level, row_factor)) in rows {
        let columns = tables.levels.columns.iter().zip(factors.columns).zip(weights);
        let columns = columns.zip(gradient.iter_mut().zip(entries));
        for (((column, factor), weight), (gradient, entry)) in columns {
            let code = round(*weight, codes_per_unit);
            *entry = (class_of(*level, *column) << tables.width_log2) + whole(code.abs().min(last));
            let slope = slopes[usize::from(*entry) % SLOPES];
            *gradient += weight_of_bit * slope.copysign(code) / (row_factor * factor);
        }
    }
}

/// Counts entries, in turn with one of the counters of each.
fn count(entries: &[u16], counts: &mut [[u32; COUNTERS]]) {
    let (groups, rest) = entries.as_chunks::<COUNTERS>();
    for group in groups.iter().map(<[u16; COUNTERS]>::as_slice).chain([rest]) {
        for (counter, entry) in group.iter().enumerate() {
            counts[usize::from(*entry)][counter] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LineSums;
    use proptest::prelude::*;

    proptest! {
        /// The tables give what the code length of each code gives, at the scale of its row and its column.
        #[test]
        fn they_agree_with_the_code_length_of_each_point(
            columns in 1_usize..300,
            mut weights in prop::collection::vec(-1.0_f32..1.0, 300..1500),
            far in -2e4_f32..2e4,
            step in 0.003_f32..0.6,
            logit in -3.0_f64..3.0,
            (narrow, wide) in (0.004_f64..0.3, 0.004_f64..0.3),
            weight_of_bit in 0.0_f32..2.0,
            largest in 0.0_f32..1.0,
        ) {
            let mixture = LaplaceMixture { logit, log_scales: [narrow.ln(), wide.ln()] };
            weights.truncate(weights.len() / columns * columns);
            weights[0] = far;
            weights.iter_mut().skip(columns).step_by(columns).for_each(|weight| *weight *= 0.2);
            let lines = LineSums::of(&weights, columns, step);
            let levels = lines.levels();
            let before: Vec<f32> = weights.iter().map(|w| 0.1 * w - 0.01).collect();
            let factors: Vec<f32> = (0..weights.len()).map(|line| 0.7 + 0.2 * (line % 5) as f32).collect();

            let mut expected = before.clone();
            let mut one_by_one = RateSums::default();
            for (index, (weight, gradient)) in weights.iter().zip(&mut expected).enumerate() {
                let point = (weight * (1.0 / step)).round_ties_even() * step;
                let level = levels.rows[index / columns] + levels.columns[index % columns];
                let quarters = f64::from((level + 2).div_euclid(4)).clamp(-16.0, 16.0);
                let wider = 0.25 * quarters * std::f64::consts::LN_2;
                let own = LaplaceMixture {
                    log_scales: mixture.log_scales.map(|log| log + wider),
                    ..mixture
                };
                let mut slope = [0.0];
                one_by_one += own.at_step(step).accumulate(&[point], weight_of_bit, &mut slope);
                *gradient += slope[0] / (factors[index / columns] * factors[index % columns]);
            }

            // Also where codes are larger than was thought.
            let levels = LineLevels { largest: largest * lines.largest(), ..levels };
            let tables = mixture.codes_at_levels(step, levels);
            let mut gradient = before;
            let cut = weights.len() / columns / 2;
            let (above, below) = weights.split_at(cut * columns);
            let (gradient_above, gradient_below) = gradient.split_at_mut(cut * columns);
            let of_rows = |first| LineFactors { rows: &factors[first..], columns: &factors };
            let mut sums =
                tables.accumulate_scaled(0, above, of_rows(0), weight_of_bit, gradient_above);
            sums +=
                tables.accumulate_scaled(cut, below, of_rows(cut), weight_of_bit, gradient_below);
            // At the middle of the zero cell rounding leaves a slope of some 1e-7 of its terms.
            for (gradient, expected) in gradient.iter().zip(&expected) {
                prop_assert!((gradient - expected).abs() <= 1e-4 * (1.0 + expected.abs()));
            }
            let near = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-4 * (1.0 + scale.abs());
            let bits = one_by_one.bits;
            prop_assert!(near(sums.bits, bits, bits));
            prop_assert!(near(sums.by_log_step, one_by_one.by_log_step, bits));
            prop_assert!(near(sums.by_logit, one_by_one.by_logit, bits));
            for (scale, one) in sums.by_log_scales.iter().zip(one_by_one.by_log_scales) {
                prop_assert!(near(*scale, one, bits));
            }
        }
    }
}
