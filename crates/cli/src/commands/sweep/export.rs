//! The ways to make a file of a run, and their names.

use std::ops::RangeInclusive;

use backslash_eval::ladder::Method;

const OWN: &str = "own";
const CODERS: &str = "coders at 2^-";

/// What is behind [`CODERS`]: at coarser steps nothing is left of a model, and finer ones are beyond what a weight is known to.
const EXPONENTS: RangeInclusive<u8> = 1..=16;

/// A way to make a file of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// The codes at the steps that the run has learned.
    Own,
    /// All float weights at the step 2^-n, under every code of the paper and in a file of ours.
    Coders(u8),
    /// A method of the ladder, on the float weights.
    Ladder(Method),
}

impl Export {
    /// Name in tables and results.
    pub fn name(self) -> String {
        match self {
            Self::Own => OWN.to_owned(),
            Self::Coders(exponent) => format!("{CODERS}{exponent}"),
            Self::Ladder(method) => method.name(),
        }
    }

    /// The export of that name.
    pub fn named(name: &str) -> Option<Self> {
        match (name, name.strip_prefix(CODERS)) {
            (OWN, _) => Some(Self::Own),
            (_, Some(exponent)) => {
                let exponent = exponent.parse().ok()?;
                EXPONENTS.contains(&exponent).then_some(Self::Coders(exponent))
            }
            _ => Method::named(name).map(Self::Ladder),
        }
    }

    /// All names, for a message.
    pub fn known() -> String {
        let methods: Vec<String> = Method::known().into_iter().map(Method::name).collect();
        let [coarsest, finest] =
            [EXPONENTS.start(), EXPONENTS.end()].map(|exponent| Self::Coders(*exponent).name());
        format!("{OWN}, {coarsest} to {finest}, {}", methods.join("; "))
    }

    /// Whether its size can be chosen.
    pub fn has_target(self) -> bool {
        match self {
            Self::Own | Self::Coders(_) => false,
            Self::Ladder(method) => method.has_target(),
        }
    }
}

/// A file that is wanted of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    /// The way to make it.
    pub export: Export,
    /// Its bits per weight, where these can be chosen.
    pub target: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_named_as_they_are_written() {
        let methods = Method::known().into_iter().map(Export::Ladder);
        for export in
            [Export::Own, Export::Coders(8), Export::Coders(16)].into_iter().chain(methods)
        {
            assert_eq!(Export::named(&export.name()), Some(export));
        }
    }
}
