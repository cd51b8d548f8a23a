//! The table of quantisers and exporters, from the command line.

use backslash_eval::table::grouped;

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
    // Two quantisers with three ways to share out steps, two exporters with a size, four files without.
    assert_eq!(points.len(), 2 * (2 * 3 + 2) + 4);
    for point in points {
        let bits = 8.0 * point["bytes"].as_f64().unwrap() / point["parameters"].as_f64().unwrap();
        if let Some(target) = point["target"].as_f64() {
            assert!(bits <= target && bits > 0.9 * target, "{point}");
        }
        assert!(point["nats"].as_f64().unwrap() > 0.0);
        // Files of ours say where their bytes went and how they were made.
        let ours = point["allocation"].is_string();
        assert_eq!(point["log_kappa"].is_number(), ours, "{point}");
        if ours {
            let parts = point["split"].as_object().unwrap().values();
            assert_eq!(parts.map(|part| part.as_u64().unwrap()).sum::<u64>(), point["bytes"]);
        }
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
    assert!(document.starts_with("# Results\n\n<!-- section:small -->\n"), "{document}");
    assert!(
        document.contains("| watersic-rate ") && document.contains("Made by `backslash ladder")
    );

    // An exporter that takes the bytes it takes stands under no size of the others.
    let golf = table.lines().find(|line| line.starts_with("| golf int8 + zlib-9 ")).unwrap();
    assert!(golf.contains(&grouped(bytes("golf int8 + zlib-9"))), "{golf}");
    // Of one model nothing is said about chance.
    assert!(!table.contains("no difference") && !table.contains('±'), "{table}");

    // Other text is another table, also where it is as long.
    let mut other = ladder(&[]);
    let at = other.iter().position(|word| *word == "1500").unwrap();
    other[at] = "1000";
    place.fails(&other, 1, "other weights or other text");
    let text = std::fs::read_to_string(place.path("text.txt")).unwrap();
    std::fs::write(place.path("other.txt"), text.replace("green", "brown")).unwrap();
    let mut other = ladder(&[]);
    let at = other.iter().rposition(|word| *word == "text.txt").unwrap();
    other[at] = "other.txt";
    place.fails(&other, 1, "points.jsonl: has points of a `run` with other weights or other text");
    assert_eq!(lines(&std::fs::read_to_string(&path).unwrap()), lines(&whole));
}

#[test]
fn a_size_that_cannot_be_met_leaves_a_dash_and_the_rest_is_made() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=20"])));
    let mut arguments = ladder(&["--allocations", "rows", "--json"]);
    let at = arguments.iter().position(|word| *word == "5,6").unwrap();
    arguments[at] = "0.001,5";
    let output = place.run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot be reached"), "{}", stderr(&output));
    let points = json(&String::from_utf8(output.stdout).unwrap());
    let of = |method: &str| {
        let points = points.as_array().unwrap().iter();
        points.filter(|point| point["method"] == method).count()
    };
    assert_eq!((of("rtn"), of("watersic-rate")), (1, 1));
    // Exporters have the nearest that they can.
    assert_eq!(of("SDClip + brotli-11"), 2);
    let table = place.ok(&arguments[..arguments.len() - 1]);
    assert!(table.contains('–'), "{table}");
}

#[test]
fn tensors_that_cannot_be_run_are_compared_by_their_error() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=2"])));
    let rows = json(&place.ok(&["ladder", "run/model.safetensors", "--bits", "5", "--json"]));
    assert_eq!(
        json(&place.ok(&["ladder", "run", "--bits", "5", "--json"]))[0]["bytes"],
        rows[0]["bytes"]
    );
    let decibels = |method: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["method"] == method);
        row.unwrap_or_else(|| panic!("{method} of {rows}"))["decibels"].as_f64().unwrap()
    };
    assert!(decibels("trellis, equal steps") > decibels("rtn, equal steps") + 0.3, "{rows}");
    assert!(rows.as_array().unwrap().iter().all(|row| row["method"] != "gptq, equal steps"));

    place.fails(&["ladder", "run", "--text", "text.txt"], 2, "--data");
    place.fails(&["ladder", "run", "--bits", "0"], 2, "positive");
    place.fails(&["ladder", "text.txt"], 1, "text.txt");
    place.fails(&ladder(&["--allocations", "measured"]), 2, "--allocations measured");
    place.fails(&ladder(&["run"]), 2, "two models are named `run`");
    let section = ["--markdown", "results.md", "--section", "a b"];
    place.fails(&ladder(&section), 2, "--section a b");
}
