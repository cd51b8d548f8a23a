//! The order in which training walks over examples, and rows of one length.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Example;
use crate::{Error, Result};

/// Examples as rows of one length: that of the longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleBatch {
    /// Token ids, row after row; after the end of an example comes padding, of token 0.
    pub tokens: Vec<u16>,
    /// Tokens of each row that are no padding.
    pub lengths: Vec<usize>,
    /// Class of each row.
    pub classes: Vec<u16>,
}

impl ExampleBatch {
    /// The rows of some examples.
    ///
    /// ```
    /// use backslash_data::{Example, ExampleBatch};
    ///
    /// let examples = [Example { tokens: vec![5, 6, 7], class: 1 }, Example { tokens: vec![8], class: 0 }];
    /// let batch = ExampleBatch::of(&examples);
    /// assert_eq!((batch.tokens, batch.lengths, batch.classes), (vec![5, 6, 7, 8, 0, 0], vec![3, 1], vec![1, 0]));
    /// ```
    pub fn of<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Self {
        let examples: Vec<&Example> = examples.into_iter().collect();
        let row = examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
        let mut tokens = Vec::with_capacity(row * examples.len());
        for (index, example) in examples.iter().enumerate() {
            tokens.extend_from_slice(&example.tokens);
            tokens.resize((index + 1) * row, 0);
        }
        Self {
            tokens,
            lengths: examples.iter().map(|example| example.tokens.len()).collect(),
            classes: examples.iter().map(|example| example.class).collect(),
        }
    }

    /// Tokens that are no padding.
    pub fn text_tokens(&self) -> usize {
        self.lengths.iter().sum()
    }
}

/// Draws examples without replacement, epoch after epoch, each in a random order that depends on the seed and the number of the
/// epoch alone. A batch runs on into the next epoch where one ends.
///
/// ```
/// use backslash_data::{Example, ExampleSampler};
///
/// let examples: Vec<Example> = (0..5).map(|class| Example { tokens: vec![class], class }).collect();
/// let mut sampler = ExampleSampler::new(examples.len(), 5, 1337)?;
/// let mut classes = sampler.next(&examples).classes;
/// classes.sort_unstable();
/// assert_eq!(classes, [0, 1, 2, 3, 4]);
/// # Ok::<(), backslash_data::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ExampleSampler {
    batch_size: usize,
    seed: u64,
    epoch: u64,
    /// Examples of this epoch already drawn, at most `order.len()`.
    index: usize,
    order: Vec<usize>,
    /// Share of the tokens of a text that are hidden, and the token that stands for them.
    hidden: Option<(f64, u16)>,
}

/// Where an [`ExampleSampler`] stands.
///
/// The batch size is not part of it: a run may continue with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExampleSamplerState {
    /// Seed of the run.
    pub seed: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Examples of the current epoch already drawn.
    pub index: u64,
    /// Number of examples, to notice other data.
    pub examples: u64,
}

impl ExampleSampler {
    /// A sampler of so many examples, at the beginning of epoch 0.
    ///
    /// # Errors
    ///
    /// No examples, or a batch size of 0.
    pub fn new(examples: usize, batch_size: usize, seed: u64) -> Result<Self> {
        for (what, count) in [("the number of examples", examples), ("the batch size", batch_size)]
        {
            if count == 0 {
                return Err(Error::Zero { what });
            }
        }
        Ok(Self {
            batch_size,
            seed,
            epoch: 0,
            index: 0,
            order: order(examples, seed, 0),
            hidden: None,
        })
    }

    /// The same sampler with a share of the tokens of each text hidden behind `mask`, other ones in every epoch; the first and
    /// the last token of an example stay.
    ///
    /// ```
    /// use backslash_data::{Example, ExampleSampler};
    ///
    /// let examples = [Example { tokens: vec![1, 7, 8, 9, 2], class: 0 }];
    /// let mut sampler = ExampleSampler::new(1, 1, 1337)?.hiding(1.0, 3);
    /// assert_eq!(sampler.next(&examples).tokens, [1, 3, 3, 3, 2]);
    /// # Ok::<(), backslash_data::Error>(())
    /// ```
    #[must_use]
    pub fn hiding(self, share: f64, mask: u16) -> Self {
        Self { hidden: (share > 0.0).then_some((share, mask)), ..self }
    }

    /// The next batch.
    ///
    /// # Panics
    ///
    /// If there is another number of examples than the sampler was made for.
    pub fn next(&mut self, examples: &[Example]) -> ExampleBatch {
        let count = self.order.len();
        assert_eq!(examples.len(), count, "the sampler was made for another number of examples");
        let mut drawn = Vec::with_capacity(self.batch_size);
        for _ in 0..self.batch_size {
            if self.index == count {
                self.epoch += 1;
                self.index = 0;
                self.order = order(count, self.seed, self.epoch);
            }
            drawn.push(self.seen(&examples[self.order[self.index]]));
            self.index += 1;
        }
        ExampleBatch::of(&drawn)
    }

    /// The next example with what is hidden of it.
    fn seen(&self, example: &Example) -> Example {
        let mut example = example.clone();
        let Some((share, mask)) = self.hidden else { return example };
        let position = [self.epoch.to_le_bytes(), (self.index as u64).to_le_bytes()].concat();
        let mut random = Pcg64::seed_from_u64(xxh3_64_with_seed(&position, self.seed));
        let last = example.tokens.len().saturating_sub(1);
        for token in example.tokens.iter_mut().take(last).skip(1) {
            if random.random_bool(share) {
                *token = mask;
            }
        }
        example
    }

    /// Where the sampler stands: restore it to draw the same batches again.
    pub fn state(&self) -> ExampleSamplerState {
        ExampleSamplerState {
            seed: self.seed,
            epoch: self.epoch,
            index: self.index as u64,
            examples: self.order.len() as u64,
        }
    }

    /// Continues from a saved position as if never interrupted. The seed is the saved one.
    ///
    /// # Errors
    ///
    /// A position saved with another number of examples, or beyond the end of its epoch; the sampler is then unchanged.
    pub fn restore(&mut self, state: ExampleSamplerState) -> Result<()> {
        let count = self.order.len();
        let differs = |what, saved| Err(Error::SamplerState { what, saved, found: count as u64 });
        if state.examples != count as u64 {
            return differs("a number of examples of", state.examples);
        }
        let Some(index) = usize::try_from(state.index).ok().filter(|index| *index <= count) else {
            return differs("the example", state.index);
        };
        let ExampleSamplerState { seed, epoch, .. } = state;
        let order = order(count, seed, epoch);
        *self = Self { seed, epoch, index, order, ..*self };
        Ok(())
    }
}

fn order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    // Hashed, because generators seeded with neighbouring numbers would be correlated.
    let mut random = Pcg64::seed_from_u64(xxh3_64_with_seed(&epoch.to_le_bytes(), seed));
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut random);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn examples(count: usize) -> Vec<Example> {
        let example =
            |index: usize| Example { tokens: vec![7; 1 + index % 5], class: index as u16 };
        (0..count).map(example).collect()
    }

    #[test]
    fn an_epoch_has_every_example_once_and_each_epoch_its_own_order() {
        let examples = examples(30);
        let mut sampler = ExampleSampler::new(30, 10, 3).unwrap();
        let mut orders = Vec::new();
        for _ in 0..4 {
            let batches: Vec<ExampleBatch> = (0..3).map(|_| sampler.next(&examples)).collect();
            let order: Vec<u16> = batches.iter().flat_map(|batch| batch.classes.clone()).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..30).collect::<Vec<u16>>());
            assert!(!orders.contains(&order));
            orders.push(order);
        }
        let other = ExampleSampler::new(30, 10, 4).unwrap().next(&examples);
        assert_ne!(other.classes, orders[0][..10]);
    }

    #[test]
    fn a_share_of_the_tokens_is_hidden_and_other_ones_in_every_epoch() {
        let examples = vec![Example { tokens: vec![7; 402], class: 0 }; 5];
        let mut sampler = ExampleSampler::new(5, 5, 3).unwrap().hiding(0.25, 1);
        let epochs: Vec<Vec<u16>> = (0..2).map(|_| sampler.next(&examples).tokens).collect();
        for epoch in &epochs {
            let hidden = epoch.iter().filter(|token| **token == 1).count();
            assert!((430..570).contains(&hidden), "{hidden} of 2,000");
            assert!(epoch.chunks(402).all(|row| row[0] == 7 && row[401] == 7));
            let rows: std::collections::HashSet<&[u16]> = epoch.chunks(402).collect();
            assert_eq!(rows.len(), 5);
        }
        assert_ne!(epochs[0], epochs[1]);
    }

    #[test]
    fn foreign_positions_and_nothing_to_draw_are_refused() {
        let mut sampler = ExampleSampler::new(10, 4, 3).unwrap();
        let state = sampler.state();
        for wrong in [
            ExampleSamplerState { examples: 9, ..state },
            ExampleSamplerState { index: 11, ..state },
        ] {
            assert!(matches!(sampler.restore(wrong), Err(Error::SamplerState { .. })));
        }
        assert_eq!(sampler.state(), state);
        assert!(matches!(ExampleSampler::new(0, 4, 3), Err(Error::Zero { .. })));
        assert!(matches!(ExampleSampler::new(4, 0, 3), Err(Error::Zero { .. })));
    }

    proptest! {
        #[test]
        fn restored_equals_uninterrupted(
            count in 1_usize..40, batch_size in 1_usize..12, seed: u64,
            before in 0_usize..20, after in 1_usize..20,
        ) {
            let examples = examples(count);
            let hiding = |sampler: ExampleSampler| sampler.hiding(0.5, 1);
            let mut sampler = hiding(ExampleSampler::new(count, batch_size, seed).unwrap());
            for _ in 0..before {
                sampler.next(&examples);
            }
            let saved = serde_json::to_string(&sampler.state()).unwrap();
            let mut other = hiding(ExampleSampler::new(count, batch_size, seed ^ 1).unwrap());
            other.restore(serde_json::from_str(&saved).unwrap()).unwrap();
            for _ in 0..after {
                prop_assert_eq!(other.next(&examples), sampler.next(&examples));
            }
        }
    }
}
