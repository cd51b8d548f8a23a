//! Text from a model.

use backslash_model::Transformer;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::EvalError;

/// How the next token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the most likely token.
    pub temperature: f64,
    /// Only this many of the most likely tokens are drawn from.
    pub top: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.8, top: 50, seed: 1 }
    }
}

/// Continues `prompt` by `count` tokens, handing each to `emit` as it is drawn.
///
/// An empty prompt is taken as one token of id 0. Only the last `context` tokens are seen.
///
/// # Errors
/// [`EvalError::Encoder`] if the network is one.
pub fn generate(
    network: &Transformer,
    prompt: &[u16],
    count: usize,
    sampling: Sampling,
    mut emit: impl FnMut(u16),
) -> Result<(), EvalError> {
    if network.config().masking().is_some() {
        return Err(EvalError::Encoder);
    }
    let context = network.config().context;
    let vocabulary = network.config().vocabulary_size;
    let mut random = Pcg64::seed_from_u64(sampling.seed);
    let mut tokens = prompt.to_vec();
    if tokens.is_empty() {
        tokens.push(0);
    }
    for _ in 0..count {
        let seen = &tokens[tokens.len().saturating_sub(context)..];
        let logits = network.logits(seen, seen.len()).slice_dim(0, seen.len() - 1..seen.len());
        let logits = logits.into_data();
        let logits = logits.as_slice::<f32>().expect("logits are f32");
        let token = draw(&logits[..vocabulary], sampling, &mut random);
        tokens.push(token);
        emit(token);
    }
    Ok(())
}

/// A token with probability ∝ exp(logit / temperature) among the `top` most likely.
fn draw(logits: &[f32], sampling: Sampling, random: &mut Pcg64) -> u16 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    order.truncate(sampling.top.max(1));
    if sampling.temperature <= 0.0 {
        return order[0] as u16;
    }
    let largest = f64::from(logits[order[0]]);
    let weight =
        |token: &usize| ((f64::from(logits[*token]) - largest) / sampling.temperature).exp();
    let mut point = random.random::<f64>() * order.iter().map(weight).sum::<f64>();
    for token in &order {
        point -= weight(token);
        if point < 0.0 {
            return *token as u16;
        }
    }
    order[0] as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0_f32, 2.0_f32.ln(), f32::NEG_INFINITY, 5.0_f32.ln()];
        let sampling = Sampling { temperature: 1.0, top: 50, seed: 0 };
        let mut random = Pcg64::seed_from_u64(4);
        let mut counts = [0_u32; 4];
        for _ in 0..80_000 {
            counts[usize::from(draw(&logits, sampling, &mut random))] += 1;
        }
        for (count, expected) in counts.into_iter().zip([10_000.0, 20_000.0, 0.0, 50_000.0]) {
            assert!((f64::from(count) - expected).abs() < 500.0, "{counts:?}");
        }
    }

    #[test]
    fn without_temperature_the_most_likely_token_is_taken() {
        let mut random = Pcg64::seed_from_u64(4);
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(draw(&[0.1, 0.3, 0.2], sampling, &mut random), 1);
        let narrow = Sampling { top: 1, ..Sampling::default() };
        assert!((0..50).all(|_| draw(&[0.1, 0.3, 0.2], narrow, &mut random) == 1));
    }
}
