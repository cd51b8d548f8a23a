//! The Parameter Golf baseline on its own validation tokens.

use std::path::Path;

use backslash_data::{Tokenizer, read_shard};
use backslash_eval::evaluate;
use backslash_model::{ModelConfig, Transformer, device, initial_weights};

/// The untrained baseline predicts 1,024 pieces about evenly: log₂ 1024 bits per token, over 2.44 bytes per
/// token on the head of the validation split. The published run logs 4.0978 at step 0.
#[test]
fn the_untrained_preset_has_the_published_bits_per_byte() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !data.exists() {
        // Not eprintln!, which the test harness keeps to itself where a test passes.
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "skipped: needs the validation shard in {}",
            data.display()
        );
        return;
    }
    let tokenizer = Tokenizer::open(&data.join("tokenizers/fineweb_1024_bpe.model")).unwrap();
    let shard = data.join("fineweb/fineweb_val_prefix.sp1024.bin");
    let tokens = read_shard(&shard, tokenizer.vocabulary_size()).unwrap();
    let table = tokenizer.byte_table();
    let prefix = &tokens[..262_145];
    let bytes_per_token = table.count(prefix) as f64 / 262_144.0;
    assert!((bytes_per_token - 2.44).abs() < 0.005, "{bytes_per_token}");

    let config = ModelConfig::golf();
    let weights = initial_weights(&config, 1337).unwrap();
    let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
    // Bits per token hardly vary over the text, so few rows are enough for them.
    let quality = evaluate(&network, &tokens[..8 * 1024 + 1], &table).unwrap();
    let bits_per_token = quality.nats_per_token() / std::f64::consts::LN_2;
    let bits_per_byte = bits_per_token / bytes_per_token;
    assert!((bits_per_byte / (10.0 / 2.44) - 1.0).abs() < 0.01, "{bits_per_byte}");
}
