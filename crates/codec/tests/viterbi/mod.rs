//! Random weights, and a quantiser that chooses their codes along the trellis.

use backslash_codec::trellis::{STATES, next_state, quantiser, value};

/// Greatest index that is chosen.
const LIMIT: i32 = 64;
/// Rounds in which the prices of the indices follow their frequencies.
const ROUNDS: usize = 5;

/// Deterministic noise.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uniform within 0 and 1, neither included.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (f64::from((self.0 >> 32) as u32) + 0.5) / 4294967296.0
    }

    /// Of unit variance.
    pub fn gaussian(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Of unit variance.
    pub fn laplace(&mut self) -> f64 {
        let (magnitude, side) = (self.uniform(), self.uniform());
        -magnitude.ln() / 2_f64.sqrt() * if side < 0.5 { -1.0 } else { 1.0 }
    }
}

/// Codes of the weights, given column by column in units of the step, that minimise squared error plus `price` times
/// bits: a Viterbi search along each column, with the bits of the indices given their quantisers.
pub fn quantise(weights: &[f64], rows: usize, price: f64) -> Vec<i32> {
    let columns = weights.len() / rows;
    let start = |index: i32| 1.0 + f64::from(index.abs());
    let mut bits = [(); 2].map(|()| (-LIMIT..=LIMIT).map(start).collect::<Vec<f64>>());
    let mut codes = vec![0; weights.len()];
    for _ in 0..ROUNDS {
        let mut counts = [(); 2].map(|()| vec![0.05; bits[0].len()]);
        for (column, weights) in weights.chunks(rows).enumerate() {
            for (row, (quantiser, index)) in
                cheapest_path(weights, &bits, price).into_iter().enumerate()
            {
                codes[row * columns + column] = value(index, quantiser).expect("small indices");
                counts[quantiser][(index + LIMIT) as usize] += 1.0;
            }
        }
        for (bits, counts) in bits.iter_mut().zip(&counts) {
            let total: f64 = counts.iter().sum();
            bits.iter_mut().zip(counts).for_each(|(bits, count)| *bits = (total / count).log2());
        }
    }
    codes
}

/// Quantiser and index of each weight.
fn cheapest_path(weights: &[f64], bits: &[Vec<f64>; 2], price: f64) -> Vec<(usize, i32)> {
    let mut costs = [f64::INFINITY; STATES];
    costs[0] = 0.0;
    let mut steps = Vec::new();
    for weight in weights {
        // The best index of each quantiser and parity.
        let mut best = [[(f64::INFINITY, 0); 2]; 2];
        for (quantiser, best) in best.iter_mut().enumerate() {
            let near = (weight.abs() / 2.0) as i32;
            for magnitude in [0, near - 1, near, near + 1, near + 2] {
                let magnitude = magnitude.clamp(0, LIMIT);
                let index = if *weight < 0.0 { -magnitude } else { magnitude };
                let error = weight - f64::from(value(index, quantiser).expect("small indices"));
                let cost = error * error + price * bits[quantiser][(index + LIMIT) as usize];
                let best = &mut best[(index & 1) as usize];
                if cost < best.0 {
                    *best = (cost, index);
                }
            }
        }
        let mut next = [f64::INFINITY; STATES];
        let mut from = [(0, 0); STATES];
        for state in 0..STATES {
            for (cost, index) in best[quantiser(state)] {
                let (cost, after) = (costs[state] + cost, next_state(state, index));
                if cost < next[after] {
                    (next[after], from[after]) = (cost, (state, index));
                }
            }
        }
        costs = next;
        steps.push(from);
    }
    let mut state = (0..STATES).min_by(|a, b| costs[*a].total_cmp(&costs[*b])).expect("states");
    let mut path = Vec::new();
    for from in steps.iter().rev() {
        let (before, index) = from[state];
        path.push((quantiser(before), index));
        state = before;
    }
    path.reverse();
    path
}
