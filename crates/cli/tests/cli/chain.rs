//! The whole chain: text to a trained model, to one file, and back.

use crate::place::{Place, borrowed, bytes, json};

#[test]
fn text_becomes_a_file_that_decodes_evaluates_and_writes() {
    let place = Place::new();
    let arguments =
        place.train("run", &["--set", "train.steps=60", "--set", "rate.method=bits", "--json"]);
    let trained = json(&place.ok(&borrowed(&arguments)));
    assert_eq!(
        trained["file_bytes"].as_u64().unwrap(),
        bytes(&place.path("run/model.bsl")).len() as u64
    );
    let learned = trained["decoded"]["bits_per_byte"].as_f64().unwrap();
    assert!(learned < 6.0, "60 steps beat eight bits per byte by far: {learned}");
    for name in [
        "config.toml",
        "metrics.jsonl",
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "steps.json",
    ] {
        assert!(place.path("run").join(name).exists(), "{name}");
    }

    // The learned steps make the same file again; the decoded weights make the same figure again.
    place.ok(&["compress", "run", "-o", "again.bsl"]);
    assert_eq!(bytes(&place.path("again.bsl")), bytes(&place.path("run/model.bsl")));
    let evaluated =
        json(&place.ok(&["eval", "run", "--data", "text.txt", "--tokens", "200", "--json"]));
    assert_eq!(evaluated["decoded"], trained["decoded"]);
    assert_eq!(evaluated["float"], trained["float"]);

    // Decompressed weights carry the original names; weights alone compress to a budget.
    place.ok(&["decompress", "run/model.bsl", "-o", "decoded.safetensors"]);
    let decoded = bytes(&place.path("decoded.safetensors"));
    let decoded = safetensors::SafeTensors::deserialize(&decoded).unwrap();
    let original = bytes(&place.path("run/model.safetensors"));
    let original = safetensors::SafeTensors::deserialize(&original).unwrap();
    let mut names = [decoded.names(), original.names()];
    names.iter_mut().for_each(|names| names.sort());
    assert_eq!(names[0], names[1]);
    place.ok(&["compress", "run/model.safetensors", "-o", "plain.bsl", "--budget", "9kB"]);
    let size = bytes(&place.path("plain.bsl")).len();
    assert!((8_900..=9_000).contains(&size), "{size}");

    let inspected = json(&place.ok(&["inspect", "run/model.bsl", "--json"]));
    assert_eq!(inspected["split"]["total"], trained["file_bytes"]);
    assert!(place.ok(&["inspect", "run/model.bsl"]).contains("tok_emb.weight"));
    let counted = json(&place.ok(&["inspect", "run/model.bsl", "--accounting", "--json"]));
    assert!(counted["decoder_bytes_zlib"].as_u64() < counted["decoder_bytes"].as_u64());

    let verify = ["verify", "run/model.bsl", "--against"];
    let verified = json(&place.ok(&[&verify[..], &["decoded.safetensors", "--json"]].concat()));
    assert_eq!(verified["canonical"], "smallest");
    place.fails(
        &[&verify[..], &["run/model.safetensors"]].concat(),
        1,
        "does not hold the weights",
    );
    let coders = place.ok(&["bench-codec", "run/model.bsl", "--repetitions", "1"]);
    for coder in ["fast", "max", "zlib-9", "zstd-22", "brotli-11", "xz-9e", "paper Huffman"] {
        assert!(coders.contains(coder), "{coder}: {coders}");
    }
    let written = json(&place.ok(&[
        "generate",
        "run/model.bsl",
        "--prompt",
        "7 green",
        "--tokens",
        "20",
        "--json",
    ]));
    assert!(!written["text"].as_str().unwrap().is_empty());
}

#[test]
fn steps_of_rows_and_columns_are_learned_steps_too() {
    let place = Place::new();
    let more = ["--set", "train.steps=20", "--set", "rate.method=bits", "--set"];
    let train = place.train("run", &[&more[..], &["rate.line_scales=sensitivity"]].concat());
    place.ok(&borrowed(&train));
    place.ok(&["compress", "run", "-o", "again.bsl"]);
    assert_eq!(bytes(&place.path("again.bsl")), bytes(&place.path("run/model.bsl")));

    let steps = place.path("run/steps.json");
    let mut learned: serde_json::Value = serde_json::from_slice(&bytes(&steps)).unwrap();
    let columns = learned["blocks.0.attn.c_q.weight"]["scales"]["columns"].as_array_mut().unwrap();
    assert_eq!(columns.len(), 32);
    columns.pop();
    std::fs::write(&steps, learned.to_string()).unwrap();
    let named = "`blocks.0.attn.c_q.weight`: 32 row and 31 column scales, expected 32 and 32";
    place.fails(&["compress", "run", "-o", "wrong.bsl"], 1, named);
    assert!(!place.path("wrong.bsl").exists());
}

/// Trains a model with these settings under a rate, compresses it by its learned steps and as a plain one, and compares the two.
fn goes_the_whole_way(settings: &[&str], tensors: &[&str]) {
    let place = Place::new();
    let rate = ["train.steps=30", "rate.method=bits", "rate.line_scales=learned"];
    let settings = rate.iter().chain(settings);
    let more: Vec<&str> = settings.flat_map(|setting| ["--set", setting]).collect();
    place.ok(&borrowed(&place.train("run", &more)));
    let inspected = place.ok(&["inspect", "run/model.bsl"]);
    for tensor in tensors {
        assert!(inspected.contains(tensor), "{tensor}: {inspected}");
    }
    place.ok(&["compress", "run", "-o", "again.bsl"]);
    assert_eq!(bytes(&place.path("again.bsl")), bytes(&place.path("run/model.bsl")));

    let compress = ["compress", "run", "--text", "text.txt", "--bits-per-weight", "4", "-o"];
    place.ok(&[&compress[..], &["plain.bsl"]].concat());
    let evaluate = |file: &str| {
        let evaluate = ["eval", file, "--data", "text.txt", "--tokens", "2000", "--json"];
        let evaluated = json(&place.ok(&evaluate));
        evaluated["decoded"]["bits_per_byte"].as_f64().unwrap()
    };
    let learned = evaluate("again.bsl");
    let plain = evaluate("plain.bsl");
    assert!(learned < 6.5 && plain < learned + 0.3, "{learned} {plain}");
}

/// The quantisers of plain models find them too, though no layer multiplies by them.
#[test]
fn rows_for_pairs_and_triples_of_tokens_go_the_whole_way() {
    goes_the_whole_way(
        &["model.bigram_rows=300", "model.trigram_rows=200", "model.ngram_width=24"],
        &["bigram_emb.weight", "trigram_emb.weight", "ngram_proj.weight"],
    );
}

/// There are so many that some have no token of the text.
#[test]
fn experts_go_the_whole_way() {
    goes_the_whole_way(
        &["model.experts=60", "model.mlp_ratio=1"],
        &["blocks.0.experts.0.fc.weight", "blocks.0.experts.59.proj.weight"],
    );
}

#[test]
fn a_profile_has_every_part_of_a_step() {
    let place = Place::new();
    let more = ["--set", "train.steps=2", "--profile", "--device", "cpu"];
    let output = place.run(&borrowed(&place.train("run", &more)));
    let text = crate::place::stderr(&output);
    assert!(output.status.success(), "{text}");
    for part in ["forward", "backward", "rate", "optimizer", "evaluation", "all", "ms a step"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn one_thread_and_two_make_the_same_file() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=3"])));
    for threads in ["1", "2"] {
        let output = format!("{threads}.bsl");
        let status = place
            .command(&["compress", "run", "-o", &output])
            .env("RAYON_NUM_THREADS", threads)
            .status()
            .unwrap();
        assert!(status.success());
        let decoded = format!("{threads}.safetensors");
        let status = place
            .command(&["decompress", &output, "-o", &decoded])
            .env("RAYON_NUM_THREADS", threads)
            .status()
            .unwrap();
        assert!(status.success());
    }
    assert_eq!(bytes(&place.path("1.bsl")), bytes(&place.path("2.bsl")));
    assert_eq!(bytes(&place.path("1.safetensors")), bytes(&place.path("2.safetensors")));
}

#[test]
fn every_rate_method_trains_and_leaves_a_file() {
    let place = Place::new();
    for (method, lambda) in
        [("backslash", "1e-5"), ("backslash-in-loss", "1e-5"), ("bits", "0.1"), ("none", "0")]
    {
        let (method, lambda) = (format!("rate.method={method}"), format!("rate.lambda={lambda}"));
        let more =
            ["--set", "train.steps=4", "--set", &method, "--set", &lambda, "--json", "--force"];
        let trained = json(&place.ok(&borrowed(&place.train("run", &more))));
        assert!(trained["decoded"]["bits_per_byte"].as_f64().unwrap().is_finite(), "{method}");
    }
}

/// `configs/finish.toml` goes on from any run, and lands on a budget.
#[test]
fn a_trained_model_is_finished_to_a_budget() {
    let place = Place::new();
    place.ok(&borrowed(&place.train("run", &["--set", "train.steps=60"])));
    let finish = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/finish.toml");
    let train =
        ["train", "--config", finish, "--data", "text.txt", "--from", "run", "--out", "small"];
    let size =
        ["--set", "train.steps=60", "--set", "train.batch_size=4", "--budget", "6kB", "--json"];
    let trained = json(&place.ok(&[&train[..], &size].concat()));
    let size = trained["file_bytes"].as_u64().unwrap();
    assert!((5_880..=6_000).contains(&size), "{size}");
    let without = ["train", "--config", finish, "--data", "text.txt", "--out", "nothing"];
    place.fails(&without, 2, "--from");
    let [before, after] = ["run", "small"].map(|run| {
        let evaluated = place.ok(&["eval", run, "--data", "text.txt", "--tokens", "200", "--json"]);
        json(&evaluated)["decoded"]["bits_per_byte"].as_f64().unwrap()
    });
    assert!(after < before + 0.5, "{before} {after}");
}
