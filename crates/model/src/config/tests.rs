use super::*;

fn small() -> ModelConfig {
    ModelConfig { vocabulary_size: 1024, ..ModelConfig::default() }
}

#[test]
fn the_presets_are_valid() {
    small().validate().unwrap();
    ModelConfig::golf().validate().unwrap();
}

#[test]
fn keys_at_their_defaults_are_not_stored_and_the_others_return() {
    let json = serde_json::to_string(&small()).unwrap();
    for key in [
        "mlp_hidden",
        "activation_power",
        "bigram_rows",
        "trigram_rows",
        "ngram_width",
        "experts",
        "repeats",
        "norm_epsilon",
        "tied_head",
        "gelu",
        "masked_head",
        "special_tokens",
    ] {
        assert!(!json.contains(key), "{json}");
    }
    let config = ModelConfig {
        architecture: Architecture::Llama,
        mlp_hidden: Some(300),
        norm_epsilon: 1e-6,
        tied_head: false,
        ..small()
    };
    let bert = ModelConfig {
        architecture: Architecture::Bert,
        gelu: Gelu::Tanh,
        masked_head: true,
        labels: vec!["no".to_owned(), "yes".to_owned()],
        special_tokens: Some(SpecialTokens { start: 1, end: 2, mask: 3 }),
        kv_heads: 4,
        ..small()
    };
    for config in [config, bert] {
        config.validate().unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ModelConfig>(&json).unwrap(), config);
    }
}

#[test]
fn each_wrong_key_is_named() {
    let bert = ModelConfig { architecture: Architecture::Bert, kv_heads: 4, ..small() };
    let beyond = Some(SpecialTokens { start: 1, end: 2, mask: 1024 });
    let labels = |labels: &[&str]| labels.iter().map(ToString::to_string).collect();
    let cases = [
        (ModelConfig { labels: labels(&["one"]), ..bert.clone() }, "model.labels"),
        (ModelConfig { labels: labels(&["a", "b", "a"]), ..bert.clone() }, "model.labels"),
        (ModelConfig { labels: labels(&["a", ""]), ..bert.clone() }, "model.labels"),
        (ModelConfig { labels: labels(&["a", "b"]), ..small() }, "model.labels"),
        (ModelConfig { context: 2, ..bert.clone() }, "model.context"),
        (ModelConfig { special_tokens: beyond, ..bert }, "model.special_tokens"),
        (ModelConfig { heads: 3, ..small() }, "model.heads"),
        (ModelConfig { heads: 128, ..small() }, "model.heads"),
        (ModelConfig { kv_heads: 3, ..small() }, "model.kv_heads"),
        (ModelConfig { layers: 0, ..small() }, "model.layers"),
        (ModelConfig { vocabulary_size: 100_000, ..small() }, "model.vocabulary_size"),
        (ModelConfig { rope_base: f32::NAN, ..small() }, "model.rope_base"),
        (ModelConfig { logit_cap: 0.0, ..small() }, "model.logit_cap"),
        (ModelConfig { mlp_hidden: Some(0), ..small() }, "model.mlp_hidden"),
        (ModelConfig { activation_power: 0, ..small() }, "model.activation_power"),
        (ModelConfig { norm_epsilon: -1.0, ..small() }, "model.norm_epsilon"),
        (ModelConfig { architecture: Architecture::Gpt2, ..small() }, "model.kv_heads"),
        (ModelConfig { repeats: 2, ..small() }, "model.repeats"),
        (ModelConfig { bigram_rows: (1 << 22) + 1, ..small() }, "model.bigram_rows"),
        (ModelConfig { trigram_rows: (1 << 22) + 1, ..small() }, "model.trigram_rows"),
        (ModelConfig { experts: 1_025, ..small() }, "model.experts"),
        (ModelConfig { bigram_rows: 9, ngram_width: 129, ..small() }, "model.ngram_width"),
        (ModelConfig { ngram_width: 64, ..small() }, "model.ngram_width"),
        (ModelConfig { tied_head: false, ..small() }, "model.tied_head"),
        (
            ModelConfig { architecture: Architecture::Llama, activation_power: 3, ..small() },
            "model.activation_power",
        ),
        (
            ModelConfig { architecture: Architecture::Llama, bigram_rows: 64, ..small() },
            "model.bigram_rows",
        ),
    ];
    for (config, key) in cases {
        let message = config.validate().unwrap_err().to_string();
        assert!(message.starts_with(key), "{message}");
    }
}
