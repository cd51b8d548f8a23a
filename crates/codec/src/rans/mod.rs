//! The *fast* coder: 32 interleaved rANS lanes over static tables, one table per class of lines.
//!
//! Every lane keeps a 32-bit state that lies in [2^16, 2^32) between symbols and refills 16 bits at a
//! time, at most once per symbol; all lanes share one stream of words. Encoding starts every lane at
//! 2^16, so a decoder that does not end there has read damaged bytes. Lines (rows, or columns) of similar
//! scale share a table; a block stores its lines class by class, so that the tables change rarely. On a
//! trellis it codes the indices, those of each quantiser by tables of their own. The scalar decoder is the
//! reference; the vector decoders are tested to give the same.
//! Sources: Duda 2013 (ANS), Giesen 2014 (interleaving).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bits;
mod block;
mod classes;
mod scalar;
mod segments;
mod table;
mod trellis;

#[cfg(feature = "comparison")]
pub(crate) use block::decode_by_reference;
pub(crate) use block::{decode, decode_every_way, encode};
pub(crate) use classes::Classes;
pub(crate) use trellis::TrellisClasses;

/// Interleaved lanes; symbol i of a segment belongs to lane i mod 32. Part of the file format.
pub(crate) const LANES: usize = 32;
/// Probabilities are multiples of 2^-12. Part of the file format.
pub(crate) const PRECISION: u32 = 12;
/// Lower end of the interval of states, and the state before the first symbol.
pub(crate) const LOWER_BOUND: u32 = 1 << 16;
