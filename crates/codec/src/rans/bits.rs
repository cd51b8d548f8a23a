//! Escaped values: exponential Golomb codes of the distance to the table, packed low bit first.

use crate::cursor::Cursor;
use crate::error::CodecError;

/// Packs bits, low bit first.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the low `count` ≤ 32 bits of `value`.
    fn put(&mut self, value: u64, count: u32) {
        self.pending |= (value & ((1 << count) - 1)) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// Exponential Golomb code of order `order`: length of value + 2^order in unary, then its bits.
    pub(super) fn golomb(&mut self, value: u32, order: u32) {
        let shifted = u64::from(value) + (1 << order);
        let length = 63 - shifted.leading_zeros();
        self.put(1 << (length - order), length - order + 1);
        self.put(shifted, length);
    }

    pub(super) fn bit(&mut self, bit: bool) {
        self.put(u64::from(bit), 1);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Reads what [`BitWriter`] wrote.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn bit(&mut self, cursor: &Cursor) -> Result<bool, CodecError> {
        let byte = self.bytes.get(self.position / 8);
        let byte = byte.ok_or_else(|| cursor.corrupt("the escaped values end too early"))?;
        let bit = byte >> (self.position % 8) & 1;
        self.position += 1;
        Ok(bit == 1)
    }

    pub(super) fn golomb(&mut self, order: u32, cursor: &Cursor) -> Result<u32, CodecError> {
        let mut length = order;
        while !self.bit(cursor)? {
            length += 1;
            if length > 32 {
                return Err(cursor.corrupt("an escaped value is too long"));
            }
        }
        let mut value = 1_u64 << length;
        for position in 0..length {
            value |= u64::from(self.bit(cursor)?) << position;
        }
        u32::try_from(value - (1 << order))
            .map_err(|_| cursor.corrupt("an escaped value exceeds 32 bits"))
    }

    /// All bytes are used and the bits after the last code are zero.
    pub(super) fn finish(self, cursor: &Cursor) -> Result<(), CodecError> {
        let rest = self.bytes.get(self.position / 8).map_or(0, |byte| byte >> (self.position % 8));
        if self.bytes.len() == self.position.div_ceil(8)
            && (self.position.is_multiple_of(8) || rest == 0)
        {
            return Ok(());
        }
        Err(cursor.corrupt("the escaped values do not end with their bytes"))
    }
}
