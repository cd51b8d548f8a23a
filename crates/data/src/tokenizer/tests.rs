use proptest::prelude::*;

use super::*;
use crate::source::shared;

const TEXT: &str = "The cat isn't in the hat; the 42 hats aren't on the cats.\n\n  \u{3000}'s caf\u{e9}\tna\u{ef}ve\n";

fn trained() -> Tokenizer {
    Tokenizer::train_bpe([TEXT.repeat(20).as_str()], 300).unwrap()
}

/// The `tokenizer.json` that a tokenizer saves.
fn saved(tokenizer: &Tokenizer) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    tokenizer.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

fn reference(tokenizer: &Tokenizer) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(saved(tokenizer)).unwrap()
}

fn reference_ids(reference: &tokenizers::Tokenizer, text: &str) -> Vec<u16> {
    reference.encode(text, false).unwrap().get_ids().iter().map(|&id| id as u16).collect()
}

/// A SentencePiece model of the given pieces and types, in the wire format of protocol buffers.
fn sentence_piece_model(pieces: &[(&str, u8)]) -> Vec<u8> {
    let field = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
    let piece = |&(text, kind): &(&str, u8)| {
        field(0x0a, &[field(0x0a, text.as_bytes()), vec![0x18, kind]].concat())
    };
    let mut model: Vec<u8> = pieces.iter().flat_map(piece).collect();
    // Trainer: BPE, byte fallback, unknown 0, begin 1, end 2, no padding.
    let none = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let ids =
        [&[0x18, 2, 0x98, 2, 1, 0xc0, 2, 0, 0xc8, 2, 1, 0xd0, 2, 2, 0xd8, 2][..], &none].concat();
    model.extend(field(0x12, &ids));
    // Normalizer: identity, no space before the text, runs of spaces kept.
    model.extend(field(0x1a, &[field(0x0a, b"identity"), vec![0x18, 0, 0x20, 0]].concat()));
    model
}

/// `<unk>`, `<s>`, `</s>`, 256 bytes, then `words`.
fn pieces(words: &[&'static str]) -> Vec<(&'static str, u8)> {
    let control = [("<unk>", 2), ("<s>", 3), ("</s>", 3)];
    let bytes = (0..=255).map(|byte: u8| (&*format!("<0x{byte:02X}>").leak(), 6));
    control.into_iter().chain(bytes).chain(words.iter().map(|&word| (word, 1))).collect()
}

#[test]
fn trained_bpe_is_deterministic_complete_and_survives_saving() {
    let tokenizer = trained();
    assert!((290..=300).contains(&tokenizer.vocabulary_size()), "{tokenizer:?}");
    let table = tokenizer.byte_table();
    let tokens = tokenizer.encode(TEXT).unwrap();
    assert!(tokens.len() * 3 < TEXT.len());
    assert_eq!(tokenizer.decode(&tokens).unwrap(), TEXT.as_bytes());
    assert_eq!(table.count(&[&tokens[..1], &tokens].concat()), TEXT.len() as u64);
    for byte in 0..=255_u8 {
        let single = (0..tokenizer.vocabulary_size() as u16)
            .filter(|&token| tokenizer.decode(&[token]).unwrap() == [byte])
            .collect::<Vec<_>>();
        assert_eq!(single.len(), 1, "byte {byte}");
        assert_eq!(table.bytes(0, single[0]), 1);
    }
    for _ in 0..5 {
        assert_eq!(trained().to_bytes(), tokenizer.to_bytes());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    tokenizer.save(&path).unwrap();
    assert_eq!(Tokenizer::open(&path).unwrap().to_bytes(), tokenizer.to_bytes());
    assert_eq!(Tokenizer::from_bytes(&tokenizer.to_bytes()).unwrap().encode(TEXT).unwrap(), tokens);
}

#[test]
fn vocabulary_sizes_out_of_range() {
    assert!(matches!(
        Tokenizer::train_bpe([TEXT], 255),
        Err(Error::VocabularyTooSmall { size: 255 })
    ));
    assert!(matches!(
        Tokenizer::train_bpe([TEXT], 65_537),
        Err(Error::VocabularyTooLarge { size: 65_537, .. })
    ));
    assert_eq!(Tokenizer::train_bpe([TEXT], 256).unwrap().vocabulary_size(), 256);
    assert_eq!(Tokenizer::train_bpe([], 300).unwrap().vocabulary_size(), 256);
}

proptest! {
    #[test]
    fn any_text_returns_and_agrees_with_the_reference(text in r"([ \t\n\u{a0}\u{3000}]{0,3}('s|'ll|'|\PC|é|漢|the|4|;|\u{0}){0,3}){0,12}") {
        let tokenizer = trained();
        let tokens = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(reference_ids(&reference(&tokenizer), &text), tokens.clone());
        prop_assert_eq!(tokenizer.decode_lossy(&tokens).unwrap(), text.as_str());
        let bytes = Tokenizer::bytes();
        prop_assert_eq!(bytes.decode(&bytes.encode(&text).unwrap()).unwrap(), text.as_bytes());
    }
}

#[test]
fn books_agree_with_the_reference() {
    let Some(path) = shared("books/valid.txt") else {
        return;
    };
    let text = std::fs::read_to_string(path).unwrap();
    let tokenizer = Tokenizer::train_bpe([text.as_str()], 1024).unwrap();
    assert_eq!(tokenizer.vocabulary_size(), 1024);
    assert!(tokenizer.encode(&text).unwrap() == reference_ids(&reference(&tokenizer), &text));
}

#[test]
fn bytes_survive_saving_as_a_tokenizer_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    Tokenizer::bytes().save(&path).unwrap();
    assert_eq!(Tokenizer::open(&path).unwrap().to_bytes(), [0]);
    let reference = tokenizers::Tokenizer::from_file(&path).unwrap();
    assert_eq!(reference_ids(&reference, TEXT), Tokenizer::bytes().encode(TEXT).unwrap());
}

#[test]
fn special_tokens_are_no_text_and_text_is_no_special_token() {
    let json = |special: bool| {
        let mut json: serde_json::Value = serde_json::from_slice(&saved(&trained())).unwrap();
        json["added_tokens"] = serde_json::json!([{ "id": 500, "content": "<|end|>", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": special }]);
        [&[TAG_BYTE_LEVEL], json.to_string().as_bytes()].concat()
    };
    let special = Tokenizer::from_bytes(&json(true)).unwrap();
    let end = special.vocabulary_size() as u16 - 1;
    let tokens = special.encode("the<|end|>hat").unwrap();
    assert!(!tokens.contains(&end));
    assert_eq!(special.decode(&tokens).unwrap(), b"the<|end|>hat");
    assert_eq!((special.decode(&[end]).unwrap(), special.byte_table().bytes(0, end)), (vec![], 0));

    let plain = Tokenizer::from_bytes(&json(false)).unwrap();
    assert!(plain.encode("the<|end|>hat").unwrap().contains(&end));
    assert_eq!(
        (plain.decode_lossy(&[end]).unwrap().as_str(), plain.byte_table().bytes(0, end)),
        ("<|end|>", 7)
    );
}

#[test]
fn sentence_piece_by_hand() {
    let words = ["\u{2581}", "t", "h", "e", "\u{2581}t", "he", "\u{2581}the", "\u{2581}\u{2581}"];
    let model = sentence_piece_model(&pieces(&words));
    let tokenizer = Tokenizer::from_bytes(&[&[TAG_SENTENCE_PIECE], &model[..]].concat()).unwrap();
    let id = |word: &str| 259 + words.iter().position(|&known| known == word).unwrap() as u16;
    assert_eq!((tokenizer.vocabulary_size(), tokenizer.start_token()), (267, Some(1)));
    let tokens = tokenizer.encode("he the\n<s>\0").unwrap();
    assert_eq!(tokens[..2], [id("he"), id("\u{2581}the")]);
    assert_eq!(tokens[2..], [b'\n', b'<', b's', b'>', 0].map(|byte| 3 + u16::from(byte)));
    assert_eq!(tokenizer.decode(&tokens).unwrap(), b"he the\n<s>\0");
    assert_eq!(tokenizer.byte_table().count(&[&[1], &tokens[..]].concat()), 11);
    // A byte token of a character that also has a piece of its own still decodes.
    assert_eq!(tokenizer.decode(&[3 + u16::from(b't')]).unwrap(), b"t");
    // Two spaces in one piece are two bytes, not one and the three of U+2581.
    assert_eq!(tokenizer.byte_table().bytes(id("t"), id("\u{2581}\u{2581}")), 2);
    assert_eq!(
        Tokenizer::from_bytes(&tokenizer.to_bytes()).unwrap().encode("the").unwrap().len(),
        2
    );
    assert!(matches!(
        tokenizer.decode(&[1, 267]),
        Err(Error::TokenBeyondVocabulary { position: 1, token: 267, .. })
    ));
}

#[test]
fn a_vocabulary_without_a_space_is_refused() {
    let model = sentence_piece_model(&pieces(&["t", "h", "e", "\u{2581}t", "\u{2581}the"]));
    let error = Tokenizer::from_bytes(&[&[TAG_SENTENCE_PIECE], &model[..]].concat()).unwrap_err();
    assert!(error.to_string().contains("no piece for U+2581 alone"), "{error}");
}

#[test]
fn hostile_tokenizers_are_errors() {
    let refuse = |bytes: &[u8]| Tokenizer::from_bytes(bytes).unwrap_err().to_string();
    assert!(refuse(&[]).contains("kind"));
    assert!(refuse(&[9, 1, 2]).contains("kind"));
    assert!(refuse(&[TAG_BYTES, 0]).contains("kind"));
    refuse(&[TAG_SENTENCE_PIECE]);
    refuse(&[TAG_BYTE_LEVEL]);
    let json: serde_json::Value = serde_json::from_slice(&saved(&trained())).unwrap();
    let changed = |key: &str, value: serde_json::Value| {
        let mut json = json.clone();
        *json.pointer_mut(key).unwrap() = value;
        refuse(&[&[TAG_BYTE_LEVEL], json.to_string().as_bytes()].concat())
    };
    assert!(
        changed("/decoder", serde_json::Value::Null)
            .contains("neither byte-level BPE nor WordPiece")
    );
    let precompiled = serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" });
    assert!(changed("/normalizer", precompiled).contains("Precompiled"));
    assert!(changed("/model/dropout", 0.1.into()).contains("dropout"));
    assert!(changed("/model/vocab/a", 4_000_000_000_u32.into()).contains("65536"));
    let mut missing = json.clone();
    missing.pointer_mut("/model/vocab").unwrap().as_object_mut().unwrap().remove("z");
    let message = refuse(&[&[TAG_BYTE_LEVEL], missing.to_string().as_bytes()].concat());
    assert!(message.contains("no token for the byte 122"), "{message}");

    // Every truncation and many flips of both formats give a tokenizer or an error, and never a panic.
    let model = sentence_piece_model(&pieces(&["\u{2581}", "t", "h", "\u{2581}t", "\u{2581}th"]));
    let model = [&[TAG_SENTENCE_PIECE], &model[..]].concat();
    let json = [&[TAG_BYTE_LEVEL], &saved(&trained())[..]].concat();
    for bytes in [trained().to_bytes(), json, model] {
        for end in (0..bytes.len()).step_by(7) {
            let _ = Tokenizer::from_bytes(&bytes[..end]).map(|tokenizer| tokenizer.encode(TEXT));
        }
        for position in (0..bytes.len()).step_by(5) {
            let mut bytes = bytes.clone();
            bytes[position] ^= 1 << (position % 8);
            let _ = Tokenizer::from_bytes(&bytes).map(|tokenizer| tokenizer.encode(TEXT));
        }
    }
}

#[test]
fn golf_pieces_are_those_of_the_vocabulary_file() {
    let Some(model) = shared("tokenizers/fineweb_1024_bpe.model") else {
        return;
    };
    let Some(vocabulary) = shared("tokenizers/fineweb_1024_bpe.vocab") else {
        return;
    };
    let tokenizer = Tokenizer::open(&model).unwrap();
    let vocabulary = std::fs::read_to_string(vocabulary).unwrap();
    assert_eq!(vocabulary.lines().count(), 1024);
    assert_eq!(tokenizer.start_token(), Some(1));
    for (id, line) in vocabulary.lines().enumerate() {
        let piece = line.split_once('\t').unwrap().0;
        let expected = match id {
            0..4 => vec![],
            4..260 => vec![id as u8 - 4],
            _ => piece.replace('\u{2581}', " ").into_bytes(),
        };
        assert_eq!(tokenizer.decode(&[id as u16]).unwrap(), expected, "{id} {piece}");
    }
}

#[test]
fn golf_shards_decode_and_encode_to_themselves() {
    for (vocabulary_size, shard) in [(1024, "fineweb_val_prefix"), (4096, "fineweb_train_000000")] {
        let Some(model) = shared(&format!("tokenizers/fineweb_{vocabulary_size}_bpe.model")) else {
            return;
        };
        let Some(shard) = shared(&format!("fineweb/{shard}.sp{vocabulary_size}.bin")) else {
            return;
        };
        let tokenizer = Tokenizer::open(&model).unwrap();
        assert_eq!(tokenizer.vocabulary_size(), vocabulary_size);
        let tokens = crate::read_shard(&shard, vocabulary_size).unwrap();
        let (mut documents, mut different) = (0, 0);
        for document in tokens.split(|&token| token == 1).skip(1) {
            let text = String::from_utf8_lossy(&tokenizer.decode(document).unwrap()).into_owned();
            documents += 1;
            different += usize::from(tokenizer.encode(&text).unwrap() != document);
        }
        assert!(different == 0, "{different} of {documents}");
        if vocabulary_size == 4096 {
            assert_eq!(tokenizer.decode(&tokens).unwrap().len(), 3_485_754);
        }
    }
}

/// A llama2.c tokenizer with the 256 bytes and `words`, each with a score.
fn llama2c(words: &[(&str, f32)]) -> Vec<u8> {
    let bytes: Vec<String> = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>")).collect();
    let control = ["<unk>", "\n<s>\n", "\n</s>\n"].into_iter();
    let first = control.chain(bytes.iter().map(String::as_str)).map(|text| (text, 0.0));
    let mut content = 9_i32.to_le_bytes().to_vec();
    for (text, score) in first.chain(words.iter().copied()) {
        content.extend(score.to_le_bytes());
        content.extend((text.len() as i32).to_le_bytes());
        content.extend(text.as_bytes());
    }
    content
}

fn open_llama2c(content: &[u8]) -> Result<Tokenizer> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tok.bin");
    std::fs::write(&path, content).unwrap();
    Tokenizer::open(&path)
}

#[test]
fn a_llama2c_tokenizer_merges_by_score_and_survives_saving() {
    let words = [(" ", -9.0), ("a", -9.0), ("b", -9.0), (" a", -2.0), ("ab", -1.0), (" ab", -3.0)];
    let tokenizer = open_llama2c(&llama2c(&words)).unwrap();
    assert_eq!(tokenizer.start_token(), Some(1));
    assert_eq!(tokenizer.encode("ab").unwrap(), [264]);
    assert_eq!(tokenizer.encode("aab").unwrap(), [262, 263]);
    assert_eq!(tokenizer.encode("aa\n  b").unwrap(), [262, 260, 3 + 10, 259, 259, 261]);
    assert_eq!(tokenizer.decode(&[1, 262, 263, 13, 259, 264]).unwrap(), b"aab\n  ab");
    let again = Tokenizer::from_bytes(&tokenizer.to_bytes()).unwrap();
    assert_eq!(again.encode("abba b").unwrap(), tokenizer.encode("abba b").unwrap());
}

#[test]
fn a_damaged_llama2c_tokenizer_is_refused() {
    let good = llama2c(&[(" ", -1.0)]);
    assert!(open_llama2c(&good).is_ok());
    for length in [0, 3, 4, 11, good.len() - 1] {
        let message = open_llama2c(&good[..length]).unwrap_err().to_string();
        assert!(message.contains("tok.bin"), "{length}: {message}");
    }
    let mut negative = good.clone();
    negative[8..12].copy_from_slice(&(-1_i32).to_le_bytes());
    assert!(open_llama2c(&negative).is_err());
    let message = open_llama2c(&llama2c(&[("a", -1.0)])).unwrap_err().to_string();
    assert!(message.contains("U+2581"), "{message}");
}

#[test]
fn the_llama2c_tokenizer_gives_back_every_story() {
    let (Some(file), Some(sample)) =
        (shared("tokenizers/tok512.bin"), shared("tinystories/tinystories_sample.txt"))
    else {
        return;
    };
    let tokenizer = Tokenizer::open(&file).unwrap();
    assert_eq!(tokenizer.vocabulary_size(), 512);
    let start = [1, 403, 407, 261, 378, 432, 383, 286, 261, 376];
    assert_eq!(tokenizer.encode("Once upon a time, there was a little").unwrap(), start[1..]);
    let sample = std::fs::read_to_string(sample).unwrap();
    for story in sample.split("<|endoftext|>").take(300) {
        let tokens = tokenizer.encode(story).unwrap();
        assert_eq!(tokenizer.decode(&tokens).unwrap(), story.as_bytes());
    }
}

const VOCABULARY: &str =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncaf\n##e\n##s\n,\n[\n]\nmask\nThe\n";

/// A folder with a `vocab.txt` and the rules for its text.
fn vocabulary_folder(rules: Option<&str>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    std::fs::write(&path, VOCABULARY).unwrap();
    if let Some(rules) = rules {
        std::fs::write(folder.path().join("tokenizer_config.json"), rules).unwrap();
    }
    (folder, path)
}

#[test]
fn a_vocabulary_of_word_pieces_is_a_tokenizer() {
    let (folder, path) = vocabulary_folder(None);
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert_eq!((tokenizer.vocabulary_size(), tokenizer.start_token()), (14, None));
    let special = EncoderTokens { start: 2, end: 3, mask: 4 };
    assert_eq!(tokenizer.encoder_tokens(), Some(special));
    assert_eq!(Tokenizer::bytes().encoder_tokens(), None);
    // Lower case without accents; text is never a special token.
    let tokens = tokenizer.encode("The Caf\u{e9}s,\nthe [MASK] qq").unwrap();
    assert_eq!(tokens, [5, 6, 7, 8, 9, 5, 10, 12, 11, 1]);
    assert_eq!(tokenizer.decode(&tokens).unwrap(), b"the cafes , the [ mask ]");
    let json = folder.path().join("tokenizer.json");
    tokenizer.save(&json).unwrap();
    assert_eq!(tokenizer.extension(), "json");
    for again in
        [Tokenizer::open(&json).unwrap(), Tokenizer::from_bytes(&tokenizer.to_bytes()).unwrap()]
    {
        assert_eq!(again.encode("The caf\u{e9}s").unwrap(), tokens[..4]);
        assert_eq!(again.encoder_tokens(), Some(special));
        assert_eq!(again.to_bytes(), tokenizer.to_bytes());
    }
    // A model file carries the vocabulary as a list, or, where it is none, as it stands.
    let stored = String::from_utf8(tokenizer.to_bytes()).unwrap();
    assert!(stored.ends_with(&format!("\n{}", VOCABULARY.trim_end())), "{stored}");
    let gap = std::fs::read_to_string(&json).unwrap().replace("\"The\":13", "\"The\":15");
    std::fs::write(folder.path().join("gap.json"), gap).unwrap();
    let gap = Tokenizer::open(&folder.path().join("gap.json")).unwrap();
    assert_eq!(gap.vocabulary_size(), 16);
    let again = Tokenizer::from_bytes(&gap.to_bytes()).unwrap();
    assert_eq!(again.to_bytes(), gap.to_bytes());
    assert_eq!(again.encode("The caf\u{e9}s").unwrap(), tokens[..4]);
    // Long texts are cut at line ends, which changes nothing.
    let long = "the caf\u{e9}s,\r\n the\n".repeat(10_000);
    let whole = tokenizers::Tokenizer::from_file(&json).unwrap();
    assert!(tokenizer.encode(&long).unwrap() == reference_ids(&whole, &long));

    let (_folder, path) = vocabulary_folder(Some(r#"{ "do_lower_case": false }"#));
    assert_eq!(Tokenizer::open(&path).unwrap().encode("The the").unwrap(), [13, 5]);
}

#[test]
fn hostile_word_pieces_are_errors() {
    let (folder, path) = vocabulary_folder(Some("[1,"));
    let message = || Tokenizer::open(&path).unwrap_err().to_string();
    assert!(message().contains("tokenizer_config.json"), "{}", message());
    std::fs::remove_file(folder.path().join("tokenizer_config.json")).unwrap();
    let good = Tokenizer::open(&path).unwrap().to_bytes();
    std::fs::write(&path, "the\n##e\n").unwrap();
    assert!(message().contains("vocab.txt") && message().contains("[UNK]"), "{}", message());
    std::fs::write(&path, b"caf\xe9\n").unwrap();
    assert!(message().contains("vocab.txt"), "{}", message());
    std::fs::write(&path, "[UNK]\n".repeat(65_537)).unwrap();
    assert!(message().contains("65536"), "{}", message());
    for end in (0..good.len()).step_by(7) {
        let _ = Tokenizer::from_bytes(&good[..end]).map(|tokenizer| tokenizer.encode(TEXT));
    }
    for position in (0..good.len()).step_by(3) {
        let mut bytes = good.clone();
        bytes[position] ^= 1 << (position % 8);
        let _ = Tokenizer::from_bytes(&bytes).map(|tokenizer| tokenizer.encode(TEXT));
    }
}
