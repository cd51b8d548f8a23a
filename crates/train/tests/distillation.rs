//! Training that follows what the network was before its rate, or its average since.

mod support;

use std::collections::HashMap;
use std::path::Path;

use backslash_data::Example;
use backslash_train::{Run, RunConfig, Start, TrainError, Trainer, TrainingSet, config};
use safetensors::SafeTensors;
use support::{Watch, beginning};

/// Sixty steps of which the last twenty-four have a rate, after a learning rate that has come to zero.
const FINISH: &str = "[train]\nsteps = 60\nbatch_size = 4\nlearning_rate = 0.001\nrestart = 0.6\nseed = 3\nwarmup_steps = 4\n\
     checkpoint_every = 50\nevaluate_every = 0\n\
     [rate]\nmethod = \"bits\"\nlambda = 0.01\nstart = 0.6\nrounding_from = 0.6\norigin = \"zero\"\n";

fn decoder() -> RunConfig {
    let model = "[model]\nvocabulary_size = 24\nwidth = 32\nlayers = 1\nheads = 2\nkv_heads = 2\ncontext = 16\n";
    config::parse(&format!("{model}{FINISH}"), &[]).unwrap()
}

fn classifier() -> RunConfig {
    let model = "[model]\narchitecture = \"bert\"\nvocabulary_size = 32\nwidth = 32\nlayers = 1\nheads = 2\nkv_heads = 2\n\
         context = 12\nlabels = [\"no\", \"yes\"]\nspecial_tokens = { start = 1, end = 2, mask = 3 }\n";
    config::parse(&format!("{model}{FINISH}"), &[]).unwrap()
}

fn tokens() -> Vec<u16> {
    (0..900_u32).map(|i| (i * i % 23 + u32::from(i % 5 == 0)) as u16).collect()
}

fn examples() -> Vec<Example> {
    let example = |index: u16| {
        let class = index % 2;
        let tokens = vec![1, 6 + index % 11, if class == 1 { 5 } else { 9 }, 4 + index % 7, 2];
        Example { tokens, class }
    };
    (0..64).map(example).collect()
}

/// Norm of the gradient of the loss at the first step with a rate.
fn gradient_norm_at_the_start(config: &RunConfig, data: TrainingSet<'_>) -> f64 {
    let mut trainer = Trainer::new(config, data, beginning(config)).unwrap();
    let norms = (0..37).map(|_| trainer.step(data).unwrap().gradient_norm);
    norms.last().unwrap()
}

/// Where nothing is rounded yet and nothing else counts, the loss is least at the teacher itself; a share of it takes as much
/// off the gradient.
#[test]
fn at_its_teacher_a_network_has_nothing_to_learn_from_it() {
    let (tokens, examples) = (tokens(), examples());
    for (mut config, data) in [
        (decoder(), TrainingSet::Tokens(&tokens)),
        (classifier(), TrainingSet::Examples(&examples)),
    ] {
        config.rate.rounded_share = 0.0;
        let mut norm = |share: f64| {
            config.rate.distillation = share;
            gradient_norm_at_the_start(&config, data)
        };
        let [none, half, all] = [0.0, 0.5, 1.0].map(&mut norm);
        assert!(all < 1e-4 * none, "{all} {none}");
        assert!((half / none - 0.5).abs() < 1e-4, "{half} {none}");
    }
}

fn open(
    folder: &Path,
    config: &RunConfig,
    data: TrainingSet<'_>,
    start: Start,
) -> Result<Run, TrainError> {
    Run::open(folder, config, data, beginning(config), start)
}

#[test]
fn an_interrupted_run_has_the_same_teacher() {
    let (tokens, examples) = (tokens(), examples());
    for (mut config, data, teacher_decay) in [
        (decoder(), TrainingSet::Tokens(&tokens), 1.0),
        (decoder(), TrainingSet::Tokens(&tokens), 0.9),
        (classifier(), TrainingSet::Examples(&examples), 1.0),
    ] {
        config.rate.distillation = 0.7;
        config.rate.teacher_decay = teacher_decay;
        let folder = tempfile::tempdir().unwrap();
        let mut whole = open(&folder.path().join("whole"), &config, data, Start::Fresh).unwrap();
        whole.train(data, &mut Watch).unwrap();
        let parts = folder.path().join("parts");
        drop(open(&parts, &config, data, Start::Fresh).unwrap());
        // Before the rate, at its start, and after.
        for until in [20, 36, 45] {
            let mut part = open(&parts, &config, data, Start::Resume).unwrap();
            part.train_until(until, data, &mut Watch).unwrap();
        }
        let mut last = open(&parts, &config, data, Start::Resume).unwrap();
        last.train(data, &mut Watch).unwrap();
        assert_eq!(last.trainer.weights(), whole.trainer.weights());
    }
}

#[test]
fn a_teacher_that_decays_is_the_average_of_the_weights_since() {
    let (tokens, mut config) = (tokens(), decoder());
    (config.rate.distillation, config.rate.teacher_decay) = (0.7, 0.9);
    let data = TrainingSet::Tokens(&tokens);
    let mut trainer = Trainer::new(&config, data, beginning(&config)).unwrap();
    let mut weights_after = |step: u64| {
        while trainer.steps_taken() < step {
            trainer.step(data).unwrap();
        }
        trainer.weights().clone()
    };
    let start = weights_after(36);
    let later: Vec<_> = (37..=40).map(&mut weights_after).collect();

    let folder = tempfile::tempdir().unwrap();
    let mut run = open(folder.path(), &config, data, Start::Fresh).unwrap();
    run.train_until(40, data, &mut Watch).unwrap();
    let bytes = std::fs::read(folder.path().join("checkpoints/step-00000040.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut moved = 0.0_f64;
    for (at, tensor) in start.tensors().iter().enumerate() {
        let found = file.tensor(&format!("teacher/{}", tensor.name)).unwrap();
        for (index, bytes) in found.data().as_chunks::<4>().0.iter().enumerate() {
            let first = f64::from(tensor.data[index]);
            let average = later.iter().fold(first, |average, weights| {
                0.9 * average + 0.1 * f64::from(weights.tensors()[at].data[index])
            });
            let found = f64::from(f32::from_le_bytes(*bytes));
            assert!((found - average).abs() < 1e-6, "{} {index}: {found} {average}", tensor.name);
            moved = moved.max((average - first).abs());
        }
    }
    assert!(moved > 1e-4, "{moved}");
}

#[test]
fn a_checkpoint_without_its_teacher_is_refused() {
    let (tokens, mut config) = (tokens(), decoder());
    config.rate.distillation = 0.7;
    let data = TrainingSet::Tokens(&tokens);
    let folder = tempfile::tempdir().unwrap();
    let mut run = open(folder.path(), &config, data, Start::Fresh).unwrap();
    run.train_until(40, data, &mut Watch).unwrap();
    drop(run);
    let path = folder.path().join("checkpoints/step-00000040.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let others: HashMap<_, _> =
        file.iter().filter(|(name, _)| !name.starts_with("teacher/")).collect();
    assert!(others.len() < file.len());
    std::fs::write(&path, safetensors::serialize(others, metadata).unwrap()).unwrap();
    let error = open(folder.path(), &config, data, Start::Resume).err().unwrap().to_string();
    assert!(error.contains("`teacher/") && error.contains("missing"), "{error}");
}

#[test]
fn a_teacher_must_have_learned_and_takes_a_rate_in_bits() {
    let (tokens, mut config) = (tokens(), decoder());
    (config.rate.distillation, config.rate.start) = (0.5, 0.0);
    let error = Trainer::new(&config, TrainingSet::Tokens(&tokens), beginning(&config)).err();
    let error = error.unwrap().to_string();
    assert!(error.starts_with("rate.distillation") && error.contains("train.from"), "{error}");

    let sets = ["rate.method=backslash", "rate.distillation=0.5"].map(str::to_owned);
    let error = config::parse("", &sets).unwrap_err().to_string();
    assert!(error.starts_with("rate.distillation") && error.contains("in bits"), "{error}");
}
