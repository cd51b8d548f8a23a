//! The `.bsl` file: header, directory, sections. See `docs/format.md`.

mod bytes;
mod codes;
mod directory;
mod header;
mod inspection;
mod reader;
mod scales;
mod verification;
mod writer;

pub use codes::{Effort, estimated_code_bytes};
#[doc(hidden)]
pub use header::reseal;
pub use inspection::{Inspection, TensorReport, inspect, inspect_codes};
pub use reader::{Limits, decode, decode_tensor};
pub use verification::{Verification, differences, verify};
pub use writer::{encode, encode_with, encoded_size, encoded_size_with};

const HEADER_BYTES: usize = 64;
