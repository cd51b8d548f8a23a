//! The `.bsl` file: header, directory, sections. See `docs/format.md`.
//!
//! `writer` and `reader` have the whole file in memory; `file_writer` and `file_reader` have one tensor, or a few
//! blocks of it, and are made of the same parts, so that they give the same bytes and the same content.

mod bytes;
mod codes;
mod directory;
mod file_reader;
mod file_writer;
mod header;
mod inspection;
mod reader;
mod scales;
mod verification;
mod writer;

pub use codes::Effort;
pub use file_reader::{FileReader, TensorInfo};
pub use file_writer::FileWriter;
#[doc(hidden)]
pub use header::reseal;
pub use inspection::{Inspection, TensorReport, inspect, inspect_codes};
pub use reader::{Limits, decode, decode_tensor};
pub use verification::{Verification, verify};
pub use writer::{encode, encode_with, encoded_size, encoded_size_with, estimated_size};

const HEADER_BYTES: usize = 64;
/// Bytes that are copied or hashed at a time.
const PIECE_BYTES: usize = 1 << 20;
