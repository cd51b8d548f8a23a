//! What models are calibrated on: the files behind `--text`.

use anyhow::Result;
use backslash_compress::{CalibrationText, CompressError};
use backslash_data::{Example, Source};
use backslash_eval::ModelFile;
use backslash_eval::table::grouped;
use backslash_model::ModelConfig;
use backslash_train::DataConfig;

use crate::prepared::columns;
use crate::scored::labelled;

/// Text, or of a classifier labelled texts.
pub enum Material {
    Tokens(Vec<u16>),
    Examples(Vec<Example>),
}

impl Material {
    /// Reads all training files of `data`.
    pub fn open(model: &ModelFile, data: &DataConfig) -> Result<Self> {
        if model.config.is_classifier() {
            return Ok(Self::Examples(labelled(model, &data.train, &columns(data))?));
        }
        let source = Source::open(&data.train, &data.train)?;
        Ok(Self::Tokens(source.tokens(&model.tokenizer)?.train))
    }

    /// The first `count` tokens.
    pub fn calibration(
        &self,
        config: &ModelConfig,
        count: usize,
    ) -> Result<CalibrationText, CompressError> {
        self.part(config, 0, count)
    }

    /// The `count` tokens after those of `used`.
    pub fn after(
        &self,
        config: &ModelConfig,
        used: &CalibrationText,
        count: usize,
    ) -> Result<CalibrationText, CompressError> {
        self.part(config, used.taken(), count)
    }

    fn part(
        &self,
        config: &ModelConfig,
        start: usize,
        count: usize,
    ) -> Result<CalibrationText, CompressError> {
        match self {
            Self::Tokens(tokens) => CalibrationText::new(config, &tokens[start..], count),
            Self::Examples(examples) => {
                CalibrationText::of_examples(config, &examples[start..], count)
            }
        }
    }

    /// How many there are, in a few words, and how many of them `used` has.
    pub fn describe_used(&self, used: &CalibrationText) -> String {
        let (all, what) = match self {
            Self::Tokens(tokens) => (tokens.len(), "tokens"),
            Self::Examples(examples) => (examples.len(), "examples"),
        };
        let [all, used] = [all, used.taken()].map(|count| grouped(count as u64));
        format!("{all} {what} of which it has used {used}")
    }
}
