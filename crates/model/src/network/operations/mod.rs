//! The operations without weights, on any device.
//!
//! Each picks the fused version on the CPU and the composed one, which defines it, elsewhere.

pub(super) mod composed;

use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor};

pub(super) use self::composed::{full_attention, soft_cap};
use super::SoftTargets;
use super::fused::{
    CausalAttention, CrossEntropies, LinearProduct, MeanCrossEntropy, PrepareHeads, ReluSquared,
    RmsNorm,
};
use super::rotary::Rotary;
use crate::Precision;

static COMPOSED_ONLY: AtomicBool = AtomicBool::new(false);

/// Uses the composed operations on every device from now on, in the whole process; `false` returns to the
/// fused ones where they exist.
///
/// Both give the same values up to rounding. This is for comparing them.
pub fn use_composed_operations(composed: bool) {
    COMPOSED_ONLY.store(composed, Ordering::Relaxed);
}

/// Whether the fused operations run on a device.
fn fused(device: &Device) -> bool {
    !COMPOSED_ONLY.load(Ordering::Relaxed) && *device == Device::flex()
}

/// Whether the fused operations with products of a precision do; of bf16 the CPU has no others.
fn fused_in(precision: Precision, device: &Device) -> bool {
    fused(device) || (precision == Precision::Bf16 && *device == Device::flex())
}

/// y = x·Wᵀ of `[n, inputs]` and `[outputs, inputs]`.
pub(super) fn linear(x: Tensor<2>, weight: Tensor<2>, precision: Precision) -> Tensor<2> {
    if !fused_in(precision, &x.device()) {
        return composed::product(x, weight.transpose(), precision);
    }
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(Dispatch::linear_product(x, weight, precision))
}

/// x / √(mean(x²) + ε) over the last dimension, without gain.
pub(super) fn rms_norm<const D: usize>(x: Tensor<D>, epsilon: f32) -> Tensor<D> {
    if !fused(&x.device()) {
        return composed::rms_norm(x, epsilon);
    }
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), epsilon))
}

/// max(x, 0)ᵖ; p = 2 is the fast one.
pub(super) fn relu_power(x: Tensor<2>, power: u32) -> Tensor<2> {
    match power {
        2 => relu_squared(x),
        _ => composed::relu_power(x, power),
    }
}

/// max(x, 0)².
pub(super) fn relu_squared(x: Tensor<2>) -> Tensor<2> {
    if !fused(&x.device()) {
        return composed::relu_squared(x);
    }
    Tensor::from_dispatch(Dispatch::relu_squared(x.into_dispatch()))
}

/// RMS-normalises each head of `[rows, tokens, heads, d]` with the machine epsilon of `f32`, turns it by its position, and scales it by the
/// gain of its head.
pub(super) fn prepare_heads(x: Tensor<4>, gain: Option<Tensor<1>>, rotary: &Rotary) -> Tensor<4> {
    let device = x.device();
    if !fused(&device) {
        return composed::prepare_heads(x, gain, rotary);
    }
    let gain = gain.unwrap_or_else(|| Tensor::ones([x.dims()[2]], &device));
    Tensor::from_dispatch(Dispatch::prepare_heads(
        x.into_dispatch(),
        gain.into_dispatch(),
        rotary.cosines.clone().into_dispatch(),
        rotary.sines.clone().into_dispatch(),
    ))
}

/// Mean of −ln softmax(logits)\[target\] over the rows of `hidden`, `[n, width]`, with the
/// [soft-capped](soft_cap) logits `hidden`·`head`ᵀ; with soft targets as [`SoftTargets`] says.
pub(super) fn mean_loss(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u16],
    soft: Option<&SoftTargets>,
    cap: Option<f32>,
    precision: Precision,
) -> Tensor<1> {
    if !fused_in(precision, &hidden.device()) {
        return composed::mean_loss(hidden, head, targets, soft, cap, precision);
    }
    Tensor::from_dispatch(Dispatch::mean_cross_entropy(
        hidden.into_dispatch(),
        head.into_dispatch(),
        targets.to_vec(),
        soft.cloned(),
        cap,
        precision,
    ))
}

/// The terms of [`mean_loss`], one per row.
pub(super) fn token_losses(
    hidden: Tensor<2>,
    head: Tensor<2>,
    targets: &[u16],
    cap: Option<f32>,
) -> Tensor<1> {
    let device = hidden.device();
    // The fused version has no gradient: training asks for the mean.
    if !fused(&device) || device.is_autodiff() {
        return composed::token_losses(hidden, head, targets, cap);
    }
    Tensor::from_dispatch(Dispatch::cross_entropies(
        hidden.into_dispatch(),
        head.into_dispatch(),
        targets.to_vec(),
        cap,
    ))
}

/// Causal softmax attention with scores divided by √d.
///
/// Queries are `[rows, tokens, heads, d]`, keys and values `[rows, tokens, kv_heads, d]`, the result is
/// shaped as the queries. Query head h reads key and value head h / (heads / kv_heads).
pub(super) fn causal_attention(
    queries: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    precision: Precision,
) -> Tensor<4> {
    if !fused_in(precision, &queries.device()) {
        return composed::causal_attention(queries, keys, values, precision);
    }
    Tensor::from_dispatch(Dispatch::causal_attention(
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
        precision,
    ))
}
