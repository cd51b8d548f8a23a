//! The configuration of a run: what is read from a TOML file, overridden by `key=value`, and written back,
//! complete, into the run's folder.

mod optimizer;
mod read;

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
pub use read::{parse, parse_file};

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

/// How bits enter the training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateMethod {
    /// Not at all.
    #[default]
    None,
    /// The rate in bits: the code length of the quantised weights under a model that follows them.
    Bits,
    /// The released BackSlash: a decoupled step after the optimizer, not scaled by the learning rate.
    Backslash,
    /// The BackSlash of the paper's Algorithm 1: the same gradient, through the optimizer.
    BackslashInLoss,
    /// A control: the step of `backslash` with the shape fixed at 2, a pull in proportion to θ.
    L2,
    /// A control: the step of `backslash` with the shape fixed at 1, the same pull for all weights.
    L1,
    /// A control: the step of `backslash` with the shape fixed at ½.
    #[serde(rename = "l0.5")]
    LHalf,
    /// A control: θ ← sign(θ)·max(|θ| − λ/N, 0) after the optimizer, which unlike the step of `l1` stops at zero.
    ProximalL1,
}

/// Whether the quantiser's steps move with training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepRule {
    /// The logarithm of each step is a parameter.
    #[default]
    Learned,
    /// Each step stays where it starts.
    Fixed,
}

/// What codes are added to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OriginRule {
    /// What the run has drawn a matrix from, where it has; nothing for all others. The decoder draws it again, so a weight
    /// that stays where it started costs nothing, and the network keeps its random features.
    #[default]
    Initial,
    /// Nothing: a weight of zero costs least.
    Zero,
}

/// How the steps of a matrix's rows and columns are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineScaleRule {
    /// They are that of the matrix.
    #[default]
    None,
    /// By how much the loss minds an error there, as the gradients of a few batches tell at the start of the rate: of the
    /// columns of all matrices, and of the rows of those of linear layers.
    Sensitivity,
    /// As `sensitivity`, of all rows; those of rows then move with the loss, while codes stay as they are.
    Learned,
}

/// The price of bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// Which rate.
    pub method: RateMethod,
    /// `bits`: nats of loss per bit per weight. `backslash` and the controls: λ/N, the λ of the paper over the number of
    /// parameters, which is what the strength of its step depends on.
    pub lambda: f64,
    /// `bits`: most bytes of the finished file, λ then being found on the way; 0 for a fixed λ.
    pub budget: u64,
    /// `bits`: share of the steps after which there is a rate, and a quantiser; until then training is plain.
    pub start: f64,
    /// `bits`: what codes are added to.
    pub origin: OriginRule,
    /// `bits`: whether steps are learned.
    pub step_rule: StepRule,
    /// `bits`: step at the start of the rate, in units of the root mean square of the weights then; 1/√(3·inputs) for a
    /// matrix of zeros.
    pub initial_step: f64,
    /// `bits`: learning rate of the logarithms of steps and of the probability model.
    pub learning_rate: f64,
    /// `bits`: share of the steps after which the quantiser rounds. From the start of the rate until then, if that is
    /// earlier, noise of one step stands for it.
    pub rounding_from: f64,
    /// `bits`: share of the steps with a rate at which the loss sees quantiser steps √2 or 2 times as long, half of it each:
    /// the network then stays better where its file is made coarser than it has learned, at a price where it is not.
    pub step_dropout: f64,
    /// `bits`: share of the weights that the loss sees rounded at the first step that rounds, another draw at each step; it
    /// rises to all of them over four fifths of the steps from there. The others are seen as they are, so that fewer
    /// gradients are those of rounded weights (Quant-Noise, arXiv 2004.07320).
    pub rounded_share: f64,
    /// `bits`: how the steps of a matrix's rows and columns are set, over that of the matrix.
    pub line_scales: LineScaleRule,
    /// `bits`: learning rate of the logarithms of the scales of rows, where these are learned.
    pub scale_learning_rate: f64,
    /// `bits`: what moves the matrices from the start of the rate on, at a learning rate that gives updates of the same
    /// size. An orthogonal update moves all singular directions alike, and forgets what a weight pays for its bits; AdamW
    /// weighs that against the loss weight by weight.
    pub matrix_method: OptimizerMethod,
    /// `bits`: learning rate of the matrices from then on, as a multiple of what it would be.
    pub matrix_learning_rate: f64,
    /// `bits`: decay of the singular values of matrices from then on, as a multiple of `optimizer.spectral_decay`.
    pub matrix_spectral_decay: f64,
    /// `backslash`: ε in (|θ|+ε)^(ν−1).
    pub epsilon: f64,
}

impl Default for RateConfig {
    fn default() -> Self {
        Self {
            method: RateMethod::None,
            lambda: 0.12,
            budget: 0,
            start: 0.6,
            origin: OriginRule::Initial,
            step_rule: StepRule::Learned,
            initial_step: 1.0,
            learning_rate: 0.02,
            rounding_from: 0.6,
            step_dropout: 0.0,
            rounded_share: 1.0,
            line_scales: LineScaleRule::None,
            scale_learning_rate: 0.005,
            matrix_method: OptimizerMethod::Adamw,
            matrix_learning_rate: 1.0,
            matrix_spectral_decay: 1.0,
            epsilon: 1.0,
        }
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
}

impl RateConfig {
    /// The first step with a rate in bits.
    pub(crate) fn first_step(&self, train: &TrainConfig) -> u64 {
        ((self.start * train.steps as f64).round() as u64).min(train.steps.saturating_sub(1))
    }
}

impl RunConfig {
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
        let (train, rate) = (&self.train, &self.rate);
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        let decay = |value: f64| (0.0..1.0).contains(&value);
        let rules: [(&'static str, f64, bool, &'static str); 21] = [
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
            ("train.beta1", train.beta1, decay(train.beta1), "must be from 0 to below 1"),
            ("train.beta2", train.beta2, decay(train.beta2), "must be from 0 to below 1"),
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
                share(train.token_dropout) && train.token_dropout < 1.0,
                "must be from 0 to below 1",
            ),
            ("rate.lambda", rate.lambda, not_negative(rate.lambda), "must not be negative"),
            (
                "rate.start",
                rate.start,
                share(rate.start) && rate.start < 1.0,
                "must be from 0 to below 1",
            ),
            (
                "rate.initial_step",
                rate.initial_step,
                positive(rate.initial_step),
                "must be positive",
            ),
            (
                "rate.learning_rate",
                rate.learning_rate,
                not_negative(rate.learning_rate),
                "must not be negative",
            ),
            (
                "rate.rounding_from",
                rate.rounding_from,
                share(rate.rounding_from),
                "must be from 0 to 1",
            ),
            (
                "rate.scale_learning_rate",
                rate.scale_learning_rate,
                not_negative(rate.scale_learning_rate),
                "must not be negative",
            ),
            (
                "rate.step_dropout",
                rate.step_dropout,
                share(rate.step_dropout),
                "must be from 0 to 1",
            ),
            (
                "rate.rounded_share",
                rate.rounded_share,
                share(rate.rounded_share),
                "must be from 0 to 1",
            ),
            (
                "rate.matrix_learning_rate",
                rate.matrix_learning_rate,
                positive(rate.matrix_learning_rate),
                "must be positive",
            ),
            (
                "rate.matrix_spectral_decay",
                rate.matrix_spectral_decay,
                not_negative(rate.matrix_spectral_decay),
                "must not be negative",
            ),
            ("rate.epsilon", rate.epsilon, positive(rate.epsilon), "must be positive"),
        ];
        if self.model.masked_head {
            return Err(TrainError::ConfigValue {
                key: "model.masked_head",
                value: "true".to_owned(),
                expected: "must be false: an encoder is trained as a classifier, without a head for masked tokens",
            });
        }
        if let Some((key, value, _, expected)) = rules.into_iter().find(|(_, _, holds, _)| !holds) {
            return Err(TrainError::ConfigValue { key, value: value.to_string(), expected });
        }
        if !train.precision.is_supported() {
            return Err(TrainError::ConfigValue {
                key: "train.precision",
                value: "bf16".to_owned(),
                expected: "takes a CPU with AVX512-BF16 or AMX, or a GPU that multiplies matrices of it; use \"fp32\"",
            });
        }
        if rate.budget > 0 && rate.method != RateMethod::Bits {
            return Err(TrainError::ConfigValue {
                key: "rate.budget",
                value: rate.budget.to_string(),
                expected: "only rate.method = \"bits\" can be steered to a size",
            });
        }
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
            "rate.scale_learning_rate=-1",
            "rate.start=1",
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
