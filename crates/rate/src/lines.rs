//! How rows and columns of a matrix differ in scale: what a coder that adapts to both knows.

use multiversion::multiversion;

/// Codes of average magnitude that a line is assumed to have more: the fewer it has, the less it says.
const PRIOR: f64 = 8.0;
/// Levels of lines per octave of scale.
const LEVELS: f64 = 16.0;
/// Sums below this are remembered with their levels.
const REMEMBERED: usize = 4096;
/// Furthest level from the mean.
const FURTHEST: f64 = 8.0 * LEVELS;

/// Sums of the magnitudes of the codes of some rows of a matrix, along both its dimensions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineSums {
    rows: Vec<f64>,
    columns: Vec<f64>,
    largest: f32,
}

impl LineSums {
    /// Sums over the codes round(w/Δ) of rows of `columns` weights each.
    ///
    /// # Panics
    /// If there are no columns.
    pub fn of(weights: &[f32], columns: usize, step: f32) -> Self {
        let mut by_column = vec![0.0; columns];
        let (rows, largest) = add_rows(weights, step, &mut by_column);
        Self { rows, columns: by_column.into_iter().map(f64::from).collect(), largest }
    }

    /// Adds the rows that follow.
    pub fn append(&mut self, following: Self) {
        self.rows.extend(following.rows);
        self.columns.resize(self.columns.len().max(following.columns.len()), 0.0);
        let pairs = self.columns.iter_mut().zip(following.columns);
        pairs.for_each(|(sum, more)| *sum += more);
        self.largest = self.largest.max(following.largest);
    }

    /// Largest magnitude of a code.
    pub fn largest(&self) -> f32 {
        self.largest
    }

    /// The sum of each row.
    pub fn rows(&self) -> &[f64] {
        &self.rows
    }

    /// The sum of each column.
    pub fn columns(&self) -> &[f64] {
        &self.columns
    }

    /// The levels of all rows and columns.
    pub fn levels(&self) -> LineLevels {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        let total: f64 = self.rows.iter().sum();
        let mean = total / ((rows * columns).max(1)) as f64;
        let level = |sum: f64, count: usize| {
            let own = (sum + PRIOR * mean) / (count as f64 + PRIOR);
            let octaves = (laplace_scale(own) / laplace_scale(mean)).log2();
            // Without a code other than zero there is nothing to tell lines apart by.
            if octaves.is_nan() { 0 } else { (LEVELS * octaves).clamp(-FURTHEST, FURTHEST) as i16 }
        };
        // Sums are whole numbers, and many rows of a table have the same.
        let levels = |sums: &[f64], count: usize| {
            let mut known = vec![None; REMEMBERED];
            let of = |sum: &f64| match known.get_mut(*sum as usize) {
                Some(known) => *known.get_or_insert_with(|| level(*sum, count)),
                None => level(*sum, count),
            };
            sums.iter().map(of).collect()
        };
        LineLevels {
            rows: levels(&self.rows, columns),
            columns: levels(&self.columns, rows),
            largest: self.largest,
        }
    }
}

/// The scale of each row and each column of a matrix relative to the whole, in sixteenths of an octave, and how large its
/// codes are.
///
/// The scale of a weight is that of the whole times that of its row times that of its column. A line's scale is that
/// of a Laplace distribution whose codes have the line's mean magnitude M: s = Δ / 2·asinh(1/2M).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LineLevels {
    /// Those of rows.
    pub rows: Vec<i16>,
    /// Those of columns.
    pub columns: Vec<i16>,
    /// Largest magnitude of a code.
    pub largest: f32,
}

impl LineLevels {
    /// All levels, those of rows first, and the largest magnitude, as numbers for a checkpoint.
    pub fn numbers(&self) -> impl Iterator<Item = f64> {
        let levels = self.rows.iter().chain(&self.columns).map(|level| f64::from(*level));
        levels.chain([f64::from(self.largest)])
    }

    /// Takes the [`LineLevels::numbers`] of a matrix of so many rows and columns; `None` if there are not enough, or one is no
    /// level or no magnitude.
    ///
    /// ```
    /// use backslash_rate::{LineLevels, LineSums};
    ///
    /// let levels = LineSums::of(&[8.0, 7.0, 1.0, 0.0], 2, 1.0).levels(); // two rows of two
    /// assert_eq!(LineLevels::from_numbers(2, 2, &mut levels.numbers()), Some(levels.clone()));
    /// assert_eq!(LineLevels::from_numbers(2, 3, &mut levels.numbers()), None);
    /// ```
    pub fn from_numbers(
        rows: usize,
        columns: usize,
        numbers: &mut impl Iterator<Item = f64>,
    ) -> Option<Self> {
        let is_level = |number: &f64| number.abs() <= FURTHEST && number.fract() == 0.0;
        let levels = numbers.take(rows + columns).map(|n| is_level(&n).then_some(n as i16));
        let mut rows_first = levels.collect::<Option<Vec<i16>>>()?;
        // Not there where levels are missing either.
        let largest = numbers.next().filter(|largest| *largest >= 0.0)? as f32;
        Some(Self { columns: rows_first.split_off(rows), rows: rows_first, largest })
    }
}

/// Scale in steps of the Laplace distribution whose codes have that mean magnitude: with a cell of one step around
/// each, E|q| = 1/(2·sinh(Δ/2s)).
fn laplace_scale(mean_magnitude: f64) -> f64 {
    0.5 / (0.5 / mean_magnitude).asinh()
}

/// Adds the magnitudes of rows to the sums of the columns; the sum of each row, and the largest magnitude.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl", "x86_64+avx2+fma"))]
fn add_rows(weights: &[f32], step: f32, by_column: &mut [f32]) -> (Vec<f64>, f32) {
    const LANES: usize = 16;
    let codes_per_unit = 1.0 / step;
    let columns = by_column.len();
    let mut by_row = Vec::with_capacity(weights.len() / columns + 1);
    let mut most = [0.0_f32; LANES];
    for row in weights.chunks(columns) {
        let mut sums = [0.0_f32; LANES];
        let mut add = |row: &[f32], by_column: &mut [f32]| {
            for (lane, (weight, sum)) in row.iter().zip(by_column).enumerate() {
                let magnitude = (weight * codes_per_unit).round_ties_even().abs();
                *sum += magnitude;
                sums[lane] += magnitude;
                most[lane] = most[lane].max(magnitude);
            }
        };
        let (whole, rest) = row.as_chunks::<LANES>();
        let (whole_columns, rest_columns) = by_column.as_chunks_mut::<LANES>();
        for (row, by_column) in whole.iter().zip(whole_columns.iter_mut()) {
            add(row, by_column);
        }
        add(rest, rest_columns);
        by_row.push(f64::from(sums.iter().sum::<f32>()));
    }
    (by_row, most.into_iter().fold(0.0, f32::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_all_rows_however_they_are_cut() {
        let weights: Vec<f32> = (0..60).map(|i| ((i * 37) % 23) as f32 - 11.0).collect();
        let whole = LineSums::of(&weights, 20, 2.0);
        let codes: Vec<f64> =
            weights.iter().map(|w| f64::from((w / 2.0).round_ties_even())).collect();
        let by_row: Vec<f64> =
            codes.chunks(20).map(|row| row.iter().map(|q| q.abs()).sum()).collect();
        assert_eq!(whole.rows, by_row);
        assert_eq!(whole.columns[3], codes[3].abs() + codes[23].abs() + codes[43].abs());
        assert_eq!(whole.largest(), 6.0);
        let mut parts = LineSums::default();
        weights.chunks(20).for_each(|row| parts.append(LineSums::of(row, 20, 2.0)));
        assert_eq!(parts, whole);
    }

    /// E|q| = Σ q·P(q) of a discretised Laplace distribution.
    #[test]
    fn the_scale_is_that_of_the_mean_magnitude() {
        for scale in [0.05_f64, 0.3, 1.0, 7.0] {
            let cell = |q: f64| (-q / scale).exp() * (0.5 / scale).sinh();
            let mean: f64 = (1..4000).map(|q| 2.0 * f64::from(q) * cell(f64::from(q)) / 1.0).sum();
            assert!((laplace_scale(mean) / scale - 1.0).abs() < 1e-6, "{scale}: {mean}");
        }
    }

    #[test]
    fn lines_that_are_wider_have_a_higher_level() {
        // Row 0 has twice the weights of row 1, and columns are alike.
        let mut weights = vec![8.0_f32; 1000];
        weights.extend([4.0; 1000]);
        let levels = LineSums::of(&weights, 1000, 0.01).levels();
        assert!((15..=16).contains(&(levels.rows[0] - levels.rows[1])), "{:?}", levels.rows);
        assert!(levels.columns.iter().all(|level| level.abs() <= 1));
        let numbers: Vec<f64> = levels.numbers().collect();
        let read =
            |numbers: &[f64]| LineLevels::from_numbers(2, 1000, &mut numbers.iter().copied());
        assert_eq!(read(&numbers), Some(levels));
        for wrong in [128.5, 129.0, f64::NAN] {
            assert_eq!(read(&[&numbers[..1001], &[wrong], &numbers[1002..]].concat()), None);
        }
        assert_eq!(read(&numbers[..1002]), None);
        assert_eq!(read(&[&numbers[..1002], &[-1.0]].concat()), None);
        // Zeros have no levels.
        let none = LineSums::of(&[0.0; 12], 4, 1.0).levels();
        assert_eq!(none, LineLevels { rows: vec![0; 3], columns: vec![0; 4], largest: 0.0 });
    }
}
