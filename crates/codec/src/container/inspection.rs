//! Where the bytes of a file go, without decoding its codes.

use super::directory::{Body, CodeCoder};
use super::reader::{Limits, decode, open};
use rayon::prelude::*;

use crate::artifact::Tensor;
use crate::cursor::Cursor;
use crate::error::CodecError;
use crate::layout::Layout;
use crate::mix;
use crate::origin::Origin;
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
    /// What codes are added to.
    pub origin: Option<Origin>,
    /// All bytes of the tensor, in bits, per weight.
    pub bits_per_weight: f64,
    /// Entropy of the codes' histogram in bits per weight, filled by [`inspect_codes`] only.
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
        let (shape, coder, step, origin) = match &entry.body {
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
            Body::Quantized { shape, coder, step, origin, .. } => {
                let mut side = Cursor::new(sections[0], &entry.name);
                let layout = Layout::new(shape);
                let coder = match coder {
                    CodeCoder::Rans => rans::Classes::read(&mut side, layout).map(|_| "rans")?,
                    CodeCoder::Mix => mix::Parameters::read(&mut side, layout).map(|_| "mix")?,
                    CodeCoder::TrellisRans => {
                        rans::TrellisClasses::read(&mut side, layout).map(|_| "trellis rans")?
                    }
                    CodeCoder::TrellisMix => {
                        mix::Parameters::read(&mut side, layout).map(|_| "trellis mix")?
                    }
                };
                split.scales = side.remaining() as u64;
                split.tables = sections[0].len() as u64 - split.scales;
                split.payload = stored - sections[0].len() as u64;
                (shape, coder.to_owned(), Some(*step), *origin)
            }
        };
        let weights = element_count(shape).expect("checked when read").max(1) as f64;
        inspection.split += split;
        inspection.tensors.push(TensorReport {
            name: entry.name.clone(),
            shape: shape.clone(),
            coder,
            step,
            origin,
            entropy_bits: None,
            bits_per_weight: split.total() as f64 * 8.0 / weights,
            split,
        });
    }
    Ok(inspection)
}

/// [`inspect`], and the entropy of the codes of each quantised tensor, for which they are decoded.
///
/// # Errors
///
/// Those of [`decode`].
pub fn inspect_codes(file: &[u8], limits: &Limits) -> Result<Inspection, CodecError> {
    let mut inspection = inspect(file)?;
    let artifact = decode(file, limits)?;
    inspection.tensors.par_iter_mut().for_each(|report| {
        if let Some(Tensor::Quantized(tensor)) = artifact.tensors.get(&report.name) {
            report.entropy_bits = Some(tensor.entropy_bits());
        }
    });
    Ok(inspection)
}
