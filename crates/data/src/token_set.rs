//! Tokens for training and for validation.

/// The tokens of a run's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// Tokens to train on.
    pub train: Vec<u16>,
    /// Tokens to evaluate on.
    pub validation: Vec<u16>,
}
