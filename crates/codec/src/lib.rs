//! Integers to bytes and back: entropy coders and the `.bsl` container.
//!
//! A model goes in as an [`Artifact`]: named tensors, each either integer codes with a step
//! ([`QuantizedTensor`]) or bytes kept verbatim ([`RawTensor`]), and opaque metadata. [`encode`] makes
//! the bytes of one file, [`decode`] reads them back within a memory limit, [`encoded_size`] tells the
//! exact size without keeping the bytes, [`inspect`] says where the bytes of a file go. [`FileWriter`] and
//! [`FileReader`] do the same with a file on the disk, tensor by tensor, for models that do not fit in memory.
//! Codes that all lie on the [`trellis`] of dependent quantisation are coded as the smaller indices along it.
//! Equal content gives equal bytes on any machine and with any number of threads.
//!
//! ```
//! use backslash_codec::{Artifact, Limits, QuantizedTensor, Reconstruction, Tensor, decode, encode};
//! let tensor = QuantizedTensor {
//!     shape: vec![2, 3],
//!     codes: vec![0, 1, -1, 0, 0, 2],
//!     step: 0.25,
//!     row_scales: None,
//!     column_scales: None,
//!     reconstruction: Reconstruction::Uniform,
//!     origin: None,
//! };
//! let mut artifact = Artifact::default();
//! artifact.tensors.insert("layer.weight".into(), Tensor::Quantized(tensor));
//! let bytes = encode(&artifact)?;
//! assert_eq!(decode(&bytes, &Limits::default())?, artifact);
//! # Ok::<(), backslash_codec::CodecError>(())
//! ```

mod artifact;
#[cfg(feature = "comparison")]
mod comparison;
mod container;
mod cursor;
mod error;
mod file;
#[doc(hidden)]
pub mod fuzzing;
mod layout;
mod mix;
mod origin;
mod paper;
mod quantized;
mod rans;
mod raw;
mod scale_grid;
mod shape;
mod size;
pub mod trellis;

pub use artifact::{Artifact, Tensor};
#[cfg(feature = "comparison")]
pub use comparison::{CoderResult, compare_coders, fast_kernel_seconds, max_kernel_seconds};
#[doc(hidden)]
pub use container::reseal;
pub use container::{
    Effort, FileReader, FileWriter, Inspection, Limits, TensorInfo, TensorReport, Verification,
    decode, decode_tensor, encode, encode_with, encoded_size, encoded_size_with, estimated_size,
    inspect, inspect_codes, verify,
};
pub use error::CodecError;
pub use file::{Overwrite, read_bytes, read_file, write_bytes, write_file};
pub use origin::Origin;
pub use paper::{PaperBits, paper_bits};
pub use quantized::{QuantizedTensor, Reconstruction};
pub use raw::{FloatType, RawTensor};
pub use scale_grid::round_scale;
pub use size::SizeSplit;

/// The decoder that needs nothing but Python and NumPy, as text: where decoder code counts towards a size,
/// this is the code that counts.
pub const PYTHON_DECODER: &str = include_str!("../../../docs/decoder/bsl_decode.py");
