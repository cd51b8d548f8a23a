//! The exporters of others, at the setting that a size asks for.

use backslash_model::{NamedTensor, NamedWeights};
use backslash_quant::golf::{
    DecodedTensor, FloatTensor, SdClip, export_int8_zlib, export_int8_zlib_all_matrices,
    export_sdclip, import_int8_zlib, import_sdclip,
};
use backslash_quant::{PAPER_STEP, PaperExport, export_as_published};

use super::subject::Made;
use crate::{EvalError, views};

/// Share of the budget that is used before a search ends.
const ENOUGH: f64 = 0.999;
/// Most files of a search.
const FILES: u32 = 24;
/// Least step of a search that has found one side only.
const LEAST_STEP: f64 = 0.02;
/// ln of the factors on the clips of SDClip, and on the step of the paper, between which is searched. Clips below 3
/// deviations cut off weights.
const CLIPS: (f64, f64) = (-1.5, 3.5);
const STEPS: (f64, f64) = (-2.0, 6.0);

pub(super) fn int8(weights: &NamedWeights) -> Result<Made, EvalError> {
    let bytes = export_int8_zlib(&floats(weights))?.bytes;
    Ok(Made::exported(bytes.len() as u64, named(import_int8_zlib(&bytes)?), None))
}

pub(super) fn int8_all_matrices(weights: &NamedWeights) -> Result<Made, EvalError> {
    let bytes = export_int8_zlib_all_matrices(&floats(weights))?.bytes;
    Ok(Made::exported(bytes.len() as u64, named(import_int8_zlib(&bytes)?), None))
}

/// SDClip with the clips of both its settings multiplied by one factor; `embeds` names the tensors that take the setting
/// for embeddings.
pub(super) fn sdclip(
    weights: &NamedWeights,
    embeds: impl Fn(&str) -> bool,
    budget: u64,
) -> Result<Made, EvalError> {
    let floats = floats(weights);
    let (factor, bytes) = largest_that_fits(CLIPS, budget, |log_factor| {
        let setting = |tensor: &FloatTensor<'_>| {
            let setting = if embeds(tensor.name) { SdClip::EMBEDDING } else { SdClip::MATRIX };
            SdClip { clip: setting.clip * log_factor.exp() as f32, ..setting }
        };
        let bytes = export_sdclip(&floats, setting)?.bytes;
        Ok((bytes.len() as u64, bytes))
    })?;
    Ok(Made::exported(bytes.len() as u64, named(import_sdclip(&bytes)?), Some(factor.exp())))
}

/// The recipe of the BackSlash paper at its own step.
pub(super) fn paper(weights: &NamedWeights) -> Result<Made, EvalError> {
    Ok(published(weights, export_as_published(&views(weights), PAPER_STEP)?, None))
}

/// The same at the step that the budget asks for.
pub(super) fn paper_of(weights: &NamedWeights, budget: u64) -> Result<Made, EvalError> {
    let views = views(weights);
    let (factor, export) = largest_that_fits(STEPS, budget, |log_factor| {
        let export = export_as_published(&views, PAPER_STEP * log_factor.exp() as f32)?;
        Ok((export.golomb_bytes(), export))
    })?;
    Ok(published(weights, export, Some(factor.exp())))
}

fn published(weights: &NamedWeights, export: PaperExport, factor: Option<f64>) -> Made {
    let bytes = export.golomb_bytes();
    let tensors = weights.tensors().iter().zip(export.decoded);
    let decoded = tensors.map(|(tensor, data)| NamedTensor {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        data,
    });
    Made::exported(bytes, NamedWeights::new(decoded.collect()), factor)
}

fn floats(weights: &NamedWeights) -> Vec<FloatTensor<'_>> {
    let tensors = weights.tensors().iter();
    tensors
        .map(|NamedTensor { name, shape, data }| FloatTensor { name, shape, values: data })
        .collect()
}

fn named(tensors: Vec<DecodedTensor>) -> NamedWeights {
    let named = |tensor: DecodedTensor| NamedTensor {
        name: tensor.name,
        shape: tensor.shape,
        data: tensor.values,
    };
    NamedWeights::new(tensors.into_iter().map(named).collect())
}

/// A file of at most `budget` bytes and hardly less, and the setting in `range` that makes it: `make` gives bytes and
/// file at a setting, the bytes falling with it. Where no setting of the range fits, or all do, the nearest to the
/// budget.
///
/// ln bytes is nearly a line over stretches of the setting, so a few files do where halving takes a dozen; and files
/// take seconds.
pub(super) fn largest_that_fits<T>(
    range: (f64, f64),
    budget: u64,
    make: impl Fn(f64) -> Result<(u64, T), EvalError>,
) -> Result<(f64, T), EvalError> {
    let goal = (budget as f64).ln();
    // A little below the budget: what is aimed at is not met to the byte.
    let aim = goal + 0.5 * ENOUGH.ln();
    // The nearest settings known to give too much, and to fit.
    let mut above: Option<(f64, f64)> = None;
    let mut below: Option<(f64, f64)> = None;
    let mut best: Option<(f64, T)> = None;
    let mut setting = 0.0_f64.clamp(range.0, range.1);
    for _ in 0..FILES {
        let (bytes, file) = make(setting)?;
        let log_bytes = (bytes as f64).ln();
        if log_bytes <= goal {
            below = Some((setting, log_bytes));
            best = Some((setting, file));
            if log_bytes >= goal + ENOUGH.ln() || setting <= range.0 {
                break;
            }
        } else {
            above = Some((setting, log_bytes));
            if setting >= range.1 {
                return Ok((setting, file));
            }
        }
        setting = match (above, below) {
            // Bytes that jump have no setting that uses the budget.
            (Some(above), Some(below)) if below.0 - above.0 < 1e-5 => break,
            (Some(above), Some(below)) => {
                let share = (above.1 - aim) / (above.1 - below.1);
                // Kept off the ends, so that the bracket shrinks on curved stretches too.
                above.0 + (below.0 - above.0) * share.clamp(0.05, 0.95)
            }
            _ => {
                let step = 2.0 * (log_bytes - aim);
                let step = if step.abs() < LEAST_STEP { LEAST_STEP.copysign(step) } else { step };
                (setting + step).clamp(range.0, range.1)
            }
        };
    }
    match best {
        Some(best) => Ok(best),
        None => Ok((range.1, make(range.1)?.1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    use backslash_quant::squared_error;
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    #[test]
    fn the_largest_that_fits_is_found_in_a_few_files() {
        let files = Cell::new(0);
        let make = |x: f64| {
            files.set(files.get() + 1);
            // Falls ever more slowly, as files do.
            Ok(((1000.0 + 9e6 / (1.0 + x.exp())) as u64, x))
        };
        for budget in [20_000, 900_000, 4_000_000, 7_000_000] {
            files.set(0);
            let (setting, content) = largest_that_fits((-2.0, 8.0), budget, make).unwrap();
            assert!(files.get() <= 12, "{budget}: {} files", files.get());
            let bytes = make(setting).unwrap().0;
            assert!(setting == content && bytes <= budget, "{budget}: {bytes}");
            assert!(bytes as f64 >= ENOUGH * budget as f64, "{budget}: {bytes}");
        }
        // Beyond both ends the nearest there is.
        assert_eq!(largest_that_fits((-2.0, 8.0), 100, make).unwrap().0, 8.0);
        assert_eq!(largest_that_fits((-2.0, 8.0), u64::MAX, make).unwrap().0, -2.0);
    }

    #[test]
    fn exporters_meet_a_size_and_are_read_back() {
        let mut random = rand_pcg::Pcg64::seed_from_u64(6);
        let mut tensor = |name: &str, rows: usize, columns: usize| NamedTensor {
            name: name.to_owned(),
            shape: vec![rows, columns],
            data: StandardNormal.sample_iter(&mut random).take(rows * columns).collect(),
        };
        let weights = NamedWeights::new(vec![tensor("tok_emb", 512, 64), tensor("fc", 256, 256)]);
        let error = |decoded: &NamedWeights| -> f64 {
            let pairs = weights.tensors().iter().zip(decoded.tensors());
            pairs.map(|(tensor, decoded)| squared_error(&tensor.data, &decoded.data)).sum()
        };
        let power = weights.parameters() as f64;
        let embeds = |name: &str| name == "tok_emb";
        for bits in [2, 3] {
            let budget = (weights.parameters() * bits / 8) as u64;
            let used = |made: &Made| made.bytes as f64 / budget as f64;
            let made =
                [sdclip(&weights, embeds, budget).unwrap(), paper_of(&weights, budget).unwrap()];
            for made in &made {
                assert!((ENOUGH..=1.0).contains(&used(made)), "{bits} bits: {}", used(made));
                assert!(made.factor.unwrap() > 1.0);
                assert!(
                    error(&made.weights) < 0.3 * power,
                    "{bits} bits: {}",
                    error(&made.weights)
                );
            }
        }
        assert_eq!(paper(&weights).unwrap().factor, None);
        let all = int8_all_matrices(&weights).unwrap();
        // Both matrices are small enough to be kept in fp16.
        assert!(int8(&weights).unwrap().bytes > all.bytes + weights.parameters() as u64 / 2);
        assert!(error(&all.weights) < 1e-3 * power);
    }
}
