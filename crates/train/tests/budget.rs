//! Runs whose λ follows a number of bytes.

use std::collections::BTreeMap;

use backslash_codec::{Effort, encoded_size_with};
use backslash_model::initial_weights;
use backslash_quant::Weights;
use backslash_train::{Beginning, RunConfig, Trainer, TrainingSet, config};

fn config(start: f64, budget: u64) -> RunConfig {
    let text = format!(
        "[model]\nvocabulary_size = 24\nwidth = 96\nlayers = 2\nheads = 2\nkv_heads = 2\ncontext = 16\n\
         [train]\nsteps = 200\nbatch_size = 2\nwarmup_steps = 4\nevaluate_every = 0\n\
         [rate]\nmethod = \"bits\"\nstart = {start}\nrounding_from = {start}\nline_scales = \"learned\"\nbudget = {budget}\n"
    );
    config::parse(&text, &[]).unwrap()
}

/// Bytes of the file at the learned steps.
fn file_bytes(trainer: &Trainer) -> u64 {
    let weights = trainer.weights().tensors().iter();
    let weights: Vec<Weights<'_>> = weights
        .map(|tensor| Weights { name: &tensor.name, shape: &tensor.shape, data: &tensor.data })
        .collect();
    let plan = trainer.learned_plan().unwrap();
    let artifact = plan.artifact(&weights, &BTreeMap::new()).unwrap();
    encoded_size_with(&artifact, Effort::Smallest).unwrap().total()
}

/// A forecast of what is there already is that of the file, whichever share of the steps has a rate.
#[test]
fn the_last_forecast_is_the_file() {
    let tokens: Vec<u16> =
        (0..900_u32).map(|i| (i * i % 23 + u32::from(i % 5 == 0)) as u16).collect();
    let data = TrainingSet::Tokens(&tokens);
    for start in [0.0, 0.6, 0.85] {
        let config = config(start, 35_000);
        let weights = initial_weights(&config.model, config.train.seed).unwrap();
        let beginning = Beginning { weights, metadata: BTreeMap::new() };
        let mut trainer = Trainer::new(&config, data, beginning).unwrap();
        let mut forecast = None;
        while !trainer.finished() {
            forecast = trainer.step(data).unwrap().forecast;
        }
        let (forecast, bytes) = (forecast.unwrap().bytes, file_bytes(&trainer) as f64);
        assert!((forecast / bytes - 1.0).abs() < 0.02, "{start}: {forecast} {bytes}");
    }
}
