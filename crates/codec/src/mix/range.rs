//! Binary range coder with 64-bit state, so that 16-bit probabilities cost no precision.

/// Codes one binary decision; encoder, decoder and the size counter share one model through this trait.
pub(super) trait BitCoder {
    /// Codes a decision that is 1 with probability `probability`/65536, 1 ≤ probability ≤ 65535. An
    /// encoder writes `bit` and returns it; a decoder ignores `bit` and returns what it reads.
    fn code(&mut self, probability: u32, bit: u32) -> u32;
}

/// Renormalisation moves 32 bits at once, when the range falls below 2^32.
const WORD: u32 = 32;

pub(super) struct Encoder {
    low: u64,
    range: u64,
    bytes: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { low: 0, range: u64::MAX, bytes: Vec::new() }
    }

    fn carry(bytes: &mut [u8]) {
        for byte in bytes.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
    }

    /// The bytes so far, cut after the last one that is needed: the decoder reads zeros after the end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        // The value in [low, low + range) with the most trailing zero bits.
        let mut value = self.low;
        let mut overflow = false;
        for zeros in (0..64).rev() {
            let mask = (1_u64 << zeros) - 1;
            let (rounded, wrapped) = match self.low & mask {
                0 => (self.low, false),
                _ => (self.low | mask).overflowing_add(1),
            };
            if rounded.wrapping_sub(self.low) < self.range {
                (value, overflow) = (rounded, wrapped);
                break;
            }
        }
        if overflow {
            Self::carry(&mut self.bytes);
        }
        self.bytes.extend(value.to_be_bytes());
        while self.bytes.last() == Some(&0) {
            self.bytes.pop();
        }
        self.bytes
    }
}

impl BitCoder for Encoder {
    #[inline(always)]
    fn code(&mut self, probability: u32, bit: u32) -> u32 {
        let bound = (self.range >> 16) * u64::from(probability);
        if bit == 1 {
            self.range = bound;
        } else {
            let (low, overflow) = self.low.overflowing_add(bound);
            self.low = low;
            self.range -= bound;
            if overflow {
                Self::carry(&mut self.bytes);
            }
        }
        if self.range < 1 << WORD {
            self.bytes.extend(((self.low >> WORD) as u32).to_be_bytes());
            self.low <<= WORD;
            self.range <<= WORD;
        }
        bit
    }
}

pub(super) struct Decoder<'a> {
    /// Code value minus the lower end of the interval; below `range` for a valid stream.
    value: u64,
    range: u64,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { value: 0, range: u64::MAX, bytes, position: 0 };
        decoder.value = u64::from(decoder.word()) << WORD;
        decoder.value |= u64::from(decoder.word());
        decoder
    }

    #[inline(always)]
    fn word(&mut self) -> u32 {
        let word = match self.bytes.get(self.position..self.position + 4) {
            Some(word) => u32::from_be_bytes(word.try_into().expect("four bytes")),
            None => {
                let mut word = [0; 4];
                let rest = self.bytes.get(self.position..).unwrap_or_default();
                word[..rest.len()].copy_from_slice(rest);
                u32::from_be_bytes(word)
            }
        };
        self.position += 4;
        word
    }

    /// Whether the stream ended where its bytes end, without a superfluous zero at the end.
    pub(super) fn ended(&self) -> bool {
        self.bytes.len() <= self.position && self.bytes.last() != Some(&0)
    }
}

impl BitCoder for Decoder<'_> {
    #[inline(always)]
    fn code(&mut self, probability: u32, _bit: u32) -> u32 {
        let bound = (self.range >> 16) * u64::from(probability);
        let bit = u32::from(self.value < bound);
        if bit == 1 {
            self.range = bound;
        } else {
            self.value -= bound;
            self.range -= bound;
        }
        if self.range < 1 << WORD {
            self.range <<= WORD;
            self.value = self.value << WORD | u64::from(self.word());
        }
        bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decisions_round_trip(decisions in prop::collection::vec((1_u32..65536, 0_u32..2), 0..600)) {
            let mut encoder = Encoder::new();
            for &(probability, bit) in &decisions {
                encoder.code(probability, bit);
            }
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes);
            for &(probability, bit) in &decisions {
                prop_assert_eq!(decoder.code(probability, 0), bit);
            }
            prop_assert!(decoder.ended());
        }
    }

    #[test]
    fn likely_decisions_are_nearly_free_and_carries_travel() {
        let mut encoder = Encoder::new();
        for _ in 0..100_000 {
            encoder.code(65535, 1);
        }
        assert!(encoder.finish().len() <= 2);
        let mut encoder = Encoder::new();
        let bits: Vec<u32> = (0..4000).map(|index| u32::from(index % 97 == 0)).collect();
        for &bit in &bits {
            encoder.code(1, bit);
        }
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes);
        assert!(bits.iter().all(|&bit| decoder.code(1, 0) == bit));
    }
}
