//! Slopes of loss against bytes, measured on text that calibration has not used.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use backslash_compress::ledger::HeldOut;
use backslash_compress::{
    CalibrationText, Judge, MeasuredStep, Recipe, Sensitivity, StepRule, measured_rules,
};
use backslash_eval::ModelFile;
use backslash_eval::table::grouped;

use super::fit::note;
use crate::calibration::Material;
use crate::console::{Progress, say};

/// The `count` tokens that follow the calibration text, with the float model's predictions for them.
pub fn held_out(
    model: &ModelFile,
    material: &Material,
    calibration: &CalibrationText,
    count: usize,
) -> Result<HeldOut> {
    let text = material.after(&model.config, calibration, count).with_context(|| {
        format!(
            "slopes are measured on text that calibration has not used, and --text has {}: give more text or fewer --calibration-tokens",
            material.describe_used(calibration)
        )
    })?;
    Ok(HeldOut::new(&model.config, &model.weights, text)?)
}

/// The rules of a recipe with steps corrected for a file of `budget` bytes.
pub fn rules(
    model: &ModelFile,
    recipe: &Recipe<'_>,
    sensitivities: &BTreeMap<String, Sensitivity>,
    held_out: &HeldOut,
    budget: u64,
) -> Result<BTreeMap<String, StepRule>> {
    let tokens = grouped(held_out.tokens() as u64);
    say(&format!("measuring slopes on {tokens} tokens that calibration has not seen"));
    let ModelFile { config, weights, .. } = model;
    let mut bar: Option<Progress> = None;
    let mut progress = |step| match step {
        MeasuredStep::Trial(trial) => note(trial),
        MeasuredStep::Slopes(done, total) => {
            let bar = bar.get_or_insert_with(|| Progress::new("slope", 0, total as u64));
            bar.at(done as u64, "");
        }
        MeasuredStep::Round(round, divergence) => {
            say(&format!(
                "after {round} corrections: {divergence:.5} nats per token from the float model"
            ));
        }
    };
    let judge = Judge { config, weights, sensitivities, held_out };
    let rules = measured_rules(recipe, judge, budget, &mut progress)?.rules;
    if let Some(bar) = bar {
        bar.finish();
    }
    Ok(rules)
}
