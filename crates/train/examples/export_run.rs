//! Writes what a training run begins with and what it will see, for another framework to train the same:
//! `cargo run --release -p backslash-train --example export_run -- CONFIG.toml TRAIN.bin VALIDATION.bin TOKENIZER OUT.safetensors [KEY=VALUE…]`
//!
//! The file holds the initial weights by their names, the first `train.steps` batches as `batches` (steps × rows ×
//! tokens + 1), and the configuration as JSON under the metadata key `config`. `benches/train_pytorch.py` reads it.

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use backslash_data::{Sampler, Source, Tokenizer};
use backslash_model::initial_weights;
use backslash_train::config;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, train, validation, tokenizer, out, overrides @ ..] = &arguments[..] else {
        return Err(
            "say CONFIG.toml TRAIN.bin VALIDATION.bin TOKENIZER OUT.safetensors [KEY=VALUE…]"
                .into(),
        );
    };
    let mut config = config::parse_file(Path::new(path), overrides)?;
    let tokenizer = Tokenizer::open(Path::new(tokenizer))?;
    if config.model.vocabulary_size == 0 {
        config.model.vocabulary_size = tokenizer.vocabulary_size();
    }
    let paths = |list: &str| list.split(',').map(PathBuf::from).collect::<Vec<_>>();
    let tokens = Source::open(&paths(train), &paths(validation))?.tokens(&tokenizer)?.train;
    let weights = initial_weights(&config.model, config.train.seed)?;

    let (row, rows) = (config.model.context, config.train.batch_size);
    let mut sampler = Sampler::new(tokens.len(), row, rows, config.train.seed)?;
    let mut batches: Vec<u8> = Vec::new();
    for _ in 0..config.train.steps {
        let batch = sampler.next(&tokens);
        for (inputs, targets) in batch.inputs.chunks(row).zip(batch.targets.chunks(row)) {
            let tokens = inputs.iter().chain(targets.last());
            batches.extend(tokens.flat_map(|token| i32::from(*token).to_le_bytes()));
        }
    }
    let shape = vec![config.train.steps as usize, rows, row + 1];
    let values = weights.tensors().iter().map(|tensor| {
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        (tensor, bytes)
    });
    let values: Vec<_> = values.collect();
    let mut views = vec![("batches", TensorView::new(Dtype::I32, shape, &batches)?)];
    for (tensor, bytes) in &values {
        views.push((&tensor.name, TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?));
    }
    let metadata = HashMap::from([("config".to_owned(), serde_json::to_string(&config)?)]);
    serialize_to_file(views, Some(metadata), Path::new(out))?;
    Ok(())
}
