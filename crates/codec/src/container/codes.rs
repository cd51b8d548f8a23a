//! The codes of one tensor: which coder is smallest, its tables, its blocks.

use rayon::prelude::*;

use super::directory::CodeCoder;
use crate::cursor::Cursor;
use crate::error::CodecError;
use crate::layout::Layout;
use crate::mix;
use crate::quantized::QuantizedTensor;
use crate::rans::{self, Classes};

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
}

impl Encoding {
    pub(super) fn choose(tensor: &QuantizedTensor, effort: Effort) -> Self {
        let layout = Layout::new(&tensor.shape);
        let (_, classes) = Classes::choose(&tensor.codes, layout);
        let mut tables = Vec::new();
        classes.write(&mut tables);
        let mut fast = Self { coder: CodeCoder::Rans, tables, blocks: Blocks::Fast(classes) };
        if effort == Effort::Fast {
            return fast;
        }
        let mut size = fast.tables.len();
        let mut count = |block: Vec<u8>| {
            size += block.len();
            Ok(())
        };
        fast.blocks(tensor, &mut count).expect("counting does not fail");
        let (parameters, blocks) = mix::Parameters::choose(&tensor.codes, layout);
        let mut tables = Vec::new();
        parameters.write(&mut tables);
        if tables.len() + blocks.iter().map(Vec::len).sum::<usize>() < size {
            fast = Self { coder: CodeCoder::Mix, tables, blocks: Blocks::Made(blocks) };
        }
        fast
    }

    /// Gives each block to `sink`, in order; of those that are to be made only a few are in memory at once.
    pub(super) fn blocks(
        &mut self,
        tensor: &QuantizedTensor,
        sink: &mut dyn FnMut(Vec<u8>) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        let classes = match &mut self.blocks {
            Blocks::Made(blocks) => return std::mem::take(blocks).into_iter().try_for_each(sink),
            Blocks::Fast(classes) => classes,
        };
        let layout = Layout::new(&tensor.shape);
        let blocks: Vec<&[i32]> = tensor.codes.chunks(layout.block_codes()).collect();
        let at_once = blocks_at_once();
        for (wave, blocks) in blocks.chunks(at_once).enumerate() {
            let encode = |(index, codes): (usize, &&[i32])| {
                let first_row = (wave * at_once + index) * layout.rows_per_block();
                rans::encode(codes, layout.columns, first_row, classes)
            };
            let made: Vec<_> = blocks.par_iter().enumerate().map(encode).collect();
            made.into_iter().try_for_each(&mut *sink)?;
        }
        Ok(())
    }
}

/// Blocks in work at a time: two for each thread, so that none waits long for the slowest.
pub(super) fn blocks_at_once() -> usize {
    2 * rayon::current_num_threads()
}

/// The tables of a tensor's coder, with which its blocks are decoded.
pub(super) enum Decoder {
    Rans(Classes),
    Mix(mix::Parameters),
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
            }
        };
        chunks.map(decode).collect()
    }
}

/// Bytes of payload and tables under the fast coder, from histograms of rows and columns alone: within
/// about 0.5 % for tensors of 100,000 codes and more, at a fraction of the time that encoding takes. The
/// smallest file is up to a few percent smaller where codes are predictable, as in embeddings.
///
/// # Errors
///
/// [`CodecError::InvalidArgument`] when the tensor contradicts its shape.
pub fn estimated_code_bytes(name: &str, tensor: &QuantizedTensor) -> Result<u64, CodecError> {
    tensor.validate(name)?;
    let layout = Layout::new(&tensor.shape);
    let (bits, _) = Classes::choose(&tensor.codes, layout);
    // Lane states carry 16 bits of the message each; the other 16 are overhead.
    Ok((bits / 8.0) as u64 + 70 * layout.blocks() as u64)
}
