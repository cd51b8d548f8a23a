//! The model of weight codes: which contexts predict a code, and in which decisions it is spelled.

use rayon::prelude::*;

use super::factors::round;
use super::model::{Counter, INPUTS, Mixer, Rates, code_plain};
use super::parameters::Parameters;
use super::range::{BitCoder, Decoder, Encoder};
use super::side::scale_by_level;
use super::tables::{TABLES, Tables};
use crate::error::CodecError;
use crate::layout::Layout;
use crate::trellis::{next_state, quantiser};

/// Magnitudes from here on are spelled by an exponential Golomb code.
const MAX_FLAGS: usize = 24;
/// Sizes of the contexts, per decision.
const SIZES: [usize; INPUTS] = [128, 64, 16 * ABOVE, 1024, 1024, 1024];
/// Values of the code above as a context: within ±20 of the prediction.
const ABOVE: usize = 41;
/// Rows whose stated level is this or less are coded by a model of their own: in embeddings they are the
/// rows of tokens that training has hardly seen, which resemble each other and nothing else.
const QUIET_LEVEL: i8 = -6;
const fn offsets() -> [usize; INPUTS] {
    let mut offsets = [0; INPUTS];
    let mut index = 1;
    while index < INPUTS {
        offsets[index] = offsets[index - 1] + SIZES[index - 1];
        index += 1;
    }
    offsets
}
const OFFSETS: [usize; INPUTS] = offsets();
/// Counters of one kind of decision: the contexts, padded to a power of two so that indices need no check.
const CONTEXTS: usize = 4096;
const _: () = assert!(OFFSETS[INPUTS - 1] + SIZES[INPUTS - 1] <= CONTEXTS);
/// Counter sets: one per magnitude flag, three for signs, then those of the highest low bit by the number
/// of flags that are set.
const SIGN_SET: usize = MAX_FLAGS;
const LOW_SET: usize = MAX_FLAGS + 3;
const MAX_LOW_SET: usize = 7;
/// Counter sets without a trellis. On a trellis the second quantiser has as many of its own, of which those of signs
/// are not used: what is 0 in one quantiser is wider than in the other, which says nothing about signs.
const SETS: usize = LOW_SET + MAX_LOW_SET + 1;
/// Mixers: one per magnitude flag up to a limit, three for signs, one for low bits.
const MAX_FLAG_KIND: usize = 8;
const SIGN_KIND: usize = MAX_FLAG_KIND + 1;
const LOW_KIND: usize = SIGN_KIND + 3;
const KINDS: usize = LOW_KIND + 1;
/// Counters of the second low bit.
const SECOND_BITS: usize = 2 * (MAX_FLAGS + 1);

const RATES: Rates = Rates { counter_limit: 1023, mixer_shift: 7, common_shift: 4 };

/// Encodes all blocks of a tensor.
pub(super) fn encode_blocks(
    codes: &[i32],
    layout: Layout,
    parameters: &Parameters,
) -> Vec<Vec<u8>> {
    let blocks = codes.par_chunks(layout.block_codes()).enumerate();
    blocks
        .map(|(index, codes)| {
            encode(codes, layout.columns, index * layout.rows_per_block(), parameters)
        })
        .collect()
}

/// Encodes rows starting with row `first_row` of the tensor.
pub(crate) fn encode(
    codes: &[i32],
    columns: usize,
    first_row: usize,
    parameters: &Parameters,
) -> Vec<u8> {
    let mut coder = Encoder::new();
    let mut buffer = codes.to_vec();
    run(&mut coder, &mut buffer, columns, first_row, parameters);
    coder.finish()
}

/// Decodes rows starting with row `first_row` of the tensor.
///
/// # Errors
///
/// [`CodecError::Corrupt`] when the stream does not end with its bytes.
pub(crate) fn decode(
    bytes: &[u8],
    codes: &mut [i32],
    columns: usize,
    first_row: usize,
    parameters: &Parameters,
    place: &str,
) -> Result<(), CodecError> {
    let mut coder = Decoder::new(bytes);
    codes.fill(0);
    run(&mut coder, codes, columns, first_row, parameters);
    if coder.ended() {
        Ok(())
    } else {
        Err(CodecError::corrupt(place, "the stream does not end with its bytes"))
    }
}

/// Codes all rows with the instructions that the processor has; the result is the same on all.
fn run<C: BitCoder>(
    coder: &mut C,
    codes: &mut [i32],
    columns: usize,
    first_row: usize,
    parameters: &Parameters,
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
    {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        // SAFETY: the processor has the features; the functions are safe code compiled for them.
        #[allow(unsafe_code)]
        unsafe {
            if wide {
                run_avx512(coder, codes, columns, first_row, parameters);
            } else {
                run_avx2(coder, codes, columns, first_row, parameters);
            }
        }
        return;
    }
    code_rows(coder, codes, columns, first_row, parameters);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
fn run_avx2<C: BitCoder>(
    coder: &mut C,
    codes: &mut [i32],
    columns: usize,
    first_row: usize,
    parameters: &Parameters,
) {
    code_rows(coder, codes, columns, first_row, parameters);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
fn run_avx512<C: BitCoder>(
    coder: &mut C,
    codes: &mut [i32],
    columns: usize,
    first_row: usize,
    parameters: &Parameters,
) {
    code_rows(coder, codes, columns, first_row, parameters);
}

/// Each row by the model of its kind, made when the first such row comes.
#[inline(always)]
fn code_rows<C: BitCoder>(
    coder: &mut C,
    codes: &mut [i32],
    columns: usize,
    first_row: usize,
    parameters: &Parameters,
) {
    let tables = &**TABLES;
    let mut prediction = vec![0_i32; columns];
    let mut models = [None, None];
    // On a trellis the state of each column, otherwise zeros.
    let mut states = vec![0_u8; columns];
    for (row, codes) in (first_row..).zip(codes.chunks_mut(columns)) {
        parameters.factors.predict(row, &mut prediction);
        let level = parameters.row_levels.get(row).copied().unwrap_or(0);
        let model = models[usize::from(level <= QUIET_LEVEL)]
            .get_or_insert_with(|| Model::new(columns, parameters));
        model.row(coder, tables, level, codes, &prediction, &states);
        model.finish_row(tables, codes, &prediction);
        if parameters.trellis {
            for (state, index) in states.iter_mut().zip(codes.iter()) {
                *state = next_state(usize::from(*state), *index) as u8;
            }
        }
    }
}

/// What the sign of a residual is predicted from.
#[derive(Clone, Copy)]
struct Place {
    /// Sum of the residuals of the row so far, and their number.
    row_sum: i32,
    seen: u32,
    /// Context of the column.
    column: usize,
    /// Sixteenths between the prediction and the code below it.
    fraction: usize,
    /// The column itself, and the code above, as contexts.
    index: usize,
    above: usize,
}

/// Running sums of one column.
#[derive(Clone, Copy, Default)]
struct Column {
    /// 16 times the sum of the statistic that the prior stands for, and the sum over the codes themselves.
    start: u64,
    sum: u32,
    signed: i32,
    /// The last code.
    above: i32,
    /// The scale as 64·log2 relative to the mean.
    log: i32,
    /// Context of the sign, 0..32.
    sign: usize,
    /// 64·log2 of what a row's sum is compared with when it comes to this column.
    seen_log: i32,
    /// The column itself as a context, at most 1024 of them, and its sixteenth of the row.
    place: u16,
    group: u16,
}

/// A bin of 2^shift/64 octaves, with the mean in the middle of `count` bins.
#[inline(always)]
fn bin(log: i32, shift: u32, count: i32) -> usize {
    ((log >> shift) + count / 2).clamp(0, count - 1) as usize
}

struct Model<'a> {
    parameters: &'a Parameters,
    columns: Vec<Column>,
    counters: Vec<[Counter; CONTEXTS]>,
    mixer: Mixer,
    golomb: Vec<Counter>,
    /// The second low bit, by quantiser, number of flags and the first.
    second: Vec<Counter>,
    /// Rows that this model has seen, and log2 of the mean.
    rows: u32,
    mean_log: i32,
}

impl<'a> Model<'a> {
    fn new(columns: usize, parameters: &'a Parameters) -> Self {
        let mean = u64::from(parameters.mean) >> parameters.low_bits;
        let nonzero = (65536 * mean / (mean + 16)).clamp(64, 65000) as u32;
        let quantisers = if parameters.trellis { 2 } else { 1 };
        // Low sets are the last of a quantiser.
        let unused = if parameters.low_bits == 0 { SETS - LOW_SET } else { 0 };
        let mut counters = vec![[Counter::new(nonzero, 1); CONTEXTS]; quantisers * SETS - unused];
        for sets in counters.chunks_mut(SETS) {
            sets[SIGN_SET..].fill([Counter::new(32768, 1); CONTEXTS]);
        }
        let shift = parameters.statistic.log_shift();
        let mean_log = TABLES.log2(parameters.mean);
        Self {
            parameters,
            columns: (0..columns)
                .map(|index| Column {
                    sign: 16,
                    start: scale_by_level(
                        u64::from(parameters.column_prior) * u64::from(parameters.mean),
                        parameters.column_levels.get(index).copied().unwrap_or(0),
                    ),
                    log: (i32::from(parameters.column_levels.get(index).copied().unwrap_or(0))
                        * 16)
                        >> shift,
                    seen_log: TABLES.log2(index as u32 + parameters.row_prior) + mean_log,
                    place: (if columns > 1024 { index * 1024 / columns } else { index }) as u16,
                    group: (index * 16 / columns) as u16,
                    ..Column::default()
                })
                .collect(),
            counters,
            mixer: Mixer::new(KINDS),
            golomb: vec![Counter::new(32768, 0); 32],
            second: vec![Counter::new(32768, 0); quantisers * SECOND_BITS],
            rows: 0,
            mean_log,
        }
    }

    #[inline(always)]
    fn row<C: BitCoder>(
        &mut self,
        coder: &mut C,
        tables: &Tables,
        level: i8,
        codes: &mut [i32],
        prediction: &[i32],
        states: &[u8],
    ) {
        let Parameters { low_bits, row_prior: prior, statistic, predict_signs, mean, .. } =
            *self.parameters;
        let mut sum = scale_by_level(u64::from(prior) * u64::from(mean), level);
        let mut signed = 0_i32;
        for (index, code) in codes.iter_mut().enumerate() {
            let column = self.columns[index];
            let row_log = (tables.log2(sum.min(u64::from(u32::MAX)) as u32) - column.seen_log)
                >> statistic.log_shift();
            let both = row_log + column.log;
            let (expected, fraction) =
                (round(prediction[index]), prediction[index].wrapping_add(128) >> 4 & 15);
            let above = (column.above.saturating_sub(expected).clamp(-20, 20) + 20) as usize;
            let contexts = [
                OFFSETS[0] + bin(both, 2, 128),
                OFFSETS[1] + bin(row_log, 3, 64),
                OFFSETS[2]
                    + if predict_signs {
                        bin(row_log, 5, 16) * ABOVE + above
                    } else {
                        // The states of one quantiser differ where zeros are many.
                        bin(column.log, 3, 64) + 64 * usize::from(states[index] >> 1)
                    },
                OFFSETS[3] + bin(row_log, 4, 32) * 32 + bin(column.log, 4, 32),
                OFFSETS[4] + column.place as usize,
                OFFSETS[5] + column.group as usize * 64 + bin(both, 3, 64),
            ];
            let residual = code.wrapping_sub(expected);
            let quantiser = quantiser(usize::from(states[index]));
            let magnitude = residual.unsigned_abs();
            let magnitude =
                self.magnitude(coder, tables, &contexts, magnitude, low_bits, quantiser);
            let negative = magnitude > 0 && {
                let place = Place {
                    row_sum: signed,
                    seen: index as u32,
                    column: column.sign,
                    fraction: fraction as usize,
                    index: column.place as usize,
                    above,
                };
                self.sign(coder, tables, residual < 0, magnitude, place)
            };
            let residual = if negative { magnitude.wrapping_neg() } else { magnitude } as i32;
            *code = residual.wrapping_add(expected);
            sum = sum.saturating_add(u64::from(statistic.of(magnitude)) << 4);
            signed = signed.saturating_add(residual);
        }
    }

    #[inline(always)]
    fn magnitude<C: BitCoder>(
        &mut self,
        coder: &mut C,
        tables: &Tables,
        contexts: &[usize; INPUTS],
        magnitude: u32,
        low_bits: u32,
        quantiser: usize,
    ) -> u32 {
        // Mixers that the quantisers share learn faster, and what they learn is the same.
        let sets = quantiser * SETS;
        let high = magnitude.checked_shr(low_bits).unwrap_or(0);
        let mut decoded = 0;
        while decoded < MAX_FLAGS {
            let counters = &mut self.counters[sets + decoded];
            let bit = u32::from(high > decoded as u32);
            if self.mixer.code(
                coder,
                tables,
                RATES,
                decoded.min(MAX_FLAG_KIND),
                counters,
                contexts,
                bit,
            ) == 0
            {
                break;
            }
            decoded += 1;
        }
        let mut value = decoded as u32;
        if decoded == MAX_FLAGS {
            value = value.wrapping_add(self.exponential_golomb(
                coder,
                tables,
                high.wrapping_sub(MAX_FLAGS as u32),
            ));
        }
        for position in (0..low_bits).rev() {
            let bit = magnitude >> position & 1;
            let bit = match low_bits - position {
                1 => {
                    let counters = &mut self.counters[sets + LOW_SET + decoded.min(MAX_LOW_SET)];
                    self.mixer.code(coder, tables, RATES, LOW_KIND, counters, contexts, bit)
                }
                2 => {
                    let place = quantiser * SECOND_BITS + 2 * decoded + (value & 1) as usize;
                    let counter = &mut self.second[place];
                    code_plain(coder, tables, counter, bit)
                }
                _ => coder.code(32768, bit),
            };
            value = value << 1 | bit;
        }
        value
    }

    /// Length in unary with adaptive bits, then the bits below the leading one.
    #[inline(never)]
    fn exponential_golomb<C: BitCoder>(
        &mut self,
        coder: &mut C,
        tables: &Tables,
        value: u32,
    ) -> u32 {
        let value = u64::from(value) + 1;
        let length = 63 - value.leading_zeros();
        let mut decoded = 0;
        while decoded < 32
            && code_plain(
                coder,
                tables,
                &mut self.golomb[decoded as usize],
                u32::from(length > decoded),
            ) == 1
        {
            decoded += 1;
        }
        let mut result = 1_u64;
        for position in (0..decoded).rev() {
            result = result << 1 | u64::from(coder.code(32768, (value >> position & 1) as u32));
        }
        (result - 1) as u32
    }

    /// Whether the residual is negative.
    #[inline(always)]
    fn sign<C: BitCoder>(
        &mut self,
        coder: &mut C,
        tables: &Tables,
        negative: bool,
        magnitude: u32,
        place: Place,
    ) -> bool {
        if !self.parameters.predict_signs {
            return coder.code(32768, u32::from(negative)) == 1;
        }
        let level = magnitude.min(3) as usize - 1;
        let row_mean = i64::from(place.row_sum) * 128
            / (i64::from(place.seen + 8) * i64::from(self.parameters.mean));
        let row_bin = (row_mean + 16).clamp(0, 31) as usize;
        let contexts = [
            OFFSETS[0] + place.fraction,
            OFFSETS[1] + place.column,
            OFFSETS[2] + place.column * 16 + place.fraction,
            OFFSETS[3] + row_bin * 32 + place.column,
            OFFSETS[4] + place.index,
            OFFSETS[5] + magnitude.min(20) as usize * ABOVE + place.above,
        ];
        let kind = SIGN_KIND + level;
        let counters = &mut self.counters[SIGN_SET + level];
        self.mixer.code(coder, tables, RATES, kind, counters, &contexts, u32::from(negative)) == 1
    }

    /// Adds a row to the sums of the columns.
    fn finish_row(&mut self, tables: &Tables, codes: &[i32], prediction: &[i32]) {
        let Parameters { column_prior: prior, statistic, predict_signs, mean, .. } =
            *self.parameters;
        self.rows += 1;
        let seen_log = tables.log2(self.rows + prior);
        let signed_scale = i64::from(self.rows + 8) * i64::from(mean);
        for ((column, &code), &prediction) in self.columns.iter_mut().zip(codes).zip(prediction) {
            let residual = code.wrapping_sub(round(prediction));
            column.sum = column.sum.saturating_add(statistic.of(residual.unsigned_abs()));
            column.signed = column.signed.saturating_add(residual);
            column.above = code;
            let sum = column.start + (u64::from(column.sum) << 4);
            column.log =
                (tables.log2(sum.min(u64::from(u32::MAX)) as u32) - seen_log - self.mean_log)
                    >> statistic.log_shift();
            // A division per column, which only predicted signs are worth.
            if predict_signs {
                column.sign =
                    (i64::from(column.signed) * 128 / signed_scale + 16).clamp(0, 31) as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests;
