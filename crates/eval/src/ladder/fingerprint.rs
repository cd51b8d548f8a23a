//! What figures depend on, in a few letters.

use backslash_compress::CalibrationText;
use backslash_model::NamedWeights;

use crate::{ModelFile, TestSet};

/// Letters of the hash of weights, and of those of texts.
const OF_WEIGHTS: usize = 12;
const OF_TEXT: usize = 8;

/// The beginning of a hash of names, shapes and values, in hexadecimal.
pub fn weights_hash(weights: &NamedWeights) -> String {
    short(&hash_of(weights), OF_WEIGHTS)
}

/// Hash of a model, and number and hash of the tokens or examples that it is scored on.
pub fn scored_fingerprint(model: &ModelFile, test: TestSet<'_>) -> String {
    format!("{}-{}", of_model(model), of_test(test))
}

/// The same with number and hash of the tokens of calibration in between.
pub(super) fn fingerprint(model: &ModelFile, text: &CalibrationText, test: TestSet<'_>) -> String {
    format!("{}-{}-{}", of_model(model), of_text(text), of_test(test))
}

fn of_model(model: &ModelFile) -> String {
    let mut hash = hash_of(&model.weights);
    hash.update(&serde_json::to_vec(&model.config).expect("a configuration is plain data"));
    short(&hash, OF_WEIGHTS)
}

fn of_text(text: &CalibrationText) -> String {
    let mut calibration = blake3::Hasher::new();
    for batch in text.batches() {
        add_tokens(&mut calibration, batch.inputs());
        add_tokens(&mut calibration, batch.targets());
    }
    format!("{}:{}", text.tokens(), short(&calibration, OF_TEXT))
}

fn of_test(test: TestSet<'_>) -> String {
    let mut scored = blake3::Hasher::new();
    match test {
        TestSet::Text { tokens, .. } => add_tokens(&mut scored, tokens),
        TestSet::Examples(examples) => {
            for example in examples {
                add_tokens(&mut scored, &[example.class, example.tokens.len() as u16]);
                add_tokens(&mut scored, &example.tokens);
            }
        }
    }
    format!("{}:{}", test.size(), short(&scored, OF_TEXT))
}

fn short(hash: &blake3::Hasher, letters: usize) -> String {
    hash.finalize().to_hex()[..letters].to_owned()
}

fn hash_of(weights: &NamedWeights) -> blake3::Hasher {
    let mut hash = blake3::Hasher::new();
    for tensor in weights.tensors() {
        hash.update(format!("{:?} {:?}\n", tensor.name, tensor.shape).as_bytes());
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        hash.update(&bytes);
    }
    hash
}

fn add_tokens(hash: &mut blake3::Hasher, tokens: &[u16]) {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    hash.update(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use backslash_data::Tokenizer;
    use backslash_model::{ModelConfig, initial_weights};

    #[test]
    fn every_part_counts() {
        let config = ModelConfig {
            vocabulary_size: 256,
            width: 16,
            layers: 1,
            heads: 2,
            kv_heads: 2,
            context: 8,
            ..ModelConfig::default()
        };
        let model = |config: &ModelConfig, seed| ModelFile {
            weights: initial_weights(config, seed).unwrap(),
            config: config.clone(),
            tokenizer: Tokenizer::bytes(),
            left_out: Vec::new(),
            pooler: Vec::new(),
        };
        let table = Tokenizer::bytes().byte_table();
        let fingerprint = |model: &ModelFile, text: &CalibrationText, tokens: &[u16]| {
            super::fingerprint(model, text, TestSet::Text { tokens, table: &table })
        };
        let text = |first: u16| {
            let tokens: Vec<u16> = (first..first + 33).collect();
            CalibrationText::new(&config, &tokens, 32).unwrap()
        };
        let one = model(&config, 1);
        let other_cap = ModelConfig { logit_cap: 7.0, ..config.clone() };
        let all = [
            fingerprint(&one, &text(0), &[1, 2, 3]),
            fingerprint(&model(&config, 2), &text(0), &[1, 2, 3]),
            fingerprint(&model(&other_cap, 1), &text(0), &[1, 2, 3]),
            fingerprint(&one, &text(1), &[1, 2, 3]),
            fingerprint(&one, &text(0), &[1, 2, 4]),
        ];
        assert_eq!(all[0], fingerprint(&model(&config, 1), &text(0), &[1, 2, 3]));
        for (index, fingerprint) in all.iter().enumerate() {
            assert!(!all[..index].contains(fingerprint), "{all:?}");
        }
        assert!(all[0].contains("-32:") && all[0].contains("-3:"), "{}", all[0]);
        let test = TestSet::Text { tokens: &[1, 2, 3], table: &table };
        let parts: Vec<&str> = all[0].split('-').collect();
        assert_eq!(scored_fingerprint(&one, test), format!("{}-{}", parts[0], parts[2]));
    }
}
