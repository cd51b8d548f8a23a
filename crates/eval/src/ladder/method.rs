//! The ways of making a file that are compared.

use backslash_compress::Allocation;
use backslash_quant::Rung;

/// A way of making a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A quantiser of ours.
    Ours(Rung, Allocation),
    /// The smallest file of a quantiser of ours that loses no more than [`Method::Int8AllMatrices`].
    NoWorseThanInt8(Rung),
    /// The matrices of layers as products of two, of the rank that the size asks for.
    Factors,
    /// The baseline of Parameter Golf: int8 rows for large matrices, zlib-9.
    Int8,
    /// The same with every matrix in int8.
    Int8AllMatrices,
    /// SDClip with brotli-11, its clips multiplied by the factor that the size asks for.
    SdClip,
    /// The recipe of the BackSlash paper at its own step, 2⁻⁸.
    Paper,
    /// The same at the step that the size asks for.
    PaperScaled,
}

impl Method {
    /// All methods for these quantisers and ways to share out steps: every quantiser by rows, the first and the last by the
    /// other ways too, and the exporters of others.
    pub fn all(rungs: &[Rung], allocations: &[Allocation]) -> Vec<Self> {
        let ends = [rungs.first(), rungs.last().filter(|_| rungs.len() > 1)];
        let ends: Vec<Rung> = ends.into_iter().flatten().copied().collect();
        let mut methods = Vec::new();
        for allocation in allocations {
            let rungs = if *allocation == Allocation::Rows { rungs } else { &ends };
            methods.extend(rungs.iter().map(|rung| Self::Ours(*rung, *allocation)));
        }
        methods.extend([Self::SdClip, Self::PaperScaled, Self::Paper, Self::Int8]);
        methods.push(Self::Int8AllMatrices);
        methods.extend(rungs.last().map(|rung| Self::NoWorseThanInt8(*rung)));
        methods
    }

    /// All methods that a person can name: [`Method::all`] of all quantisers and all that calibration can share out, and
    /// factors.
    pub fn known() -> Vec<Self> {
        let allocations = [Allocation::Rows, Allocation::Tensors, Allocation::Relative];
        let mut methods = Self::all(&Rung::ALL, &allocations);
        methods.push(Self::Factors);
        methods
    }

    /// The method of a name.
    ///
    /// ```
    /// use backslash_eval::ladder::Method;
    /// assert_eq!(Method::named("SDClip + brotli-11"), Some(Method::SdClip));
    /// assert_eq!(Method::named("zip"), None);
    /// ```
    pub fn named(name: &str) -> Option<Self> {
        Self::known().into_iter().find(|method| method.name() == name)
    }

    /// How it shares out steps; none for the exporters of others.
    pub fn allocation(self) -> Option<Allocation> {
        match self {
            Self::Ours(_, allocation) => Some(allocation),
            Self::NoWorseThanInt8(_) => Some(Allocation::Rows),
            _ => None,
        }
    }

    /// Name in tables and in the journal.
    pub fn name(self) -> String {
        match self {
            Self::Ours(rung, Allocation::Rows) => rung.to_string(),
            Self::Ours(rung, Allocation::Tensors) => format!("{rung}, steps per tensor only"),
            Self::Ours(rung, Allocation::Relative) => format!("{rung}, equal relative steps"),
            Self::Ours(rung, Allocation::Equal) => format!("{rung}, equal steps"),
            Self::NoWorseThanInt8(rung) => format!("{rung}, no worse than int8"),
            Self::Factors => "factors".to_owned(),
            Self::Int8 => "golf int8 + zlib-9, large matrices".to_owned(),
            Self::Int8AllMatrices => "golf int8 + zlib-9".to_owned(),
            Self::SdClip => "SDClip + brotli-11".to_owned(),
            Self::Paper => "BackSlash 2^-8 + EG0".to_owned(),
            Self::PaperScaled => "BackSlash + EG0, other step".to_owned(),
        }
    }

    /// Whether its size can be chosen.
    pub fn has_target(self) -> bool {
        matches!(self, Self::Ours(..) | Self::Factors | Self::SdClip | Self::PaperScaled)
    }

    /// Whether it runs the model on text first.
    pub fn needs_calibration(self) -> bool {
        matches!(self, Self::Ours(..) | Self::NoWorseThanInt8(_) | Self::Factors)
    }
}
