//! The network against a slow statement of the same definition in double precision, and its gradients
//! against finite differences of that statement.

use backslash_model::{
    Architecture, ModelConfig, NamedWeights, Transformer, device, initial_weights,
};

/// Rows of channels.
type Matrix = Vec<Vec<f64>>;

struct Reference<'a> {
    config: &'a ModelConfig,
    weights: &'a NamedWeights,
}

impl Reference<'_> {
    fn vector(&self, name: &str) -> Vec<f64> {
        self.weights.get(name).unwrap().data.iter().map(|x| f64::from(*x)).collect()
    }

    fn matrix(&self, name: &str) -> Matrix {
        let columns = self.weights.get(name).unwrap().shape[1];
        self.vector(name).chunks(columns).map(<[f64]>::to_vec).collect()
    }

    fn linear(&self, x: &Matrix, name: &str) -> Matrix {
        let weight = self.matrix(name);
        x.iter().map(|row| weight.iter().map(|w| dot(row, w)).collect()).collect()
    }

    fn golf(&self) -> bool {
        self.config.architecture == Architecture::Golf
    }

    /// Mean cross-entropy over rows of `row` tokens.
    fn loss(&self, tokens: &[u16], targets: &[u16], row: usize) -> f64 {
        let mut total = 0.0;
        for (tokens, targets) in tokens.chunks(row).zip(targets.chunks(row)) {
            for (logits, target) in self.logits(tokens).iter().zip(targets) {
                let largest = logits.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
                total += sum.ln() + largest - logits[usize::from(*target)];
            }
        }
        total / tokens.len() as f64
    }

    fn logits(&self, tokens: &[u16]) -> Matrix {
        let embedding = self.matrix("tok_emb.weight");
        let table = |rows, name| (rows > 0).then(|| self.matrix(name));
        let bigrams = table(self.config.bigram_rows, "bigram_emb.weight");
        let trigrams = table(self.config.trigram_rows, "trigram_emb.weight");
        let wider = table(self.config.ngram_width, "ngram_proj.weight");
        let start: Matrix = (0..tokens.len())
            .map(|at| {
                let mut x = embedding[usize::from(tokens[at])].clone();
                let pair = bigrams.iter().map(|t| t[bigram_row(tokens, at, t.len())].clone());
                let triple = trigrams.iter().map(|t| t[trigram_row(tokens, at, t.len())].clone());
                for row in pair.chain(triple) {
                    let row: Vec<f64> = match &wider {
                        Some(matrix) => matrix.iter().map(|weights| dot(weights, &row)).collect(),
                        None => row,
                    };
                    x.iter_mut().zip(row).for_each(|(x, row)| *x += row);
                }
                rms_norm(&x)
            })
            .collect();
        let mut x = start.clone();
        let mut stored: Vec<Matrix> = Vec::new();
        let runs = self.config.layers * self.config.repeats;
        let half = runs / 2;
        for run in 0..runs {
            if self.golf()
                && run >= half
                && let Some(output) = stored.pop()
            {
                let skip = &self.matrix("skip_weights")[run - half];
                for (x, output) in x.iter_mut().zip(&output) {
                    for i in 0..skip.len() {
                        x[i] += skip[i] * output[i];
                    }
                }
            }
            x = self.block(&x, &start, tokens, run % self.config.layers);
            if self.config.repeats > 1 {
                let scale = &self.matrix("repeat_scales")[run];
                let shift = &self.matrix("repeat_shifts")[run];
                for x in &mut x {
                    for i in 0..x.len() {
                        x[i] = scale[i] * x[i] + shift[i];
                    }
                }
            }
            if self.golf() && run < half {
                stored.push(x.clone());
            }
        }
        let cap = f64::from(self.config.logit_cap);
        let x: Matrix = x.iter().map(|row| rms_norm(row)).collect();
        self.linear(&x, "tok_emb.weight")
            .iter()
            .map(|row| row.iter().map(|z| cap * (z / cap).tanh()).collect())
            .collect()
    }

    fn block(&self, x: &Matrix, start: &Matrix, tokens: &[u16], block: usize) -> Matrix {
        let name = |tail: &str| format!("blocks.{block}.{tail}");
        let ones = vec![1.0; self.config.width];
        let (mut x, mut attention_scale, mut mlp_scale) = (x.clone(), ones.clone(), ones);
        if self.golf() {
            let mix = self.matrix(&name("resid_mix"));
            for (x, start) in x.iter_mut().zip(start) {
                for i in 0..x.len() {
                    x[i] = mix[0][i] * x[i] + mix[1][i] * start[i];
                }
            }
            attention_scale = self.vector(&name("attn_scale"));
            mlp_scale = self.vector(&name("mlp_scale"));
        }
        let normed: Matrix = x.iter().map(|row| rms_norm(row)).collect();
        add_scaled(&mut x, &self.attention(&normed, block), &attention_scale);
        let normed: Matrix = x.iter().map(|row| rms_norm(row)).collect();
        let mut branch = self.mlp(&normed, &name("mlp"));
        for (at, token) in tokens.iter().enumerate().filter(|_| self.config.experts > 0) {
            let expert = expert(*token, block, self.config.experts);
            let added = self.mlp(&normed[at..=at].to_vec(), &name(&format!("experts.{expert}")));
            branch[at].iter_mut().zip(&added[0]).for_each(|(x, added)| *x += added);
        }
        add_scaled(&mut x, &branch, &mlp_scale);
        x
    }

    fn mlp(&self, x: &Matrix, name: &str) -> Matrix {
        let mut hidden = self.linear(x, &format!("{name}.fc.weight"));
        let power = self.config.activation_power as i32;
        hidden.iter_mut().flatten().for_each(|z| *z = z.max(0.0).powi(power));
        self.linear(&hidden, &format!("{name}.proj.weight"))
    }

    fn attention(&self, x: &Matrix, block: usize) -> Matrix {
        let name = |tail: &str| format!("blocks.{block}.attn.{tail}");
        let (heads, kv_heads) = (self.config.heads, self.config.kv_heads);
        let d = self.config.head_width();
        let queries = self.linear(x, &name("c_q.weight"));
        let keys = self.linear(x, &name("c_k.weight"));
        let values = self.linear(x, &name("c_v.weight"));
        let gains = if self.golf() { self.vector(&name("q_gain")) } else { vec![1.0; heads] };
        let mut mixed = vec![vec![0.0; heads * d]; x.len()];
        for (head, gain) in gains.iter().enumerate() {
            let shared = head / (heads / kv_heads);
            for t in 0..x.len() {
                let query = self.turned(&queries[t][head * d..][..d], t);
                let scores: Vec<f64> = (0..=t)
                    .map(|s| {
                        let key = self.turned(&keys[s][shared * d..][..d], s);
                        gain * dot(&query, &key) / (d as f64).sqrt()
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|z| (z - largest).exp()).sum();
                for (s, score) in scores.iter().enumerate() {
                    let weight = (score - largest).exp() / sum;
                    for i in 0..d {
                        mixed[t][head * d + i] += weight * values[s][shared * d + i];
                    }
                }
            }
        }
        self.linear(&mixed, &name("proj.weight"))
    }

    fn turned(&self, head: &[f64], position: usize) -> Vec<f64> {
        let x = rms_norm(head);
        let half = x.len() / 2;
        let mut turned = vec![0.0; x.len()];
        for i in 0..half {
            let frequency =
                f64::from(self.config.rope_base).powf(-(2.0 * i as f64) / x.len() as f64);
            let (sine, cosine) = (position as f64 * frequency).sin_cos();
            turned[i] = x[i] * cosine + x[half + i] * sine;
            turned[half + i] = -x[i] * sine + x[half + i] * cosine;
        }
        turned
    }
}

/// Position of the fractional part of key · φ among so many, with φ = 0x9E3779B97F4A7C15 / 2^64.
fn place(key: u128, among: usize) -> usize {
    let fraction = (key * 0x9E37_79B9_7F4A_7C15 % (1 << 64)) as f64 / 2.0_f64.powi(64);
    (fraction * among as f64) as usize
}

fn bigram_row(tokens: &[u16], at: usize, rows: usize) -> usize {
    let before = if at == 0 { 0 } else { u128::from(tokens[at - 1]) + 1 };
    place(before * 65_536 + u128::from(tokens[at]), rows)
}

fn expert(token: u16, block: usize, experts: usize) -> usize {
    place((block as u128 + 1) * 65_536 + u128::from(token), experts)
}

/// Row of a triple: its key times φ, folded by the upper bits, times another odd number, as a fraction of 2^64.
fn trigram_row(tokens: &[u16], at: usize, rows: usize) -> usize {
    let token = |back: usize| if at < back { 0 } else { u128::from(tokens[at - back]) + 1 };
    let key = token(2) * (1 << 40) + token(1) * (1 << 20) + u128::from(tokens[at]);
    let product = key * 0x9E37_79B9_7F4A_7C15 % (1 << 64);
    let folded = (product ^ (product / (1 << 29))) * 0xBF58_476D_1CE4_E5B9 % (1 << 64);
    (folded as f64 / 2.0_f64.powi(64) * rows as f64) as usize
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn rms_norm(x: &[f64]) -> Vec<f64> {
    let scale = (dot(x, x) / x.len() as f64 + f64::from(f32::EPSILON)).sqrt();
    x.iter().map(|x| x / scale).collect()
}

fn add_scaled(x: &mut Matrix, branch: &Matrix, scale: &[f64]) {
    for (x, branch) in x.iter_mut().zip(branch) {
        for i in 0..x.len() {
            x[i] += scale[i] * branch[i];
        }
    }
}

fn configurations() -> [ModelConfig; 10] {
    let decoder = ModelConfig {
        vocabulary_size: 11,
        width: 16,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        mlp_ratio: 2,
        context: 6,
        logit_cap: 3.0,
        embedding_std: 0.3,
        ..ModelConfig::default()
    };
    let golf = ModelConfig { architecture: Architecture::Golf, layers: 5, ..decoder.clone() };
    let cubed = ModelConfig { activation_power: 3, mlp_hidden: Some(19), ..decoder.clone() };
    let repeated = ModelConfig { layers: 3, repeats: 3, ..golf.clone() };
    let bigrams = ModelConfig { bigram_rows: 7, ..decoder.clone() };
    let golf_bigrams = ModelConfig { bigram_rows: 40, ..golf.clone() };
    let trigrams = ModelConfig { trigram_rows: 5, ngram_width: 3, ..decoder.clone() };
    let both = ModelConfig { trigram_rows: 50, ngram_width: 7, ..bigrams.clone() };
    let experts = ModelConfig { experts: 3, ..decoder.clone() };
    // Of eight there are some that no token of the text has.
    let golf_experts = ModelConfig { experts: 8, activation_power: 3, ..repeated.clone() };
    [decoder, golf, cubed, repeated, bigrams, golf_bigrams, trigrams, both, experts, golf_experts]
}

/// Initial weights with every tensor moved away from its special value (zero, one).
fn weights(config: &ModelConfig) -> NamedWeights {
    let mut weights = initial_weights(config, 11).unwrap();
    let mut state = 1_u32;
    for tensor in weights.tensors_mut() {
        for value in &mut tensor.data {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value += ((state >> 16) as f32 / 65_536.0 - 0.5) * 0.4;
        }
    }
    weights
}

const TOKENS: [u16; 12] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8];
const TARGETS: [u16; 12] = [1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 10];
const ROW: usize = 6;

#[test]
fn the_loss_is_that_of_the_definition() {
    for config in configurations() {
        let weights = weights(&config);
        let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
        let loss: f32 = network.loss(&TOKENS, &TARGETS, ROW).into_scalar();
        let exact = Reference { config: &config, weights: &weights }.loss(&TOKENS, &TARGETS, ROW);
        assert!((f64::from(loss) / exact - 1.0).abs() < 1e-5, "{loss} {exact}");
    }
}

#[test]
fn the_gradient_of_every_tensor_agrees_with_finite_differences() {
    for config in configurations() {
        let weights = weights(&config);
        let network = Transformer::from_weights(&config, &weights, &device().autodiff()).unwrap();
        let loss = network.loss(&TOKENS, &TARGETS, ROW);
        let gradients = network.gradients(&loss, &weights);
        for (at, tensor) in weights.tensors().iter().enumerate() {
            // A direction through the whole tensor, so that no entry escapes.
            let direction: Vec<f32> =
                (0..tensor.data.len()).map(|i| ((i * 7 + at) % 5) as f32 - 1.7).collect();
            let loss_at = |offset: f32| {
                let mut moved = weights.clone();
                for (value, direction) in moved.tensors_mut()[at].data.iter_mut().zip(&direction) {
                    *value += offset * direction;
                }
                Reference { config: &config, weights: &moved }.loss(&TOKENS, &TARGETS, ROW)
            };
            let nudge = 2.0_f32.powi(-13);
            let finite = (loss_at(nudge) - loss_at(-nudge)) / (2.0 * f64::from(nudge));
            let closed: f64 = gradients.values[at]
                .iter()
                .zip(&direction)
                .map(|(g, d)| f64::from(*g) * f64::from(*d))
                .sum();
            let error = (closed - finite).abs();
            assert!(error < 2e-3 * finite.abs() + 1e-5, "{}: {closed} {finite}", tensor.name);
        }
    }
}

#[test]
fn no_token_sees_the_future() {
    let mut changed = TOKENS;
    changed[4] = 7;
    for config in &configurations()[1..] {
        let network = Transformer::from_weights(config, &weights(config), &device()).unwrap();
        let values = |tokens: &[u16]| -> Vec<f32> {
            network.logits(tokens, ROW).into_data().try_into_vec().unwrap()
        };
        let (before, after) = (values(&TOKENS), values(&changed));
        let vocabulary = config.vocabulary_size;
        assert_eq!(before[..4 * vocabulary], after[..4 * vocabulary]);
        assert_ne!(before[4 * vocabulary..5 * vocabulary], after[4 * vocabulary..5 * vocabulary]);
        assert_eq!(before[6 * vocabulary..], after[6 * vocabulary..]);
    }
}

#[test]
fn weights_of_another_architecture_are_refused_by_name() {
    let [decoder, golf, ..] = configurations();
    let message = |config: &ModelConfig, weights: &NamedWeights| {
        Transformer::from_weights(config, weights, &device()).unwrap_err().to_string()
    };
    assert!(message(&golf, &weights(&decoder)).contains("is missing"));
    assert!(
        message(&decoder, &weights(&ModelConfig { layers: 3, ..decoder.clone() }))
            .contains("not part")
    );
    let wide = ModelConfig { width: 32, ..decoder.clone() };
    assert!(message(&wide, &weights(&decoder)).contains("has shape"));
}
