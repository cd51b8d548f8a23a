//! Reading a configuration: TOML, overrides, and unknown keys with the nearest known one.

use std::path::Path;

use backslash_model::{Gelu, ModelConfig, SpecialTokens};
use toml::{Table, Value};

use super::{DataConfig, RateConfig, RunConfig};
use crate::TrainError;

/// Reads a configuration file and applies overrides.
///
/// # Errors
/// If the file cannot be read, and as [`parse`].
pub fn parse_file(path: &Path, overrides: &[String]) -> Result<RunConfig, TrainError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| TrainError::Io { path: path.to_owned(), source })?;
    parse(&text, overrides).map_err(|error| match error {
        TrainError::ConfigSyntax { reason } => {
            TrainError::ConfigSyntax { reason: format!("{}: {reason}", path.display()) }
        }
        other => other,
    })
}

/// A configuration from TOML text and overrides of the form `section.key=value`.
///
/// The value of an override is read as TOML; where that fails it is taken as a string, so that
/// `data.tokenizer=bytes` needs no quotes.
///
/// ```
/// let config = backslash_train::config::parse("[train]\nsteps = 5", &["rate.method=bits".to_owned()])?;
/// assert_eq!(config.train.steps, 5);
/// let error = backslash_train::config::parse("[train]\nstep = 5", &[]).unwrap_err();
/// assert!(error.to_string().contains("did you mean `train.steps`"));
/// # Ok::<(), backslash_train::TrainError>(())
/// ```
///
/// # Errors
/// If the text is not TOML, a key is unknown (the nearest known one is named), a value is of the wrong
/// type, or out of range.
pub fn parse(text: &str, overrides: &[String]) -> Result<RunConfig, TrainError> {
    let syntax = |reason: String| TrainError::ConfigSyntax { reason };
    let mut table: Table =
        text.parse().map_err(|error: toml::de::Error| syntax(error.to_string()))?;
    for assignment in overrides {
        let (key, value) = assignment
            .split_once('=')
            .ok_or_else(|| syntax(format!("`--set {assignment}`: expected section.key=value")))?;
        set(&mut table, key.trim(), value.trim());
    }
    check_keys(&table, &known_keys(), "")?;
    let config: RunConfig = table
        .try_into()
        .map_err(|error: toml::de::Error| syntax(error.to_string().trim_end().to_owned()))?;
    config.validate()?;
    Ok(config)
}

/// Puts a value at a dotted key, making the tables on the way.
fn set(table: &mut Table, key: &str, value: &str) {
    let parsed = format!("v = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), parsed);
        }
        Some((section, rest)) => {
            let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if !entry.is_table() {
                *entry = Value::Table(Table::new());
            }
            set(entry.as_table_mut().expect("made a table"), rest, value);
        }
    }
}

/// All keys, with values of their types: those that a file leaves out at their defaults too.
fn known_keys() -> Table {
    let model = ModelConfig {
        mlp_hidden: Some(1),
        activation_power: 1,
        bigram_rows: 1,
        trigram_rows: 1,
        ngram_width: 1,
        experts: 1,
        repeats: 2,
        norm_epsilon: 0.5,
        tied_head: false,
        token_types: 1,
        gelu: Gelu::Tanh,
        masked_head: true,
        labels: vec![String::new()],
        special_tokens: Some(SpecialTokens { start: 0, end: 1, mask: 2 }),
        ..ModelConfig::default()
    };
    let data = DataConfig {
        text_column: "text".to_owned(),
        label_column: "label".to_owned(),
        ..DataConfig::default()
    };
    let rate =
        RateConfig { matrix_momentum: Some(0.5), ngram_dead_zone: 0.1, ..RateConfig::default() };
    let config = RunConfig { data, model, rate, ..RunConfig::default() };
    Table::try_from(config).expect("a configuration is plain data")
}

/// Refuses the first key that no configuration has.
fn check_keys(table: &Table, known: &Table, prefix: &str) -> Result<(), TrainError> {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match (known.get(key), value) {
            (None, value) => {
                let nearest = nearest(&path, value.is_table());
                return Err(TrainError::UnknownKey { key: path, nearest });
            }
            (Some(Value::Table(known)), Value::Table(table)) => {
                check_keys(table, known, &format!("{path}."))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The known section, or the known key, most like the given one.
fn nearest(path: &str, section: bool) -> String {
    fn collect(table: &Table, prefix: &str, section: bool, found: &mut Vec<String>) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            if value.is_table() == section {
                found.push(path.clone());
            }
            if let Value::Table(table) = value {
                collect(table, &format!("{path}."), section, found);
            }
        }
    }
    let known = known_keys();
    let mut candidates = Vec::new();
    collect(&known, "", section, &mut candidates);
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &String| {
        strsim::jaro_winkler(candidate, path) + strsim::jaro_winkler(&last(candidate), &last(path))
    };
    let best = candidates.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    best.expect("there are keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_files_leave_out_at_their_defaults_can_be_set() {
        let settings = ["model.mlp_hidden=96", "model.activation_power=3", "model.repeats=1"];
        let config = parse("", &settings.map(str::to_owned)).unwrap();
        assert_eq!((config.model.mlp_hidden, config.model.activation_power), (Some(96), 3));
        assert_eq!(parse(&config.to_toml(), &[]).unwrap(), config);
        for key in [
            "activation_power",
            "bigram_rows",
            "experts",
            "gelu",
            "labels",
            "masked_head",
            "mlp_hidden",
            "ngram_width",
            "norm_epsilon",
            "repeats",
            "special_tokens",
            "tied_head",
            "token_types",
            "trigram_rows",
        ] {
            assert!(known_keys()["model"].get(key).is_some(), "{key}");
        }
    }
    use crate::config::RateMethod;

    #[test]
    fn overrides_win_over_the_file() {
        let text = "[train]\nsteps = 10\nseed = 3";
        let overrides = ["train.steps=20".to_owned(), "rate.method=backslash-in-loss".to_owned()];
        let config = parse(text, &overrides).unwrap();
        assert_eq!((config.train.steps, config.train.seed), (20, 3));
        assert_eq!(config.rate.method, RateMethod::BackslashInLoss);
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
        for (set, nearest) in [
            ("train.lerning_rate=1", "train.learning_rate"),
            ("train.step=1", "train.steps"),
            ("lambda=1", "rate.lambda"),
            ("modle.width=64", "model"),
        ] {
            let message = parse("", &[set.to_owned()]).unwrap_err().to_string();
            assert!(message.contains(&format!("did you mean `{nearest}`")), "{message}");
        }
    }

    #[test]
    fn wrong_types_and_syntax_are_errors() {
        for text in
            ["[train]\nsteps = \"many\"", "[train", "train = 3", "[rate]\nmethod = \"huffman\""]
        {
            assert!(matches!(parse(text, &[]), Err(TrainError::ConfigSyntax { .. })), "{text}");
        }
        assert!(parse("", &["train.steps".to_owned()]).is_err());
    }
}
