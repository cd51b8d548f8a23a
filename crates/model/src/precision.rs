//! How exactly matrix products are computed.

use std::str::FromStr;

use burn::backend::{Backend, DTypeUsage, Dispatch};
use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::network::bf16_is_fast_here;

/// What operands of matrix products are rounded to; sums, all other operations and the weights themselves are in `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Nothing: they are `f32`.
    #[default]
    Fp32,
    /// bf16, which has 8 bits of mantissa: several times as fast where there are instructions for it.
    Bf16,
}

impl Precision {
    /// Whether networks on the device [in use](crate::device) can be trained in it: bf16 takes a CPU, or a GPU with units that
    /// multiply matrices of it.
    pub fn is_supported(self) -> bool {
        match self {
            Self::Fp32 => true,
            Self::Bf16 => {
                let device = crate::device();
                device == Device::flex()
                    || Dispatch::dtype_usage(device.as_dispatch(), DType::BF16)
                        .is_superset(DTypeUsage::Storage | DTypeUsage::Accelerated)
            }
        }
    }

    /// Whether nothing is faster on the device in use. A CPU without AVX512-BF16 and AMX multiplies bf16 as `f32`, after
    /// rounding.
    pub fn is_fast(self) -> bool {
        match self {
            Self::Bf16 if crate::device() == Device::flex() => bf16_is_fast_here(),
            _ => self.is_supported(),
        }
    }

    /// The precision of products that the processor has to do beside the device: `f32` where it is no faster in bf16.
    #[must_use]
    pub fn on_host(self) -> Self {
        if bf16_is_fast_here() { self } else { Self::Fp32 }
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
