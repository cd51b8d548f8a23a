//! Pruned models and their files, from the command line.

use crate::place::{Place, borrowed, bytes, json};

#[test]
fn codes_and_float_weights_are_pruned_and_bytes_stand_beside_the_loss() {
    let place = Place::new();
    let set = |more: &[&'static str]| [&["--set", "train.steps=60"], more].concat();
    place.ok(&borrowed(&place.train("plain", &set(&[]))));
    let rate = ["--set", "rate.method=bits", "--set", "rate.start=0.2"];
    place.ok(&borrowed(&place.train("rate", &set(&rate))));
    let prune = ["prune-curve", "plain", "rate", "rate/model.bsl", "--data", "text.txt"];
    let more = ["--tokens", "500", "--step", "30", "--bits-per-weight", "5"];
    let prune = [&prune[..], &more].concat();
    let result = json(&place.ok(&[&prune[..], &["--plot", "curves.svg", "--json"]].concat()));
    let curves = result["curves"].as_array().unwrap();
    assert_eq!(curves.len(), 3);
    for curve in curves {
        let points = curve["points"].as_array().unwrap();
        let of = |key: &str| -> Vec<f64> {
            points.iter().map(|point| point[key].as_f64().unwrap()).collect()
        };
        assert_eq!(of("sparsity"), [0.0, 0.3, 0.6, 0.9, 0.95]);
        let pairs = || of("zeros").into_iter().zip(of("sparsity"));
        assert!(pairs().all(|(zeros, sparsity)| zeros >= sparsity - 1e-3), "{curve}");
        let (sizes, losses) = (of("bytes"), of("bits_per_byte"));
        assert!(sizes[4] < 0.9 * sizes[0], "{sizes:?}");
        assert!(losses[4] > losses[0], "{losses:?}");
    }
    // The folder of a run with learned steps is its file.
    assert_eq!(curves[1]["points"], curves[2]["points"]);
    // Unpruned, a run's own file has the quality that `eval` finds.
    let eval = ["eval", "rate", "--data", "text.txt", "--tokens", "500", "--json"];
    let evaluated = json(&place.ok(&eval));
    assert_eq!(evaluated["decoded"]["bits_per_byte"], curves[1]["points"][0]["bits_per_byte"]);
    let plot = bytes(&place.path("curves.svg"));
    assert!(String::from_utf8(plot).unwrap().contains("bits per byte, decoded"));

    let table = place.ok(&[&prune[..], &["--per-tensor"]].concat());
    assert!(
        table.contains("not embeddings") && table.contains("10 % more bits per byte"),
        "{table}"
    );
    let all = place.ok(&[&prune[..], &["--embeddings"]].concat());
    assert!(all.contains("embeddings too") && all != table, "{all}");
    place.fails(&[&prune[..], &["--plot", "curves.svg"]].concat(), 2, "curves.svg exists");

    // Models of one kind are seeds of one curve.
    let seeds = ["prune-curve", "both=plain", "both=rate", "--data", "text.txt"];
    let seeds = [&seeds[..], &more].concat();
    let together = json(&place.ok(&[&seeds[..], &["--json"]].concat()));
    assert_eq!(together["curves"].as_array().unwrap()[..], curves[..2]);
    let lost = |curve: &serde_json::Value| curve["sparsity_at_10_percent_loss"].as_f64();
    let found: Vec<f64> = curves[..2].iter().filter_map(lost).collect();
    let kind = &together["kinds"][0];
    assert_eq!(together["kinds"].as_array().unwrap().len(), 1);
    assert_eq!(kind["models_that_lose_as_much"], found.len());
    let mean = found.iter().sum::<f64>() / found.len() as f64;
    assert!(lost(kind).is_none_or(|lost| (lost - mean).abs() < 1e-9), "{kind}");
    assert_eq!(lost(kind).is_none(), found.is_empty(), "{kind}");
    let document = ["--markdown", "results.md", "--section", "pruning"];
    let said = place.ok(&[&seeds[..], &document].concat());
    let written = String::from_utf8(bytes(&place.path("results.md"))).unwrap();
    assert!(written.starts_with("<!-- section:pruning -->\nPruned are"), "{written}");
    let rows = written.lines().filter(|line| line.starts_with("| both "));
    assert_eq!(rows.count(), 5, "{written}");
    assert!(
        written.contains("\n- both: ") && written.contains("Made by `backslash prune-curve both")
    );
    assert!(written.contains("`plain` ") && written.contains("`rate` "), "{written}");
    let named = [&seeds[..], &["--markdown", "results.md", "--section", "a b"]].concat();
    place.fails(&named, 2, "--section a b");
    assert!(said.contains("both: 10 % more") || said.contains("both: less than 10 %"), "{said}");

    // What is printed as JSON becomes a part of a page.
    std::fs::write(place.path("pruned.json"), together.to_string()).unwrap();
    place.ok(&["report", "pruned.json", "-o", "page.html"]);
    let page = String::from_utf8(bytes(&place.path("page.html"))).unwrap();
    assert!(page.contains("<h2>Pruning</h2>") && page.contains("both: loses "), "{page}");
    std::fs::write(place.path("other.json"), "{\"curves\": []}").unwrap();
    let report = ["report", "other.json", "-o", "other.html"];
    place.fails(&report, 1, "other.json is not what prune-curve --json prints");
    let mut cut = together.clone();
    cut["curves"].as_array_mut().unwrap().pop();
    std::fs::write(place.path("other.json"), cut.to_string()).unwrap();
    place.fails(&report, 1, "do not fit together");
    place.fails(&["prune-curve", "none.bsl", "--data", "text.txt"], 1, "none.bsl");
    place.fails(&["prune-curve", "plain", "--step", "0"], 2, "1..=95");
}
