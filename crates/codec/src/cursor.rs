//! Checked reading and writing of little-endian fields and variable-length integers.

use crate::error::CodecError;

/// Reads fields off the front of a slice; every read is checked.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    place: &'a str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], place: &'a str) -> Self {
        Self { bytes, place }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn corrupt(&self, problem: impl Into<String>) -> CodecError {
        CodecError::corrupt(self.place, problem)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (front, rest) =
            self.bytes.split_at_checked(count).ok_or_else(|| CodecError::Truncated {
                place: self.place.to_owned(),
                needed: count as u64,
                available: self.bytes.len() as u64,
            })?;
        self.bytes = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        Ok(self.take(N)?.try_into().expect("take returns the asked length"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// LEB128: seven bits per byte, low first; only the shortest form is accepted.
    pub(crate) fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for index in 0..10 {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if index == 9 && bits > 1 {
                return Err(self.corrupt("a variable-length integer exceeds 64 bits"));
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return Err(self.corrupt("a variable-length integer is longer than needed"));
                }
                return Ok(value);
            }
        }
        Err(self.corrupt("a variable-length integer exceeds 64 bits"))
    }

    pub(crate) fn length(&mut self) -> Result<usize, CodecError> {
        let value = self.varint()?;
        usize::try_from(value)
            .map_err(|_| self.corrupt(format!("length {value} exceeds the address space")))
    }

    pub(crate) fn finish(self) -> Result<(), CodecError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(self.corrupt(format!("{left} bytes are left over at the end"))),
        }
    }
}

/// Appends an integer in the form that [`Cursor::varint`] reads.
pub(crate) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Signed to unsigned, small magnitudes first: 0, −1, 1, −2, 2 …
pub(crate) fn zigzag(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

/// Inverse of [`zigzag`].
pub(crate) fn unzigzag(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_round_trip_and_long_forms_are_rejected() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(Cursor::new(&out, "t").varint().unwrap(), value);
        }
        for bad in [&[0x80, 0][..], &[0xff; 10], &[0x80; 12], &[]] {
            assert!(Cursor::new(bad, "t").varint().is_err());
        }
        for value in [0, 1, -1, i32::MAX, i32::MIN] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
