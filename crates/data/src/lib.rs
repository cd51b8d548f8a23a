//! Text, token shards, tokenizers and batches.
//!
//! Everything between a user's files and the `u16` token ids that a model sees lives here: where text comes from
//! ([`Source`]), how it becomes tokens ([`Tokenizer`]), how many bytes of text each token stands for ([`ByteTable`]),
//! and in which order training ([`Sampler`]) and evaluation ([`validation_windows`]) walk over the tokens. Texts with labels
//! ([`LabelledFile`]) become [`Example`]s, which [`ExampleSampler`] draws. Nothing here knows a model or a machine-learning framework, and the same data and seed give the same batches.
//!
//! ```
//! use backslash_data::{Sampler, Tokenizer, validation_windows};
//!
//! let tokenizer = Tokenizer::bytes();
//! let tokens = tokenizer.encode("to be, or not to be")?;
//! let mut sampler = Sampler::new(tokens.len(), 4, 2, 1337)?;
//! let batch = sampler.next(&tokens);
//! assert_eq!(batch.inputs.len(), 2 * 4);
//! assert_eq!(batch.inputs[1..4], batch.targets[..3]);
//!
//! let table = tokenizer.byte_table();
//! assert_eq!(table.count(&tokens), 18); // every byte but the first is a target
//! assert_eq!(validation_windows(&tokens, 4)?.count(), 5); // 4 + 4 + 4 + 4 + 2 targets
//! # Ok::<(), backslash_data::Error>(())
//! ```

mod byte_table;
mod error;
mod labelled;
mod sampler;
mod shard;
mod source;
mod token_set;
mod tokenizer;
mod windows;

pub use byte_table::ByteTable;
pub use error::{Error, Result};
pub use labelled::{
    ColumnNames, Example, ExampleBatch, ExampleSampler, ExampleSamplerState, ExampleSet,
    LabelledFile, LabelledText, examples, hold_back, label_set,
};
pub use sampler::{Batch, Sampler, SamplerState};
pub use shard::{read_shard, write_shard};
pub use source::{Corpus, Document, Shards, Source};
pub use token_set::TokenSet;
pub use tokenizer::{EncoderTokens, Tokenizer};
pub use windows::{Window, validation_windows};
