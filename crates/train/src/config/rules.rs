//! What numbers in a configuration may be, beyond what their types say.

use crate::TrainError;

/// A key, its value, whether that fits, and what would.
pub(super) type Rule = (&'static str, f64, bool, &'static str);

/// # Errors
/// Names the first key that does not fit and says what would be right.
pub(super) fn check(rules: impl IntoIterator<Item = Rule>) -> Result<(), TrainError> {
    match rules.into_iter().find(|(_, _, fits, _)| !fits) {
        Some((key, value, _, expected)) => {
            Err(TrainError::ConfigValue { key, value: value.to_string(), expected })
        }
        None => Ok(()),
    }
}

pub(super) fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

pub(super) fn not_negative(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// From 0 to 1.
pub(super) fn share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

/// From 0 to below 1.
pub(super) fn below_one(value: f64) -> bool {
    (0.0..1.0).contains(&value)
}
