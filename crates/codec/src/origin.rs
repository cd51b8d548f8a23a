//! Seeded numbers that decoded codes are added to.

/// Multiplier of the generator's congruence.
const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

/// Uniform random numbers that a decoder draws again instead of reading them: where the weights of a tensor started. Codes
/// then say how far each weight has moved from there.
///
/// Draws are those of PCG XSL RR 128/64 with `seed` as its state and `stream` as its stream (O'Neill 2014), one for each
/// weight in row-major order: v = −`bound` + 2·`bound`·m/2²³ with m the bits 9 to 31 of the draw, product and sum rounded
/// to f32.
///
/// ```
/// use backslash_codec::Origin;
///
/// let origin = Origin { seed: 42, stream: 1, bound: 0.5 };
/// let mut values = [0.0; 100];
/// origin.draw(0, &mut values);
/// assert!(values.iter().all(|value| (-0.5..0.5).contains(value)));
/// // Any part of them can be drawn alone.
/// let mut last = [0.0; 10];
/// origin.draw(90, &mut last);
/// assert_eq!(last, values[90..]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Origin {
    /// State of the generator before the first draw, but for what its start adds.
    pub seed: u64,
    /// Which of the generator's sequences it is.
    pub stream: u64,
    /// Values are uniform in ±`bound`.
    pub bound: f32,
}

impl Origin {
    /// The values of consecutive weights, the first of which stands at `position` in the tensor.
    pub fn draw(&self, position: u64, values: &mut [f32]) {
        let mut generator = Generator::new(self.seed, self.stream);
        generator.advance(position);
        let range = self.bound - -self.bound;
        for value in values {
            let mantissa = (generator.next() as u32 >> 9) as f32;
            *value = mantissa * (1.0 / (1 << 23) as f32) * range + -self.bound;
        }
    }

    /// Whether every value is a number.
    pub(crate) fn is_finite(&self) -> bool {
        self.bound >= 0.0 && (2.0 * self.bound).is_finite()
    }
}

/// PCG XSL RR 128/64.
struct Generator {
    state: u128,
    increment: u128,
}

impl Generator {
    fn new(seed: u64, stream: u64) -> Self {
        let increment = u128::from(stream) << 1 | 1;
        let state = u128::from(seed).wrapping_add(increment);
        let state = state.wrapping_mul(MULTIPLIER).wrapping_add(increment);
        Self { state, increment }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// Skips draws, in time that goes with the logarithm of their number.
    fn advance(&mut self, draws: u64) {
        let (mut multiplier, mut increment) = (MULTIPLIER, self.increment);
        let (mut product, mut sum) = (1_u128, 0_u128);
        let mut left = draws;
        while left > 0 {
            if left & 1 == 1 {
                product = product.wrapping_mul(multiplier);
                sum = sum.wrapping_mul(multiplier).wrapping_add(increment);
            }
            increment = multiplier.wrapping_add(1).wrapping_mul(increment);
            multiplier = multiplier.wrapping_mul(multiplier);
            left >>= 1;
        }
        self.state = product.wrapping_mul(self.state).wrapping_add(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;
    use rand_pcg::Pcg64;

    #[test]
    fn draws_are_those_of_the_library() {
        for (seed, stream, bound) in [(1337, 0, 0.125_f32), (u64::MAX, 17, 0.072_168_78)] {
            let mut library = Pcg64::new(u128::from(seed), u128::from(stream));
            let expected: Vec<f32> =
                (0..2000).map(|_| library.random_range(-bound..bound)).collect();
            let origin = Origin { seed, stream, bound };
            let mut values = vec![0.0; expected.len()];
            origin.draw(0, &mut values);
            assert_eq!(values, expected);
            let mut part = vec![0.0; 700];
            origin.draw(1300, &mut part);
            assert_eq!(part, expected[1300..]);
        }
    }

    #[test]
    fn bounds_that_give_no_numbers_are_told() {
        let finite = |bound| Origin { seed: 0, stream: 0, bound }.is_finite();
        assert!(finite(0.0) && finite(1.0));
        assert!(!finite(f32::NAN) && !finite(-1.0) && !finite(f32::MAX) && !finite(f32::INFINITY));
    }
}
