//! The `.bsl` file: header, directory, sections. See `docs/format.md`.

mod bytes;
mod directory;
mod header;
mod inspection;
mod reader;
mod writer;

pub use inspection::{Inspection, TensorReport, inspect};
pub use reader::{Limits, decode};
pub use writer::{encode, encoded_size};

const HEADER_BYTES: usize = 64;
