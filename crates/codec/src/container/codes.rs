//! The codes of one tensor: which coder is smallest, its tables, its blocks.

use rayon::prelude::*;

use super::directory::CodeCoder;
use crate::cursor::Cursor;
use crate::error::CodecError;
use crate::layout::Layout;
use crate::mix;
use crate::quantized::QuantizedTensor;
use crate::rans::{self, Classes, TrellisClasses};
use crate::trellis::{Indices, indices_to_codes};

/// Most codes of which all are looked at for an estimate, and about how many of larger tensors are.
const SEARCHED: usize = 1 << 16;
const SAMPLED: usize = 1 << 15;

/// What the encoder may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// The coder with the fewest bytes, per tensor.
    #[default]
    Smallest,
    /// The fast coder for all codes.
    Fast,
}

/// A way of coding the codes of a tensor, chosen and with its tables written.
pub(super) struct Encoding {
    pub(super) coder: CodeCoder,
    pub(super) tables: Vec<u8>,
    blocks: Blocks,
}

/// The blocks of an encoding.
enum Blocks {
    /// Made already, in search of the smallest.
    Made(Vec<Vec<u8>>),
    /// To be made with these tables.
    Fast(Classes),
    /// To be made of these indices.
    FastTrellis(TrellisClasses, Indices),
}

impl Encoding {
    pub(super) fn choose(tensor: &QuantizedTensor, effort: Effort) -> Self {
        let layout = Layout::new(&tensor.shape);
        let indices = Indices::of(&tensor.codes, &tensor.shape);
        let mut fast = Self::fast(tensor, layout, indices);
        if effort == Effort::Fast {
            return fast;
        }
        let mut size = fast.tables.len();
        let mut count = |block: Vec<u8>| {
            size += block.len();
            Ok(())
        };
        fast.blocks(tensor, &mut count).expect("counting does not fail");
        let (coder, (parameters, blocks)) = match &fast.blocks {
            Blocks::FastTrellis(_, indices) => {
                let chosen = mix::Parameters::choose_on_trellis(&indices.values, layout);
                (CodeCoder::TrellisMix, chosen)
            }
            _ => (CodeCoder::Mix, mix::Parameters::choose(&tensor.codes, layout)),
        };
        let mut tables = Vec::new();
        parameters.write(&mut tables);
        if tables.len() + blocks.iter().map(Vec::len).sum::<usize>() < size {
            fast = Self { coder, tables, blocks: Blocks::Made(blocks) };
        }
        fast
    }

    /// As [`Encoding::choose`] with all effort, but what pays for a large tensor is chosen on some of its rows, and the fast
    /// coder, which is hardly ever the smaller one there, is not tried.
    pub(super) fn estimate(tensor: &QuantizedTensor) -> Self {
        let layout = Layout::new(&tensor.shape);
        let every = layout.count.div_ceil(SAMPLED).min(layout.rows());
        if layout.count <= SEARCHED || every < 2 {
            return Self::choose(tensor, Effort::Smallest);
        }
        let (coder, (parameters, blocks)) = match Indices::of(&tensor.codes, &tensor.shape) {
            Some(indices) => {
                let chosen =
                    mix::Parameters::choose_on_trellis_by_rows(&indices.values, layout, every);
                (CodeCoder::TrellisMix, chosen)
            }
            None => (CodeCoder::Mix, mix::Parameters::choose_by_rows(&tensor.codes, layout, every)),
        };
        let mut tables = Vec::new();
        parameters.write(&mut tables);
        Self { coder, tables, blocks: Blocks::Made(blocks) }
    }

    fn fast(tensor: &QuantizedTensor, layout: Layout, indices: Option<Indices>) -> Self {
        let mut tables = Vec::new();
        match indices {
            Some(indices) => {
                let (_, classes) = TrellisClasses::choose(&indices, layout);
                classes.write(&mut tables);
                let blocks = Blocks::FastTrellis(classes, indices);
                Self { coder: CodeCoder::TrellisRans, tables, blocks }
            }
            None => {
                let (_, classes) = Classes::choose(&tensor.codes, layout);
                classes.write(&mut tables);
                Self { coder: CodeCoder::Rans, tables, blocks: Blocks::Fast(classes) }
            }
        }
    }

    /// Gives each block to `sink`, in order; of those that are to be made only a few are in memory at once.
    pub(super) fn blocks(
        &mut self,
        tensor: &QuantizedTensor,
        sink: &mut dyn FnMut(Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        let layout = Layout::new(&tensor.shape);
        match &mut self.blocks {
            Blocks::Made(blocks) => std::mem::take(blocks).into_iter().try_for_each(sink),
            Blocks::Fast(classes) => in_waves(&tensor.codes, layout, sink, |codes, block| {
                let first_row = block * layout.rows_per_block();
                rans::encode(codes, layout.columns, first_row, classes)
            }),
            Blocks::FastTrellis(classes, indices) => {
                in_waves(&indices.values, layout, sink, |values, block| {
                    let first = block * layout.block_codes();
                    let quantisers = &indices.quantisers[first..first + values.len()];
                    classes.encode(values, quantisers, layout, block * layout.rows_per_block())
                })
            }
        }
    }
}

/// Encodes blocks in parallel, a few at a time; `encode` is told the number of the block.
fn in_waves(
    codes: &[i32],
    layout: Layout,
    sink: &mut dyn FnMut(Vec<u8>) -> Result<(), CodecError>,
    encode: impl Fn(&[i32], usize) -> Vec<u8> + Sync,
) -> Result<(), CodecError> {
    let blocks: Vec<&[i32]> = codes.chunks(layout.block_codes()).collect();
    let at_once = blocks_at_once();
    for (wave, blocks) in blocks.chunks(at_once).enumerate() {
        let made: Vec<_> = blocks
            .par_iter()
            .enumerate()
            .map(|(index, codes)| encode(codes, wave * at_once + index))
            .collect();
        made.into_iter().try_for_each(&mut *sink)?;
    }
    Ok(())
}

/// Blocks in work at a time: two for each thread, so that none waits long for the slowest.
pub(super) fn blocks_at_once() -> usize {
    2 * rayon::current_num_threads()
}

/// The tables of a tensor's coder, with which its blocks are decoded.
pub(super) enum Decoder {
    Rans(Classes),
    Mix(mix::Parameters),
    TrellisRans(TrellisClasses),
    TrellisMix(mix::Parameters),
}

impl Decoder {
    /// Reads the tables off the front of a side section.
    pub(super) fn read(
        coder: CodeCoder,
        layout: Layout,
        tables: &mut Cursor,
    ) -> Result<Self, CodecError> {
        Ok(match coder {
            CodeCoder::Rans => Self::Rans(Classes::read(tables, layout)?),
            CodeCoder::Mix => Self::Mix(mix::Parameters::read(tables, layout)?),
            CodeCoder::TrellisRans => Self::TrellisRans(TrellisClasses::read(tables, layout)?),
            CodeCoder::TrellisMix => {
                Self::TrellisMix(mix::Parameters::read(tables, layout)?.on_trellis())
            }
        })
    }

    /// Decodes consecutive blocks, the first of which is block `first` of the tensor, in parallel.
    pub(super) fn blocks<B: AsRef<[u8]> + Sync>(
        &self,
        layout: Layout,
        first: usize,
        blocks: &[B],
        codes: &mut [i32],
        name: &str,
    ) -> Result<(), CodecError> {
        let chunks = codes.par_chunks_mut(layout.block_codes()).zip(blocks).enumerate();
        let decode = |(index, (codes, block)): (usize, (&mut [i32], &B))| {
            let (block, first_row) = (block.as_ref(), (first + index) * layout.rows_per_block());
            match self {
                Self::Rans(classes) => {
                    rans::decode(block, codes, layout.columns, first_row, classes, name)
                }
                Self::Mix(parameters) => {
                    mix::decode(block, codes, layout.columns, first_row, parameters, name)
                }
                Self::TrellisRans(classes) => classes.decode(block, codes, layout, first_row, name),
                Self::TrellisMix(parameters) => {
                    mix::decode(block, codes, layout.columns, first_row, parameters, name)?;
                    indices_to_codes(codes, layout.columns)
                        .ok_or_else(|| CodecError::corrupt(name, "an index is out of range"))
                }
            }
        };
        chunks.map(decode).collect()
    }
}
