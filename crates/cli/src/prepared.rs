//! The data of a run, its tokenizer, and the model that it goes on from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use backslash_data::{
    ByteTable, ColumnNames, ExampleSet, LabelledFile, Source, TokenSet, Tokenizer, examples,
    hold_back, label_set,
};
use backslash_eval::table::grouped;
use backslash_eval::{ModelFile, Quality, TestSet};
use backslash_model::{Architecture, ModelConfig, NamedWeights, SpecialTokens, as_classifier};
use backslash_train::{DataConfig, RunConfig, TrainingSet};

use crate::console::say;
use crate::failure::Usage;
use crate::session::limit;

/// Data of a run, and the weights that it goes on from.
pub struct Prepared {
    pub tokenizer: Tokenizer,
    pub data: Data,
    pub weights: Option<NamedWeights>,
    table: ByteTable,
}

/// What a run learns from and is scored on.
pub enum Data {
    Text(TokenSet),
    Examples(ExampleSet),
}

impl Prepared {
    fn new(tokenizer: Tokenizer, data: Data, weights: Option<NamedWeights>) -> Self {
        let table = tokenizer.byte_table();
        Self { tokenizer, data, weights, table }
    }

    /// What a run learns from.
    pub fn training(&self) -> TrainingSet<'_> {
        match &self.data {
            Data::Text(tokens) => TrainingSet::Tokens(&tokens.train),
            Data::Examples(examples) => TrainingSet::Examples(&examples.train),
        }
    }

    /// What it is scored on.
    pub fn test(&self) -> TestSet<'_> {
        match &self.data {
            Data::Text(TokenSet { validation: tokens, .. }) => {
                TestSet::Text { tokens, table: &self.table }
            }
            Data::Examples(ExampleSet { validation, .. }) => TestSet::Examples(validation),
        }
    }

    /// The tokens of text, where that is what a run learns from.
    pub fn text(&self) -> Result<&TokenSet> {
        match &self.data {
            Data::Text(tokens) => Ok(tokens),
            Data::Examples(_) => {
                bail!(Usage(
                    "this needs a network that predicts the next token, not a classifier"
                        .to_owned()
                ))
            }
        }
    }

    /// Quality of weights on the validation data.
    pub fn measure(&self, config: &ModelConfig, weights: &NamedWeights) -> Result<Quality> {
        Ok(self.test().quality(config, weights)?)
    }
}

/// Opens data and tokenizer of a configuration, or the model to go on from, and settles the vocabulary of its model and, of an
/// encoder, its classes.
pub fn prepare(config: &mut RunConfig) -> Result<Prepared> {
    let from = match config.train.from.as_str() {
        "" => None,
        path => {
            let model =
                ModelFile::open(Path::new(path)).with_context(|| format!("train.from = {path}"))?;
            Some(model)
        }
    };
    let model = from.as_ref().map_or(&config.model, |model| &model.config);
    match model.architecture {
        Architecture::Bert => prepare_examples(config, from),
        _ => prepare_text(config, from),
    }
}

fn prepare_text(config: &mut RunConfig, from: Option<ModelFile>) -> Result<Prepared> {
    let source = Source::open(&config.data.train, &config.data.validation)?;
    let (tokenizer, weights) = match from {
        None => (tokenizer_for_text(&config.data.tokenizer, &source)?, None),
        Some(model) => {
            config.model = model.config;
            (model.tokenizer, Some(model.weights))
        }
    };
    let pieces = settle_vocabulary(config, &tokenizer)?;
    let mut tokens = source.tokens(&tokenizer)?;
    limit(&mut tokens.validation, config.data.validation_tokens);
    say(&format!(
        "data: {} training tokens, {} validation tokens, vocabulary {pieces}",
        grouped(tokens.train.len() as u64),
        grouped(tokens.validation.len() as u64),
    ));
    Ok(Prepared::new(tokenizer, Data::Text(tokens), weights))
}

fn prepare_examples(config: &mut RunConfig, from: Option<ModelFile>) -> Result<Prepared> {
    let data = &config.data;
    if data.train.is_empty() {
        bail!(Usage("an encoder is trained as a classifier: name a tab-separated file of texts and labels with --data".to_owned()));
    }
    let columns = columns(data);
    let open = |paths: &[PathBuf]| -> Result<Vec<LabelledFile>> {
        Ok(paths.iter().map(|path| LabelledFile::open(path, &columns)).collect::<Result<_, _>>()?)
    };
    let mut train = open(&data.train)?;
    let validation = match data.validation.is_empty() {
        true => hold_back(&mut train),
        false => open(&data.validation)?,
    };
    let (tokenizer, from) = match from {
        None => (tokenizer_for_examples(&data.tokenizer, &train)?, None),
        Some(ModelFile { tokenizer, config, weights, pooler, .. }) => {
            (tokenizer, Some((config, weights, pooler)))
        }
    };
    let special = tokenizer.encoder_tokens().ok_or_else(|| {
        Usage(format!(
            "data.tokenizer = \"{}\": an encoder needs WordPiece with [CLS], [SEP] and [MASK]: wordpiece:N, a vocab.txt or a tokenizer.json",
            data.tokenizer
        ))
    })?;
    let special = SpecialTokens { start: special.start, end: special.end, mask: special.mask };
    let found = label_set(&train);
    let weights = match from {
        None => {
            if config.model.labels.is_empty() {
                config.model.labels = found;
            }
            None
        }
        Some((model, weights, pooler)) => {
            let labels = settled_labels(&config.model.labels, &model.labels, found);
            if model.is_classifier() && model.labels != labels {
                say("the classifier is drawn anew, for other labels");
            }
            let seed = config.train.seed;
            let (model, weights) = as_classifier(&model, &weights, &pooler, &labels, seed)?;
            config.model = model;
            Some(weights)
        }
    };
    config.model.special_tokens = Some(special);
    let pieces = settle_vocabulary(config, &tokenizer)?;
    let ModelConfig { labels, context, .. } = &config.model;
    let encode = |files: &[LabelledFile]| examples(files, labels, &tokenizer, *context);
    let (train, mut validation) = (encode(&train)?, encode(&validation)?);
    limit(&mut validation, config.data.validation_tokens);
    if validation.is_empty() {
        bail!(Usage(
            "the data leave no validation examples; give more texts, or --validation".to_owned()
        ));
    }
    say(&format!(
        "data: {} training examples, {} validation examples, classes {}, vocabulary {pieces}",
        grouped(train.len() as u64),
        grouped(validation.len() as u64),
        labels.join(", "),
    ));
    Ok(Prepared::new(tokenizer, Data::Examples(ExampleSet { train, validation }), weights))
}

/// The labels that were set; else those of the model, if it knows all that were found; else these.
fn settled_labels(set: &[String], of_model: &[String], found: Vec<String>) -> Vec<String> {
    match (set.is_empty(), found.iter().all(|label| of_model.contains(label))) {
        (false, _) => set.to_vec(),
        (true, true) => of_model.to_vec(),
        (true, false) => found,
    }
}

/// The columns of labelled texts that a configuration names.
pub fn columns(data: &DataConfig) -> ColumnNames {
    ColumnNames { text: data.text_column.clone(), label: data.label_column.clone() }
}

/// Takes the vocabulary of the tokenizer, where none is set; its number of pieces.
fn settle_vocabulary(config: &mut RunConfig, tokenizer: &Tokenizer) -> Result<usize> {
    let pieces = tokenizer.vocabulary_size();
    match config.model.vocabulary_size {
        0 => config.model.vocabulary_size = pieces,
        found if found < pieces => bail!(Usage(format!(
            "model.vocabulary_size = {found}: the tokenizer has {pieces} pieces (leave the key out to take these)"
        ))),
        _ => {}
    }
    Ok(pieces)
}

/// The number of pieces in `kind:N`, or `None` for another tokenizer.
fn pieces(name: &str, kind: &str) -> Result<Option<usize>> {
    let Some(size) = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix(':')) else {
        return Ok(None);
    };
    let size = size.parse().map_err(|_| {
        Usage(format!("data.tokenizer = \"{name}\": expected {kind}:N with N the number of pieces"))
    })?;
    Ok(Some(size))
}

fn tokenizer_for_text(name: &str, source: &Source) -> Result<Tokenizer> {
    if name == "bytes" {
        return Ok(Tokenizer::bytes());
    }
    let Some(size) = pieces(name, "bpe")? else {
        return Ok(Tokenizer::open(Path::new(name))?);
    };
    let Source::Text(corpus) = source else {
        bail!(Usage(format!(
            "data.tokenizer = \"{name}\": shards are tokens already; name the tokenizer they were made with"
        )));
    };
    let texts = corpus.train.iter().map(|document| document.text.as_str());
    Ok(Tokenizer::train_bpe(texts, size)?)
}

fn tokenizer_for_examples(name: &str, files: &[LabelledFile]) -> Result<Tokenizer> {
    if let Some(size) = pieces(name, "wordpiece")? {
        let texts = files.iter().flat_map(|file| &file.texts);
        return Ok(Tokenizer::train_word_piece(texts.map(|text| text.text.as_str()), size)?);
    }
    if name == "bytes" || name.starts_with("bpe:") {
        bail!(Usage(format!(
            "data.tokenizer = \"{name}\": an encoder needs WordPiece: wordpiece:N, a vocab.txt or a tokenizer.json"
        )));
    }
    Ok(Tokenizer::open(Path::new(name))?)
}

#[cfg(test)]
mod tests {
    use super::settled_labels;

    #[test]
    fn labels_that_are_set_come_before_those_of_the_model_and_these_before_those_of_the_data() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (set, model) = (words(&["x", "y"]), words(&["b", "a", "c"]));
        assert_eq!(settled_labels(&set, &model, words(&["a"])), set);
        assert_eq!(settled_labels(&[], &model, words(&["a", "b"])), model);
        assert_eq!(settled_labels(&[], &model, words(&["a", "z"])), words(&["a", "z"]));
    }
}
