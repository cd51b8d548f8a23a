//! `backslash compress` where it is told more than a step: text to calibrate on, a quantiser, or a goal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use backslash_codec::{
    Artifact, Effort, Limits, Overwrite, SizeSplit, inspect, inspect_codes, write_bytes,
};
use backslash_compress::{
    Allocation, Calibration, CalibrationText, CompressError, Goal, LossIncrease, Recipe,
    Sensitivity, Trial,
};
use backslash_eval::table::grouped;
use backslash_eval::{ModelFile, decoded_weights, views};
use backslash_quant::{Gain, LadderOptions, Rung};

use super::compress::{Tensors, checkpoint_tensors, open_tensors};
use super::measured;
use super::train::DEFAULT_RELATIVE_STEP;
use crate::arguments::{self, Compress};
use crate::calibration::Material;
use crate::console::{say, watched};
use crate::failure::Usage;
use crate::{calibration_file, output, session};

/// Seed of the targets that the sensitivities are measured with.
const SEED: u64 = 1;
/// Bits per weight of a file whose size nobody has asked for.
pub const DEFAULT_BITS_PER_WEIGHT: f64 = 3.0;
/// Tokens that slopes are measured on.
const SLOPE_TOKENS: usize = 32_768;
/// Weights from which on the size in a dry run is an estimate: the slow coder takes two seconds for so many.
const ESTIMATED: usize = 4 << 20;

/// Compresses by the ladder; the size of the file by purpose, and the number of weights.
pub fn run(
    arguments: &Compress,
    output: &Path,
    effort: Effort,
    overwrite: Overwrite,
) -> Result<(SizeSplit, u64)> {
    let (bytes, parameters) = with_recipe(arguments, |recipe, goal, loss_increase| {
        let fitted = recipe.fit(goal, effort, loss_increase, &mut note)?;
        Ok((fitted.bytes, recipe.parameters()))
    })?;
    write_bytes(output, &bytes, overwrite)?;
    Ok((inspect(&bytes)?.split, parameters as u64))
}

/// Prints what each tensor would take, and writes nothing.
pub fn print_plan(arguments: &Compress, effort: Effort) -> Result<()> {
    let Planned { bytes, smallest } = with_recipe(arguments, |recipe, goal, loss_increase| {
        if effort == Effort::Smallest && recipe.parameters() > ESTIMATED {
            let estimate = recipe.estimate(goal, loss_increase, &mut note)?;
            return Ok(Planned { bytes: estimate.fast.bytes, smallest: Some(estimate.bytes) });
        }
        let bytes = recipe.fit(goal, effort, loss_increase, &mut note)?.bytes;
        Ok(Planned { bytes, smallest: None })
    })?;
    print_planned(&bytes, smallest, arguments.json)
}

/// A file that is not written; where it is the fast coder's, about how large the smallest would be.
struct Planned {
    bytes: Vec<u8>,
    smallest: Option<u64>,
}

/// Prints what the tensors of a file take.
pub fn print_planned(bytes: &[u8], smallest: Option<u64>, json: bool) -> Result<()> {
    let inspection = inspect_codes(bytes, &Limits::default())?;
    if json {
        let mut value = output::inspection_json(&inspection);
        if let Some(smallest) = smallest {
            value["estimated_file_bytes"] = smallest.into();
        }
        return output::print_json(&value);
    }
    let table = output::inspection_table(&inspection);
    let total = grouped(inspection.split.total());
    output::print(&match smallest {
        None => format!("{table}\n{total} bytes in all"),
        Some(smallest) => format!(
            "{table}\n{total} bytes in all by the fast coder; about {} in the file, by rows that were tried",
            grouped(smallest)
        ),
    })
}

/// Makes the recipe and the goal that the options ask for, and does something with them and a measure of the loss.
fn with_recipe<T>(
    arguments: &Compress,
    act: impl FnOnce(&Recipe<'_>, Goal, &mut LossIncrease<'_>) -> Result<T>,
) -> Result<T> {
    let code_bytes = counted_code(&arguments.count_code)?;
    if let Some(calibration) = &arguments.calibration {
        return with_gathered(arguments, calibration, code_bytes, act);
    }
    if arguments.text.is_empty() {
        let tensors = open_tensors(&arguments.input)?;
        let views = views(&tensors.weights);
        let (rung, options) = if asked(arguments) {
            let rung = arguments.rung.unwrap_or(Rung::Trellis);
            refuse_without_text(arguments, rung)?;
            (rung, LadderOptions { gain: Gain::Unbiased, ..LadderOptions::default() })
        } else {
            (Rung::Rtn, LadderOptions::default())
        };
        let recipe = Recipe {
            metadata: tensors.metadata,
            verbatim: tensors.verbatim,
            ..Recipe::of_weights(views, rung, options)
        };
        let goal = match asked(arguments) {
            true => goal(arguments, recipe.parameters(), code_bytes)?,
            // Steps are relative to the tensors here: κ is the factor on them.
            false => Goal::Kappa(f64::from(arguments.step.unwrap_or(DEFAULT_RELATIVE_STEP))),
        };
        return act(&recipe, goal, &mut |_| unreachable!("a loss is only asked for with text"));
    }

    let model = session::open_model(&arguments.input).with_context(|| {
        "--text needs a model that can be run: a run's folder, or one with config.json and tokenizer"
    })?;
    if session::learned_plan(&arguments.input)?.is_some() {
        say(
            "note: this run has learned steps, and its training has seen weights rounded to them: without --text and --rung the file is made by these, and loses less",
        );
    }
    let material = Material::open(&model, &arguments.columns.of(&arguments.text))?;
    let text = material.calibration(&model.config, arguments.calibration_tokens)?;
    let rung = arguments.rung.unwrap_or(Rung::WatersicRate);
    let allocation = allocation(arguments.allocation);
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
    let goal = goal(arguments, recipe.parameters(), code_bytes)?;
    if arguments.allocation == arguments::Allocation::Measured {
        let held_out = measured::held_out(&model, &material, &text, SLOPE_TOKENS)?;
        let budget = match goal {
            Goal::Bytes(budget) => budget,
            _ => {
                let effort = Effort::Smallest;
                recipe.fit(goal, effort, &mut loss_increase, &mut note)?.bytes.len() as u64
            }
        };
        recipe.rules = measured::rules(&model, &recipe, &sensitivities, &held_out, budget)?;
    }
    if arguments.sequential {
        let effort = Effort::Fast;
        let log_kappa = recipe.fit(goal, effort, &mut loss_increase, &mut note)?.log_kappa;
        let whole = (&model.config, &model.weights);
        let sequential =
            watched("layer by layer", |tell| recipe.sequential(whole, &text, log_kappa, tell))?;
        let recipe =
            Recipe { weights: views(&sequential.weights), metrics: sequential.metrics, ..recipe };
        return act(&recipe, goal, &mut loss_increase);
    }
    act(&recipe, goal, &mut loss_increase)
}

/// As [`with_recipe`], with what a model has been seen to do elsewhere.
fn with_gathered<T>(
    arguments: &Compress,
    calibration: &Path,
    code_bytes: u64,
    act: impl FnOnce(&Recipe<'_>, Goal, &mut LossIncrease<'_>) -> Result<T>,
) -> Result<T> {
    if arguments.max_loss_increase.is_some() {
        bail!(Usage(
            "--max-loss-increase needs a model that can be run here: pass --text in place of --calibration"
                .to_owned()
        ));
    }
    if arguments.allocation == arguments::Allocation::Measured || arguments.sequential {
        bail!(Usage(
            "--allocation measured and --sequential run the model: pass --text in place of --calibration"
                .to_owned()
        ));
    }
    let Tensors { weights, metadata, verbatim } = checkpoint_tensors(&arguments.input)?;
    let views = views(&weights);
    let calibration = calibration_file::open(calibration, &views)?;
    warn_of_few_tokens(&calibration);
    let rung = arguments.rung.unwrap_or(Rung::WatersicRate);
    let allocation = allocation(arguments.allocation);
    let recipe = Recipe::calibrated(views, metadata, calibration, rung, allocation)?;
    let recipe = Recipe { verbatim, ..recipe };
    let goal = goal(arguments, recipe.parameters(), code_bytes)?;
    act(&recipe, goal, &mut |_| unreachable!("a loss is only asked for with text"))
}

fn allocation(asked: arguments::Allocation) -> Allocation {
    match asked {
        arguments::Allocation::Relative => Allocation::Relative,
        arguments::Allocation::Tensors => Allocation::Tensors,
        arguments::Allocation::Rows | arguments::Allocation::Measured => Allocation::Rows,
    }
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

fn calibrate(model: &ModelFile, text: &CalibrationText) -> Result<Calibration> {
    say(&format!("calibrating on {} tokens", grouped(text.tokens_read() as u64)));
    let calibration = watched("calibration", |tell| {
        Calibration::of(&model.config, &model.weights, text, SEED, tell)
    })?;
    warn_of_few_tokens(&calibration);
    Ok(calibration)
}

fn warn_of_few_tokens(calibration: &Calibration) {
    if let Some((name, width, seen)) = calibration.undersampled() {
        say(&format!(
            "warning: {} tokens are few: the {width} inputs of `{name}` were seen {} times, and ten times their number, {}, would be enough",
            grouped(calibration.tokens as u64),
            grouped(seen),
            grouped(10 * width as u64),
        ));
    }
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
    arguments.budget.is_some() || asked_beyond_size(arguments)
}

/// Whether the options ask for more than a step and a number of bytes.
pub fn asked_beyond_size(arguments: &Compress) -> bool {
    let Compress { text, calibration, rung, bits_per_weight, max_loss_increase, kappa, .. } =
        arguments;
    !text.is_empty()
        || calibration.is_some()
        || rung.is_some()
        || bits_per_weight.is_some()
        || max_loss_increase.is_some()
        || kappa.is_some()
        || !arguments.count_code.is_empty()
}
