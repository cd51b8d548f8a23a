//! Llama, GPT-2 and BERT on plain vectors of `f64`, one token after the other.

use backslash_model::{Architecture, Gelu, ModelConfig, NamedWeights};

/// Rows of channels.
pub type Matrix = Vec<Vec<f64>>;

/// A network of one row of tokens.
pub struct Host<'a> {
    pub config: &'a ModelConfig,
    pub weights: &'a NamedWeights,
}

impl Host<'_> {
    /// Mean cross-entropy over rows of `row` tokens.
    pub fn loss(&self, tokens: &[u16], targets: &[u16], row: usize) -> f64 {
        let mut total = 0.0;
        for (tokens, targets) in tokens.chunks(row).zip(targets.chunks(row)) {
            for (logits, target) in self.logits(tokens).iter().zip(targets) {
                let sum: f64 = logits.iter().map(|x| x.exp()).sum();
                total += sum.ln() - logits[usize::from(*target)];
            }
        }
        total / tokens.len() as f64
    }

    pub fn logits(&self, tokens: &[u16]) -> Matrix {
        let (hidden, head) = match self.config.architecture {
            Architecture::Llama if self.config.tied_head => {
                (self.llama(tokens), "model.embed_tokens.weight")
            }
            Architecture::Llama => (self.llama(tokens), "lm_head.weight"),
            _ => (self.gpt2(tokens), "wte.weight"),
        };
        self.times(&hidden, head)
    }

    fn llama(&self, tokens: &[u16]) -> Matrix {
        let mut x = self.rows("model.embed_tokens.weight", tokens);
        for layer in 0..self.config.layers {
            let name = |tail: &str| format!("model.layers.{layer}.{tail}.weight");
            let h = self.rms_norm(&x, &name("input_layernorm"));
            let turn = |y: Matrix| -> Matrix {
                y.iter().enumerate().map(|(t, y)| self.turned(y, t)).collect()
            };
            let q = turn(self.times(&h, &name("self_attn.q_proj")));
            let k = turn(self.times(&h, &name("self_attn.k_proj")));
            let v = self.times(&h, &name("self_attn.v_proj"));
            let mixed = self.attend(&q, &k, &v, true);
            add(&mut x, &self.times(&mixed, &name("self_attn.o_proj")));
            let h = self.rms_norm(&x, &name("post_attention_layernorm"));
            let mut gate = self.times(&h, &name("mlp.gate_proj"));
            for (gate, up) in gate.iter_mut().zip(self.times(&h, &name("mlp.up_proj"))) {
                for (z, up) in gate.iter_mut().zip(up) {
                    *z = *z / (1.0 + (-*z).exp()) * up;
                }
            }
            add(&mut x, &self.times(&gate, &name("mlp.down_proj")));
        }
        self.rms_norm(&x, "model.norm.weight")
    }

    fn gpt2(&self, tokens: &[u16]) -> Matrix {
        let mut x = self.rows("wte.weight", tokens);
        add(&mut x, &self.matrix("wpe.weight")[..tokens.len()]);
        for layer in 0..self.config.layers {
            let name = |tail: &str| format!("h.{layer}.{tail}");
            let h = self.layer_norm(&x, &name("ln_1"));
            let all = self.times_transposed(&h, &name("attn.c_attn"));
            let width = self.config.width;
            let [q, k, v] = [0, 1, 2].map(|part| -> Matrix {
                all.iter().map(|row| row[part * width..][..width].to_vec()).collect()
            });
            let mixed = self.attend(&q, &k, &v, true);
            add(&mut x, &self.times_transposed(&mixed, &name("attn.c_proj")));
            let h = self.layer_norm(&x, &name("ln_2"));
            let mut hidden = self.times_transposed(&h, &name("mlp.c_fc"));
            hidden.iter_mut().flatten().for_each(|z| *z = tanh_gelu(*z));
            add(&mut x, &self.times_transposed(&hidden, &name("mlp.c_proj")));
        }
        self.layer_norm(&x, "ln_f")
    }

    /// Hidden states of a row without padding.
    pub fn bert(&self, tokens: &[u16], types: &[u16]) -> Matrix {
        let mut x = self.rows("embeddings.word_embeddings.weight", tokens);
        add(&mut x, &self.matrix("embeddings.position_embeddings.weight")[..tokens.len()]);
        add(&mut x, &self.rows("embeddings.token_type_embeddings.weight", types));
        x = self.layer_norm(&x, "embeddings.LayerNorm");
        for layer in 0..self.config.layers {
            let name = |tail: &str| format!("encoder.layer.{layer}.{tail}");
            let [q, k, v] = ["query", "key", "value"]
                .map(|part| self.affine(&x, &name(&format!("attention.self.{part}"))));
            let mixed = self.attend(&q, &k, &v, false);
            add(&mut x, &self.affine(&mixed, &name("attention.output.dense")));
            x = self.layer_norm(&x, &name("attention.output.LayerNorm"));
            let mut hidden = self.affine(&x, &name("intermediate.dense"));
            self.gelu(&mut hidden);
            add(&mut x, &self.affine(&hidden, &name("output.dense")));
            x = self.layer_norm(&x, &name("output.LayerNorm"));
        }
        x
    }

    /// Logits of the classes of a row without padding.
    pub fn class_logits(&self, tokens: &[u16]) -> Vec<f64> {
        let first = vec![self.bert(tokens, &vec![0; tokens.len()]).swap_remove(0)];
        let mut pooled = self.affine(&first, "pooler.dense");
        pooled.iter_mut().flatten().for_each(|z| *z = z.tanh());
        self.affine(&pooled, "classifier").swap_remove(0)
    }

    /// Mean of −ln P(class) over rows without padding.
    pub fn class_loss(&self, rows: &[&[u16]], classes: &[u16]) -> f64 {
        let loss = |(row, class): (&&[u16], &u16)| {
            let logits = self.class_logits(row);
            let sum: f64 = logits.iter().map(|z| z.exp()).sum();
            sum.ln() - logits[usize::from(*class)]
        };
        rows.iter().zip(classes).map(loss).sum::<f64>() / rows.len() as f64
    }

    /// Mean of −ln P(target) over the mask tokens of rows of `row` tokens.
    pub fn masked_loss(&self, tokens: &[u16], targets: &[u16], row: usize) -> f64 {
        let rows = tokens.chunks(row).flat_map(|row| self.masked_logits(row));
        let losses = rows.zip(targets).map(|(logits, target)| {
            let sum: f64 = logits.iter().map(|x| x.exp()).sum();
            sum.ln() - logits[usize::from(*target)]
        });
        losses.sum::<f64>() / targets.len() as f64
    }

    /// Logits at the mask tokens of a row.
    pub fn masked_logits(&self, tokens: &[u16]) -> Matrix {
        let mask = self.config.special_tokens.unwrap().mask;
        let hidden = self.bert(tokens, &vec![0; tokens.len()]);
        let masked = hidden.into_iter().zip(tokens).filter(|(_, token)| **token == mask);
        let mut hidden: Matrix = masked.map(|(hidden, _)| hidden).collect();
        let head = "embeddings.word_embeddings.weight";
        if !self.config.masked_head {
            return self.times(&hidden, head);
        }
        hidden = self.affine(&hidden, "cls.predictions.transform.dense");
        self.gelu(&mut hidden);
        hidden = self.layer_norm(&hidden, "cls.predictions.transform.LayerNorm");
        let mut logits = self.times(&hidden, head);
        let bias = self.vector("cls.predictions.bias");
        logits.iter_mut().for_each(|logits| add_row(logits, &bias));
        logits
    }

    fn gelu(&self, x: &mut Matrix) {
        for z in x.iter_mut().flatten() {
            *z = match self.config.gelu {
                Gelu::Exact => 0.5 * *z * (1.0 + erf(*z / 2.0_f64.sqrt())),
                Gelu::Tanh => tanh_gelu(*z),
            };
        }
    }

    /// Rows of all heads side by side; key heads may be fewer.
    fn attend(&self, q: &Matrix, k: &Matrix, v: &Matrix, causal: bool) -> Matrix {
        let d = self.config.width / self.config.heads;
        let group = self.config.heads / self.config.kv_heads;
        let mut mixed = vec![vec![0.0; self.config.width]; q.len()];
        for head in 0..self.config.heads {
            let shared = head / group * d;
            for t in 0..q.len() {
                let seen = if causal { t + 1 } else { q.len() };
                let weights: Vec<f64> = (0..seen)
                    .map(|s| dot(&q[t][head * d..][..d], &k[s][shared..][..d]))
                    .map(|score| (score / (d as f64).sqrt()).exp())
                    .collect();
                let sum: f64 = weights.iter().sum();
                for (s, weight) in weights.iter().enumerate() {
                    for i in 0..d {
                        mixed[t][head * d + i] += weight / sum * v[s][shared + i];
                    }
                }
            }
        }
        mixed
    }

    /// The pair (a, b) of channels i and i + d/2 of each head turns to (a·cos − b·sin, a·sin + b·cos).
    fn turned(&self, x: &[f64], position: usize) -> Vec<f64> {
        let d = self.config.width / self.config.heads;
        let mut turned = x.to_vec();
        for head in turned.chunks_mut(d) {
            for i in 0..d / 2 {
                let exponent = 2.0 * i as f64 / d as f64;
                let angle = position as f64 / f64::from(self.config.rope_base).powf(exponent);
                let (a, b) = (head[i], head[i + d / 2]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + d / 2] = a * angle.sin() + b * angle.cos();
            }
        }
        turned
    }

    fn vector(&self, name: &str) -> Vec<f64> {
        self.weights.get(name).unwrap().data.iter().map(|x| f64::from(*x)).collect()
    }

    fn matrix(&self, name: &str) -> Matrix {
        let columns = self.weights.get(name).unwrap().shape[1];
        self.vector(name).chunks(columns).map(<[f64]>::to_vec).collect()
    }

    fn rows(&self, name: &str, indices: &[u16]) -> Matrix {
        let table = self.matrix(name);
        indices.iter().map(|index| table[usize::from(*index)].clone()).collect()
    }

    /// x·Wᵀ.
    fn times(&self, x: &Matrix, name: &str) -> Matrix {
        let weight = self.matrix(name);
        x.iter().map(|row| weight.iter().map(|w| dot(row, w)).collect()).collect()
    }

    /// x·Wᵀ + b.
    fn affine(&self, x: &Matrix, name: &str) -> Matrix {
        let bias = self.vector(&format!("{name}.bias"));
        let mut y = self.times(x, &format!("{name}.weight"));
        y.iter_mut().for_each(|y| add_row(y, &bias));
        y
    }

    /// x·W + b.
    fn times_transposed(&self, x: &Matrix, name: &str) -> Matrix {
        let weight = self.matrix(&format!("{name}.weight"));
        let bias = self.vector(&format!("{name}.bias"));
        x.iter()
            .map(|row| {
                let mut y = bias.clone();
                for (x, w) in row.iter().zip(&weight) {
                    y.iter_mut().zip(w).for_each(|(y, w)| *y += x * w);
                }
                y
            })
            .collect()
    }

    fn rms_norm(&self, x: &Matrix, name: &str) -> Matrix {
        let gain = self.vector(name);
        let epsilon = f64::from(self.config.norm_epsilon);
        x.iter()
            .map(|row| {
                let scale = (dot(row, row) / row.len() as f64 + epsilon).sqrt();
                row.iter().zip(&gain).map(|(x, g)| x / scale * g).collect()
            })
            .collect()
    }

    fn layer_norm(&self, x: &Matrix, name: &str) -> Matrix {
        let gain = self.vector(&format!("{name}.weight"));
        let bias = self.vector(&format!("{name}.bias"));
        let epsilon = f64::from(self.config.norm_epsilon);
        x.iter()
            .map(|row| {
                let count = row.len() as f64;
                let mean = row.iter().sum::<f64>() / count;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
                let scale = (variance + epsilon).sqrt();
                let rows = row.iter().zip(&gain).zip(&bias);
                rows.map(|((x, g), b)| (x - mean) / scale * g + b).collect()
            })
            .collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(x: &mut Matrix, y: &[Vec<f64>]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| add_row(x, y));
}

fn add_row(x: &mut [f64], y: &[f64]) {
    assert_eq!(x.len(), y.len());
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn tanh_gelu(z: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z.powi(3));
    0.5 * z * (1.0 + inner.tanh())
}

/// 2/√π · Σ (−1)ⁿ x²ⁿ⁺¹ / (n! (2n + 1)), which converges well for the |x| that occur here.
fn erf(x: f64) -> f64 {
    let mut power = x;
    let mut sum = x;
    for n in 1..200 {
        power *= -x * x / f64::from(n);
        sum += power / f64::from(2 * n + 1);
    }
    2.0 / std::f64::consts::PI.sqrt() * sum
}
