//! The order in which training walks over the tokens.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Error, Result};

/// One batch of rows, row-major: shape `batch_size` × `sequence_length`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// What the model sees.
    pub inputs: Vec<u16>,
    /// The token that follows each input.
    pub targets: Vec<u16>,
    /// Rows.
    pub batch_size: usize,
    /// Tokens in a row.
    pub sequence_length: usize,
}

/// Draws windows of a text without replacement, epoch after epoch.
///
/// ```
/// use backslash_data::Sampler;
///
/// let tokens: Vec<u16> = (0..101).collect();
/// let mut sampler = Sampler::new(tokens.len(), 10, 4, 1337)?;
/// let batch = sampler.next(&tokens);
/// assert!(batch.inputs.iter().zip(&batch.targets).all(|(input, target)| input + 1 == *target));
///
/// let saved = sampler.state();
/// let next = sampler.next(&tokens);
/// sampler.restore(saved)?;
/// assert_eq!(sampler.next(&tokens), next);
/// # Ok::<(), backslash_data::Error>(())
/// ```
///
/// With L the sequence length, each epoch
///
/// 1. draws a phase below L, so that windows begin at other tokens than in the epoch before;
/// 2. cuts the text into windows, number k covering tokens phase + k·L to phase + k·L + L, both included: neighbours
///    share one token, the last target of one and the first input of the next;
/// 3. visits the windows in a random order.
///
/// Both draws depend on the seed and the number of the epoch alone, so a [`SamplerState`] of five integers is enough
/// to continue exactly. A batch takes the next windows in that order and runs on into the next epoch where one ends.
/// The fewer than L tokens before the first and after the last window are left out of that epoch only.
#[derive(Debug, Clone)]
pub struct Sampler {
    tokens: usize,
    sequence_length: usize,
    batch_size: usize,
    seed: u64,
    epoch: u64,
    /// Windows of this epoch already drawn, at most `order.len()`.
    index: usize,
    phase: usize,
    order: Vec<usize>,
}

/// Where a [`Sampler`] stands.
///
/// The batch size is not part of it: a run may continue with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerState {
    /// Seed of the run.
    pub seed: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Windows of the current epoch already drawn.
    pub index: u64,
    /// Tokens of the text, to notice other data.
    pub tokens: u64,
    /// Length of a sequence in tokens.
    pub sequence_length: u64,
}

impl Sampler {
    /// A sampler over a text of `tokens` tokens, at the beginning of epoch 0.
    ///
    /// # Errors
    ///
    /// A sequence length or batch size of 0, or a text shorter than one sequence and the token after it.
    pub fn new(
        tokens: usize,
        sequence_length: usize,
        batch_size: usize,
        seed: u64,
    ) -> Result<Self> {
        if sequence_length == 0 {
            return Err(Error::Zero { what: "the sequence length" });
        }
        if batch_size == 0 {
            return Err(Error::Zero { what: "the batch size" });
        }
        let needed = sequence_length.saturating_add(1);
        if tokens < needed {
            return Err(Error::TooFewTokens { found: tokens, needed });
        }
        let mut sampler = Self {
            tokens,
            sequence_length,
            batch_size,
            seed,
            epoch: 0,
            index: 0,
            phase: 0,
            order: Vec::new(),
        };
        sampler.draw_epoch();
        Ok(sampler)
    }

    /// The next batch.
    ///
    /// # Panics
    ///
    /// If `tokens` has another length than the sampler was made for.
    pub fn next(&mut self, tokens: &[u16]) -> Batch {
        assert_eq!(tokens.len(), self.tokens, "the sampler was made for a text of another length");
        let size = self.batch_size * self.sequence_length;
        let mut batch = Batch {
            inputs: Vec::with_capacity(size),
            targets: Vec::with_capacity(size),
            batch_size: self.batch_size,
            sequence_length: self.sequence_length,
        };
        for _ in 0..self.batch_size {
            if self.index == self.order.len() {
                self.epoch += 1;
                self.index = 0;
                self.draw_epoch();
            }
            let start = self.phase + self.order[self.index] * self.sequence_length;
            let window = &tokens[start..=start + self.sequence_length];
            batch.inputs.extend_from_slice(&window[..self.sequence_length]);
            batch.targets.extend_from_slice(&window[1..]);
            self.index += 1;
        }
        batch
    }

    /// Windows of the current epoch. A later epoch may have one more or one less, depending on its phase.
    pub fn windows_per_epoch(&self) -> usize {
        self.order.len()
    }

    /// Where the sampler stands: restore it to draw the same batches again.
    pub fn state(&self) -> SamplerState {
        SamplerState {
            seed: self.seed,
            epoch: self.epoch,
            index: self.index as u64,
            tokens: self.tokens as u64,
            sequence_length: self.sequence_length as u64,
        }
    }

    /// Continues from a saved position as if never interrupted. The seed is the saved one.
    ///
    /// # Errors
    ///
    /// A position saved with another text length or sequence length, or beyond the end of its epoch; the sampler is
    /// then unchanged.
    pub fn restore(&mut self, state: SamplerState) -> Result<()> {
        let same = |what, saved, found: usize| match saved == found as u64 {
            true => Ok(()),
            false => Err(Error::SamplerState { what, saved, found: found as u64 }),
        };
        same("a number of tokens of", state.tokens, self.tokens)?;
        same("a sequence length of", state.sequence_length, self.sequence_length)?;
        let mut restored = Self { seed: state.seed, epoch: state.epoch, ..self.clone() };
        restored.draw_epoch();
        let windows = restored.order.len();
        restored.index = usize::try_from(state.index)
            .ok()
            .filter(|&index| index <= windows)
            .ok_or(Error::SamplerState {
                what: "the window",
                saved: state.index,
                found: windows as u64,
            })?;
        *self = restored;
        Ok(())
    }

    fn draw_epoch(&mut self) {
        // Hashed, because generators seeded with neighbouring numbers would be correlated.
        let mut random =
            Pcg64::seed_from_u64(xxh3_64_with_seed(&self.epoch.to_le_bytes(), self.seed));
        let room = self.tokens - 1 - self.sequence_length;
        self.phase = random.random_range(0..=room.min(self.sequence_length - 1));
        self.order = (0..(self.tokens - 1 - self.phase) / self.sequence_length).collect();
        self.order.shuffle(&mut random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first tokens of all windows of one epoch, in drawing order; the text counts 0, 1, 2, …
    fn epoch(sampler: &mut Sampler, tokens: &[u16]) -> Vec<u16> {
        (0..sampler.windows_per_epoch()).map(|_| sampler.next(tokens).inputs[0]).collect()
    }

    #[test]
    fn an_epoch_covers_every_window_once() {
        let tokens: Vec<u16> = (0..1000).collect();
        let mut sampler = Sampler::new(tokens.len(), 16, 1, 7).unwrap();
        let mut phases = std::collections::HashSet::new();
        let mut orders = std::collections::HashSet::new();
        for _ in 0..50 {
            let order = epoch(&mut sampler, &tokens);
            let mut starts = order.clone();
            starts.sort_unstable();
            assert!(starts[0] < 16);
            assert!(starts.windows(2).all(|pair| pair[1] == pair[0] + 16));
            assert!(starts.last().unwrap() + 32 > 999);
            assert_ne!(starts, order);
            phases.insert(starts[0]);
            orders.insert(order.iter().map(|start| start / 16).collect::<Vec<_>>());
            // The first draw of the next epoch happens with its first batch.
            let mut ahead = sampler.clone();
            ahead.next(&tokens);
            sampler = Sampler { index: 0, ..ahead };
        }
        assert!(phases.len() > 10, "{} phases", phases.len());
        assert_eq!(orders.len(), 50);
    }

    #[test]
    fn targets_follow_inputs_and_batches_straddle_epochs() {
        let tokens: Vec<u16> = (0..100).collect();
        let mut sampler = Sampler::new(tokens.len(), 9, 7, 3).unwrap();
        for _ in 0..20 {
            let batch = sampler.next(&tokens);
            assert_eq!((batch.inputs.len(), batch.targets.len()), (63, 63));
            assert!(
                batch.inputs.iter().zip(&batch.targets).all(|(input, target)| input + 1 == *target)
            );
        }
        assert!(sampler.state().epoch >= 10);
    }

    #[test]
    fn the_shortest_possible_text() {
        let mut sampler = Sampler::new(5, 4, 3, 0).unwrap();
        assert_eq!(sampler.windows_per_epoch(), 1);
        let batch = sampler.next(&[5, 6, 7, 8, 9]);
        assert_eq!(batch.inputs, [5, 6, 7, 8].repeat(3));
        let message = Sampler::new(4, 4, 3, 0).unwrap_err().to_string();
        assert!(message.contains("has 4 tokens, one sequence needs 5"), "{message}");
        assert!(matches!(Sampler::new(0, usize::MAX, 1, 0), Err(Error::TooFewTokens { .. })));
        assert!(matches!(Sampler::new(9, 0, 1, 0), Err(Error::Zero { .. })));
        assert!(matches!(Sampler::new(9, 1, 0, 0), Err(Error::Zero { .. })));
    }

    #[test]
    fn the_order_never_changes_between_versions() {
        let mut sampler = Sampler::new(30, 4, 6, 1337).unwrap();
        let tokens: Vec<u16> = (0..30).collect();
        let starts: Vec<u16> = sampler.next(&tokens).inputs.chunks(4).map(|row| row[0]).collect();
        assert_eq!(starts, [6, 10, 22, 14, 18, 2]);
        assert_ne!(
            Sampler::new(30, 4, 6, 1338).unwrap().next(&tokens),
            Sampler::new(30, 4, 6, 1337).unwrap().next(&tokens)
        );
    }

    #[test]
    fn foreign_positions_are_refused() {
        let mut sampler = Sampler::new(100, 9, 7, 3).unwrap();
        let state = sampler.state();
        for wrong in [
            SamplerState { tokens: 99, ..state },
            SamplerState { sequence_length: 8, ..state },
            SamplerState { index: 12, ..state },
            SamplerState { index: u64::MAX, ..state },
        ] {
            assert!(matches!(sampler.restore(wrong), Err(Error::SamplerState { .. })));
        }
        assert_eq!(sampler.state(), state);
    }

    proptest! {
        #[test]
        fn restored_equals_uninterrupted(
            length in 10_usize..400, sequence_length in 1_usize..9, batch_size in 1_usize..6,
            seed: u64, before in 0_usize..60, after in 1_usize..60,
        ) {
            let tokens: Vec<u16> = (0..length as u16).collect();
            let mut sampler = Sampler::new(length, sequence_length, batch_size, seed).unwrap();
            for _ in 0..before {
                sampler.next(&tokens);
            }
            let saved = serde_json::to_string(&sampler.state()).unwrap();
            let mut other = Sampler::new(length, sequence_length, batch_size, seed ^ 1).unwrap();
            other.restore(serde_json::from_str(&saved).unwrap()).unwrap();
            for _ in 0..after {
                prop_assert_eq!(other.next(&tokens), sampler.next(&tokens));
            }
        }
    }
}
