//! A tiny random model from end to end.

use backslash_model::{ModelConfig, NamedWeights, initial_weights};
use backslash_quant::{LadderOptions, Rung, Weights};
use rand::{RngExt, SeedableRng};

use super::*;
use crate::{
    Allocation, Calibration, CalibrationText, Judge, MeasuredStep, Recipe, measured_rules,
    step_rules,
};

struct Model {
    config: ModelConfig,
    weights: NamedWeights,
    calibration: Calibration,
    held_out: HeldOut,
    text: CalibrationText,
}

impl Model {
    fn new() -> Self {
        let config = ModelConfig {
            vocabulary_size: 80,
            width: 64,
            layers: 1,
            heads: 2,
            kv_heads: 2,
            mlp_ratio: 2,
            context: 32,
            ..ModelConfig::default()
        };
        let mut random = rand_pcg::Pcg64::seed_from_u64(8);
        // Output projections start at zero, which would hide all errors before them.
        let mut weights = initial_weights(&config, 3).unwrap();
        for tensor in weights.tensors_mut() {
            tensor.data.iter_mut().for_each(|w| *w += 0.2 * (random.random::<f32>() - 0.5));
        }
        let tokens: Vec<u16> = (0..96 * 32 + 1).map(|_| random.random_range(0..80)).collect();
        let text = CalibrationText::new(&config, &tokens, 64 * 32).unwrap();
        let calibration = Calibration::of(&config, &weights, &text, 1, |_, _| ()).unwrap();
        let text = CalibrationText::new(&config, &tokens[text.tokens()..], 32 * 32).unwrap();
        let held_out = HeldOut::new(&config, &weights, text.clone()).unwrap();
        Self { config, weights, calibration, held_out, text }
    }

    fn recipe(&self, rung: Rung) -> Recipe<'_> {
        let tensors = self.weights.tensors().iter();
        let weights: Vec<Weights<'_>> = tensors
            .map(|tensor| Weights { name: &tensor.name, shape: &tensor.shape, data: &tensor.data })
            .collect();
        let options = LadderOptions::default();
        let rules =
            step_rules(&weights, &self.calibration, rung, Allocation::Rows, options.ridge).unwrap();
        let metrics = self.calibration.covariances.clone();
        Recipe {
            weights,
            metadata: Default::default(),
            verbatim: Default::default(),
            rung,
            options,
            rules,
            metrics,
            inputs_first: Default::default(),
        }
    }

    fn point<'a>(&'a self, recipe: &'a Recipe<'a>, log_kappa: f64) -> OperatingPoint<'a> {
        let Self { config, weights, calibration, held_out, .. } = self;
        let sensitivities = &calibration.sensitivities;
        OperatingPoint::new(config, weights, recipe, sensitivities, held_out, log_kappa).unwrap()
    }
}

#[test]
fn losses_are_those_of_the_text() {
    let model = Model::new();
    let float = model.held_out.float();
    assert_eq!(model.held_out.tokens(), 1024);
    assert_eq!(float.divergence.len(), 32);
    assert!(float.mean_divergence().abs() < 1e-6, "{}", float.mean_divergence());
    let loss = model.text.loss_of(&model.config, &model.weights).unwrap();
    assert!((float.mean_cross_entropy() - loss).abs() < 1e-5);
    // Another model: the divergence by its definition, from the logits in double precision.
    let other = initial_weights(&model.config, 4).unwrap();
    let measured = model.held_out.losses(&model.config, &other).unwrap();
    let batch = model.text.batches().next().unwrap();
    let logs = |weights: &NamedWeights| -> Vec<Vec<f64>> {
        let device = backslash_model::device();
        let network =
            backslash_model::Transformer::from_weights(&model.config, weights, &device).unwrap();
        let logits = batch.logits(&network);
        let rows = logits.chunks(80);
        rows.map(|logits| {
            let sum: f64 = logits.iter().map(|z| f64::from(*z).exp()).sum();
            logits.iter().map(|z| f64::from(*z) - sum.ln()).collect()
        })
        .collect()
    };
    let (p, q) = (logs(&model.weights), logs(&other));
    let divergence = |token: usize| -> f64 {
        p[token].iter().zip(&q[token]).map(|(p, q)| p.exp() * (p - q)).sum()
    };
    let first = (0..32).map(divergence).sum::<f64>() / 32.0;
    assert!((measured.divergence[0] - first).abs() < 1e-5, "{} {first}", measured.divergence[0]);
}

#[test]
fn every_change_does_what_it_says() {
    let model = Model::new();
    for rung in [Rung::Rtn, Rung::Trellis, Rung::Watersic, Rung::WatersicRate] {
        let recipe = model.recipe(rung);
        let point = model.point(&recipe, recipe.guess(2.5));
        let bits = 8.0 * point.coded_bytes() as f64 / recipe.parameters() as f64;
        assert!((1.0..5.0).contains(&bits), "{bits} bits per weight");
        let changes = point.changes();
        let fitted = changes.iter().filter(|(_, path)| *path == ExceptionPath::RowScales).count();
        assert_eq!(fitted == 0, !rung.needs_covariance());
        let (mut predicted, mut measured) = (Vec::new(), Vec::new());
        for (name, path) in changes {
            let entry = point.measure(&name, path).unwrap();
            let context = format!("{rung} {entry:?}");
            match path {
                ExceptionPath::Finer | ExceptionPath::FinerEmbedding => {
                    assert!(entry.bytes > 0 && entry.divergence.mean < 0.0, "{context}");
                    assert!(entry.predicted < 0.0 && entry.return_per_kb() > 0.0, "{context}");
                }
                ExceptionPath::Coarser => {
                    assert!(entry.bytes < 0 && entry.divergence.mean > 0.0, "{context}");
                    assert!(entry.predicted > 0.0 && entry.return_per_kb() > 0.0, "{context}");
                }
                ExceptionPath::ProtectedColumns => assert!(entry.bytes > 0, "{context}"),
                ExceptionPath::LowRank(_) => {
                    assert!(entry.bytes > 0 && entry.predicted < 0.0, "{context}");
                }
                ExceptionPath::Alone => {
                    predicted.push(entry.predicted);
                    measured.push(entry.divergence.mean);
                }
                ExceptionPath::RowFactors | ExceptionPath::RowScales => {}
            }
        }
        let correlation = rank_correlation(&predicted, &measured).unwrap();
        assert!(correlation >= 0.7, "{rung}: {correlation}, {predicted:?} {measured:?}");
    }
}

/// The slope is that of the two entries it is made of.
#[test]
fn a_slope_is_the_difference_of_loss_over_that_of_bytes() {
    let model = Model::new();
    let recipe = model.recipe(Rung::Watersic);
    let point = model.point(&recipe, recipe.guess(2.5));
    let name = point.tensors().next().unwrap().to_owned();
    let slope = point.slope(&name).unwrap().unwrap();
    let fine = point.measure(&name, ExceptionPath::Finer).unwrap();
    let coarse = point.measure(&name, ExceptionPath::Coarser).unwrap();
    let loss = coarse.divergence.mean - fine.divergence.mean;
    // Entries are rounded to 10⁻¹² nats.
    let bytes = (fine.bytes - coarse.bytes) as f64;
    assert!((slope.mean * bytes - loss).abs() < 2e-12, "{slope:?} {loss} {bytes}");
}

/// A journal that was interrupted and goes on holds the same ledger as one that was not.
#[test]
fn an_interrupted_ledger_goes_on() {
    let model = Model::new();
    let recipe = model.recipe(Rung::Rtn);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.jsonl");
    let mut written = Vec::new();
    for interrupted_after in [3, usize::MAX] {
        let point = model.point(&recipe, recipe.guess(2.5));
        let mut journal = Journal::open(&path, &point.journal_header()).unwrap();
        let open = point.changes().into_iter();
        let open = open.filter(|(name, path)| journal.finished(name, *path).is_none());
        for (name, path) in open.take(interrupted_after.min(6)).collect::<Vec<_>>() {
            let entry = point.measure(&name, path).unwrap();
            journal.push(&entry).unwrap();
            written.push((name, path));
        }
    }
    let expected: Vec<_> =
        model.point(&recipe, recipe.guess(2.5)).changes().into_iter().take(9).collect();
    assert_eq!(written, expected);
    let coarser = model.point(&recipe, recipe.guess(2.0));
    let error = Journal::open(&path, &coarser.journal_header()).unwrap_err().to_string();
    assert!(error.contains("another operating point"), "{error}");
}

#[test]
fn corrected_steps_lose_no_more_on_the_text_they_are_measured_on() {
    let model = Model::new();
    let recipe = model.recipe(Rung::Watersic);
    let Model { config, weights, calibration, held_out, .. } = &model;
    let judge = Judge { config, weights, sensitivities: &calibration.sensitivities, held_out };
    let mut rounds = Vec::new();
    let budget = recipe.parameters() as u64 / 4;
    let best = measured_rules(&recipe, judge, budget, &mut |step| {
        if let MeasuredStep::Round(round, divergence) = step {
            assert_eq!(round, rounds.len());
            rounds.push(divergence);
        }
    })
    .unwrap();
    assert_eq!(rounds.len(), 4);
    let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
    for (name, rule) in &best.rules {
        let octaves = (rule.step / recipe.rules[name].step).log2();
        assert!(octaves.abs() <= 1.0 + 1e-9, "{name}: {octaves}");
        assert_eq!(rule.rows, recipe.rules[name].rows);
    }
    // The rules that are returned are those of the round that lost least.
    assert_eq!(best.divergence, least);
    let chosen = Recipe { rules: best.rules, ..recipe.clone() };
    let divergence = model.point(&chosen, best.log_kappa).losses().mean_divergence();
    assert_eq!(divergence, least);
}
