//! The table of quantisers and exporters, from the command line.

use crate::place::{Place, borrowed, json, stderr};

const LADDER: &[&str] = &[
    "ladder",
    "run",
    "--text",
    "text.txt",
    "--data",
    "text.txt",
    "--calibration-tokens",
    "1500",
    "--tokens",
    "1000",
    "--rungs",
    "rtn,watersic-rate",
    "--bits",
    "5,6",
];

fn ladder<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [LADDER, &["--results", "points.jsonl"], more].concat()
}

#[test]
fn a_ladder_goes_on_where_it_stopped_and_fills_a_document() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=60"])));
    let points = json(&place.ok(&ladder(&["--json"])));
    let points = points.as_array().unwrap();
    // Two quantisers by sensitivities and by equal steps, two exporters with a size, four files without.
    assert_eq!(points.len(), 2 * (2 + 2 + 2) + 4);
    for point in points {
        let bits = 8.0 * point["bytes"].as_f64().unwrap() / point["parameters"].as_f64().unwrap();
        if let Some(target) = point["target"].as_f64() {
            assert!(bits <= target && bits > 0.9 * target, "{point}");
        }
        assert!(point["nats"].as_f64().unwrap() > 0.0);
    }
    let of = |method: &str| {
        points.iter().find(|point| point["method"] == method && point["target"] != 6.0).unwrap()
    };
    let bytes = |method: &str| of(method)["bytes"].as_u64().unwrap();
    assert!(bytes("watersic-rate, no worse than int8") < bytes("golf int8 + zlib-9"));

    let path = place.path("points.jsonl");
    let whole = std::fs::read_to_string(&path).unwrap();
    let last = whole[..whole.len() - 1].rfind('\n').unwrap();
    std::fs::write(&path, &whole[..last + 40]).unwrap();
    std::fs::write(place.path("results.md"), "# Results\n").unwrap();
    let table = place.ok(&ladder(&["--markdown", "results.md", "--section", "small"]));
    assert!(table.contains("| watersic-rate "), "{table}");
    let same = |line: &str| line.split(",\"seconds\"").next().unwrap().to_owned();
    let lines = |text: &str| text.lines().map(same).collect::<Vec<_>>();
    assert_eq!(lines(&std::fs::read_to_string(&path).unwrap()), lines(&whole));
    let document = std::fs::read_to_string(place.path("results.md")).unwrap();
    assert!(document.starts_with("# Results\n\n<!-- ladder:small -->\n"), "{document}");
    assert!(
        document.contains("| watersic-rate ") && document.contains("Made by `backslash ladder")
    );

    // A size that cannot be had is said, and the rest is made.
    let mut tiny = [LADDER, &["--results", "tiny.jsonl"]].concat();
    tiny[LADDER.len() - 1] = "0.1";
    let output = place.run(&tiny);
    assert!(output.status.success() && stderr(&output).contains("cannot be reached"));
    assert!(std::fs::read_to_string(place.path("tiny.jsonl")).unwrap().lines().count() >= 4);

    // Other text is another table.
    let mut other = ladder(&[]);
    let at = other.iter().position(|word| *word == "1500").unwrap();
    other[at] = "1000";
    place.fails(&other, 1, "other weights or other text");
}

#[test]
fn tensors_that_cannot_be_run_are_compared_by_their_error() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=2"])));
    let rows = json(&place.ok(&["ladder", "run/model.safetensors", "--bits", "5", "--json"]));
    let decibels = |method: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["method"] == method);
        row.unwrap_or_else(|| panic!("{method} of {rows}"))["decibels"].as_f64().unwrap()
    };
    assert!(decibels("trellis, equal steps") > decibels("rtn, equal steps") + 0.3, "{rows}");
    assert!(rows.as_array().unwrap().iter().all(|row| row["method"] != "gptq, equal steps"));

    place.fails(&["ladder", "run", "--text", "text.txt"], 2, "--data");
    place.fails(&["ladder", "run", "--bits", "0"], 2, "positive");
    place.fails(&["ladder", "text.txt"], 1, "text.txt");
}
