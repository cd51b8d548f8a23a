//! `backslash compress` where it is told more than a step: text to calibrate on, a quantiser, or a goal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use backslash_codec::{
    Artifact, Effort, Limits, Overwrite, SizeSplit, encode_with, inspect, inspect_codes,
    write_bytes,
};
use backslash_compress::{
    Allocation, Calibration, CalibrationText, CompressError, Fitted, Goal, Recipe, Sensitivity,
    Trial, relative_rules,
};
use backslash_data::Source;
use backslash_eval::table::grouped;
use backslash_eval::{ModelFile, decoded_weights, views};
use backslash_quant::{Gain, LadderOptions, Rung};

use super::compress::open_tensors;
use super::measured;
use crate::arguments::{self, Compress};
use crate::console::{Progress, say};
use crate::failure::Usage;
use crate::output;

/// Seed of the targets that the sensitivities are measured with.
const SEED: u64 = 1;
/// Bits per weight of a file whose size nobody has asked for.
pub const DEFAULT_BITS_PER_WEIGHT: f64 = 3.0;
/// Tokens that slopes are measured on.
const SLOPE_TOKENS: usize = 32_768;

/// Compresses by the ladder; the size of the file by purpose, and the number of weights.
pub fn run(
    arguments: &Compress,
    output: &Path,
    effort: Effort,
    overwrite: Overwrite,
) -> Result<(SizeSplit, u64)> {
    let Made { fitted, parameters } = make(arguments)?;
    let bytes = match effort {
        Effort::Smallest => fitted.bytes,
        Effort::Fast => encode_with(&fitted.artifact, Effort::Fast)?,
    };
    write_bytes(output, &bytes, overwrite)?;
    Ok((inspect(&bytes)?.split, parameters as u64))
}

/// Prints what each tensor would take, and writes nothing.
pub fn print_plan(arguments: &Compress) -> Result<()> {
    let inspection = inspect_codes(&make(arguments)?.fitted.bytes, &Limits::default())?;
    if arguments.json {
        return output::print_json(&output::inspection_json(&inspection));
    }
    let table = output::inspection_table(&inspection);
    output::print(&format!("{table}\n{} bytes in all", grouped(inspection.split.total())))
}

/// A file that meets the goal, and the number of weights in it.
struct Made {
    fitted: Fitted,
    parameters: usize,
}

fn make(arguments: &Compress) -> Result<Made> {
    let code_bytes = counted_code(&arguments.count_code)?;
    if arguments.text.is_empty() {
        let tensors = open_tensors(&arguments.input)?;
        let rung = arguments.rung.unwrap_or(Rung::Trellis);
        refuse_without_text(arguments, rung)?;
        let views = views(&tensors.weights);
        let recipe = Recipe {
            rules: relative_rules(&views),
            metadata: tensors.metadata,
            weights: views,
            rung,
            options: LadderOptions { gain: Gain::Unbiased, ..LadderOptions::default() },
            metrics: BTreeMap::new(),
        };
        return fit(arguments, &recipe, code_bytes, &mut |_| {
            unreachable!("a loss is only asked for with text")
        });
    }

    let model = ModelFile::open(&arguments.input).with_context(|| {
        "--text needs a model that can be run: a run's folder, or one with config.json and tokenizer"
    })?;
    let source = Source::open(&arguments.text, &arguments.text)?;
    let tokens = source.tokens(&model.tokenizer)?.train;
    let text = CalibrationText::new(&model.config, &tokens, arguments.calibration_tokens)?;
    let rung = arguments.rung.unwrap_or(Rung::WatersicRate);
    let allocation = match arguments.allocation {
        arguments::Allocation::Relative => Allocation::Relative,
        arguments::Allocation::Tensors => Allocation::Tensors,
        arguments::Allocation::Rows | arguments::Allocation::Measured => Allocation::Rows,
    };
    let (mut recipe, sensitivities) = calibrated(&model, &text, rung, allocation)?;
    let mut float = None;
    let mut loss_increase = |artifact: &Artifact| {
        let before = match float {
            Some(loss) => loss,
            None => *float.insert(text.loss_of(&model.config, &model.weights)?),
        };
        let weights = decoded_weights(artifact)
            .map_err(|error| CompressError::Decoding { reason: error.to_string() })?;
        Ok(text.loss_of(&model.config, &weights)? - before)
    };
    if arguments.allocation == arguments::Allocation::Measured {
        let held_out = measured::held_out(&model, &tokens, &text, SLOPE_TOKENS)?;
        let goal = goal(arguments, recipe.parameters(), code_bytes)?;
        let budget = match goal {
            Goal::Bytes(budget) => budget,
            _ => recipe.fit(goal, &mut loss_increase, &mut note)?.bytes.len() as u64,
        };
        recipe.rules = measured::rules(&model, &recipe, &sensitivities, &held_out, budget)?;
    }
    fit(arguments, &recipe, code_bytes, &mut loss_increase)
}

/// The recipe of a model that was run on text, and the sensitivities it was made of.
pub fn calibrated<'a>(
    model: &'a ModelFile,
    text: &CalibrationText,
    rung: Rung,
    allocation: Allocation,
) -> Result<(Recipe<'a>, BTreeMap<String, Sensitivity>)> {
    let calibration = calibrate(model, text)?;
    let sensitivities = calibration.sensitivities.clone();
    let metadata = ModelFile::metadata(&model.config, &model.tokenizer);
    let recipe =
        Recipe::calibrated(views(&model.weights), metadata, calibration, rung, allocation)?;
    Ok((recipe, sensitivities))
}

/// Bytes of files that a size has to hold beside the model.
fn counted_code(paths: &[PathBuf]) -> Result<u64> {
    let bytes = paths.iter().map(|path| {
        let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        if metadata.is_dir() {
            bail!(Usage(format!("--count-code {}: name files, not a folder", path.display())));
        }
        Ok(metadata.len())
    });
    bytes.sum()
}

fn refuse_without_text(arguments: &Compress, rung: Rung) -> Result<()> {
    let refused = if rung.needs_covariance() {
        format!("--rung {rung} needs to know what the layers see")
    } else if arguments.max_loss_increase.is_some() {
        "--max-loss-increase needs text to measure the loss on".to_owned()
    } else if arguments.kappa.is_some() {
        "--kappa is in units of the loss, which needs text".to_owned()
    } else {
        return Ok(());
    };
    bail!(Usage(format!("{refused}: pass --text PATH with a few hundred kB of it")))
}

pub fn calibrate(model: &ModelFile, text: &CalibrationText) -> Result<Calibration> {
    say(&format!("calibrating on {} tokens", grouped(text.tokens() as u64)));
    let mut progress: Option<Progress> = None;
    let calibration = Calibration::of(&model.config, &model.weights, text, SEED, |done, total| {
        let progress =
            progress.get_or_insert_with(|| Progress::new("calibration", 0, total as u64));
        progress.at(done as u64, "");
    })?;
    if let Some(progress) = progress {
        progress.finish();
    }
    if let Some((name, width)) = calibration.undersampled() {
        say(&format!(
            "warning: {} tokens are few for the {width} inputs of `{name}`: ten per input, {}, would be enough",
            grouped(calibration.tokens as u64),
            grouped(10 * width as u64),
        ));
    }
    Ok(calibration)
}

/// The goal that the options name, after code is counted.
fn goal(arguments: &Compress, parameters: usize, code_bytes: u64) -> Result<Goal> {
    if let Some(kappa) = arguments.kappa {
        return Ok(Goal::Kappa(kappa));
    }
    if let Some(increase) = arguments.max_loss_increase {
        return Ok(Goal::LossIncrease(increase));
    }
    let budget = arguments.budget.unwrap_or_else(|| {
        let bits = arguments.bits_per_weight.unwrap_or(DEFAULT_BITS_PER_WEIGHT);
        (bits * parameters as f64 / 8.0) as u64
    });
    match budget.checked_sub(code_bytes) {
        Some(left) if left > 0 => Ok(Goal::Bytes(left)),
        _ => bail!(Usage(format!(
            "the code that is counted takes {} bytes, all of the {} there are",
            grouped(code_bytes),
            grouped(budget)
        ))),
    }
}

fn fit(
    arguments: &Compress,
    recipe: &Recipe<'_>,
    code_bytes: u64,
    loss_increase: &mut dyn FnMut(&Artifact) -> Result<f64, CompressError>,
) -> Result<Made> {
    let parameters = recipe.parameters();
    let goal = goal(arguments, parameters, code_bytes)?;
    Ok(Made { fitted: recipe.fit(goal, loss_increase, &mut note)?, parameters })
}

/// Says what size was tried.
pub fn note(trial: Trial) {
    let size = match trial.bytes {
        0 => String::new(),
        u64::MAX => ": steps too fine".to_owned(),
        bytes => format!(": {} bytes", grouped(bytes)),
    };
    say(&format!("file {}, trial {}{size}", trial.file, trial.trial));
}

/// Whether the options ask for more than a step.
pub fn asked(arguments: &Compress) -> bool {
    let Compress { text, rung, bits_per_weight, max_loss_increase, kappa, .. } = arguments;
    !text.is_empty()
        || rung.is_some()
        || bits_per_weight.is_some()
        || max_loss_increase.is_some()
        || kappa.is_some()
        || !arguments.count_code.is_empty()
}
