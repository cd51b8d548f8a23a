//! Files of llama2.c in its first format.
//!
//! Seven little-endian `i32` (width, MLP width, layers, heads, key heads, vocabulary, context), then `f32`
//! values: embedding; for all layers in turn the norms before attention, W_q, W_k, W_v, W_o, the norms
//! before the MLP, W_gate, W_down, W_up; the final norm; tables of cosines and sines; and, where the
//! vocabulary is stored negative, an output matrix. Rotary pairs are neighbouring channels there.
//!
//! Source: karpathy/llama2.c, `export.py`.

use std::path::Path;

use super::Pretrained;
use crate::{Architecture, ModelConfig, ModelError, NamedTensor};

const HEADER: usize = 7 * 4;

pub(super) fn read(path: &Path) -> Result<Pretrained, ModelError> {
    let wrong = |reason: String| ModelError::File { path: path.to_owned(), reason };
    let bytes =
        std::fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    let Some((header, values)) = bytes.split_at_checked(HEADER) else {
        return Err(wrong("shorter than the header of a llama2.c file".to_owned()));
    };
    let config = configuration(header).map_err(wrong)?;
    config.validate().map_err(|error| wrong(format!("not a llama2.c file ({error})")))?;

    let tables = config.context as u64 * config.head_width() as u64;
    // The layout is cheap, but its product is not: sizes of a damaged header need not fit a machine word.
    let weights = config.layout().iter().try_fold(tables, |sum, (_, shape)| {
        let count = shape.iter().try_fold(1_u64, |product, x| product.checked_mul(*x as u64))?;
        sum.checked_add(count)
    });
    if weights.and_then(|count| count.checked_mul(4)) != Some(values.len() as u64) {
        return Err(wrong(format!(
            "{} bytes of values are not those of a llama2.c model of width {}, {} layers and {} tokens",
            values.len(),
            config.width,
            config.layers,
            config.vocabulary_size
        )));
    }
    let mut values = Values(values);
    Pretrained::checked(config.clone(), tensors(&config, &mut values), Vec::new())
}

fn configuration(header: &[u8]) -> Result<ModelConfig, String> {
    let numbers = header.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
    let numbers: Vec<i32> = numbers.collect();
    let positive = |at: usize, what: &str| {
        usize::try_from(numbers[at]).map_err(|_| {
            format!("not a llama2.c file of the first format ({what} {})", numbers[at])
        })
    };
    Ok(ModelConfig {
        architecture: Architecture::Llama,
        width: positive(0, "width")?,
        mlp_hidden: Some(positive(1, "MLP width")?),
        layers: positive(2, "layers")?,
        heads: positive(3, "heads")?,
        kv_heads: positive(4, "key heads")?,
        vocabulary_size: numbers[5].unsigned_abs() as usize,
        context: positive(6, "context")?,
        tied_head: numbers[5] > 0,
        ..ModelConfig::default()
    })
}

/// The values that have not been taken yet; there are as many as the tensors need.
struct Values<'a>(&'a [u8]);

impl Values<'_> {
    fn take(&mut self, shape: &[usize]) -> Vec<f32> {
        let (taken, rest) = self.0.split_at(4 * shape.iter().product::<usize>());
        self.0 = rest;
        taken.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

fn tensors(config: &ModelConfig, values: &mut Values<'_>) -> Vec<NamedTensor> {
    let (width, hidden, vocabulary) = (config.width, config.mlp_width(), config.vocabulary_size);
    let kv_width = config.kv_heads * config.head_width();
    let mut tensors = Vec::new();
    let mut take = |name: String, shape: &[usize]| {
        tensors.push(NamedTensor { name, shape: shape.to_vec(), data: values.take(shape) });
    };
    take("model.embed_tokens.weight".to_owned(), &[vocabulary, width]);
    for (part, shape) in [
        ("input_layernorm", &[width][..]),
        ("self_attn.q_proj", &[width, width]),
        ("self_attn.k_proj", &[kv_width, width]),
        ("self_attn.v_proj", &[kv_width, width]),
        ("self_attn.o_proj", &[width, width]),
        ("post_attention_layernorm", &[width]),
        ("mlp.gate_proj", &[hidden, width]),
        ("mlp.down_proj", &[width, hidden]),
        ("mlp.up_proj", &[hidden, width]),
    ] {
        for layer in 0..config.layers {
            take(format!("model.layers.{layer}.{part}.weight"), shape);
        }
    }
    take("model.norm.weight".to_owned(), &[width]);
    values.take(&[config.context, config.head_width()]);
    if !config.tied_head {
        let shape = vec![vocabulary, width];
        let data = values.take(&shape);
        tensors.push(NamedTensor { name: "lm_head.weight".to_owned(), shape, data });
    }
    for tensor in &mut tensors {
        if tensor.name.ends_with("q_proj.weight") || tensor.name.ends_with("k_proj.weight") {
            split_pairs(&mut tensor.data, config.head_width() * width, width);
        }
    }
    tensors
}

/// Reorders the rows of each head of `head` values: even channels first, then odd ones, so that a pair
/// stands half a head apart.
fn split_pairs(matrix: &mut [f32], head: usize, row: usize) {
    for head in matrix.chunks_exact_mut(head) {
        let rows = || head.chunks_exact(row);
        let split = rows().step_by(2).chain(rows().skip(1).step_by(2)).flatten().copied();
        let split: Vec<f32> = split.collect();
        head.copy_from_slice(&split);
    }
}
