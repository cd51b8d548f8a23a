//! An encoder that learns classes, with every rate, and a run of it that is interrupted.

mod support;

use std::path::Path;

use backslash_data::Example;
use backslash_train::{Record, Run, RunConfig, Start, TrainingSet, config};
use support::{Watch, beginning};

const METHODS: [(&str, f64); 8] = [
    ("none", 0.0),
    ("bits", 0.02),
    ("backslash", 1e-5),
    ("backslash-in-loss", 1e-5),
    ("l2", 1e-5),
    ("l1", 1e-5),
    ("l0.5", 1e-5),
    ("proximal-l1", 1e-5),
];

fn configuration(method: &str, lambda: f64) -> RunConfig {
    let text = format!(
        "[model]\narchitecture = \"bert\"\nvocabulary_size = 32\nwidth = 16\nlayers = 1\nheads = 2\nkv_heads = 2\n\
         context = 12\nlabels = [\"no\", \"yes\"]\nspecial_tokens = {{ start = 1, end = 2, mask = 3 }}\n\
         [train]\nsteps = 120\nbatch_size = 8\nlearning_rate = 0.01\ntoken_dropout = 0.02\ncheckpoint_every = 40\nevaluate_every = 60\n\
         [rate]\nmethod = \"{method}\"\nlambda = {lambda}\nstart = 0.3"
    );
    config::parse(&text, &[]).unwrap()
}

/// A text is of class 1 where the token 5 is in it.
fn examples() -> Vec<Example> {
    let example = |index: usize| {
        let class = (index % 2) as u16;
        let length = 2 + index % 7;
        let word = |at: usize| (6 + (index * 7 + at * 5) % 20) as u16;
        let mut tokens: Vec<u16> = std::iter::once(1).chain((0..length).map(word)).collect();
        if class == 1 {
            tokens[1 + index % length] = 5;
        }
        tokens.push(2);
        Example { tokens, class }
    };
    (0..64).map(example).collect()
}

fn open(folder: &Path, config: &RunConfig, start: Start) -> Run {
    Run::open(folder, config, TrainingSet::Examples(&examples()), beginning(config), start).unwrap()
}

fn records(folder: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn losses(folder: &Path) -> Vec<f64> {
    let loss = |record: Record| match record {
        Record::Step(record) => Some(record.loss),
        Record::Evaluation(_) => None,
    };
    records(folder).into_iter().filter_map(loss).collect()
}

#[test]
fn classes_are_learned_with_every_rate_and_an_interrupted_run_ends_the_same() {
    for (method, lambda) in METHODS {
        let config = configuration(method, lambda);
        let folder = tempfile::tempdir().unwrap();
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        let examples = examples();
        let data = TrainingSet::Examples(&examples);
        let mut run = open(&whole, &config, Start::Fresh);
        run.train(data, &mut Watch).unwrap();
        let losses_of_whole = losses(&whole);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        let (first, last) = (mean(&losses_of_whole[..8]), mean(&losses_of_whole[112..]));
        assert!((first - 2.0_f64.ln()).abs() < 0.15, "{method}: {first}");
        assert!(last < 0.25, "{method}: {last}");

        open(&parts, &config, Start::Fresh).train_until(50, data, &mut Watch).unwrap();
        let mut resumed = open(&parts, &config, Start::Resume);
        assert_eq!(resumed.trainer.steps_taken(), 50);
        resumed.train(data, &mut Watch).unwrap();
        assert_eq!(resumed.trainer.weights(), run.trainer.weights(), "{method}");
        assert_eq!(losses(&parts), losses_of_whole, "{method}");
    }
}

#[test]
fn accuracy_and_tokens_without_padding_stand_in_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let config = configuration("none", 0.0);
    let all = examples();
    open(folder.path(), &config, Start::Fresh)
        .train(TrainingSet::Examples(&all), &mut Watch)
        .unwrap();
    let records = records(folder.path());
    // Sixty-four examples are eight batches.
    let tokens: Vec<u64> = records
        .iter()
        .filter_map(|record| match record {
            Record::Step(record) => record.tokens,
            Record::Evaluation(_) => None,
        })
        .collect();
    let in_all: usize = all.iter().map(|example| example.tokens.len()).sum();
    assert_eq!(tokens[..8].iter().sum::<u64>(), in_all as u64);
    let scores = records.iter().filter_map(|record| match record {
        Record::Evaluation(record) => Some((record.accuracy, record.bits_per_byte)),
        Record::Step(_) => None,
    });
    assert_eq!(scores.collect::<Vec<_>>(), [(Some(0.75), None); 2]);

    let other = configuration("none", 0.0);
    let fewer = TrainingSet::Examples(&all[1..]);
    let error =
        Run::open(folder.path(), &other, fewer, beginning(&other), Start::Resume).err().unwrap();
    assert!(error.to_string().contains("was made with other training data"), "{error}");
}
