//! The operations without weights, on any device.
//!
//! Each picks the fused version on the CPU and the composed one, which defines it, elsewhere.

pub(super) mod composed;

use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor};

pub(super) use self::composed::{cross_entropy, relu_squared, rms_norm, soft_cap};
use super::fused::CausalAttention;

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

/// Causal softmax attention with scores divided by √d.
///
/// Queries are `[rows, tokens, heads, d]`, keys and values `[rows, tokens, kv_heads, d]`, the result is
/// shaped as the queries. Query head h reads key and value head h / (heads / kv_heads).
pub(super) fn causal_attention(
    queries: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
) -> Tensor<4> {
    if !fused(&queries.device()) {
        return composed::causal_attention(queries, keys, values);
    }
    Tensor::from_dispatch(Dispatch::causal_attention(
        queries.into_dispatch(),
        keys.into_dispatch(),
        values.into_dispatch(),
    ))
}
