//! A page of runs and results, from the command line.

use crate::place::{Place, borrowed, json};

/// Two lines of a sweep: one setting with three seeds.
fn results(parameters: u64) -> String {
    let line = |seed: u64| {
        format!(
            "{{\"run\":\"seed{seed}-x\",\"seed\":{seed},\"settings\":[\"rate.lambda=0.1\"],\"steps\":40,\"export\":\"own\",\
             \"target\":null,\"bytes\":{},\"parameters\":{parameters},\"bits_per_weight\":2.0,\"nats\":3.5,\
             \"bits_per_byte\":2.1,\"float_nats\":3.4}}\n",
            250_000 + seed
        )
    };
    line(1) + &line(2) + &line(3)
}

fn trained() -> Place {
    let place = Place::new();
    let more = ["--set", "train.steps=20", "--set", "rate.method=bits", "--set"];
    place.ok(&borrowed(&place.train("run", &[&more[..], &["rate.start=0.2"]].concat())));
    std::fs::write(place.path("results.jsonl"), results(1_000_000)).unwrap();
    place
}

#[test]
fn runs_and_results_become_one_page_with_figures_and_numbers() {
    let place = trained();
    let report = ["report", "run", "results.jsonl", "-o", "report.html"];
    let more = ["--svg", "figures", "--csv", "numbers", "--evaluate", "--json"];
    let written = json(&place.ok(&[&report[..], &more].concat()));
    assert_eq!((&written["files"], &written["runs"]), (&4.into(), &1.into()));
    let page = std::fs::read_to_string(place.path("report.html")).unwrap();
    assert_eq!(written["report_bytes"], page.len());
    assert!(page.len() < 3_000_000, "{}", page.len());
    // The small run and the results are of different models.
    assert_eq!(page.matches("<section class=\"group\">").count(), 2);
    for part in
        ["mean of 3 files", "tok_emb.weight", "generalised Gaussian, shape", "training loss"]
    {
        assert!(page.contains(part), "{part}");
    }

    // The evaluated file is the one that `eval` evaluates.
    let evaluated =
        json(&place.ok(&["eval", "run", "--data", "text.txt", "--tokens", "200", "--json"]));
    let files = std::fs::read_to_string(place.path("numbers/files.csv")).unwrap();
    let decoded = evaluated["decoded"]["bits_per_byte"].to_string();
    assert!(
        files.lines().any(|line| line.starts_with("run,") && line.contains(&decoded)),
        "{files}"
    );

    // Bytes of tensors are those that `inspect` shows.
    let inspected = json(&place.ok(&["inspect", "run/model.bsl", "--json"]));
    let tensors = std::fs::read_to_string(place.path("numbers/tensors.csv")).unwrap();
    for tensor in inspected["tensors"].as_array().unwrap() {
        let named = format!("run,{},", tensor["name"].as_str().unwrap());
        let bytes = format!(",{},", tensor["split"]["total"]);
        assert!(tensors.lines().any(|line| line.starts_with(&named) && line.contains(&bytes)));
    }
    for figure in
        ["size-and-quality", "2-size-and-quality", "training-loss", "tensors-run", "weights-run"]
    {
        let found = place.path(&format!("figures/{figure}.svg")).exists()
            || place.path(&format!("figures/2-{figure}.svg")).exists();
        assert!(found, "{figure}: {}", written["svg"]);
    }

    // Runs of one name in two places are told apart.
    std::fs::create_dir(place.path("other")).unwrap();
    std::fs::create_dir(place.path("other/run")).unwrap();
    for name in ["config.toml", "metrics.jsonl", "model.bsl", "model.safetensors"] {
        std::fs::copy(place.path("run").join(name), place.path("other/run").join(name)).unwrap();
    }
    let both = ["report", "run", "other/run", "-o", "both.html", "--svg", "both"];
    place.ok(&both);
    assert!(place.path("both/tensors-run.svg").exists());
    assert!(place.path("both/tensors-other-run.svg").exists());

    // Nothing that exists is replaced.
    place.fails(&report, 2, "report.html exists");
    let other = ["report", "results.jsonl", "-o", "other.html", "--csv", "numbers"];
    place.fails(&other, 2, "numbers is not empty");
    assert!(!place.path("other.html").exists());
    place.ok(&[&report[..], &["--force"]].concat());
    let without_evaluation = std::fs::read_to_string(place.path("report.html")).unwrap();
    assert!(!without_evaluation.contains(&decoded[..6]));
}

#[test]
fn what_is_no_run_and_no_result_is_named() {
    let place = trained();
    let report = |input: &str, code: i32, message: &str| {
        place.fails(&["report", input, "-o", "report.html"], code, message);
    };
    let whole = results(1_000_000);
    let write = |name: &str, text: &str| std::fs::write(place.path(name), text).unwrap();
    write("cut.jsonl", &whole[..whole.len() - 20]);
    report("cut.jsonl", 1, "cut.jsonl: line 3 is cut in the middle");
    write("wrong.jsonl", &whole.replace("\"bytes\":250002", "\"bytes\":\"many\""));
    report("wrong.jsonl", 1, "wrong.jsonl: line 2 is no line of a sweep");
    write("empty.jsonl", "");
    report("empty.jsonl", 1, "empty.jsonl: has no line of a sweep");
    report("missing.jsonl", 1, "missing.jsonl");
    std::fs::write(place.path("binary.jsonl"), [0xff, 0xfe, 0]).unwrap();
    report("binary.jsonl", 1, "binary.jsonl");
    std::fs::create_dir(place.path("folder")).unwrap();
    report("folder", 1, "folder is no run's folder: it has no config.toml");

    let metrics = place.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&metrics).unwrap();
    std::fs::write(&metrics, &text[..text.len() - 9]).unwrap();
    report("run", 1, "metrics.jsonl: line 21 is cut in the middle");
    std::fs::write(&metrics, &text).unwrap();
    std::fs::remove_file(place.path("run/model.bsl")).unwrap();
    report("run", 1, "run holds a run that has not ended: it has no model.bsl");
    place.fails(&["report", "-o", "report.html"], 2, "RUN_OR_RESULTS");
    place.fails(&["report", "results.jsonl"], 2, "--output");
    assert!(!place.path("report.html").exists());
}
