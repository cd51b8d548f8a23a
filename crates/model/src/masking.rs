//! Text for an encoder: rows in which some tokens are hidden, to be predicted from the others.

use rand::SeedableRng;
use rand::seq::index;
use rand_pcg::Pcg64;

use crate::SpecialTokens;

/// Share of the tokens of a text that are hidden. Source: arXiv 1810.04805, section 3.1.
const SHARE: f64 = 0.15;
/// Seed of the positions.
const SEED: u64 = 1;

/// How text becomes rows for a network that predicts masked tokens.
///
/// A row is the start token, text, and the end token. Of n tokens of text, max(1, round(0.15·n)) are replaced
/// by the mask token, at positions drawn without replacement from a random stream that depends on a fixed seed
/// and the number of the row alone, so the same text is always masked alike. The loss of a network is the mean
/// of −ln P(hidden token) over the masked positions: **nats per masked token**. Unlike in the training of
/// BERT, no masked token is left as it is or replaced by another: every prediction is one of a token that the
/// network does not see.
///
/// ```
/// use backslash_model::{Masking, SpecialTokens};
///
/// let masking = Masking::new(SpecialTokens { start: 1, end: 2, mask: 3 }, 12);
/// let text: Vec<u16> = (10..25).collect();
/// let rows: Vec<_> = masking.rows(&text).collect();
/// assert_eq!((rows.len(), rows[0].inputs.len(), rows[1].inputs.len()), (2, 12, 7));
/// assert_eq!((rows[0].inputs[0], rows[0].inputs[11]), (1, 2));
/// let hidden = rows[0].inputs.iter().position(|token| *token == 3).unwrap();
/// assert_eq!(rows[0].targets[0], text[hidden - 1]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masking {
    special: SpecialTokens,
    row: usize,
}

/// A row of text with hidden tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedRow {
    /// What the network sees.
    pub inputs: Vec<u16>,
    /// The tokens that its mask tokens stand for, in their order.
    pub targets: Vec<u16>,
}

impl Masking {
    /// The shortest row: a token of text between start and end.
    pub const LEAST_ROW: usize = 3;

    /// Rows of `row` tokens, of which the first and the last are no text.
    ///
    /// # Panics
    /// If a row is shorter than [`Masking::LEAST_ROW`].
    pub fn new(special: SpecialTokens, row: usize) -> Self {
        assert!(row >= Self::LEAST_ROW, "rows of {row} tokens hold no text");
        Self { special, row }
    }

    /// Tokens of text in a whole row.
    pub fn text_in_row(&self) -> usize {
        self.row + 1 - Self::LEAST_ROW
    }

    /// The rows of a text; the last may be short.
    ///
    /// A mask token that stands in the text itself is read as the end token, so that every mask token has a
    /// target.
    pub fn rows<'a>(&self, tokens: &'a [u16]) -> impl ExactSizeIterator<Item = MaskedRow> + 'a {
        let masking = *self;
        let rows = tokens.chunks(self.text_in_row()).enumerate();
        rows.map(move |(number, text)| masking.row(number, text))
    }

    fn row(&self, number: usize, text: &[u16]) -> MaskedRow {
        let SpecialTokens { start, end, mask } = self.special;
        let count = ((SHARE * text.len() as f64).round() as usize).max(1);
        let mut random = Pcg64::seed_from_u64(SEED);
        random.advance((number as u128) << 64);
        let mut positions = index::sample(&mut random, text.len(), count).into_vec();
        positions.sort_unstable();
        let mut inputs = Vec::with_capacity(text.len() + 2);
        inputs.push(start);
        inputs.extend(text.iter().map(|token| if *token == mask { end } else { *token }));
        inputs.push(end);
        let hidden = |position: usize| std::mem::replace(&mut inputs[position + 1], mask);
        MaskedRow { targets: positions.into_iter().map(hidden).collect(), inputs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: SpecialTokens = SpecialTokens { start: 1, end: 2, mask: 3 };

    #[test]
    fn fifteen_percent_of_each_row_are_hidden_and_return() {
        let text: Vec<u16> = (10..10 + 98 * 20 + 7).collect();
        let rows: Vec<MaskedRow> = Masking::new(SPECIAL, 100).rows(&text).collect();
        assert_eq!(rows.len(), 21);
        let mut hidden_at = std::collections::HashSet::new();
        let mut again = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            assert_eq!(row.targets.len(), if number < 20 { 15 } else { 1 });
            let mut targets = row.targets.iter();
            let inner = &row.inputs[1..row.inputs.len() - 1];
            let positions: Vec<usize> = (0..inner.len()).filter(|at| inner[*at] == 3).collect();
            assert_eq!(positions.len(), row.targets.len());
            hidden_at.insert(positions);
            again.extend(inner.iter().map(|token| match token {
                3 => *targets.next().unwrap(),
                token => *token,
            }));
        }
        assert_eq!(again, text);
        assert_eq!(hidden_at.len(), 21, "rows are masked at other positions");
        assert!(Masking::new(SPECIAL, 100).rows(&text).eq(rows));
    }

    #[test]
    fn a_mask_token_in_the_text_is_no_prediction() {
        let rows: Vec<MaskedRow> = Masking::new(SPECIAL, 12).rows(&[3; 10]).collect();
        assert_eq!(rows[0].inputs.iter().filter(|token| **token == 3).count(), 2);
        assert_eq!(rows[0].targets, [2, 2]);
    }
}
