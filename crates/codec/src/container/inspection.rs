//! Where the bytes of a file go, without decoding its codes.

use super::directory::{Body, CodeCoder};
use super::reader::open;
use crate::cursor::Cursor;
use crate::error::CodecError;
use crate::layout::Layout;
use crate::mix;
use crate::rans;
use crate::shape::element_count;
use crate::size::SizeSplit;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorReport {
    /// Name of the tensor.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Coder of the codes, or of the bytes of a verbatim tensor.
    pub coder: String,
    /// Quantiser step; `None` for a verbatim tensor.
    pub step: Option<f32>,
    /// All bytes of the tensor, in bits, per weight.
    pub bits_per_weight: f64,
    /// Entropy of the stored probability table, in bits per weight, where there is one.
    pub entropy_bits: Option<f64>,
    /// Bytes by purpose; the directory is counted for the file only.
    pub split: SizeSplit,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Metadata keys with the stored and the decoded length in bytes.
    pub metadata: Vec<(String, u64, u64)>,
    /// Tensors in file order.
    pub tensors: Vec<TensorReport>,
    /// Bytes of the whole file by purpose.
    pub split: SizeSplit,
}

/// Reads the directory and the tables of a file.
///
/// # Errors
///
/// Those of [`decode`](super::decode) that header, directory and tables can give.
pub fn inspect(file: &[u8]) -> Result<Inspection, CodecError> {
    let open = open(file)?;
    // Everything that belongs to no section: header, directory, padding.
    let sections: usize =
        open.entries.iter().flat_map(|entry| &entry.1).map(|section| section.len()).sum();
    let directory = (file.len() - sections) as u64;
    let mut inspection = Inspection {
        metadata: Vec::new(),
        tensors: Vec::new(),
        split: SizeSplit { directory, ..SizeSplit::default() },
    };
    for (entry, sections) in &open.entries {
        let stored: u64 = sections.iter().map(|section| section.len() as u64).sum();
        let mut split = SizeSplit::default();
        let (shape, coder, step, entropy) = match &entry.body {
            Body::Metadata { length, .. } => {
                split.uncoded = stored;
                inspection.split += split;
                inspection.metadata.push((entry.name.clone(), stored, *length));
                continue;
            }
            Body::Raw { shape, coder, .. } => {
                split.uncoded = stored;
                (shape, format!("{coder:?}").to_lowercase(), None, None)
            }
            Body::Quantized { shape, coder, step, .. } => {
                let mut side = Cursor::new(sections[0], &entry.name);
                let (coder, entropy) = match coder {
                    CodeCoder::Rans => {
                        rans::Classes::read(&mut side, Layout::new(shape))?;
                        ("rans", None)
                    }

                    CodeCoder::Mix => {
                        mix::Parameters::read(&mut side, Layout::new(shape))?;
                        ("mix", None)
                    }
                };
                split.scales = side.remaining() as u64;
                split.tables = sections[0].len() as u64 - split.scales;
                split.payload = stored - sections[0].len() as u64;
                (shape, coder.to_owned(), Some(*step), entropy)
            }
        };
        let weights = element_count(shape).expect("checked when read").max(1) as f64;
        inspection.split += split;
        inspection.tensors.push(TensorReport {
            name: entry.name.clone(),
            shape: shape.clone(),
            coder,
            step,
            bits_per_weight: split.total() as f64 * 8.0 / weights,
            entropy_bits: entropy,
            split,
        });
    }
    Ok(inspection)
}
