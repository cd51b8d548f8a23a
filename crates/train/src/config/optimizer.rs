//! The `[optimizer]` section: which optimizer moves the matrices, and the groups of parameters.

use serde::{Deserialize, Serialize};

use super::TrainConfig;
use super::rules::{self, Rule, below_one, not_negative, share};
use crate::TrainError;

/// What moves the matrices. Embeddings, output matrices and vectors are moved by AdamW in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerMethod {
    /// Adam with decoupled weight decay, with the constants of `[train]`.
    #[default]
    Adamw,
    /// The orthogonalised momentum.
    Muon,
    /// Muon with one second moment per output (arXiv 2510.05491).
    Normuon,
    /// Muon of a momentum whose rows are normalised (arXiv 2603.28254).
    MuoneqR,
    /// Muon on the leading singular directions only, ever fewer of them (arXiv 2603.03597).
    Numuon,
}

/// How a matrix is made orthogonal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Orthogonalization {
    /// Five steps of one quintic: singular values end between 0.68 and 1.13.
    #[default]
    NewtonSchulz,
    /// Five quintics of their own (arXiv 2505.16932): singular values end between 0.86 and 1.14.
    PolarExpress,
}

/// The factor between an orthogonal matrix and the update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateScale {
    /// √max(1, outputs/inputs).
    #[default]
    AspectRatio,
    /// 0.2·√max(outputs, inputs), which gives the updates the root mean square of those of AdamW, so that
    /// its learning rates fit (arXiv 2502.16982, equation 4).
    MatchAdamw,
}

/// How the rank of NuMuon's updates goes from its first to its last value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankSchedule {
    /// Along half a wave of a cosine.
    #[default]
    Cosine,
    /// Along a line.
    Linear,
    /// It stays at the first.
    Constant,
}

/// Which singular values the spectral decay lowers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpectralDecayOf {
    /// All by the same amount, up to the error of the orthogonalisation: the weights tend to low rank.
    #[default]
    All,
    /// The largest, by a share of itself (arXiv 2507.13338).
    Largest,
}

/// A number, or `"train"` for what `[train]` says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or \"train\"")]
pub enum GroupValue {
    /// A value of the group's own.
    Own(f64),
    /// That of `[train]`.
    Inherited(Inherited),
}

/// The word for a value that is inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inherited {
    /// From `[train]`.
    #[default]
    Train,
}

impl Default for GroupValue {
    fn default() -> Self {
        Self::Inherited(Inherited::Train)
    }
}

impl GroupValue {
    /// The group's own value, or `inherited`.
    pub fn or(self, inherited: f64) -> f64 {
        match self {
            Self::Own(value) => value,
            Self::Inherited(Inherited::Train) => inherited,
        }
    }
}

/// A group of parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupConfig {
    /// Peak learning rate; `"train"` for `train.learning_rate`.
    pub learning_rate: GroupValue,
    /// Decoupled weight decay, times the learning rate; `"train"` for `train.weight_decay` on tensors of two
    /// and more dimensions and none on the others.
    pub weight_decay: GroupValue,
}

/// The optimizer and its groups of parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// What moves the matrices.
    pub method: OptimizerMethod,
    /// Muon and its relatives: decay of the sum of gradients.
    pub momentum: f64,
    /// Muon and its relatives: the momentum at the first step, from which it rises linearly.
    pub momentum_start: f64,
    /// Muon and its relatives: steps over which it rises; 0 for none.
    pub momentum_warmup_steps: u64,
    /// Muon and its relatives but NuMuon: whether the update looks one step ahead, as Nesterov's does.
    pub nesterov: bool,
    /// Muon and its relatives: how the momentum is made orthogonal.
    pub orthogonalization: Orthogonalization,
    /// Muon and its relatives: how large the updates are.
    pub update_scale: UpdateScale,
    /// NorMuon: decay of the mean of squared entries of an output.
    pub row_beta2: f64,
    /// NuMuon: rank of the first updates, as a share of the full rank.
    pub rank_start: f64,
    /// NuMuon: rank of the last updates, as a share of the full rank.
    pub rank_end: f64,
    /// NuMuon: the way from the first rank to the last.
    pub rank_schedule: RankSchedule,
    /// NuMuon: share of the steps after which the rank begins to change.
    pub rank_from: f64,
    /// NuMuon: share of the steps after which it has changed.
    pub rank_until: f64,
    /// Whether weight decay leaves alone the weights that the update enlarges.
    pub cautious_decay: bool,
    /// Matrices: strength of the decay of singular values, times the learning rate; 0 for none.
    pub spectral_decay: f64,
    /// Matrices: the steps from one such decay to the next, which is that much stronger. It takes about as long as an update
    /// of Muon, and singular values move little in a few steps.
    pub spectral_decay_interval: u64,
    /// Matrices: which singular values that decay lowers.
    pub spectral_decay_of: SpectralDecayOf,
    /// Matrices: whether each is scaled back to the norm it began with after every step.
    pub constant_norm: bool,
    /// Embeddings and output matrices.
    pub embedding: GroupConfig,
    /// The matrices of linear layers.
    pub matrix: GroupConfig,
    /// Vectors, and matrices that are sets of vectors.
    pub vector: GroupConfig,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            method: OptimizerMethod::Adamw,
            momentum: 0.95,
            momentum_start: 0.85,
            momentum_warmup_steps: 0,
            nesterov: true,
            orthogonalization: Orthogonalization::NewtonSchulz,
            update_scale: UpdateScale::AspectRatio,
            row_beta2: 0.95,
            rank_start: 1.0,
            rank_end: 0.25,
            rank_schedule: RankSchedule::Cosine,
            rank_from: 0.1,
            rank_until: 0.8,
            cautious_decay: false,
            spectral_decay: 0.0,
            spectral_decay_interval: 1,
            spectral_decay_of: SpectralDecayOf::All,
            constant_norm: false,
            embedding: GroupConfig::default(),
            matrix: GroupConfig::default(),
            vector: GroupConfig::default(),
        }
    }
}

impl OptimizerConfig {
    /// The groups of the Parameter Golf baseline: Muon at 0.04, whose momentum rises from 0.85 to 0.95 over 500
    /// steps, Adam at 0.05 for the embedding and at 0.04 for vectors, no decay.
    pub fn golf() -> Self {
        let group = |learning_rate| GroupConfig {
            learning_rate: GroupValue::Own(learning_rate),
            weight_decay: GroupValue::Own(0.0),
        };
        Self {
            method: OptimizerMethod::Muon,
            momentum_warmup_steps: 500,
            embedding: group(0.05),
            matrix: group(0.04),
            vector: group(0.04),
            ..Self::default()
        }
    }

    /// Checks every value that a type cannot.
    pub(super) fn validate(&self, train: &TrainConfig) -> Result<(), TrainError> {
        let of_rank = |value: f64| value > 0.0 && value <= 1.0;
        let mut rules: Vec<Rule> = vec![
            (
                "optimizer.momentum",
                self.momentum,
                below_one(self.momentum),
                "must be from 0 to below 1",
            ),
            (
                "optimizer.momentum_start",
                self.momentum_start,
                below_one(self.momentum_start),
                "must be from 0 to below 1",
            ),
            (
                "optimizer.row_beta2",
                self.row_beta2,
                below_one(self.row_beta2),
                "must be from 0 to below 1",
            ),
            (
                "optimizer.rank_start",
                self.rank_start,
                of_rank(self.rank_start),
                "must be above 0 and at most 1",
            ),
            (
                "optimizer.rank_end",
                self.rank_end,
                of_rank(self.rank_end),
                "must be above 0 and at most 1",
            ),
            ("optimizer.rank_from", self.rank_from, share(self.rank_from), "must be from 0 to 1"),
            (
                "optimizer.rank_until",
                self.rank_until,
                (self.rank_from..=1.0).contains(&self.rank_until),
                "must be from optimizer.rank_from to 1",
            ),
            (
                "optimizer.spectral_decay",
                self.spectral_decay,
                not_negative(self.spectral_decay),
                "must not be negative",
            ),
            (
                "optimizer.spectral_decay_interval",
                self.spectral_decay_interval as f64,
                self.spectral_decay_interval > 0,
                "must be at least 1",
            ),
        ];
        for (keys, group) in [
            (
                ["optimizer.embedding.learning_rate", "optimizer.embedding.weight_decay"],
                self.embedding,
            ),
            (["optimizer.matrix.learning_rate", "optimizer.matrix.weight_decay"], self.matrix),
            (["optimizer.vector.learning_rate", "optimizer.vector.weight_decay"], self.vector),
        ] {
            let rate = group.learning_rate.or(train.learning_rate);
            let decay = group.weight_decay.or(train.weight_decay);
            rules.push((keys[0], rate, not_negative(rate), "must not be negative, or \"train\""));
            rules.push((keys[1], decay, not_negative(decay), "must not be negative, or \"train\""));
        }
        rules::check(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn groups_inherit_unless_they_have_a_value_of_their_own() {
        let text = "[train]\nlearning_rate = 0.5\n[optimizer]\nmethod = \"muoneq-r\"\n\
                    [optimizer.vector]\nlearning_rate = 2";
        let config = parse(text, &["optimizer.matrix.weight_decay=0.3".to_owned()]).unwrap();
        let optimizer = &config.optimizer;
        assert_eq!(optimizer.method, OptimizerMethod::MuoneqR);
        assert_eq!(optimizer.vector.learning_rate.or(config.train.learning_rate), 2.0);
        assert_eq!(optimizer.matrix.learning_rate.or(config.train.learning_rate), 0.5);
        assert_eq!(optimizer.matrix.weight_decay, GroupValue::Own(0.3));
        assert_eq!(parse(&config.to_toml(), &[]).unwrap(), config);
    }

    #[test]
    fn values_out_of_range_are_named() {
        for set in [
            "optimizer.momentum=1",
            "optimizer.row_beta2=-0.1",
            "optimizer.rank_end=0",
            "optimizer.rank_until=0.05",
            "optimizer.spectral_decay=inf",
            "optimizer.spectral_decay_interval=0",
            "optimizer.embedding.learning_rate=-1",
            "optimizer.vector.weight_decay=nan",
        ] {
            let key = set.split('=').next().unwrap();
            let message = parse("", &[set.to_owned()]).unwrap_err().to_string();
            assert!(message.starts_with(key), "{message}");
        }
    }

    #[test]
    fn unknown_words_and_keys_are_refused() {
        for (set, expected) in [
            ("optimizer.method=sgd", "muoneq-r"),
            ("optimizer.matrix.learning_rate=fast", "a number or \"train\""),
            ("optimizer.matrix.lerning_rate=1", "did you mean `optimizer.matrix.learning_rate`"),
            ("optimizer.momentun=0.9", "did you mean `optimizer.momentum`"),
        ] {
            let message = parse("", &[set.to_owned()]).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
