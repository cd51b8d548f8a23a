//! Integer tables of the mixing model. They define the format: another implementation must build the
//! same numbers, which these recipes do without floating point.

use std::sync::LazyLock;

/// Log-odds are in units of 1/256; the logistic function is tabulated for −12 to 12.
pub(super) const LOGIT_LIMIT: i32 = 3071;

pub(super) struct Tables {
    /// Probability, in units of 2^-16, of log-odds (index − 3071)/256.
    pub(super) squash: [u16; 2 * LOGIT_LIMIT as usize + 1],
    /// Log-odds, in units of 1/256, of probability (index + ½)/4096.
    pub(super) stretch: [i16; 4096],
    /// Rate 1/(n + 1.5) in units of 2^-16 for a counter that has seen n decisions.
    pub(super) rate: [u16; 1024],
    /// 64·log2(1 + index/128), rounded down.
    log2_fraction: [u8; 128],
}

pub(super) static TABLES: LazyLock<Box<Tables>> = LazyLock::new(|| Box::new(Tables::new()));

impl Tables {
    fn new() -> Self {
        let mut squash = [0; 2 * LOGIT_LIMIT as usize + 1];
        // exp(−i/256) in units of 2^-40, by repeated multiplication with round(2^40·exp(−1/256)).
        const DECAY: u128 = 1_095_225_038_176;
        let mut exponential: u128 = 1 << 40;
        for distance in 0..=LOGIT_LIMIT as usize {
            // 65536·e/(1 + e), rounded down, is the probability of the less likely side.
            let low = ((exponential << 16) / ((1 << 40) + exponential)).clamp(1, 32768) as u16;
            squash[LOGIT_LIMIT as usize - distance] = low;
            squash[LOGIT_LIMIT as usize + distance] = (65536 - u32::from(low)) as u16;
            exponential = (exponential * DECAY) >> 40;
        }
        let mut stretch = [0; 4096];
        let mut index = 0;
        for (bucket, logit) in stretch.iter_mut().enumerate() {
            let centre = bucket as u32 * 16 + 8;
            while index + 1 < squash.len() && u32::from(squash[index]) < centre {
                index += 1;
            }
            *logit = (index as i32 - LOGIT_LIMIT) as i16;
        }
        let rate = std::array::from_fn(|count| (131_072 / (2 * count + 3)) as u16);
        Self { squash, stretch, rate, log2_fraction: std::array::from_fn(log2_fraction) }
    }

    /// ⌊64·log2(value)⌋ from the seven bits below the leading one; value ≥ 1.
    #[inline(always)]
    pub(super) fn log2(&self, value: u32) -> i32 {
        let exponent = 31 - value.leading_zeros();
        let mantissa = (value << (31 - exponent)) >> 24 & 127;
        (exponent * 64) as i32 + i32::from(self.log2_fraction[mantissa as usize])
    }
}

/// ⌊64·log2(1 + index/128)⌋: six binary digits of the logarithm by repeated squaring.
fn log2_fraction(index: usize) -> u8 {
    let mut mantissa = (128 + index as u64) << 24;
    let mut digits = 0;
    for _ in 0..6 {
        mantissa = (mantissa * mantissa) >> 31;
        digits <<= 1;
        if mantissa >= 1 << 32 {
            mantissa >>= 1;
            digits |= 1;
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_approximate_their_functions() {
        let tables = &*TABLES;
        for (index, &probability) in tables.squash.iter().enumerate() {
            let exact = 65536.0 / (1.0 + (-(index as f64 - 3071.0) / 256.0).exp());
            assert!(
                (f64::from(probability) - exact).abs() <= 1.01,
                "{index}: {probability} against {exact}"
            );
        }
        for (index, &logit) in tables.stretch.iter().enumerate() {
            let probability = (index as f64 + 0.5) / 4096.0;
            let exact = 256.0 * (probability / (1.0 - probability)).ln();
            assert!(
                (f64::from(logit) - exact).abs()
                    <= 32.0_f64.min(1.0 + 0.05 / probability.min(1.0 - probability))
            );
        }
        for value in [1, 2, 3, 127, 128, 129, 255, 1000, 65535, u32::MAX] {
            let exact = 64.0 * f64::from(value).log2();
            assert!((f64::from(tables.log2(value)) - exact).abs() < 1.8, "{value}");
        }
    }
}
