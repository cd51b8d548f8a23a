//! The operations without weights, composed from tensor primitives.

use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::network::rotary::Rotary;

/// x / √(mean(x²) + ε) over the last dimension, without gain; ε is the machine epsilon of `f32`.
pub(in crate::network) fn rms_norm<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let mean_square = x.clone().square().mean_dim(D - 1);
    x / (mean_square + f64::from(f32::EPSILON)).sqrt()
}

/// RMS-normalises each head of `[rows, tokens, heads, d]`, turns it by its position, and scales it by the
/// gain of its head.
pub(in crate::network) fn prepare_heads(
    x: Tensor<4>,
    gain: Option<Tensor<1>>,
    rotary: &Rotary,
) -> Tensor<4> {
    let heads = x.dims()[2];
    let turned = rotary.turn(rms_norm(x));
    match gain {
        Some(gain) => turned * gain.reshape([1, 1, heads, 1]),
        None => turned,
    }
}

/// max(x, 0)².
pub(in crate::network) fn relu_squared(x: Tensor<2>) -> Tensor<2> {
    activation::relu(x).square()
}

/// cap · tanh(x / cap).
pub(in crate::network) fn soft_cap(x: Tensor<2>, cap: f32) -> Tensor<2> {
    (x / cap).tanh() * cap
}

/// −ln softmax(logits)\[target\] for each row of `[n, vocabulary]`.
fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let count = targets.dims()[0];
    let log_probabilities = activation::log_softmax(logits, 1);
    log_probabilities.gather(1, targets.reshape([count, 1])).reshape([count]).neg()
}

/// The mean of [`cross_entropy`] over the soft-capped logits `hidden`·`embedding`ᵀ.
pub(in crate::network) fn tied_loss(
    hidden: Tensor<2>,
    embedding: Tensor<2>,
    targets: &[u16],
    cap: f32,
) -> Tensor<1> {
    tied_losses(hidden, embedding, targets, cap).mean()
}

/// [`cross_entropy`] of each target for the soft-capped logits `hidden`·`embedding`ᵀ.
pub(in crate::network) fn tied_losses(
    hidden: Tensor<2>,
    embedding: Tensor<2>,
    targets: &[u16],
    cap: f32,
) -> Tensor<1> {
    let targets: Vec<i32> = targets.iter().map(|target| i32::from(*target)).collect();
    let targets = TensorData::new(targets, [hidden.dims()[0]]);
    let targets = Tensor::from_data(targets, &hidden.device());
    cross_entropy(soft_cap(hidden.matmul(embedding.transpose()), cap), targets)
}

/// Causal softmax attention with scores divided by √d.
///
/// Queries are `[rows, tokens, heads, d]`, keys and values `[rows, tokens, kv_heads, d]`, the result is
/// shaped as the queries. Query head h reads key and value head h / (heads / kv_heads).
pub(in crate::network) fn causal_attention(
    queries: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
) -> Tensor<4> {
    let [_, tokens, heads, width] = queries.dims();
    let device = queries.device();
    let queries = queries.swap_dims(1, 2) / (width as f64).sqrt();
    let keys = shared(keys, heads).swap_dims(1, 2);
    let values = shared(values, heads).swap_dims(1, 2);
    let scores = queries.matmul(keys.swap_dims(2, 3));
    let future = Tensor::<2>::full([tokens, tokens], f32::NEG_INFINITY, &device).triu(1);
    let weights = activation::softmax(scores + future.unsqueeze::<4>(), 3);
    weights.matmul(values).swap_dims(1, 2)
}

/// Repeats each of the key or value heads for the neighbouring query heads that share it.
fn shared(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [rows, tokens, kv_heads, width] = x.dims();
    if kv_heads == heads {
        return x;
    }
    let group = heads / kv_heads;
    x.reshape([rows, tokens, kv_heads, 1, width])
        .repeat_dim(3, group)
        .reshape([rows, tokens, heads, width])
}
