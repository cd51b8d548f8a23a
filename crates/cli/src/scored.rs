//! What finished models are scored on.

use std::path::PathBuf;

use anyhow::{Result, bail};
use backslash_data::{ByteTable, ColumnNames, Example, LabelledFile, Source, examples};
use backslash_eval::table::grouped;
use backslash_eval::{ModelFile, TestSet};
use backslash_model::ModelConfig;
use backslash_train::DataConfig;

use crate::failure::Usage;
use crate::prepared::columns;
use crate::session::limit;

/// What a model is scored on: of a classifier all examples of the files that are named, else the validation text.
pub enum Scored {
    Text { tokens: Vec<u16>, table: ByteTable },
    Examples(Vec<Example>),
}

impl Scored {
    /// Reads the data, all of it or the first `count` tokens or examples.
    pub fn open(model: &ModelFile, data: &DataConfig, count: usize) -> Result<Self> {
        if model.config.is_classifier() {
            return Ok(Self::Examples(examples_of(model, data, count)?));
        }
        let source = Source::open(&data.train, &data.validation)?;
        let mut tokens = source.tokens(&model.tokenizer)?.validation;
        limit(&mut tokens, count);
        Ok(Self::Text { tokens, table: model.tokenizer.byte_table() })
    }

    /// As models are measured on it.
    pub fn test(&self) -> TestSet<'_> {
        match self {
            Self::Text { tokens, table } => TestSet::Text { tokens, table },
            Self::Examples(examples) => TestSet::Examples(examples),
        }
    }

    /// In a few words.
    pub fn describe(&self) -> String {
        let what = match self {
            Self::Text { .. } => "tokens",
            Self::Examples(_) => "examples",
        };
        format!("{} {what}", grouped(self.test().size() as u64))
    }
}

fn examples_of(model: &ModelFile, data: &DataConfig, count: usize) -> Result<Vec<Example>> {
    let paths = if data.validation.is_empty() { &data.train } else { &data.validation };
    if paths.is_empty() {
        bail!(Usage(
            "a classifier is scored on labelled texts: name a tab-separated file with --data"
                .to_owned()
        ));
    }
    let mut examples = labelled(model, paths, &columns(data))?;
    limit(&mut examples, count);
    Ok(examples)
}

/// The labelled texts of files, as a classifier reads them.
pub fn labelled(
    model: &ModelFile,
    paths: &[PathBuf],
    columns: &ColumnNames,
) -> Result<Vec<Example>> {
    let files = paths.iter().map(|path| LabelledFile::open(path, columns));
    let files = files.collect::<Result<Vec<LabelledFile>, _>>()?;
    let ModelConfig { labels, context, .. } = &model.config;
    Ok(examples(&files, labels, &model.tokenizer, *context)?)
}
