//! The rows that evaluation scores.

use crate::{Error, Result};

/// One row of evaluation: `targets[i]` is the token that follows `inputs[i]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window<'a> {
    /// What the model sees, at most one sequence length.
    pub inputs: &'a [u16],
    /// What it must predict, as many.
    pub targets: &'a [u16],
}

/// Cuts a text of N tokens into rows of `sequence_length` targets that cover each of its N − 1 targets exactly once.
///
/// The last token of a row's targets is the first of the next row's inputs; the last row may be short. This is the
/// evaluation of the Parameter Golf baseline, which drops the short row; drop it too to compare with its numbers.
///
/// ```
/// let tokens = [10, 11, 12, 13, 14, 15];
/// let rows: Vec<_> = backslash_data::validation_windows(&tokens, 3)?.collect();
/// assert_eq!((rows[0].inputs, rows[0].targets), (&tokens[0..3], &tokens[1..4]));
/// assert_eq!((rows[1].inputs, rows[1].targets), (&tokens[3..5], &tokens[4..6]));
/// # Ok::<(), backslash_data::Error>(())
/// ```
///
/// # Errors
///
/// A sequence length of 0, or fewer than two tokens.
pub fn validation_windows(
    tokens: &[u16],
    sequence_length: usize,
) -> Result<impl ExactSizeIterator<Item = Window<'_>> + Clone> {
    if sequence_length == 0 {
        return Err(Error::Zero { what: "the sequence length" });
    }
    if tokens.len() < 2 {
        return Err(Error::TooFewTokens { found: tokens.len(), needed: 2 });
    }
    let inputs = tokens[..tokens.len() - 1].chunks(sequence_length);
    let targets = tokens[1..].chunks(sequence_length);
    Ok(inputs.zip(targets).map(|(inputs, targets)| Window { inputs, targets }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_once_with_its_predecessor() {
        for (length, sequence_length) in [(2, 1), (2, 9), (33, 8), (34, 8), (100, 7)] {
            let tokens: Vec<u16> = (0..length).collect();
            let rows: Vec<_> = validation_windows(&tokens, sequence_length).unwrap().collect();
            let targets: Vec<u16> = rows.iter().flat_map(|row| row.targets).copied().collect();
            assert_eq!(targets, tokens[1..]);
            assert!(
                rows.iter().all(|row| row.inputs.iter().zip(row.targets).all(|(i, t)| i + 1 == *t))
            );
            assert!(rows[..rows.len() - 1].iter().all(|row| row.targets.len() == sequence_length));
            assert_eq!(rows.len(), (tokens.len() - 1).div_ceil(sequence_length));
        }
    }

    #[test]
    fn nothing_to_score() {
        assert!(matches!(
            validation_windows(&[1], 4).err(),
            Some(Error::TooFewTokens { found: 1, needed: 2 })
        ));
        assert!(matches!(validation_windows(&[1, 2], 0).err(), Some(Error::Zero { .. })));
    }
}
