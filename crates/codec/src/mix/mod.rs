//! The *max* coder: adaptive binary decisions whose probabilities are mixed from several contexts.
//!
//! Each decision (is the magnitude above f, what is the sign) is predicted by six adaptive counters, each
//! seeing another context: the scale of the row so far, that of the column so far, both, the code
//! above, the place in the row. A small online logistic regression mixes the six, and a binary range
//! coder spends −log2 P bits. On a trellis it codes the indices, and the state is part of the contexts.
//! Everything is integer arithmetic, so every machine decodes the same.
//! Sources: adaptive binary coding and logistic mixing as known from the PAQ family (Mahoney 2005).

mod bytes;
mod codes;
mod factors;
mod fit;
mod model;
mod parameters;
mod range;
mod side;
mod tables;

pub(crate) use bytes::{decode_bytes, encode_bytes};
pub(crate) use codes::decode;
pub(crate) use parameters::Parameters;
