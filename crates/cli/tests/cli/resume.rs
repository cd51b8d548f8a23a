//! A run killed at any moment and resumed ends with the bytes of one left alone.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::place::{Place, borrowed, bytes};

const RUN: &[&str] = &[
    "--set",
    "train.steps=60",
    "--set",
    "rate.method=bits",
    "--budget",
    "5kB",
    "--set",
    "rate.rounding_from=0.4",
    "--set",
    "rate.line_scales=sensitivity",
    "--set",
    "train.checkpoint_every=7",
    "--set",
    "train.evaluate_every=25",
];

/// Steps on record, without the figures that depend on the clock.
fn steps(folder: &Path) -> Vec<(u64, String)> {
    std::fs::read_to_string(folder.join("metrics.jsonl"))
        .unwrap()
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            (record["step"].as_u64().unwrap(), record["loss"].to_string())
        })
        .collect()
}

#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("whole", RUN)));

    let arguments = place.train("killed", RUN);
    let checkpoints = place.path("killed/checkpoints");
    // Killed three times, each at another distance from the checkpoint before.
    for (round, pause) in [3_u64, 41, 17].into_iter().enumerate() {
        let mut command = match round {
            0 => place.command(&borrowed(&arguments)),
            _ => place.command(&["train", "--resume", "--out", "killed"]),
        };
        let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        let newest = |checkpoints: &Path| {
            let names = std::fs::read_dir(checkpoints).ok()?;
            let names = names.flatten().map(|entry| entry.file_name().into_string().unwrap());
            names.filter(|name| name.starts_with("step-")).max()
        };
        let before = newest(&checkpoints);
        let started = Instant::now();
        while newest(&checkpoints) == before && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(120), "no checkpoint");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let unfinished = place.path("killed/checkpoints/.step-left-by-a-kill.tmp");
    std::fs::write(&unfinished, "half a checkpoint").unwrap();
    place.ok(&["train", "--resume", "--out", "killed"]);
    assert!(!unfinished.exists());

    for name in ["model.safetensors", "model.bsl", "steps.json", "config.toml"] {
        let of = |run: &str| bytes(&place.path(run).join(name));
        assert_eq!(of("killed"), of("whole"), "{name}");
    }
    assert_eq!(steps(&place.path("killed")), steps(&place.path("whole")));
    let size = bytes(&place.path("whole/model.bsl")).len();
    assert!((4900..=5000).contains(&size), "{size} bytes");
}

#[test]
fn a_run_killed_before_its_first_checkpoint_starts_again() {
    let place = Place::new();
    let more = ["--set", "train.steps=5", "--set", "train.checkpoint_every=0"];
    place.ok(&borrowed(&place.train("run", &more)));
    let whole = bytes(&place.path("run/model.bsl"));
    std::fs::remove_file(place.path("run/model.bsl")).unwrap();
    place.ok(&["train", "--resume", "--out", "run"]);
    assert_eq!(bytes(&place.path("run/model.bsl")), whole);
}

#[test]
fn a_run_can_go_on_from_the_weights_of_another() {
    let place = Place::new();
    let first = ["--set", "train.steps=40", "--set", "train.checkpoint_every=0"];
    place.ok(&borrowed(&place.train("first", &first)));
    // A network of its own is not asked for: that of the first run is taken.
    let second = [
        &["train", "--data", "text.txt", "--out", "second", "--from", "first"][..],
        &["--set", "train.steps=1", "--set", "train.learning_rate=1e-9"],
        &["--set", "train.batch_size=4", "--set", "data.validation_tokens=200"],
    ]
    .concat();
    place.ok(&second);
    let of = |name: &str| bytes(&place.path("second").join(name));
    assert_eq!(of("config.json"), bytes(&place.path("first/config.json")));
    let weights = |run: &str| {
        let file = bytes(&place.path(run).join("model.safetensors"));
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        let mut values = Vec::new();
        let mut names = tensors.names();
        names.sort();
        for name in names {
            let data = tensors.tensor(name).unwrap().data().as_chunks::<4>().0;
            values.extend(data.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        values
    };
    let (before, after) = (weights("first"), weights("second"));
    assert_eq!(before.len(), after.len());
    assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-6));
    place.fails(
        &["train", "--data", "text.txt", "--out", "third", "--from", "nowhere"],
        1,
        "train.from = nowhere",
    );
    assert!(!place.path("third").exists());
}

#[test]
fn what_cannot_be_resumed_is_refused() {
    let place = Place::new();
    place.fails(&["train", "--resume", "--out", "nothing"], 2, "holds no run to resume");
    let more = ["--set", "train.steps=6", "--set", "train.checkpoint_every=2"];
    let arguments = place.train("run", &more);
    place.ok(&borrowed(&arguments));
    place.fails(&borrowed(&arguments), 2, "holds a run already");

    let config = place.path("run/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("steps = 6", "steps = 8")).unwrap();
    place.fails(&["train", "--resume", "--out", "run"], 1, "another configuration");
    std::fs::write(&config, &text).unwrap();

    let original = std::fs::read_to_string(place.path("text.txt")).unwrap();
    std::fs::write(place.path("text.txt"), original.replace("green", "white")).unwrap();
    place.fails(&["train", "--resume", "--out", "run"], 1, "other training data");
    std::fs::write(place.path("text.txt"), original).unwrap();

    for checkpoint in std::fs::read_dir(place.path("run/checkpoints")).unwrap() {
        let path = checkpoint.unwrap().path();
        let content = bytes(&path);
        std::fs::write(&path, &content[..content.len() / 2]).unwrap();
    }
    place.fails(&["train", "--resume", "--out", "run"], 1, "not a valid checkpoint");
}

/// Also where another method has taken over the matrices, as it does when the rate begins after 36 steps.
#[test]
fn a_run_goes_on_from_where_it_was_told_to_stop() {
    let place = Place::new();
    let run = [RUN, &["--set", "optimizer.method=muon"]].concat();
    place.ok(&borrowed(&place.train("whole", &run)));
    place.ok(&borrowed(&place.train("parts", &[&run[..], &["--until", "11"]].concat())));
    assert!(!place.path("parts/model.bsl").exists());
    assert!(place.path("parts/checkpoints/step-00000011.safetensors").exists());
    for until in ["36", "45"] {
        place.ok(&["train", "--resume", "--out", "parts", "--until", until]);
    }
    place.ok(&["train", "--resume", "--out", "parts"]);
    assert_eq!(steps(&place.path("parts")), steps(&place.path("whole")));
    let file = |run: &str| bytes(&place.path(run).join("model.bsl"));
    assert_eq!(file("parts"), file("whole"));
}
