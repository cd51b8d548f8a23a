//! The operations without weights, composed from tensor primitives.

use burn::tensor::{FloatDType, Int, Tensor, TensorData, activation};

use crate::Precision;
use crate::network::SoftTargets;
use crate::network::rotary::Rotary;

/// A·B, of operands in a precision.
pub(in crate::network) fn product<const D: usize>(
    left: Tensor<D>,
    right: Tensor<D>,
    precision: Precision,
) -> Tensor<D> {
    match precision {
        Precision::Fp32 => left.matmul(right),
        Precision::Bf16 => {
            let [left, right] = [left, right].map(|x| x.cast(FloatDType::BF16));
            left.matmul(right).cast(FloatDType::F32)
        }
    }
}

/// x / √(mean(x²) + ε) over the last dimension, without gain.
pub(in crate::network) fn rms_norm<const D: usize>(x: Tensor<D>, epsilon: f32) -> Tensor<D> {
    let mean_square = x.clone().square().mean_dim(D - 1);
    x / (mean_square + f64::from(epsilon)).sqrt()
}

/// RMS-normalises each head of `[rows, tokens, heads, d]` with the machine epsilon of `f32`, turns it by its position, and scales it by the
/// gain of its head.
pub(in crate::network) fn prepare_heads(
    x: Tensor<4>,
    gain: Option<Tensor<1>>,
    rotary: &Rotary,
) -> Tensor<4> {
    let heads = x.dims()[2];
    let turned = rotary.turn(rms_norm(x, f32::EPSILON));
    match gain {
        Some(gain) => turned * gain.reshape([1, 1, heads, 1]),
        None => turned,
    }
}

/// max(x, 0)².
pub(in crate::network) fn relu_squared(x: Tensor<2>) -> Tensor<2> {
    activation::relu(x).square()
}

/// max(x, 0)ᵖ.
pub(in crate::network) fn relu_power(x: Tensor<2>, power: u32) -> Tensor<2> {
    activation::relu(x).powf_scalar(f64::from(power))
}

/// cap · tanh(x / cap), or x where there is no cap.
pub(in crate::network) fn soft_cap(x: Tensor<2>, cap: Option<f32>) -> Tensor<2> {
    match cap {
        Some(cap) => (x / cap).tanh() * cap,
        None => x,
    }
}

/// −ln softmax(logits)\[target\] for each row of `[n, vocabulary]`.
fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let count = targets.dims()[0];
    let log_probabilities = activation::log_softmax(logits, 1);
    log_probabilities.gather(1, targets.reshape([count, 1])).reshape([count]).neg()
}

/// −Σ p·ln softmax(logits) for each row of `[n, vocabulary]`, with p the softmax of the teacher's logits.
fn soft_cross_entropy(logits: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    let count = logits.dims()[0];
    let products = activation::softmax(teacher, 1) * activation::log_softmax(logits, 1);
    products.sum_dim(1).reshape([count]).neg()
}

/// The mean of [`cross_entropy`] over the soft-capped logits `hidden`·`head`ᵀ, with soft targets as [`SoftTargets`] says.
pub(in crate::network) fn mean_loss(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u16],
    soft: Option<&SoftTargets>,
    cap: Option<f32>,
    precision: Precision,
) -> Tensor<1> {
    let logits = product(hidden, head.transpose(), precision);
    let Some(soft) = soft else { return losses(logits, targets, cap).mean() };
    let matrix = |values: &[f32]| {
        let shape = [values.len() / soft.width, soft.width];
        Tensor::<2>::from_data(TensorData::new(values.to_vec(), shape), &logits.device())
    };
    let teacher = product(matrix(&soft.hidden), matrix(&soft.head).transpose(), precision);
    distillation_losses(logits, teacher, targets, soft.share, cap).mean()
}

/// (1 − s) times the [`losses`] and s times the cross-entropy to the softmax of the teacher's logits, one per row.
pub(in crate::network) fn distillation_losses(
    logits: Tensor<2>,
    teacher: Tensor<2>,
    targets: &[u16],
    share: f32,
    cap: Option<f32>,
) -> Tensor<1> {
    let soft = soft_cross_entropy(soft_cap(logits.clone(), cap), soft_cap(teacher, cap));
    losses(logits, targets, cap) * (1.0 - share) + soft * share
}

/// [`cross_entropy`] of each target for the soft-capped logits `hidden`·`head`ᵀ.
pub(in crate::network) fn token_losses(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u16],
    cap: Option<f32>,
) -> Tensor<1> {
    losses(hidden.matmul(head.transpose()), targets, cap)
}

/// [`cross_entropy`] of each target for logits that are soft-capped first.
pub(in crate::network) fn losses(
    logits: Tensor<2>,
    targets: &[u16],
    cap: Option<f32>,
) -> Tensor<1> {
    let targets: Vec<i32> = targets.iter().map(|target| i32::from(*target)).collect();
    let targets = TensorData::new(targets, [logits.dims()[0]]);
    let targets = Tensor::from_data(targets, &logits.device());
    cross_entropy(soft_cap(logits, cap), targets)
}

/// Causal softmax attention with scores divided by √d.
///
/// Queries are `[rows, tokens, heads, d]`, keys and values `[rows, tokens, kv_heads, d]`, the result is
/// shaped as the queries. Query head h reads key and value head h / (heads / kv_heads).
pub(in crate::network) fn causal_attention(
    queries: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    precision: Precision,
) -> Tensor<4> {
    let [_, tokens, heads, width] = queries.dims();
    let device = queries.device();
    let queries = queries.swap_dims(1, 2) / (width as f64).sqrt();
    let keys = shared(keys, heads).swap_dims(1, 2);
    let values = shared(values, heads).swap_dims(1, 2);
    let scores = product(queries, keys.swap_dims(2, 3), precision);
    let future = Tensor::<2>::full([tokens, tokens], f32::NEG_INFINITY, &device).triu(1);
    let weights = activation::softmax(scores + future.unsqueeze::<4>(), 3);
    product(weights, values, precision).swap_dims(1, 2)
}

/// Softmax attention with scores divided by √d, in which every token looks at the first `lengths[row]`
/// tokens of its row.
///
/// Queries, keys, values and the result are `[rows, tokens, heads, d]`.
pub(in crate::network) fn full_attention(
    queries: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    lengths: &[usize],
) -> Tensor<4> {
    let [rows, tokens, _, width] = queries.dims();
    let seen = |at: usize| at % tokens < lengths[at / tokens];
    let mask: Vec<f32> =
        (0..rows * tokens).map(|at| if seen(at) { 0.0 } else { f32::NEG_INFINITY }).collect();
    let mask = TensorData::new(mask, [rows, 1, 1, tokens]);
    let mask = Tensor::<4>::from_data(mask, &queries.device());
    let queries = queries.swap_dims(1, 2) / (width as f64).sqrt();
    let scores = queries.matmul(keys.swap_dims(1, 2).swap_dims(2, 3));
    let weights = activation::softmax(scores + mask, 3);
    weights.matmul(values.swap_dims(1, 2)).swap_dims(1, 2)
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
