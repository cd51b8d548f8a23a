//! The *fast* coder: 32 interleaved rANS lanes over a static table.
//!
//! Every lane keeps a 32-bit state that lies in [2^16, 2^32) between symbols and refills 16 bits at a
//! time, at most once per symbol; all lanes share one stream of words. Encoding starts every lane at
//! 2^16, so a decoder that does not end there has read damaged bytes.

mod scalar;
mod table;

pub(crate) use scalar::{decode, encode};
pub(crate) use table::FrequencyTable;

/// Interleaved lanes; symbol i belongs to lane i mod 32. Part of the file format.
pub(crate) const LANES: usize = 32;
/// Probabilities are multiples of 2^-12. Part of the file format.
pub(crate) const PRECISION: u32 = 12;
/// Lower end of the interval of states, and the state before the first symbol.
pub(crate) const LOWER_BOUND: u32 = 1 << 16;
