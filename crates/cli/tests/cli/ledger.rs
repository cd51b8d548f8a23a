//! What a byte buys, from the command line.

use crate::place::{Place, borrowed, json};

fn ledger<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let common = ["ledger", "run", "--text", "text.txt"];
    let tokens = ["--calibration-tokens", "1500", "--slope-tokens", "1000"];
    [&common[..], &tokens, more].concat()
}

#[test]
fn a_ledger_is_sorted_and_goes_on_where_it_stopped() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=60"])));
    let asked = ledger(&["--budget", "9kB", "--results", "ledger.jsonl", "--json"]);
    let first = json(&place.ok(&asked));
    let entries = first["ledger"].as_array().unwrap();
    let returns: Vec<f64> = entries
        .iter()
        .map(|entry| {
            let change = entry["divergence"]["mean"].as_f64().unwrap();
            entry["return_per_kb"].as_f64().unwrap_or(-change.signum() * f64::INFINITY)
        })
        .collect();
    assert!(returns.is_sorted_by(|a, b| a >= b), "{returns:?}");
    let of = |path: &str| entries.iter().filter(|entry| entry["path"] == path).count();
    let tensors = first["alone"].as_array().unwrap().len();
    assert!(tensors >= 2 && of("finer") == tensors && of("coarser") == tensors);
    assert_eq!(of("finer-embedding"), 1);
    assert!(first["summary"]["rank_correlation"].as_f64().is_some());

    // Half of the lines, the last of them cut: the others are measured again.
    let path = place.path("ledger.jsonl");
    let whole = std::fs::read_to_string(&path).unwrap();
    assert_eq!(whole.lines().count(), 1 + tensors + entries.len());
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(json(&place.ok(&asked)) == first, "another ledger the second time");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);

    let table = place.ok(&ledger(&["--budget", "9kB", "--results", "ledger.jsonl"]));
    assert!(table.contains("rank correlation") && table.contains("hypothetical"), "{table}");
    // Another size is another ledger.
    let other = ledger(&["--budget", "8kB", "--results", "ledger.jsonl"]);
    place.fails(&other, 1, "another operating point");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
}

#[test]
fn what_has_no_ledger_is_said() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=2"])));
    place.fails(&["ledger", "run"], 2, "--text");
    place.fails(&ledger(&["--budget", "7kB", "--kappa", "0.1"]), 2, "cannot be used with");
    place.fails(&ledger(&["--rung", "wattersick"]), 2, "watersic-rate");
    place.fails(&ledger(&["--budget", "100"]), 1, "cannot be reached");
    place.fails(&["ledger", "text.txt", "--text", "text.txt"], 1, "a ledger needs a model");
    let all = ["ledger", "run", "--text", "text.txt", "--calibration-tokens", "1000000"];
    place.fails(&all, 1, "fewer --calibration-tokens");
    std::fs::write(place.path("notes.txt"), "not a journal\n").unwrap();
    place.fails(&ledger(&["--budget", "7kB", "--results", "notes.txt"]), 1, "line 1");
    assert_eq!(std::fs::read_to_string(place.path("notes.txt")).unwrap(), "not a journal\n");
}
