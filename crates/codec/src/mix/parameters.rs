//! What the encoder chooses for one tensor under the mixing coder.

use super::factors::Factors;
use super::side;
use crate::cursor::{Cursor, write_varint};
use crate::error::CodecError;
use crate::layout::Layout;

/// What is summed over the codes of a line to know its scale. Squares tell the scale of Gaussian codes from
/// fewer of them, magnitudes that of codes with heavy tails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statistic {
    Magnitude,
    Square,
}

impl Statistic {
    /// The statistic of a code of this magnitude.
    #[inline(always)]
    pub(super) fn of(self, magnitude: u32) -> u32 {
        match self {
            Self::Magnitude => magnitude,
            Self::Square => magnitude.min(65535).pow(2),
        }
    }

    /// Its power of the scale, as a shift: a square has twice the logarithm.
    #[inline(always)]
    pub(super) fn log_shift(self) -> u32 {
        match self {
            Self::Magnitude => 0,
            Self::Square => 1,
        }
    }

    /// Mean over some values in units of 1/16, within 1 and 2^24.
    fn mean(self, values: &[i32]) -> u32 {
        let sum: u64 = values.iter().map(|value| u64::from(self.of(value.unsigned_abs()))).sum();
        (sum.saturating_mul(16) / values.len().max(1) as u64).clamp(1, 1 << 24) as u32
    }
}

/// What the encoder chooses per tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// What the scales of rows and columns are estimated from.
    pub(super) statistic: Statistic,
    /// Mean of the statistic in units of 1/16, at least 1: the reference for all scales.
    pub(crate) mean: u32,
    /// Low bits of a magnitude that are spelled apart.
    pub(crate) low_bits: u32,
    /// Weight of the mean against the row's and the column's own codes, in codes.
    pub(crate) row_prior: u32,
    pub(crate) column_prior: u32,
    /// Statistic of each row and column against the mean, in quarter octaves; empty when all are 0.
    pub(crate) row_levels: Vec<i8>,
    pub(crate) column_levels: Vec<i8>,
    /// Whether signs are predicted or cost one bit each.
    pub(crate) predict_signs: bool,
    /// Prediction of the codes themselves.
    pub(crate) factors: Factors,
    /// Whether the codes are indices on a trellis, each predicted by the quantiser that it belongs to.
    pub(super) trellis: bool,
}

/// How fine the factors are that are tried: twelve would pay for uniform scales; uneven ones want finer factors.
const FINENESS: [f64; 3] = [12.0, 4.0, 2.0];

/// Parameters with what they make of the codes.
struct Candidate {
    parameters: Parameters,
    blocks: Vec<Vec<u8>>,
    size: usize,
}

impl Candidate {
    fn new(parameters: Parameters, codes: &[i32], layout: Layout) -> Self {
        let blocks = super::codes::encode_blocks(codes, layout, &parameters);
        let mut tables = Vec::new();
        parameters.write(&mut tables);
        let size = tables.len() + blocks.iter().map(Vec::len).sum::<usize>();
        Self { parameters, blocks, size }
    }

    /// Halves, or doubles, one prior for as long as that saves bytes.
    fn climb(&mut self, codes: &[i32], layout: Layout, prior: fn(&mut Parameters) -> &mut u32) {
        for step in [|prior: u32| prior / 2, |prior: u32| prior * 2] {
            let before = self.size;
            loop {
                let mut next = self.parameters.clone();
                let value = step(*prior(&mut next));
                if !(1..=1 << 15).contains(&value) {
                    break;
                }
                *prior(&mut next) = value;
                if !self.challenge(next, codes, layout) {
                    break;
                }
            }
            if self.size < before {
                break;
            }
        }
    }

    /// Replaces the candidate by a smaller one, and tells whether it was.
    fn challenge(&mut self, parameters: Parameters, codes: &[i32], layout: Layout) -> bool {
        let candidate = Self::new(parameters, codes, layout);
        let smaller = candidate.size < self.size;
        if smaller {
            *self = candidate;
        }
        smaller
    }
}

/// Every `every`-th row of codes, with their layout.
fn every_row(codes: &[i32], layout: Layout, every: usize) -> (Vec<i32>, Layout) {
    let rows = codes.chunks(layout.columns).step_by(every);
    let sample = rows.flatten().copied().collect::<Vec<i32>>();
    let layout = Layout { count: sample.len(), ..layout };
    (sample, layout)
}

impl Parameters {
    /// Parameters for values around zero without further structure.
    pub(super) fn with_mean(mean: u32) -> Self {
        let mut low_bits = 0;
        // More than two or three flags per value would be slow, and save nothing.
        while (mean >> low_bits) >= 40 {
            low_bits += 1;
        }
        Self {
            statistic: Statistic::Magnitude,
            mean,
            low_bits,
            row_prior: 32,
            column_prior: 32,
            row_levels: Vec::new(),
            column_levels: Vec::new(),
            predict_signs: false,
            factors: Factors::default(),
            trellis: false,
        }
    }

    /// The same for indices on a trellis.
    #[must_use]
    pub(crate) fn on_trellis(self) -> Self {
        Self { trellis: true, ..self }
    }

    /// [`Parameters::with_mean`] of these values.
    pub(super) fn plain(values: &[i32]) -> Self {
        Self::with_mean(Statistic::Magnitude.mean(values))
    }

    /// The smallest of several candidates for these codes, with their blocks.
    pub(crate) fn choose(codes: &[i32], layout: Layout) -> (Self, Vec<Vec<u8>>) {
        Self::choose_from(Self::plain(codes), codes, layout)
    }

    /// As [`Parameters::choose`], for the indices of codes on a trellis.
    pub(crate) fn choose_on_trellis(indices: &[i32], layout: Layout) -> (Self, Vec<Vec<u8>>) {
        Self::choose_from(Self::plain(indices).on_trellis(), indices, layout)
    }

    /// As [`Parameters::choose`] by every `every`-th row: what has paid for these is taken for all.
    pub(crate) fn choose_by_rows(
        codes: &[i32],
        layout: Layout,
        every: usize,
    ) -> (Self, Vec<Vec<u8>>) {
        let (sample, of_sample) = every_row(codes, layout, every);
        Self::choose(&sample, of_sample).0.of_all(codes, layout)
    }

    /// As [`Parameters::choose_by_rows`], for the indices of codes on a trellis.
    pub(crate) fn choose_on_trellis_by_rows(
        indices: &[i32],
        layout: Layout,
        every: usize,
    ) -> (Self, Vec<Vec<u8>>) {
        let (sample, of_sample) = every_row(indices, layout, every);
        Self::choose_on_trellis(&sample, of_sample).0.of_all(indices, layout)
    }

    /// The same choices for all codes of a tensor.
    fn of_all(self, codes: &[i32], layout: Layout) -> (Self, Vec<Vec<u8>>) {
        let factors = match self.factors.components.is_empty() {
            true => Factors::default(),
            false => super::fit::fit(codes, layout, FINENESS[0]),
        };
        let residual = factors.residual(codes, layout.columns);
        let mean = self.statistic.mean(&residual);
        let (rows, columns) = side::levels(&residual, layout, self.statistic, mean);
        let kept = |chosen: Vec<i8>, all: Vec<i8>| if chosen.is_empty() { chosen } else { all };
        let (row_levels, column_levels) =
            (kept(self.row_levels, rows), kept(self.column_levels, columns));
        // Squares are tried where there are no low bits.
        let low_bits = match self.statistic {
            Statistic::Magnitude => Self::with_mean(mean).low_bits,
            Statistic::Square => 0,
        };
        let parameters = Self { mean, low_bits, factors, row_levels, column_levels, ..self };
        let blocks = super::codes::encode_blocks(codes, layout, &parameters);
        (parameters, blocks)
    }

    fn choose_from(start: Self, codes: &[i32], layout: Layout) -> (Self, Vec<Vec<u8>>) {
        let trellis = start.trellis;
        let mut best = Candidate::new(start, codes, layout);
        for fineness in FINENESS {
            let factors = super::fit::fit(codes, layout, fineness);
            if factors.components.is_empty() {
                break;
            }
            let residual = factors.residual(codes, layout.columns);
            best.challenge(
                Self { factors, predict_signs: true, trellis, ..Self::plain(&residual) },
                codes,
                layout,
            );
        }
        if !best.parameters.predict_signs {
            best.challenge(Self { predict_signs: true, ..best.parameters.clone() }, codes, layout);
        }
        let residual = best.parameters.factors.residual(codes, layout.columns);
        if best.parameters.low_bits == 0 {
            let statistic = Statistic::Square;
            let mean = statistic.mean(&residual);
            best.challenge(Self { statistic, mean, ..best.parameters.clone() }, codes, layout);
        }
        let (row_levels, column_levels) =
            side::levels(&residual, layout, best.parameters.statistic, best.parameters.mean);
        // A stated scale deserves more trust than a common mean.
        best.challenge(
            Self { row_levels, row_prior: 256, ..best.parameters.clone() },
            codes,
            layout,
        );
        best.challenge(
            Self { column_levels, column_prior: 256, ..best.parameters.clone() },
            codes,
            layout,
        );
        best.climb(codes, layout, |parameters| &mut parameters.row_prior);
        best.climb(codes, layout, |parameters| &mut parameters.column_prior);
        (best.parameters, best.blocks)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_varint(out, u64::from(self.mean));
        let levels = u8::from(!self.row_levels.is_empty()) << 6
            | u8::from(!self.column_levels.is_empty()) << 7;
        out.push(self.low_bits as u8 | u8::from(self.predict_signs) << 5 | levels);
        out.push((self.row_prior.trailing_zeros() | self.column_prior.trailing_zeros() << 4) as u8);
        for levels in
            [&self.row_levels, &self.column_levels].into_iter().filter(|levels| !levels.is_empty())
        {
            side::write(levels, out);
        }
        let squares = u8::from(self.statistic == Statistic::Square) << 5;
        out.push(self.factors.components.len() as u8 | squares);
        self.factors.write(out);
    }

    pub(crate) fn read(cursor: &mut Cursor, layout: Layout) -> Result<Self, CodecError> {
        let mean = cursor.varint()?;
        let flags = cursor.u8()?;
        let priors = u32::from(cursor.u8()?);
        if !(1..=1 << 24).contains(&mean) {
            return Err(cursor.corrupt("the parameters of the mixing coder are out of range"));
        }
        let mut levels = |bit: u8, count: usize| match flags & bit {
            0 => Ok(Vec::new()),
            _ => side::read_levels(cursor, count),
        };
        let (row_levels, column_levels) =
            (levels(64, layout.rows())?, levels(128, layout.columns)?);
        let rank = cursor.u8()?;
        Ok(Self {
            statistic: if rank & 32 == 0 { Statistic::Magnitude } else { Statistic::Square },
            row_levels,
            column_levels,
            mean: mean as u32,
            low_bits: u32::from(flags & 31),
            row_prior: 1 << (priors & 15),
            column_prior: 1 << (priors >> 4),
            predict_signs: flags & 32 != 0,
            factors: Factors::read(cursor, layout, rank & !32)?,
            trellis: false,
        })
    }
}
