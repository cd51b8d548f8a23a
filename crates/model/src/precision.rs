//! How exactly matrix products are computed.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::network::bf16_is_fast_here;

/// What operands of matrix products are rounded to; sums, all other operations and the weights themselves are in `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Nothing: they are `f32`.
    #[default]
    Fp32,
    /// bf16, which has 8 bits of mantissa: several times as fast on processors with instructions for it.
    Bf16,
}

impl Precision {
    /// Whether networks on the device [in use](crate::device) are no slower for it: bf16 is for processors with AVX512-BF16 or
    /// AMX.
    pub fn is_supported(self) -> bool {
        self == Self::Fp32
            || (crate::device() == burn::tensor::Device::flex() && bf16_is_fast_here())
    }
}

impl FromStr for Precision {
    type Err = String;

    /// ```
    /// use backslash_model::Precision;
    /// assert_eq!("bf16".parse(), Ok(Precision::Bf16));
    /// assert!("fp8".parse::<Precision>().is_err());
    /// ```
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "fp32" => Ok(Self::Fp32),
            "bf16" => Ok(Self::Bf16),
            _ => Err("expected fp32 or bf16".to_owned()),
        }
    }
}
