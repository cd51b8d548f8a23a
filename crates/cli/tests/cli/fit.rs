//! Compressing a model that is run on text first.

use crate::place::{Place, borrowed, bytes, json};

fn loss(place: &Place, file: &str) -> f64 {
    let evaluated = ["eval", file, "--data", "text.txt", "--tokens", "2000", "--json"];
    json(&place.ok(&evaluated))["decoded"]["nats_per_token"].as_f64().unwrap()
}

#[test]
fn text_makes_a_better_file_of_the_same_size() {
    let place = Place::new();
    let trained = place.train(
        "run",
        &[
            "--set",
            "train.steps=300",
            "--set",
            "train.learning_rate=4e-3",
            "--set",
            "model.width=64",
        ],
    );
    place.ok(&borrowed(&trained));
    let budget = ["--budget", "14kB"];
    let text = ["--text", "text.txt", "--calibration-tokens", "4000"];
    let compress = |output: &str, more: &[&[&str]]| {
        let all = [&["compress", "run", "-o", output][..], &more.concat()].concat();
        place.ok(&all);
        let size = bytes(&place.path(output)).len();
        assert!((13_930..=14_000).contains(&size), "{output}: {size}");
        loss(&place, output)
    };
    let blind = compress("blind.bsl", &[&budget]);
    let rounded = compress("rounded.bsl", &[&budget, &text, &["--rung", "rtn"]]);
    let fed_back = compress("fed-back.bsl", &[&budget, &text]);
    assert!(fed_back < blind.min(rounded), "{fed_back} against {rounded} and {blind}");

    let in_turn = compress("in-turn.bsl", &[&budget, &text, &["--sequential"]]);
    assert!(in_turn != fed_back && in_turn < blind.min(rounded), "{in_turn} {fed_back}");

    // The fast coder's files keep to the budget as well.
    compress("fast.bsl", &[&budget, &["--effort", "fast"]]);

    // Code that is counted leaves fewer bytes for the model.
    let code = 1500;
    std::fs::write(place.path("code.py"), vec![b'#'; code]).unwrap();
    let counted =
        [&["compress", "run", "-o", "counted.bsl", "--count-code", "code.py"], &budget[..]];
    place.ok(&[&counted.concat()[..], &text].concat());
    let size = bytes(&place.path("counted.bsl")).len();
    assert!(size + code <= 14_000 && size + code > 13_800, "{size} and {code}");

    // A plan is printed, and nothing is written.
    let before = place.files();
    let plan = [&["compress", "run", "--dry-run", "--json"][..], &budget, &text].concat();
    let plan = json(&place.ok(&plan));
    assert!((13_930..=14_000).contains(&plan["split"]["total"].as_u64().unwrap()));
    assert_eq!(place.files(), before);
}

#[test]
fn a_loss_can_be_asked_for() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=120"])));
    let text = ["--text", "text.txt", "--calibration-tokens", "2000"];
    let sizes: Vec<usize> = ["0.2", "0.02"]
        .map(|nats| {
            let goal = ["compress", "run", "-o", "m.bsl", "--force", "--max-loss-increase", nats];
            place.ok(&[&goal[..], &text].concat());
            bytes(&place.path("m.bsl")).len()
        })
        .to_vec();
    assert!(sizes[0] < sizes[1], "{sizes:?}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=2"])));
    let before = place.files();
    for (more, code, message) in [
        (&["--rung", "watersic"][..], 2, "--text"),
        (&["--sequential"], 2, "--text"),
        (&["--rung", "wattersick"], 2, "watersic-rate"),
        (&["--kappa", "0.1"], 2, "--text"),
        (&["--kappa=-1"], 2, "positive"),
        (&["--max-loss-increase", "0.1"], 2, "--text"),
        (&["--bits-per-weight", "2", "--budget", "9kB"], 2, "cannot be used with"),
        (&["--budget", "9kB", "--count-code", "missing.py"], 1, "missing.py"),
        (&["--budget", "1kB", "--count-code", "text.txt"], 2, "the code that is counted"),
        (&["--budget", "0"], 2, "at least 1 byte"),
        (&["--budget", "100", "--text", "text.txt"], 1, "cannot be reached"),
        (&["--text", "missing.txt"], 1, "missing.txt"),
    ] {
        place.fails(&[&["compress", "run", "-o", "x.bsl"], more].concat(), code, message);
    }
    std::fs::write(place.path("short.txt"), "too short").unwrap();
    place.fails(&["compress", "run", "-o", "x.bsl", "--text", "short.txt"], 1, "33 are needed");
    std::fs::remove_file(place.path("short.txt")).unwrap();
    place.fails(&["compress", "run"], 2, "-o FILE");
    assert_eq!(place.files(), before);
}

#[test]
fn steps_can_be_shared_out_in_four_ways() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=120"])));
    let text = ["--text", "text.txt", "--calibration-tokens", "2000"];
    for allocation in ["relative", "tensors", "rows", "measured"] {
        let goal = ["compress", "run", "-o", "m.bsl", "--force", "--budget", "8kB"];
        place.ok(&[&goal[..], &text, &["--allocation", allocation]].concat());
        let size = bytes(&place.path("m.bsl")).len();
        assert!((7_900..=8_000).contains(&size), "{allocation}: {size}");
    }
    let alone = ["compress", "run", "-o", "x.bsl", "--allocation", "tensors"];
    place.fails(&alone, 2, "--text");
    // All of the text to calibrate on leaves nothing to measure slopes on.
    let all = ["--text", "text.txt", "--calibration-tokens", "1000000"];
    let measured = ["compress", "run", "-o", "x.bsl", "--allocation", "measured"];
    place.fails(&[&measured[..], &all].concat(), 1, "fewer --calibration-tokens");
}
