//! Operations of the network as one pass each, with hand-written gradients, for the CPU.
//!
//! On the CPU a composed operation costs one pass over memory, one fresh buffer and often one thread for
//! each of its steps, and autodiff keeps most of them for the way back; attention even stores a matrix of
//! tokens × tokens per head. The operations here are Burn backend extensions for `flex`: each reads its
//! inputs once, writes its result once, uses all threads, and saves only what its gradient needs.
//!
//! Work is cut at fixed places and every sum has a fixed order, so the number of threads does not change
//! any bit. One file (or folder) per operation: the arithmetic on slices, the operation on tensors, its
//! gradient.

mod attention;
mod bf16;
mod buffer;
#[cfg(test)]
mod check;
mod cross_entropy;
mod heads;
mod linear;
mod matrix;
mod norm;
mod product;
mod relu;
mod simd;

pub(super) use attention::CausalAttention;
pub(crate) use bf16::is_fast_here as bf16_is_fast_here;
pub use bf16::product as product_in_bf16;
pub(super) use cross_entropy::{CrossEntropies, MeanCrossEntropy};
pub(super) use heads::PrepareHeads;
pub(super) use linear::LinearProduct;
pub use matrix::MatrixView;
pub(super) use norm::RmsNorm;
pub(super) use relu::ReluSquared;
