//! What an error in a weight costs, by the gradients of a few batches.

use backslash_model::{Gradients, NamedTensor, NamedWeights, Transformer, is_embedding};

use crate::batches::{Batches, TrainingSet};

/// Tokens to see for every row of the largest embedding.
const TOKENS_PER_ROW: u64 = 40;
/// Steps for each batch, where there are more than the least.
const STEPS_PER_BATCH: u64 = 16;

/// Sums of the squared gradients of the rows and of the columns of all tensors.
#[derive(Clone, Debug)]
pub(crate) struct SquaredGradients {
    sums: Vec<Lines>,
    tokens: f64,
}

/// What an optimizer remembers of the gradients of a tensor, in running means over the last steps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory<'a> {
    /// The mean of each: mostly noise, whose size is that of the gradients.
    Means(&'a [f32]),
    /// The mean of the square of each.
    Squares(&'a [f32]),
}

/// Sums of one tensor.
#[derive(Clone, Debug)]
struct Lines {
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl SquaredGradients {
    /// Least batches whose gradients are gathered.
    pub(crate) const LEAST_BATCHES: u64 = 8;

    pub(crate) fn of_nothing(weights: &NamedWeights) -> Self {
        let lines = |tensor: &NamedTensor| {
            let columns = tensor.shape[1..].iter().product::<usize>().max(1);
            let rows = tensor.data.len() / columns;
            Lines { rows: vec![0.0; rows], columns: vec![0.0; columns] }
        };
        Self { sums: weights.tensors().iter().map(lines).collect(), tokens: 0.0 }
    }

    /// Those of the next batches, for so many steps. Most rows of a large embedding are read seldom, and one that no token of
    /// the batches reads would seem to matter to none: so they are as many as have 40 tokens for each of its rows, where that
    /// is not more than a sixteenth of the steps.
    pub(crate) fn gather(
        network: &Transformer,
        weights: &NamedWeights,
        mut batches: Batches,
        data: TrainingSet<'_>,
        steps: u64,
    ) -> Self {
        let most = Self::LEAST_BATCHES.max(steps / STEPS_PER_BATCH);
        let enough = (TOKENS_PER_ROW * most_embedded(weights)) as f64;
        let mut squares = Self::of_nothing(weights);
        for taken in 0..most {
            if taken >= Self::LEAST_BATCHES && squares.tokens >= enough {
                break;
            }
            let batch = batches.next(data);
            let gradients = network.gradients(&batch.loss(network), weights);
            squares.add(&gradients, batch.tokens());
        }
        squares
    }

    /// Those of so many tokens, by what is known of each gradient; those of one tensor may have another unit than those of
    /// another.
    pub(crate) fn remembered<'a>(
        weights: &NamedWeights,
        memories: impl Iterator<Item = Memory<'a>>,
        tokens: f64,
    ) -> Self {
        let mut squares = Self { tokens, ..Self::of_nothing(weights) };
        for (lines, memory) in squares.sums.iter_mut().zip(memories) {
            match memory {
                Memory::Means(means) => lines.add(means, |mean| f64::from(mean).powi(2)),
                Memory::Squares(squares) => lines.add(squares, f64::from),
            }
        }
        squares
    }

    /// Adds the squares of the gradients of a batch of so many tokens.
    pub(crate) fn add(&mut self, gradients: &Gradients, tokens: usize) {
        for (lines, gradient) in self.sums.iter_mut().zip(&gradients.values) {
            lines.add(gradient, |g| f64::from(g).powi(2));
        }
        self.tokens += tokens as f64;
    }

    /// The sums of each row of a tensor, by its number.
    pub(crate) fn by_row(&self, at: usize) -> Vec<f64> {
        self.with_what_was_not_seen(&self.sums[at].rows)
    }

    /// The sums of each column of a tensor, by its number.
    pub(crate) fn by_column(&self, at: usize) -> Vec<f64> {
        self.with_what_was_not_seen(&self.sums[at].columns)
    }

    /// Each line gets half of what a token adds to all of them, so that none seems to matter to no token.
    ///
    /// Source: the estimator of Krichevsky and Trofimov, The performance of universal encoding (1981), which counts half an
    /// event more of each kind than were seen.
    fn with_what_was_not_seen(&self, sums: &[f64]) -> Vec<f64> {
        let of_half_a_token = 0.5 * sums.iter().sum::<f64>() / self.tokens.max(1.0);
        sums.iter().map(|sum| sum + of_half_a_token).collect()
    }
}

impl Lines {
    /// Adds the square of each value.
    fn add(&mut self, values: &[f32], square: impl Fn(f32) -> f64) {
        let rows = values.chunks(self.columns.len());
        for (row, values) in self.rows.iter_mut().zip(rows) {
            for (column, value) in self.columns.iter_mut().zip(values) {
                let square = square(*value);
                *row += square;
                *column += square;
            }
        }
    }
}

/// Rows of the largest embedding.
fn most_embedded(weights: &NamedWeights) -> u64 {
    let embeddings = weights.tensors().iter().filter(|tensor| is_embedding(&tensor.name));
    embeddings.map(|tensor| tensor.shape[0] as u64).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunConfig;
    use backslash_model::{ModelConfig, device, initial_weights};

    fn gradients(values: &[f32]) -> Gradients {
        Gradients { values: vec![values.to_vec()] }
    }

    #[test]
    fn lines_have_the_squares_of_their_weights_and_half_of_what_a_token_adds() {
        let data = vec![0.0; 6];
        let tensor = NamedTensor { name: "tok_emb.weight".to_owned(), shape: vec![3, 2], data };
        let mut squares = SquaredGradients::of_nothing(&NamedWeights::new(vec![tensor]));
        squares.add(&gradients(&[1.0, -2.0, 0.0, 0.0, 0.0, 0.0]), 3);
        squares.add(&gradients(&[0.0, 3.0, 0.0, 0.0, 1.0, 0.0]), 2);
        // Five tokens have added 15, so half of one has 1.5.
        assert_eq!(squares.by_row(0), [14.0 + 1.5, 1.5, 1.0 + 1.5]);
        assert_eq!(squares.by_column(0), [2.0 + 1.5, 13.0 + 1.5]);
    }

    /// 8 batches of 2 rows of 16 tokens have 256 tokens, which is enough for 6 rows of an embedding.
    #[test]
    fn many_rows_take_more_batches_up_to_a_share_of_the_steps() {
        let tokens = |bigram_rows, steps| {
            let mut config = RunConfig::default();
            config.model =
                ModelConfig { vocabulary_size: 6, width: 8, layers: 1, heads: 2, ..config.model };
            config.model = ModelConfig { kv_heads: 2, context: 16, bigram_rows, ..config.model };
            config.train.batch_size = 2;
            let text: Vec<u16> = (0..1000).map(|at| at % 6).collect();
            let data = TrainingSet::Tokens(&text);
            let batches = Batches::new(&config, data).unwrap();
            let weights = initial_weights(&config.model, 1).unwrap();
            let device = device().autodiff();
            let network = Transformer::from_weights(&config.model, &weights, &device).unwrap();
            SquaredGradients::gather(&network, &weights, batches, data, steps).tokens
        };
        assert_eq!(tokens(0, 10_000), 8.0 * 32.0);
        assert_eq!(tokens(20, 10_000), 40.0 * 20.0);
        assert_eq!(tokens(20, 160), 10.0 * 32.0);
        assert_eq!(tokens(20, 16), 8.0 * 32.0);
    }
}
