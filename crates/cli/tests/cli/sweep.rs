//! A grid of runs, from the command line.

use std::time::{Duration, Instant};

use crate::place::{Place, json};

const FILE: &str = r#"
config = "small.toml"
seeds = [1, 2]

[[curve]]
name = "plain"
export = ["rtn", "watersic-rate"]
bits = [6, 7]

[[curve]]
name = "rate"
set.rate.method = "bits"
set.rate.start = 0.2
grid.rate.lambda = [0.01, 0.1]

[[curve]]
name = "steered"
seeds = [1]
set.rate.method = "bits"
set.rate.budget = 6000

[[compare]]
curve = "rate"
against = "plain"
bits = [6]
bytes = [1_000_000]
"#;

const CONFIG: &str = r#"
[data]
tokenizer = "bytes"
validation_tokens = 200
[model]
width = 32
layers = 1
heads = 2
kv_heads = 2
context = 32
[train]
steps = 40
batch_size = 4
checkpoint_every = 10
"#;

const SWEEP: &[&str] =
    &["sweep", "sweep.toml", "--data", "text.txt", "--calibration-tokens", "1500"];

fn place() -> Place {
    let place = Place::new();
    std::fs::write(place.path("sweep.toml"), FILE).unwrap();
    std::fs::write(place.path("small.toml"), CONFIG).unwrap();
    place
}

#[test]
fn a_sweep_killed_and_resumed_gives_the_same_results() {
    let place = place();
    let whole = [SWEEP, &["--results", "whole.jsonl", "--out", "whole", "--workers", "2"]].concat();
    let lines = json(&place.ok(&[&whole[..], &["--json"]].concat()));
    // Two seeds with two quantisers at two sizes, two seeds at two λ, and a budget.
    assert_eq!(lines.as_array().unwrap().len(), 2 * 2 * 2 + 2 * 2 + 1);
    for line in lines.as_array().unwrap() {
        if let Some(target) = line["target"].as_f64() {
            let bits = line["bits_per_weight"].as_f64().unwrap();
            assert!(bits <= target && bits > 0.9 * target, "{line}");
        }
        assert!(line["nats"].as_f64().unwrap() > 0.0);
    }
    let steered = &lines[12]["steered"];
    assert_eq!(steered["budget"], 6000);
    assert!(steered["bytes"].as_u64().unwrap() <= 6000, "{steered}");
    assert!(steered["half_time_forecast"].as_u64().unwrap() > 0, "{steered}");

    // Runs that share their first steps end as they would by themselves.
    let run = lines[9]["run"].as_str().unwrap();
    assert!(
        place
            .path("whole")
            .read_dir()
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("trunk8-") })
    );
    let config = format!("whole/{run}/config.toml");
    place.ok(&["train", "--config", &config, "--out", "alone"]);
    let file = |folder: &str| crate::place::bytes(&place.path(folder).join("model.bsl"));
    assert_eq!(file("alone"), file(&format!("whole/{run}")));

    let killed =
        [SWEEP, &["--results", "killed.jsonl", "--out", "killed", "--workers", "2"]].concat();
    let results = |name: &str| std::fs::read_to_string(place.path(name)).unwrap_or_default();
    for at_least in [0, 1, 6] {
        let mut child = place.command(&killed).stderr(std::process::Stdio::null()).spawn().unwrap();
        let started = Instant::now();
        let begun = || std::fs::read_dir(place.path("killed")).is_ok();
        while !begun() || results("killed.jsonl").lines().count() < at_least {
            assert!(started.elapsed() < Duration::from_secs(300), "no line {at_least}");
            assert!(child.try_wait().unwrap().is_none(), "ended before line {at_least}");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(30));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.ok(&killed);
    assert_eq!(results("killed.jsonl"), results("whole.jsonl"));
    // A line says what all runs have in common too: results of other sweeps can stand beside it.
    assert!(results("whole.jsonl").lines().all(|line| line.contains("\"model.width=32\"")));

    // Nothing is made twice, even where the runs are gone.
    std::fs::remove_dir_all(place.path("whole")).unwrap();
    std::fs::write(place.path("results.md"), "# Results\n").unwrap();
    let more = ["--markdown", "results.md", "--section", "small", "--plot", "small.svg"];
    let table = place.ok(&[&whole[..], &more].concat());
    assert!(!place.path("whole").exists());
    assert!(table.contains("| rate: rate.lambda=0.01 "), "{table}");
    assert_eq!(table.matches("| rate, against plain ").count(), 2, "{table}");
    assert!(table.contains(" fewer bytes |") && table.contains(" fewer nats |"), "{table}");
    let document = std::fs::read_to_string(place.path("results.md")).unwrap();
    assert!(document.contains("<!-- section:small -->") && document.contains(table.trim_end()));
    assert!(document.contains("`configuration` ") && document.contains("`data` "), "{document}");
    let plot = std::fs::read_to_string(place.path("small.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains(">steered</text>"), "{plot}");

    // A row is made again from nothing, and a figure that does not hold is named.
    let row = "rate: rate.lambda=0.01";
    let check = ["--check", "results.md", "--section", "small", "--row", row, "--out", "again"];
    let check = [SWEEP, &["--workers", "2"], &check].concat();
    let same = place.ok(&check);
    for figure in ["bytes", "nats per token"] {
        let holds = |line: &str| line.contains(figure) && line.contains("the same");
        assert!(same.lines().any(holds), "{same}");
    }
    let titled = document.lines().find(|line| line.contains(row)).unwrap();
    let bytes = titled.split('|').nth(2).unwrap();
    let wrong = document.replace(titled, &titled.replace(bytes, " 1,000 "));
    std::fs::write(place.path("results.md"), wrong).unwrap();
    place.fails(&check, 1, "bytes of `rate: rate.lambda=0.01` was 1,000 and is");
    let other: Vec<&str> =
        check.iter().map(|word| if *word == row { "rate: rate.lambda=7" } else { *word }).collect();
    place.fails(&other, 2, "has no such row in its section `small`");
}

#[test]
fn a_run_that_fails_is_named_and_the_others_are_kept() {
    let place = place();
    let text = r#"
        config = "small.toml"
        [[curve]]
        name = "fast"
        set.train.steps = 5
        grid.train.learning_rate = [1e30, 1e-3]
        export = ["rtn"]
        bits = [8]
    "#;
    std::fs::write(place.path("sweep.toml"), text).unwrap();
    let sweep = [SWEEP, &["--results", "results.jsonl"]].concat();
    place.fails(&sweep, 1, "1 of 2 runs failed, such as runs/sweep/seed1-");
    let lines = std::fs::read_to_string(place.path("results.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 1);
    assert!(lines.contains("train.learning_rate=0.001"), "{lines}");
}

#[test]
fn what_is_wrong_with_a_sweep_is_said_before_anything_is_trained() {
    let place = place();
    let sweep = [SWEEP, &["--results", "results.jsonl"]].concat();
    let with = |from: &str, to: &str| {
        std::fs::write(place.path("sweep.toml"), FILE.replace(from, to)).unwrap();
    };
    with("grid.rate.lambda", "grid.rate.lamda");
    place.fails(&sweep, 2, "did you mean `rate.lambda`");
    with("rtn", "rnt");
    place.fails(&sweep, 2, "sweep.toml: curve `plain`: there is no export `rnt`");
    with("[0.01, 0.1]", "[-1]");
    place.fails(&sweep, 2, "rate.lambda = -1");
    with("small.toml", "none.toml");
    place.fails(&sweep, 1, "none.toml");
    with("", "");
    std::fs::write(place.path("results.jsonl"), "{}\n").unwrap();
    place.fails(&sweep, 1, "results.jsonl: line 1 is no line of a sweep");
    assert!(!place.path("runs").exists());
}
