//! `backslash compress` of a model that can be run: steps by sensitivity, quantisers that know the inputs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use backslash_codec::{Effort, SizeSplit, encode_with, inspect, inspect_codes, write_bytes};
use backslash_compress::{
    Allocation, Calibration, CalibrationText, Fitted, Goal, Recipe, StepRule, Trial, relative_rules,
    step_rules,
};
use backslash_data::Source;
use backslash_eval::table::{Column, Table, grouped};
use backslash_eval::{ModelFile, decoded_weights, views};
use backslash_model::NamedWeights;
use backslash_quant::{Covariance, LadderOptions, Rung};
use serde_json::json;

use crate::arguments::{AllocationName, Compress};
use crate::console::{Progress, say};
use crate::failure::Usage;
use crate::{output, session};

/// Seed of the targets that the sensitivities are measured with.
const SEED: u64 = 1;
/// Relative step of a file whose size nobody has asked for, and the κ that stands for it with sensitivities.
const DEFAULT_RELATIVE_STEP: f64 = 0.5;
/// Weight of the head's covariance against the plain squared error in the metric of a tied embedding.
const TIED_HEAD_WEIGHT: f64 = 1.0;
