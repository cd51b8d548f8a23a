//! The fast coder for codes on a trellis: the indices of each quantiser are coded apart, each by a table of its own,
//! and dealt out again along the trellis when both are decoded.

use super::classes::Classes;
use super::{decode, encode};
use crate::cursor::{Cursor, write_varint};
use crate::error::CodecError;
use crate::layout::Layout;
use crate::trellis::{Indices, merge};

/// The table of each quantiser's indices.
pub(crate) struct QuantiserTables([Classes; 2]);

impl QuantiserTables {
    /// The tables for these indices, and an estimate of their bits.
    pub(crate) fn of(indices: &Indices) -> (f64, Self) {
        let [first, second] = [0, 1].map(|quantiser| {
            let indices = indices.of_quantiser(quantiser);
            // In one line there is nothing to have classes.
            let line = Layout { count: indices.len(), columns: indices.len().max(1) };
            Classes::choose(&indices, line)
        });
        (first.0 + second.0, Self([first.1, second.1]))
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|classes| classes.write(out));
    }

    pub(crate) fn read(cursor: &mut Cursor) -> Result<Self, CodecError> {
        let mut table = || {
            let classes = Classes::read(cursor, Layout { count: 1, columns: 1 })?;
            match classes.tables.len() {
                1 => Ok(classes),
                _ => Err(cursor.corrupt("the indices of a quantiser have classes")),
            }
        };
        Ok(Self([table()?, table()?]))
    }

    /// Encodes a block as: number of indices of the first quantiser, number of bytes that they take, these bytes, and
    /// the bytes of the second quantiser's.
    pub(crate) fn encode(&self, indices: &[i32], quantisers: &[u8]) -> Vec<u8> {
        let [first, second] = [0, 1].map(|quantiser| {
            let pairs = indices.iter().zip(quantisers);
            pairs.filter(|pair| *pair.1 == quantiser).map(|pair| *pair.0).collect::<Vec<i32>>()
        });
        let coded = encode(&first, first.len().max(1), 0, &self.0[0]);
        let mut out = Vec::new();
        write_varint(&mut out, first.len() as u64);
        write_varint(&mut out, coded.len() as u64);
        out.extend(coded);
        out.extend(encode(&second, second.len().max(1), 0, &self.0[1]));
        out
    }

    /// Decodes exactly `codes.len()` codes.
    ///
    /// # Errors
    ///
    /// Corrupt or truncated bytes: those of the fast coder, and numbers of indices that the trellis does not ask for.
    pub(crate) fn decode(
        &self,
        bytes: &[u8],
        codes: &mut [i32],
        columns: usize,
        place: &str,
    ) -> Result<(), CodecError> {
        let mut cursor = Cursor::new(bytes, place);
        let count = usize::try_from(cursor.varint()?).unwrap_or(usize::MAX);
        if count > codes.len() {
            return Err(cursor.corrupt("a quantiser has more indices than the block has codes"));
        }
        let length = cursor.length()?;
        let parts = [(count, length), (codes.len() - count, cursor.remaining() - length)];
        let mut indices = [Vec::new(), Vec::new()];
        for (((count, length), indices), classes) in
            parts.into_iter().zip(&mut indices).zip(&self.0)
        {
            indices.resize(count, 0);
            decode(cursor.take(length)?, indices, count.max(1), 0, classes, place)?;
        }
        merge(codes, columns, [&indices[0], &indices[1]])
            .ok_or_else(|| CodecError::corrupt(place, "the indices do not fit the trellis"))
    }
}
