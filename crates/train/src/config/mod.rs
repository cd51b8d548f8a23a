//! The configuration of a run: what is read from a TOML file, overridden by `key=value`, and written back,
//! complete, into the run's folder.

mod optimizer;
mod rate;
mod read;
mod rules;

use std::collections::BTreeMap;
use std::path::PathBuf;

use backslash_codec::Origin;
use backslash_model::{ModelConfig, Precision, UniformStart, uniform_starts};
use serde::{Deserialize, Serialize};

use crate::TrainError;

pub use optimizer::{
    GroupConfig, GroupValue, Inherited, OptimizerConfig, OptimizerMethod, Orthogonalization,
    RankSchedule, SpectralDecayOf, UpdateScale,
};
pub use rate::{LineScaleRule, OriginRule, RateConfig, RateMethod, StepRule};
pub use read::{parse, parse_file};

use rules::{Rule, below_one, not_negative, positive, share};

/// Everything that fixes a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// What is trained on and what is evaluated on.
    pub data: DataConfig,
    /// The network.
    pub model: ModelConfig,
    /// The loop.
    pub train: TrainConfig,
    /// The optimizer and its groups of parameters.
    pub optimizer: OptimizerConfig,
    /// The price of bits.
    pub rate: RateConfig,
}

/// Where text comes from and how it becomes tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Text files, folders or token shards to train on, or tab-separated files of labelled texts for a classifier; empty for the source and documentation text of
    /// the project's own dependencies.
    pub train: Vec<PathBuf>,
    /// Text files, folders or token shards to evaluate on; empty to hold back a part of `train`.
    pub validation: Vec<PathBuf>,
    /// `bytes`, `bpe:N` to train a byte-level BPE of N pieces on the text, or a SentencePiece `.model` or
    /// `tokenizer.json` file. For a classifier `wordpiece:N` to train WordPiece of N pieces on the texts, or a `vocab.txt` or
    /// `tokenizer.json` file of WordPiece.
    pub tokenizer: String,
    /// How many validation tokens, of a classifier examples, are scored, from the beginning; 0 for all.
    pub validation_tokens: usize,
    /// Classifier: column of the text in tab-separated files, by name or by number from 1 on; empty to find it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text_column: String,
    /// Classifier: column of the label; empty to find it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label_column: String,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            validation: Vec::new(),
            tokenizer: "bpe:1024".to_owned(),
            validation_tokens: 131_072,
            text_column: String::new(),
            label_column: String::new(),
        }
    }
}

/// The loop, the schedule of the learning rate and the constants of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences of `model.context` tokens in a step.
    pub batch_size: usize,
    /// Peak learning rate of the groups of parameters that have none of their own.
    pub learning_rate: f64,
    /// Steps over which the learning rate rises linearly from zero.
    pub warmup_steps: u64,
    /// Share of the steps, at the end, over which the learning rate falls linearly to zero.
    pub warmdown: f64,
    /// Share of the steps after which the learning rate, which has come to zero by then, starts again and falls linearly to
    /// the last step; 1 for never. Until there a run is that of so many steps; with a rate that starts there the rest
    /// finishes a trained model.
    pub restart: f64,
    /// Learning rate at the restart, as a multiple of the peak.
    pub restart_scale: f64,
    /// AdamW: decay of the mean of gradients.
    pub beta1: f64,
    /// AdamW: decay of the mean of squared gradients.
    pub beta2: f64,
    /// AdamW: what is added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay of tensors of two and more dimensions, times the learning rate, where their group has
    /// none of its own.
    pub weight_decay: f64,
    /// Largest global norm of the gradient of the loss.
    pub clip_norm: f64,
    /// Classifier: share of the tokens of a text that training hides behind mask tokens, other ones each time, so that texts
    /// are not learned by heart.
    pub token_dropout: f64,
    /// How exactly matrices multiply on the way forward and back; evaluations are exact.
    pub precision: Precision,
    /// A model to go on from, its network and tokenizer included: a run's folder, a `.bsl` file or a checkpoint's folder.
    /// Empty for weights drawn by the seed.
    pub from: String,
    /// Seed of initial weights, data order and noise.
    pub seed: u64,
    /// Steps between evaluations; 0 for none but the last.
    pub evaluate_every: u64,
    /// Steps between checkpoints; 0 for none.
    pub checkpoint_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 1000,
            batch_size: 12,
            learning_rate: 2e-3,
            warmup_steps: 20,
            warmdown: 0.5,
            restart: 1.0,
            restart_scale: 0.3,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            clip_norm: 1.0,
            token_dropout: 0.0,
            precision: Precision::Fp32,
            from: String::new(),
            seed: 1337,
            evaluate_every: 250,
            checkpoint_every: 250,
        }
    }
}

impl TrainConfig {
    /// The step at which the learning rate starts again; the number of steps where it never does.
    pub(crate) fn restart_step(&self) -> u64 {
        (self.restart * self.steps as f64).round() as u64
    }
}

impl RunConfig {
    /// What the codes of a rate in bits are added to, by tensor.
    pub(crate) fn origins(&self) -> BTreeMap<String, Origin> {
        if self.rate.origin == OriginRule::Zero || !self.train.from.is_empty() {
            return BTreeMap::new();
        }
        let seed = self.train.seed;
        let starts = uniform_starts(&self.model).into_iter();
        let origins = starts.map(|(name, start)| {
            let UniformStart { stream, bound } = start;
            (name, Origin { seed, stream, bound })
        });
        origins.collect()
    }

    /// The first step that depends on the rate.
    pub fn first_priced_step(&self) -> u64 {
        match self.rate.method {
            RateMethod::None => self.train.steps,
            RateMethod::Bits => self.rate.first_step(&self.train),
            _ => 0,
        }
    }

    /// The first step with a rate in bits, if there is one.
    pub(crate) fn first_step_in_bits(&self) -> Option<u64> {
        (self.rate.method == RateMethod::Bits).then(|| self.first_priced_step())
    }

    /// Whether a run of this configuration and one of the other are the same for that many steps: with all the same but the
    /// rate, they are until one of them has a rate.
    pub fn is_same_until(&self, steps: u64, other: &Self) -> bool {
        let unpriced = |config: &Self| Self { rate: RateConfig::default(), ..config.clone() };
        let first = self.first_priced_step().min(other.first_priced_step());
        self == other || (steps <= first && unpriced(self) == unpriced(other))
    }

    /// Checks every value that a type cannot.
    ///
    /// # Errors
    /// Names the first key that does not fit and says what would be right.
    pub fn validate(&self) -> Result<(), TrainError> {
        let train = &self.train;
        let rules: [Rule; 12] = [
            ("train.steps", train.steps as f64, train.steps > 0, "must be at least 1"),
            (
                "train.batch_size",
                train.batch_size as f64,
                train.batch_size > 0,
                "must be at least 1",
            ),
            (
                "train.learning_rate",
                train.learning_rate,
                positive(train.learning_rate),
                "must be positive",
            ),
            ("train.warmdown", train.warmdown, share(train.warmdown), "must be from 0 to 1"),
            ("train.restart", train.restart, share(train.restart), "must be from 0 to 1"),
            (
                "train.restart_scale",
                train.restart_scale,
                positive(train.restart_scale),
                "must be positive",
            ),
            ("train.beta1", train.beta1, below_one(train.beta1), "must be from 0 to below 1"),
            ("train.beta2", train.beta2, below_one(train.beta2), "must be from 0 to below 1"),
            ("train.epsilon", train.epsilon, positive(train.epsilon), "must be positive"),
            (
                "train.weight_decay",
                train.weight_decay,
                not_negative(train.weight_decay),
                "must not be negative",
            ),
            ("train.clip_norm", train.clip_norm, positive(train.clip_norm), "must be positive"),
            (
                "train.token_dropout",
                train.token_dropout,
                below_one(train.token_dropout),
                "must be from 0 to below 1",
            ),
        ];
        if self.model.masked_head {
            return Err(TrainError::ConfigValue {
                key: "model.masked_head",
                value: "true".to_owned(),
                expected: "must be false: an encoder is trained as a classifier, without a head for masked tokens",
            });
        }
        rules::check(rules)?;
        if !train.precision.is_supported() {
            return Err(TrainError::ConfigValue {
                key: "train.precision",
                value: "bf16".to_owned(),
                expected: "takes a CPU, or a GPU that multiplies matrices of it; use \"fp32\"",
            });
        }
        self.rate.validate()?;
        self.optimizer.validate(train)
    }

    /// The complete configuration as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is plain data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_survives_toml() {
        let config = RunConfig::default();
        config.validate().unwrap();
        assert_eq!(parse(&config.to_toml(), &[]).unwrap(), config);
    }

    #[test]
    fn runs_are_the_same_until_one_has_a_rate() {
        let of = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
            parse("train.steps = 100", &sets).unwrap()
        };
        let plain = of(&[]);
        let priced = of(&["rate.method=bits", "rate.lambda=0.3"]);
        let dearer = of(&["rate.method=bits", "rate.lambda=0.6", "rate.start=0.5"]);
        assert!(plain.is_same_until(60, &priced) && !plain.is_same_until(61, &priced));
        assert!(priced.is_same_until(50, &dearer) && !dearer.is_same_until(51, &priced));
        assert!(plain.is_same_until(100, &plain.clone()));
        assert!(!plain.is_same_until(0, &of(&["train.seed=7"])));
        assert!(!plain.is_same_until(1, &of(&["rate.method=l1"])));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for set in [
            "rate.lambda=-1",
            "train.steps=0",
            "train.beta2=1.0",
            "rate.rounding_from=1.5",
            "rate.step_dropout=-0.1",
            "rate.rounded_share=1.5",
            "rate.distillation=1.5",
            "train.restart=1.5",
            "train.restart_scale=0",
            "rate.scale_learning_rate=-1",
            "rate.start=1",
            "rate.matrix_spectral_decay=-1",
            "rate.matrix_momentum=1",
            "rate.ngram_dead_zone=0.5",
            "rate.budget=5000",
            "train.clip_norm=nan",
            "train.token_dropout=1",
            "model.masked_head=true",
        ] {
            let key = set.split('=').next().unwrap();
            let message = parse("", &[set.to_owned()]).unwrap_err().to_string();
            assert!(message.starts_with(key), "{message}");
        }
    }

    #[test]
    fn every_file_in_configs_is_valid_and_the_golf_file_is_the_preset() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let mut found = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            parse_file(&entry.unwrap().path(), &[]).unwrap();
            found += 1;
        }
        assert!(found >= 3);
        let golf = parse_file(&folder.join("golf.toml"), &[]).unwrap();
        assert_eq!(golf.model, ModelConfig::golf());
        assert_eq!(golf.optimizer, OptimizerConfig::golf());
    }
}
