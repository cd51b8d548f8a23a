//! Byte-level BPE as its merges alone: 3 kB where the `tokenizer.json` of 1,024 tokens has 20.
//!
//! Training gives the 256 bytes the first ids, in the order of the characters that stand for them, and each
//! merge the next id. So the pairs of ids, in the order of the merges, are the whole vocabulary. All left
//! ids come first, then all right ids, as little-endian `u16`.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel as ByteLevelRule;

use super::byte_level::to_json;
use crate::{Error, Result};

/// Longest token in bytes of UTF-8: merges of merges could otherwise double without end.
const LONGEST_TOKEN: usize = 1024;

/// The merges of a `tokenizer.json`, if they are all that is in it.
pub(super) fn of_json(content: &[u8]) -> Option<Vec<u8>> {
    let json: serde_json::Value = serde_json::from_slice(content).ok()?;
    let vocabulary = json["model"]["vocab"].as_object()?;
    let id = |token: &serde_json::Value| {
        let id = vocabulary.get(token.as_str()?)?.as_u64()?;
        u16::try_from(id).ok()
    };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for merge in json["model"]["merges"].as_array()? {
        left.extend(id(merge.get(0)?)?.to_le_bytes());
        right.extend(id(merge.get(1)?)?.to_le_bytes());
    }
    left.append(&mut right);
    let again = to_content("written here", &left).ok()?;
    (again == content).then_some(left)
}

/// The `tokenizer.json` of merges.
pub(super) fn to_content(name: &str, merges: &[u8]) -> Result<Vec<u8>> {
    let wrong = |reason: &str| Error::tokenizer(name)(reason.to_owned());
    if !merges.len().is_multiple_of(4) {
        return Err(wrong("its merges are not pairs of 16-bit ids"));
    }
    let mut tokens: Vec<String> = ByteLevelRule::alphabet().into_iter().map(String::from).collect();
    tokens.sort();
    let mut ids: HashMap<String, u32> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
    let (left, right) = merges.split_at(merges.len() / 2);
    let mut pairs = Vec::with_capacity(left.len() / 2);
    for (left, right) in left.as_chunks::<2>().0.iter().zip(right.as_chunks::<2>().0) {
        let token = |id: &[u8; 2]| {
            let token = tokens.get(usize::from(u16::from_le_bytes(*id))).cloned();
            token.ok_or_else(|| wrong("a merge is of a token that does not exist yet"))
        };
        let (left, right) = (token(left)?, token(right)?);
        if left.len() + right.len() > LONGEST_TOKEN {
            return Err(wrong("a merge makes a token of more than 1,024 bytes"));
        }
        let merged = format!("{left}{right}");
        if !ids.contains_key(&merged) {
            ids.insert(merged.clone(), tokens.len() as u32);
            tokens.push(merged);
        }
        pairs.push((left, right));
    }
    let model = BPE::builder()
        .vocab_and_merges(ids.into_iter().collect::<ahash::AHashMap<_, _>>(), pairs)
        .build();
    to_json(model.map_err(Error::tokenizer(name))?, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;

    const TEXT: &str = "the cat in the hat sat on the mat with the other cat; ";

    #[test]
    fn a_trained_tokenizer_is_its_merges() {
        let trained = Tokenizer::train_bpe([TEXT.repeat(30).as_str()], 300).unwrap();
        let bytes = trained.to_bytes();
        assert!(bytes.len() < 4 * 44 + 2, "{}", bytes.len());
        let again = Tokenizer::from_bytes(&bytes).unwrap();
        assert_eq!(again.encode(TEXT).unwrap(), trained.encode(TEXT).unwrap());
        assert_eq!(again.to_bytes(), bytes);
        assert_eq!(again.vocabulary_size(), trained.vocabulary_size());
    }

    #[test]
    fn merges_that_make_no_sense_are_refused() {
        let bytes = |pairs: &[(u16, u16)]| -> Vec<u8> {
            let left = pairs.iter().flat_map(|(left, _)| left.to_le_bytes());
            left.chain(pairs.iter().flat_map(|(_, right)| right.to_le_bytes())).collect()
        };
        let message = |merges: &[u8]| to_content("x", merges).unwrap_err().to_string();
        assert!(message(&[1, 2, 3]).contains("pairs"));
        assert!(message(&bytes(&[(256, 0)])).contains("does not exist yet"));
        let doubling: Vec<(u16, u16)> =
            std::iter::once((0, 0)).chain((256..600).map(|id| (id, id))).collect();
        assert!(message(&bytes(&doubling)).contains("1,024 bytes"));
    }
}
