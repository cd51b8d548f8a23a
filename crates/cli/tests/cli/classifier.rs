//! Classifiers: trained from labelled texts, with every rate, from a checkpoint; scored, swept and pruned.

use std::path::Path;

use backslash_model::{Architecture, ModelConfig, NamedTensor, NamedWeights};

use crate::place::{Place, bytes, json};

/// Sentences in which one of two words tells the class, in a file with a first line as GLUE has it.
fn reviews(path: &Path, from: usize, count: usize) {
    let films = ["the film", "this story", "that plot", "the end", "a scene"];
    let more = ["to me", "in all", "as ever", "and long", "of late"];
    let line = |index: usize| {
        let class = index % 2;
        let verdict = [["dull", "poor"], ["fine", "good"]][class][index / 2 % 2];
        let (film, more) = (films[index / 3 % 5], more[index / 7 % 5]);
        format!("{film} is {verdict} {more}\t{class}\n")
    };
    let lines: String = (from..from + count).map(line).collect();
    std::fs::write(path, format!("sentence\tlabel\n{lines}")).unwrap();
}

fn place() -> Place {
    let place = Place::new();
    reviews(&place.path("train.tsv"), 0, 160);
    reviews(&place.path("dev.tsv"), 1000, 60);
    std::fs::write(place.path("small.toml"), CONFIG).unwrap();
    place
}

const CONFIG: &str = r#"
[data]
tokenizer = "wordpiece:80"
[model]
architecture = "bert"
width = 32
layers = 1
heads = 2
kv_heads = 2
mlp_ratio = 2
context = 16
[train]
steps = 60
batch_size = 16
learning_rate = 5e-3
evaluate_every = 20
checkpoint_every = 20
"#;

const TRAIN: &[&str] =
    &["train", "--config", "small.toml", "--data", "train.tsv", "--validation", "dev.tsv"];
const EVAL: &[&str] = &["--data", "dev.tsv", "--json"];

#[test]
fn classes_are_learned_with_every_rate_and_the_file_finds_them_too() {
    let place = place();
    for (method, lambda) in
        [("none", "0"), ("bits", "0.01"), ("backslash", "1e-5"), ("l1", "1e-5"), ("l0.5", "1e-5")]
    {
        let (method_key, lambda) =
            (format!("rate.method={method}"), format!("rate.lambda={lambda}"));
        let more = ["--out", method, "--set", &method_key, "--set", &lambda, "--json"];
        let trained = json(&place.ok(&[TRAIN, &more].concat()));
        for kind in ["float", "decoded"] {
            assert_eq!(trained[kind]["examples"], 60);
            assert!(trained[kind]["accuracy"].as_f64().unwrap() > 0.9, "{method}: {trained}");
        }
        let file = format!("{method}/model.bsl");
        let evaluated = json(&place.ok(&[&["eval", &file][..], EVAL].concat()));
        assert_eq!(evaluated["decoded"], trained["decoded"], "{method}");
        let metrics = String::from_utf8(bytes(&place.path(method).join("metrics.jsonl"))).unwrap();
        let last = json(metrics.lines().last().unwrap());
        assert_eq!(last["accuracy"], trained["float"]["accuracy"]);
        assert!(last.get("bits_per_byte").is_none(), "{last}");
    }
    let said = place.ok(&["eval", "none", "--data", "dev.tsv"]);
    assert!(said.contains("% correct") && said.contains("(60 examples)"), "{said}");
    place.fails(&["generate", "none"], 1, "an encoder cannot write");
    let compress = ["compress", "none", "-o", "x.bsl", "--budget", "12kB"];
    place.ok(&compress);
    let with_text = [&compress[..], &["--force", "--text", "text.txt"]].concat();
    place.fails(&with_text, 1, "text.txt has one column");
}

#[test]
fn a_classifier_is_calibrated_on_labelled_texts() {
    let place = place();
    place.ok(&[TRAIN, &["--out", "run"]].concat());
    let few = ["--calibration-tokens", "600"];
    for (out, more) in [
        ("a.bsl", &[][..]),
        ("b.bsl", &["--rung", "gptq"]),
        ("c.bsl", &["--sequential"]),
        ("d.bsl", &["--allocation", "measured"]),
    ] {
        let compress = ["compress", "run", "-o", out, "--budget", "9kB", "--text", "train.tsv"];
        place.ok(&[&compress[..], &few, more].concat());
        let evaluated = json(&place.ok(&[&["eval", out][..], EVAL].concat()));
        let accuracy = evaluated["decoded"]["accuracy"].as_f64().unwrap();
        assert!(accuracy > 0.9, "{more:?}: {evaluated}");
    }
    let ledger = ["ledger", "run", "--text", "train.tsv", "--slope-tokens", "300", "--json"];
    let measured = json(&place.ok(&[&ledger[..], &few].concat()));
    assert!(measured["summary"]["divergence"].as_f64().unwrap() > 0.0, "{measured}");
    place.fails(&ledger, 1, "--text has 160 examples of which it has used 160");
    let ladder =
        ["ladder", "run", "--text", "train.tsv", "--data", "dev.tsv", "--results", "l.jsonl"];
    let more = ["--bits", "5", "--rungs", "rtn,watersic", "--allocations", "relative", "--json"];
    let points = json(&place.ok(&[&ladder[..], &more].concat()));
    let ours = |point: &&serde_json::Value| point["allocation"] == "relative";
    let ours: Vec<_> = points.as_array().unwrap().iter().filter(ours).collect();
    assert_eq!(ours.len(), 2);
    assert!(ours.iter().all(|point| point["accuracy"].as_f64().unwrap() > 0.9), "{ours:?}");
    let compress = ["compress", "run", "-o", "x.bsl", "--text", "train.tsv"];
    place.fails(&[&compress[..], &["--text-column", "stars"]].concat(), 1, "stars");
    place.fails(&[&compress[..], &["dev.txt"]].concat(), 1, "dev.txt");
    let without_text = ["compress", "run", "-o", "x.bsl", "--label-column", "1"];
    place.fails(&without_text, 2, "--text FILE");
    place.fails(&["ladder", "run", "--text-column", "0"], 2, "--text FILE");
}

#[test]
fn an_interrupted_run_ends_as_one_left_alone_and_a_budget_is_met() {
    let place = place();
    let budget = ["--budget", "12kB"];
    let whole = [TRAIN, &budget, &["--out", "whole", "--json"]].concat();
    let trained = json(&place.ok(&whole));
    let size = trained["file_bytes"].as_u64().unwrap();
    assert!((11_000..=12_000).contains(&size), "{trained}");
    place.ok(&[TRAIN, &budget, &["--out", "parts", "--until", "45"]].concat());
    let resumed = json(&place.ok(&["train", "--resume", "--out", "parts", "--json"]));
    assert_eq!(resumed["decoded"], trained["decoded"]);
    let file = |folder: &str| bytes(&place.path(folder).join("model.bsl"));
    assert_eq!(file("parts"), file("whole"));
}

/// A folder of a BERT without classes, as Hugging Face stores it.
fn encoder(folder: &Path) {
    let config = ModelConfig {
        architecture: Architecture::Bert,
        vocabulary_size: 64,
        width: 32,
        layers: 1,
        heads: 4,
        kv_heads: 4,
        mlp_hidden: Some(64),
        context: 32,
        masked_head: true,
        ..ModelConfig::default()
    };
    let weights = backslash_model::initial_weights(&config, 3).unwrap();
    let mut tensors = weights.tensors().to_vec();
    tensors.iter_mut().filter(|tensor| !tensor.name.starts_with("cls.")).for_each(|tensor| {
        tensor.name.insert_str(0, "bert.");
    });
    for (name, shape) in
        [("bert.pooler.dense.weight", vec![32, 32]), ("bert.pooler.dense.bias", vec![32])]
    {
        let count: usize = shape.iter().product();
        let data = (0..count).map(|at| 0.1 * ((at % 7) as f32 - 3.0)).collect();
        tensors.push(NamedTensor { name: name.to_owned(), shape, data });
    }
    let words = "the this that a film story plot end scene is dull poor fine good to me in all as ever and long of late";
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let known = special.into_iter().chain(words.split(' ')).map(str::to_owned);
    let tokens = known.chain((0..).map(|id| format!("[unused{id}]"))).take(64);
    let vocabulary: String = tokens.map(|token| token + "\n").collect();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("vocab.txt"), vocabulary).unwrap();
    std::fs::write(
        folder.join("config.json"),
        r#"{"model_type": "bert", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 32}"#,
    )
    .unwrap();
    NamedWeights::new(tensors).write(&folder.join("model.safetensors")).unwrap();
}

#[test]
fn an_encoder_is_fine_tuned_and_its_classifier_goes_on() {
    let place = place();
    encoder(&place.path("bert"));
    let train = |from: &str, out: &str, steps: &str| {
        let data = ["train", "--data", "train.tsv", "--validation", "dev.tsv", "--json"];
        let more = ["--from", from, "--out", out, "--set", steps];
        let set = ["--set", "train.batch_size=16", "--set", "train.learning_rate=5e-3"];
        json(&place.ok(&[&data[..], &more, &set].concat()))
    };
    let first = train("bert", "tuned", "train.steps=60");
    assert!(first["decoded"]["accuracy"].as_f64().unwrap() > 0.9, "{first}");
    let weights = NamedWeights::read(&place.path("tuned/model.safetensors")).unwrap();
    assert!(weights.get("cls.predictions.bias").is_none());
    assert_eq!(weights.get("classifier.weight").unwrap().shape, [2, 32]);
    // What has been learned is there at the first step of a run that goes on from it.
    let again = train("tuned", "again", "train.steps=1");
    assert!(again["float"]["accuracy"].as_f64().unwrap() > 0.9, "{again}");

    // The pooler of the checkpoint is what fine-tuning begins with.
    train("bert", "begun", "train.steps=1");
    let begun = NamedWeights::read(&place.path("begun/model.safetensors")).unwrap();
    let pooler = &begun.get("pooler.dense.weight").unwrap().data;
    let expected = (0..32 * 32).map(|at| 0.1 * ((at % 7) as f32 - 3.0));
    assert!(pooler.iter().zip(expected).all(|(found, from)| (found - from).abs() < 0.02));
}

#[test]
fn a_sweep_has_accuracy_and_a_table_of_coders_and_pruning_has_accuracy_beside_bytes() {
    let place = place();
    std::fs::write(
        place.path("sweep.toml"),
        "config = \"small.toml\"\nseeds = [1, 2]\n[[curve]]\nname = \"backslash\"\n\
         set.rate.method = \"backslash\"\ngrid.rate.lambda = [0, 1e-3]\nexport = [\"coders at 2^-8\", \"watersic\"]\nbits = [6]\n\
         [[curve]]\nname = \"bits\"\nseeds = [1]\nset.rate.method = \"bits\"\nset.rate.lambda = 0.01",
    )
    .unwrap();
    let sweep = ["sweep", "sweep.toml", "--data", "train.tsv", "--validation", "dev.tsv"];
    let results = ["--results", "results.jsonl", "--out", "runs"];
    let lines = json(&place.ok(&[&sweep[..], &results, &["--json"]].concat()));
    let lines = lines.as_array().unwrap();
    assert_eq!(lines.len(), 9);
    let (ours, lines): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line["export"] == "watersic");
    assert_eq!(ours.len(), 4);
    assert!(ours.iter().all(|line| line["accuracy"].as_f64().unwrap() > 0.9), "{ours:?}");
    let share = |line: &serde_json::Value, key: &str| line[key].as_f64().unwrap();
    for line in &lines {
        assert!(share(line, "accuracy") <= 1.0 && share(line, "float_accuracy") > 0.9, "{line}");
        assert!(line.get("bits_per_byte").is_none(), "{line}");
    }
    let coder = |line: &serde_json::Value, key: &str| line["coders"][key].as_f64().unwrap();
    for line in &lines[..4] {
        assert!(coder(line, "entropy") <= coder(line, "huffman"), "{line}");
        assert!(coder(line, "golomb_best") <= coder(line, "golomb"), "{line}");
        assert_eq!(coder(line, "ours"), share(line, "bits_per_weight"));
    }
    assert!(coder(lines[2], "golomb") < 0.9 * coder(lines[0], "golomb"), "a strong pull");
    let table = place.ok(&[&sweep[..], &results, &["--plot", "curves.svg"]].concat());
    let plot = String::from_utf8(bytes(&place.path("curves.svg"))).unwrap();
    assert!(plot.contains("% correct, decoded"));
    assert!(table.contains("exp-Golomb 0") && table.contains("% correct"), "{table}");
    let run = format!("runs/{}", lines[4]["run"].as_str().unwrap());
    place.ok(&["report", "results.jsonl", &run, "-o", "page.html"]);
    let page = String::from_utf8(bytes(&place.path("page.html"))).unwrap();
    assert_eq!(page.matches(", classifiers</h2>").count(), 1);
    assert!(page.contains("% correct, decoded") && page.contains("Bytes of each tensor"));

    let prune = ["prune-curve", &run, "--data", "dev.tsv", "--step", "30"];
    let curves = json(&place.ok(&[&prune[..], &["--plot", "p.svg", "--json"]].concat()));
    let points = curves["curves"][0]["points"].as_array().unwrap();
    assert_eq!(points[0]["accuracy"], lines[4]["accuracy"]);
    assert!(share(&points[4], "bytes") < 0.9 * share(&points[0], "bytes"), "{curves}");
    assert!(share(&points[4], "accuracy_pruned") <= 1.0);
    assert!(place.ok(&prune).contains("10 % fewer correct"));
    let plot = String::from_utf8(bytes(&place.path("p.svg"))).unwrap();
    assert!(plot.contains("accuracy, decoded"));
}

#[test]
fn what_is_wrong_with_labelled_texts_is_said() {
    let place = place();
    let train = |more: &[&'static str]| {
        [&["train", "--config", "small.toml", "--out", "run"][..], more].concat()
    };
    place.fails(&train(&[]), 2, "name a tab-separated file of texts and labels with --data");
    place.fails(&train(&["--data", "text.txt"]), 1, "text.txt has one column");
    let bpe = train(&["--data", "train.tsv", "--tokenizer", "bpe:300"]);
    place.fails(&bpe, 2, "an encoder needs WordPiece");
    let masked = train(&["--data", "train.tsv", "--set", "model.masked_head=true"]);
    place.fails(&masked, 2, "model.masked_head = true");
    std::fs::write(place.path("other.tsv"), "good\t1\nso so\t2\n").unwrap();
    let other = train(&["--data", "train.tsv", "--validation", "other.tsv"]);
    place.fails(&other, 1, "other.tsv, line 2: the label \"2\" is none of 0, 1");
    let column = train(&["--data", "train.tsv", "--label-column", "stars"]);
    place.fails(&column, 1, "data.label_column = \"stars\"");
    assert!(!place.files().contains(&"run".to_owned()));

    let two = ["--set", "train.steps=2"];
    place.ok(&[TRAIN, &["--out", "run"], &two].concat());
    place.fails(&["eval", "run", "--data", "other.tsv"], 1, "is none of 0, 1");
    place.fails(&["eval", "run"], 2, "scored on labelled texts");
}
