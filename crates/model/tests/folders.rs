//! Folders as Hugging Face writes them, and what can be wrong with them.

use std::collections::HashMap;
use std::path::Path;

use backslash_model::{Architecture, Gelu, ModelConfig, NamedTensor, NamedWeights, Pretrained};
use safetensors::tensor::{Dtype, TensorView};

const LLAMA: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32",
    "vocab_size": 11, "hidden_size": 16, "intermediate_size": 23, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 6,
    "rms_norm_eps": 1e-05, "rope_theta": 500.0, "rope_scaling": null, "hidden_act": "silu",
    "tie_word_embeddings": false, "bos_token_id": 1
}"#;

const GPT2: &str = r#"{
    "model_type": "gpt2", "vocab_size": 11, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": null,
    "n_positions": 6, "n_ctx": 6, "layer_norm_epsilon": 1e-05, "activation_function": "gelu_new"
}"#;

const BERT: &str = r#"{
    "model_type": "bert", "vocab_size": 11, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 40, "max_position_embeddings": 6,
    "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu"
}"#;

fn llama() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        vocabulary_size: 11,
        width: 16,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        mlp_hidden: Some(23),
        context: 6,
        rope_base: 500.0,
        norm_epsilon: 1e-5,
        tied_head: false,
        ..ModelConfig::default()
    }
}

fn gpt2() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Gpt2,
        kv_heads: 4,
        mlp_hidden: None,
        rope_base: 10_000.0,
        tied_head: true,
        ..llama()
    }
}

fn bert() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Bert,
        mlp_hidden: Some(40),
        norm_epsilon: 1e-12,
        ..gpt2()
    }
}

/// A different number everywhere, so that no two tensors can be mistaken for each other.
fn tensors(config: &ModelConfig) -> Vec<NamedTensor> {
    let mut next = 0.0;
    let mut number = || {
        next += 0.5;
        next
    };
    let layout = config.layout().into_iter();
    layout
        .map(|(name, shape)| {
            let data = (0..shape.iter().product()).map(|_| number()).collect();
            NamedTensor { name, shape, data }
        })
        .collect()
}

fn renamed(mut tensors: Vec<NamedTensor>, rename: impl Fn(&str) -> String) -> Vec<NamedTensor> {
    tensors.iter_mut().for_each(|tensor| tensor.name = rename(&tensor.name));
    tensors
}

fn extra(name: &str, shape: &[usize]) -> NamedTensor {
    let data = vec![1.0; shape.iter().product()];
    NamedTensor { name: name.to_owned(), shape: shape.to_vec(), data }
}

fn write(folder: &Path, config: &str, tensors: Vec<NamedTensor>) {
    std::fs::write(folder.join("config.json"), config).unwrap();
    NamedWeights::new(tensors).write(&folder.join("model.safetensors")).unwrap();
}

fn folder(config: &str, tensors: Vec<NamedTensor>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), config, tensors);
    folder
}

fn message(folder: &tempfile::TempDir) -> String {
    Pretrained::open(folder.path()).unwrap_err().to_string()
}

#[test]
fn a_folder_gives_its_configuration_and_its_tensors() {
    for (text, config) in [(LLAMA, llama()), (GPT2, gpt2()), (BERT, bert())] {
        let folder = folder(text, tensors(&config));
        let model = Pretrained::open(folder.path()).unwrap();
        assert_eq!(model.config, config);
        assert_eq!(model.weights, NamedWeights::new(tensors(&config)));
        assert!(model.left_out.is_empty());
        let file = Pretrained::open(&folder.path().join("model.safetensors")).unwrap();
        assert_eq!(file, model);
    }
}

#[test]
fn a_folder_of_our_own_is_read_too() {
    for config in [llama(), ModelConfig { vocabulary_size: 9, ..ModelConfig::default() }] {
        let folder = folder(&serde_json::to_string(&config).unwrap(), tensors(&config));
        assert_eq!(Pretrained::open(folder.path()).unwrap().config, config);
    }
}

#[test]
fn prefixes_old_names_constants_and_other_heads_are_recognised() {
    let mut stored = renamed(tensors(&gpt2()), |name| format!("transformer.{name}"));
    stored.push(extra("transformer.h.0.attn.bias", &[1, 1, 6, 6]));
    stored.push(extra("transformer.h.0.attn.masked_bias", &[]));
    let embedding = stored.iter().find(|tensor| tensor.name == "transformer.wte.weight").unwrap();
    stored.push(NamedTensor { name: "lm_head.weight".to_owned(), ..embedding.clone() });
    let model = Pretrained::open(folder(GPT2, stored).path()).unwrap();
    assert_eq!(model.weights, NamedWeights::new(tensors(&gpt2())));
    assert_eq!(model.left_out.len(), 3);

    let mut stored = renamed(tensors(&bert()), |name| {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        format!("bert.{}", name.replace("LayerNorm.bias", "LayerNorm.beta"))
    });
    stored.push(extra("bert.pooler.dense.weight", &[16, 16]));
    stored.push(extra("cls.seq_relationship.weight", &[2, 16]));
    let model = Pretrained::open(folder(BERT, stored).path()).unwrap();
    assert_eq!(model.weights, NamedWeights::new(tensors(&bert())));
    assert_eq!(model.left_out.len(), 2);
}

/// The bias of the head alone, under each of its names, and the embedding as the matrix of the head.
#[test]
fn a_head_for_masked_tokens_is_found_with_its_copies() {
    let config = ModelConfig { masked_head: true, ..bert() };
    let prefixed = |name: &str| match name.starts_with("cls.") {
        true => name.to_owned(),
        false => format!("bert.{name}"),
    };
    let whole = renamed(tensors(&config), prefixed);
    let copy = |tensors: &[NamedTensor], of: &str, name: &str| {
        let tensor = tensors.iter().find(|tensor| tensor.name == of).unwrap();
        NamedTensor { name: name.to_owned(), ..tensor.clone() }
    };
    let mut copies = whole.clone();
    let embedding = "bert.embeddings.word_embeddings.weight";
    copies.push(copy(&whole, embedding, "cls.predictions.decoder.weight"));
    copies.push(copy(&whole, "cls.predictions.bias", "cls.predictions.decoder.bias"));
    let moved = renamed(whole.clone(), |name| match name {
        "cls.predictions.bias" => "cls.predictions.decoder.bias".to_owned(),
        _ => name.to_owned(),
    });
    for (stored, left_out) in [(whole.clone(), 0), (copies, 2), (moved, 0)] {
        let model = Pretrained::open(folder(BERT, stored).path()).unwrap();
        assert_eq!(model.config, config);
        assert_eq!(model.weights, NamedWeights::new(tensors(&config)));
        assert_eq!(model.left_out.len(), left_out);
    }

    // Its own matrix is another model, and half a head is none.
    let mut untied = whole.clone();
    untied.push(extra("cls.predictions.decoder.weight", &[11, 16]));
    let untied = message(&folder(BERT, untied));
    assert!(untied.contains("`cls.predictions.decoder.weight` is not part"), "{untied}");
    let norm = "cls.predictions.transform.LayerNorm.weight";
    let half: Vec<_> = whole.into_iter().filter(|tensor| tensor.name != norm).collect();
    let half = message(&folder(BERT, half));
    assert!(half.contains("model.safetensors") && half.contains(norm), "{half}");
}

/// As `BertForSequenceClassification` is stored.
#[test]
fn a_classifier_is_kept_with_its_labels() {
    let with_labels = |labels: &[&str]| ModelConfig {
        labels: labels.iter().map(ToString::to_string).collect(),
        ..bert()
    };
    let stored = |config: &ModelConfig| {
        renamed(tensors(config), |name| match name.starts_with("classifier.") {
            true => name.to_owned(),
            false => format!("bert.{name}"),
        })
    };
    let id2label =
        |map: &str| BERT.replace("\"model_type\"", &format!("\"id2label\": {map}, \"model_type\""));
    let named = "{\"1\": \"fine\", \"0\": \"dull\", \"2\": \"so so\"}";
    for (text, labels) in [
        (BERT.to_owned(), &["0", "1"][..]),
        (
            id2label("{\"0\": \"LABEL_0\", \"1\": \"LABEL_1\", \"2\": \"LABEL_2\"}"),
            &["0", "1", "2"],
        ),
        (id2label(named), &["dull", "fine", "so so"]),
    ] {
        let config = with_labels(labels);
        let model = Pretrained::open(folder(&text, stored(&config)).path()).unwrap();
        assert_eq!(model.weights, NamedWeights::new(tensors(&config)));
        assert_eq!((model.config, model.left_out.len()), (config, 0));
    }
    let wrong = message(&folder(&id2label(named), stored(&with_labels(&["0", "1"]))));
    assert!(
        wrong.contains("`classifier.bias`") || wrong.contains("`classifier.weight`"),
        "{wrong}"
    );
    let gap = message(&folder(&id2label("{\"0\": \"a\", \"2\": \"b\"}"), stored(&bert())));
    assert!(gap.contains("id2label has no name for class 1"), "{gap}");

    // Our own configuration says what it is.
    let config = with_labels(&["a", "b"]);
    let own = serde_json::to_string(&config).unwrap();
    let model = Pretrained::open(folder(&own, tensors(&config)).path()).unwrap();
    assert_eq!(model.config, config);
    let without = message(&folder(&own, tensors(&bert())));
    assert!(without.contains("`pooler.dense.weight`"), "{without}");

    // A classifier of single tokens has no pooler; a score has one output; an encoder alone has its pooler.
    let with = |extras: &[(&str, &[usize])]| {
        let extras = extras.iter().map(|(name, shape)| extra(name, shape));
        Pretrained::open(folder(BERT, tensors(&bert()).into_iter().chain(extras).collect()).path())
            .unwrap()
    };
    let pooler: [(&str, &[usize]); 2] =
        [("pooler.dense.weight", &[16, 16]), ("pooler.dense.bias", &[16])];
    let score: [(&str, &[usize]); 2] = [("classifier.weight", &[1, 16]), ("classifier.bias", &[1])];
    let tokens: [(&str, &[usize]); 2] =
        [("classifier.weight", &[5, 16]), ("classifier.bias", &[5])];
    for (extras, poolers) in
        [(pooler.to_vec(), 2), (tokens.to_vec(), 0), ([&pooler[..], &score].concat(), 2)]
    {
        let model = with(&extras);
        assert_eq!((model.config, model.left_out.len()), (bert(), extras.len()));
        assert_eq!(model.pooler.len(), poolers);
    }
}

#[test]
fn wrong_tensors_of_an_encoder_are_named_with_their_file() {
    let query = "encoder.layer.1.attention.self.query.weight";
    let without = || tensors(&bert()).into_iter().filter(|tensor| tensor.name != query);
    let missing = message(&folder(BERT, without().collect()));
    let shape = message(&folder(BERT, without().chain([extra(query, &[16, 8])]).collect()));
    for (text, expected) in [(&missing, "is missing"), (&shape, "[16, 8]")] {
        assert!(text.contains("model.safetensors: tensor `") && text.contains(query), "{text}");
        assert!(text.contains(expected) && text.contains("[16, 16]"), "{text}");
    }
}

#[test]
fn both_formulas_of_gelu_are_read() {
    for (name, gelu) in [("gelu", Gelu::Exact), ("gelu_new", Gelu::Tanh)] {
        let text = BERT.replace("\"gelu\"", &format!("{name:?}"));
        let model = Pretrained::open(folder(&text, tensors(&bert())).path()).unwrap();
        assert_eq!(model.config.gelu, gelu);
    }
}

#[test]
fn a_constant_of_another_type_does_not_hinder() {
    let stored = NamedWeights::new(tensors(&gpt2()));
    let bytes: Vec<Vec<u8>> = stored
        .tensors()
        .iter()
        .map(|tensor| tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let mut views: HashMap<&str, TensorView<'_>> = HashMap::new();
    for (tensor, bytes) in stored.tensors().iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap();
        views.insert(&tensor.name, view);
    }
    let mask = [0; 36];
    views.insert("h.0.attn.bias", TensorView::new(Dtype::BOOL, vec![6, 6], &mask).unwrap());
    let folder = folder(GPT2, Vec::new());
    let file = safetensors::serialize(&views, None).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
    assert_eq!(Pretrained::open(folder.path()).unwrap().weights, stored);
}

/// Splits the tensors over two files with an index.
fn sharded(map: impl Fn(&str, &str) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), LLAMA).unwrap();
    let (first, second) = tensors(&llama()).into_iter().partition(|t| t.name.contains("layers.0"));
    let mut index = HashMap::new();
    let files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    for (file, tensors) in files.iter().zip([first, second]) {
        let weights = NamedWeights::new(tensors);
        weights.write(&folder.path().join(file)).unwrap();
        index.extend(weights.tensors().iter().map(|t| (t.name.clone(), map(&t.name, file))));
    }
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": index });
    let path = folder.path().join("model.safetensors.index.json");
    std::fs::write(path, index.to_string()).unwrap();
    folder
}

#[test]
fn a_model_in_several_files_is_put_together() {
    let folder = sharded(|_, file| file.to_owned());
    let model = Pretrained::open(folder.path()).unwrap();
    assert_eq!(model.weights, NamedWeights::new(tensors(&llama())));
    std::fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(message(&folder).contains("model-00002-of-00002.safetensors"), "{}", message(&folder));
}

#[test]
fn an_index_does_not_lead_out_of_its_folder() {
    for file in ["../model.safetensors", "/etc/passwd", "", "a/b.safetensors"] {
        let folder = sharded(|_, _| file.to_owned());
        let message = message(&folder);
        assert!(
            message.contains("index.json") && message.contains("not the name of a file"),
            "{message}"
        );
    }
}

#[test]
fn wrong_configurations_are_refused_with_file_and_key() {
    for (config, text, from, to, expected) in [
        (llama(), LLAMA, "\"silu\"", "\"gelu\"", "hidden_act = gelu: only silu"),
        (
            llama(),
            LLAMA,
            "\"rope_scaling\": null",
            "\"rope_scaling\": {\"factor\": 8.0}",
            "rope_scaling = ",
        ),
        (llama(), LLAMA, "\"llama\"", "\"mamba\"", "model_type = \"mamba\""),
        (llama(), LLAMA, "\"hidden_size\": 16, ", "", "missing field `hidden_size`"),
        (llama(), LLAMA, "\"hidden_size\": 16", "\"hidden_size\": -1", "invalid value"),
        (
            llama(),
            LLAMA,
            "\"vocab_size\": 11",
            "\"vocab_size\": 128256",
            "vocabulary_size = 128256",
        ),
        (
            llama(),
            LLAMA,
            "\"bos_token_id\": 1",
            "\"attention_bias\": true",
            "attention_bias = true",
        ),
        (llama(), LLAMA, "\"bos_token_id\": 1", "\"head_dim\": 32", "head_dim = 32: only 4"),
        (gpt2(), GPT2, "\"gelu_new\"", "\"relu\"", "activation_function = relu"),
        (bert(), BERT, "\"gelu\"", "\"relu\"", "hidden_act = relu: only gelu"),
        (bert(), BERT, "\"hidden_act\": \"gelu\"", "\"is_decoder\": true", "is_decoder = true"),
        (bert(), BERT, "\"num_attention_heads\": 4", "\"num_attention_heads\": 0", "heads = 0"),
    ] {
        assert!(text.contains(from));
        let message = message(&folder(&text.replace(from, to), tensors(&config)));
        assert!(message.contains("config.json") && message.contains(expected), "{message}");
    }
    let message = message(&folder("[1, 2", tensors(&llama())));
    assert!(message.contains("config.json: not a model configuration"), "{message}");
}

#[test]
fn wrong_tensors_are_refused_by_name_and_shape() {
    let without = |name: &str| -> Vec<NamedTensor> {
        tensors(&llama()).into_iter().filter(|tensor| tensor.name != name).collect()
    };
    let norm = "model.layers.1.input_layernorm.weight";
    let missing = message(&folder(LLAMA, without(norm)));
    assert!(
        missing.contains(norm) && missing.contains("[16]") && missing.contains("missing"),
        "{missing}"
    );

    let mut other = without(norm);
    other.push(extra(norm, &[4, 4]));
    let shape = message(&folder(LLAMA, other));
    assert!(shape.contains(norm) && shape.contains("[4, 4]") && shape.contains("[16]"), "{shape}");

    let mut more = tensors(&llama());
    more.push(extra("model.layers.1.self_attn.q_proj.bias", &[16]));
    let unknown = message(&folder(LLAMA, more));
    assert!(unknown.contains("`model.layers.1.self_attn.q_proj.bias` is not part"), "{unknown}");

    // A head that is no copy of the embedding is not tied to it.
    let tied = LLAMA.replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    let untied = message(&folder(&tied, tensors(&llama())));
    assert!(untied.contains("`lm_head.weight` is not part"), "{untied}");

    let mut twice = tensors(&gpt2());
    twice.push(extra("transformer.wte.weight", &[11, 16]));
    let twice = message(&folder(GPT2, twice));
    assert!(twice.contains("model.safetensors: a second tensor `wte.weight`"), "{twice}");
}

#[test]
fn a_folder_without_a_model_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    assert!(message(&folder).contains("config.json"));
    std::fs::write(folder.path().join("config.json"), LLAMA).unwrap();
    assert!(message(&folder).contains("has neither model.safetensors"), "{}", message(&folder));
}

/// A llama2.c file with its tensors numbered as they stand in it.
fn llama2c(header: [i32; 7], values: usize) -> Vec<u8> {
    let header = header.into_iter().flat_map(i32::to_le_bytes);
    header.chain((0..values).flat_map(|value| (value as f32).to_le_bytes())).collect()
}

fn opened(bytes: &[u8]) -> Result<Pretrained, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stories.bin");
    std::fs::write(&path, bytes).unwrap();
    Pretrained::open(&path).map_err(|error| error.to_string())
}

#[test]
fn a_llama2c_file_is_taken_apart() {
    // Width 8, MLP 5, 1 layer, 2 heads, 1 key head, 3 tokens, context 6; without output matrix.
    let weights = 3 * 8 + 8 + 64 + 32 + 32 + 64 + 8 + 40 + 40 + 40 + 8;
    let model = opened(&llama2c([8, 5, 1, 2, 1, 3, 6], weights + 24)).unwrap();
    assert!(model.config.tied_head);
    assert_eq!(model.weights.parameters(), weights);
    let first = |name: &str| {
        let data = &model.weights.get(&format!("model.layers.0.{name}.weight")).unwrap().data;
        (data[0], data[data.len() - 1])
    };
    // Pairs are half a head apart: rows 0, 2, 1, 3 of each head of four.
    let queries = &model.weights.get("model.layers.0.self_attn.q_proj.weight").unwrap().data;
    let rows: Vec<f32> = queries.iter().step_by(8).map(|x| (x - 32.0) / 8.0).collect();
    assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    assert_eq!(first("self_attn.v_proj"), (128.0, 159.0));
    assert_eq!(first("mlp.gate_proj"), (232.0, 271.0));
    assert_eq!(first("mlp.down_proj"), (272.0, 311.0));
    assert_eq!(first("mlp.up_proj"), (312.0, 351.0));

    let untied = opened(&llama2c([8, 5, 1, 2, 1, -3, 6], weights + 24 + 24)).unwrap();
    assert!(!untied.config.tied_head);
    assert_eq!(untied.weights.get("lm_head.weight").unwrap().data[0], (weights + 24) as f32);
}

#[test]
fn a_damaged_llama2c_file_is_refused() {
    let good = llama2c([8, 5, 1, 2, 1, 3, 6], 360 + 24);
    assert!(opened(&good).is_ok());
    for length in [0, 1, 27, 28, good.len() - 1] {
        let error = opened(&good[..length]).unwrap_err();
        assert!(error.contains("stories.bin") && error.contains("llama2.c"), "{error}");
    }
    let huge = [16_384, 1 << 20, 512, 1024, 1024, 65_536, 1 << 20];
    for header in [[0; 7], [-1; 7], [i32::MAX; 7], [i32::MIN; 7], huge, [8, 5, 1, 3, 1, 3, 6]] {
        let error = opened(&llama2c(header, 100)).unwrap_err();
        assert!(error.contains("stories.bin") && error.contains("llama2.c"), "{error}");
    }
}
