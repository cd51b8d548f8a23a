//! The names of the quantisers and the one call that runs them.

use std::fmt;
use std::str::FromStr;

use backslash_codec::{QuantizedTensor, Reconstruction};
use faer::Mat;

use super::covariance::{Covariance, Metric};
use super::feedback::product;
use super::trellis::{self, Trellis};
use super::unbiased::{make_plainly_unbiased, make_unbiased};
use super::{entquant, gptq, rdoq, watersic, watersic_rate};
use crate::uniform::check;
use crate::{QuantError, Weights, quantize, quantize_to_centroids};

/// A quantiser of the ladder, from the simplest to the one that loses least.
///
/// ```
/// use backslash_quant::Rung;
///
/// assert_eq!("watersic-rate".parse::<Rung>()?, Rung::WatersicRate);
/// assert_eq!(Rung::Gptq.to_string(), "gptq");
/// # Ok::<(), backslash_quant::QuantError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// The nearest code, read back near the mean of its cell.
    Rtn,
    /// Of the nearest code, its neighbours and zero, the one of least error plus rate.
    Rdoq,
    /// Steps per row for the least error plus magnitude of codes (EntQuant, arXiv 2601.22787).
    EntQuant,
    /// Codes of two quantisers that take turns along a trellis, chosen together for the least error plus rate
    /// ([`backslash_codec::trellis`]).
    Trellis,
    /// Equal steps, with the error of each column passed on to those that are still open (GPTQ,
    /// arXiv 2210.17323).
    Gptq,
    /// As `Gptq`, with steps per column that make all columns cost the same (WaterSIC, arXiv 2603.04956).
    Watersic,
    /// As `Watersic`, with the codes of each column on a trellis, chosen by error plus rate as in `Trellis`.
    WatersicRate,
}

impl Rung {
    /// All quantisers, in the order of the ladder.
    pub const ALL: [Self; 7] = [
        Self::Rtn,
        Self::Rdoq,
        Self::EntQuant,
        Self::Trellis,
        Self::Gptq,
        Self::Watersic,
        Self::WatersicRate,
    ];

    /// Whether it cannot do without the covariance of the inputs.
    #[must_use]
    pub fn needs_covariance(self) -> bool {
        matches!(self, Self::Gptq | Self::Watersic | Self::WatersicRate)
    }

    pub(crate) fn names() -> String {
        Self::ALL.map(|rung| rung.to_string()).join(", ")
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rtn => "rtn",
            Self::Rdoq => "rdoq",
            Self::EntQuant => "entquant",
            Self::Trellis => "trellis",
            Self::Gptq => "gptq",
            Self::Watersic => "watersic",
            Self::WatersicRate => "watersic-rate",
        })
    }
}

impl FromStr for Rung {
    type Err = QuantError;

    fn from_str(name: &str) -> Result<Self, QuantError> {
        let found = Self::ALL.into_iter().find(|rung| rung.to_string() == name);
        found.ok_or_else(|| QuantError::UnknownRung(name.to_owned()))
    }
}

/// Which scales are fitted to the final codes of `watersic` and `watersic-rate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleFit {
    /// None: column scales stay as the recursion has chosen them.
    Recursion,
    /// Column scales.
    Columns,
    /// Column scales, and row scales where they save more bits than they cost.
    #[default]
    RowsAndColumns,
}

/// The size of what codes are read back as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gain {
    /// That of the least squared error, which makes weights smaller.
    #[default]
    LeastSquares,
    /// Multiples of the step as they are, the step scaled so that the error is uncorrelated with the weights in the
    /// metric; for models, whose layers would all shrink together.
    Unbiased,
}

/// What the quantisers can be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LadderOptions {
    /// Share of the mean diagonal that is added to the covariance; raised where there is no Cholesky factor.
    pub ridge: f64,
    /// Weight of the rate in choosing codes, 1 being the slope of the distortion at the step,
    /// (ln 2/6)·Δ² per bit; 0 for codes of the least error. For `rdoq` (without one: 0.1 with an unbiased gain, 1 with
    /// that of least squares), and `trellis` and `watersic-rate` (0.05, 0.4). More of it saves squared error at equal
    /// bits, and costs loss: it moves bits from tensors of few bits, which need them most, to the others.
    pub rate_strength: Option<f64>,
    /// Scales that are fitted in the end.
    pub scale_fit: ScaleFit,
    /// What is done about the shrinking of least squares.
    pub gain: Gain,
}

impl Default for LadderOptions {
    fn default() -> Self {
        Self {
            ridge: 1e-3,
            rate_strength: None,
            scale_fit: ScaleFit::default(),
            gain: Gain::default(),
        }
    }
}

impl LadderOptions {
    /// Weight of the rate; without one, that which has lost least in a small language model at equal bytes, or, with the
    /// gain of least squares, that of the least squared error.
    fn strength(&self, rung: Rung) -> f64 {
        self.rate_strength.unwrap_or(match (self.gain, rung) {
            (Gain::Unbiased, Rung::Rdoq) => 0.1,
            (Gain::Unbiased, _) => 0.05,
            (Gain::LeastSquares, Rung::Rdoq) => 1.0,
            (Gain::LeastSquares, _) => 0.4,
        })
    }
}

/// λ in units of the squared step per bit, at which entropy-coded uniform quantisation trades distortion for
/// rate: D = Δ²/12 and R = h − log₂Δ give −dD/dR = (ln 2/6)·Δ².
pub(super) const THEORETICAL_SLOPE: f64 = std::f64::consts::LN_2 / 6.0;

/// Quantises a weight matrix W, of outputs × inputs, by one quantiser of the ladder.
///
/// `step` sets the rate: it is the step of all columns, or, for the quantisers with a step per column or row,
/// about the geometric mean of their steps. `metric` is the covariance Σ of the layer's inputs: the error that
/// is kept small is tr((W−Ŵ)·Σ·(W−Ŵ)ᵀ), for `rdoq` with the diagonal of Σ alone. `rtn`, `entquant` and `trellis`
/// never look at it: theirs is the plain squared error, as is that of `rdoq` without a covariance. Tensors of more than two dimensions are seen as matrices with
/// the first dimension as rows.
///
/// ```
/// use backslash_quant::{Covariance, LadderOptions, Rung, Weights, quantize_matrix};
///
/// let weights = Weights { name: "w", shape: &[2, 2], data: &[0.9, -2.2, 0.4, 1.3] };
/// let inputs = Covariance::from_moments(2, 100, &[1.0, 0.5, 0.5, 1.0])?;
/// let tensor = quantize_matrix(Rung::Gptq, &weights, Some(&inputs), 1.0, &LadderOptions::default())?;
/// assert_eq!(tensor.codes, [1, -2, 1, 1]);
/// # Ok::<(), backslash_quant::QuantError>(())
/// ```
///
/// # Errors
/// If shape and weights do not fit, a weight is not finite, the step is not positive or too fine, an option is
/// out of range, or the covariance is missing, of another width, empty or without a Cholesky factor.
pub fn quantize_matrix(
    rung: Rung,
    weights: &Weights<'_>,
    metric: Option<&Covariance>,
    step: f32,
    options: &LadderOptions,
) -> Result<QuantizedTensor, QuantError> {
    let (rows, columns) = matrix_shape(weights)?;
    check(weights.name, weights.data, step)?;
    let strength = options.strength(rung);
    if !(strength.is_finite() && strength >= 0.0) {
        return Err(QuantError::Setting { what: "strength of the rate", value: strength });
    }
    if rows == 0 || columns == 0 {
        return Ok(tensor_of(weights, Vec::new(), step));
    }
    if let Some(metric) = metric
        && metric.width() != columns
    {
        let name = weights.name.to_owned();
        return Err(QuantError::CovarianceWidth { name, columns, width: metric.width() });
    }
    let mut tensor = run(rung, weights, (rows, columns), metric, step, options)?;
    if options.gain == Gain::Unbiased {
        // W·Σ, by what the rung has looked at.
        let matrix = || matrix_of(weights, rows, columns);
        match (rung, metric) {
            (Rung::Rdoq, Some(metric)) => {
                let (matrix, powers) = (matrix(), metric.diagonal());
                let seen = Mat::from_fn(rows, columns, |row, column| {
                    matrix[(row, column)] * powers[column]
                });
                make_unbiased(&mut tensor, matrix.as_ref(), seen.as_ref());
            }
            (_, Some(metric)) if rung.needs_covariance() => {
                let matrix = matrix();
                let seen = product(matrix.as_ref(), metric.matrix().as_ref());
                make_unbiased(&mut tensor, matrix.as_ref(), seen.as_ref());
            }
            _ => make_plainly_unbiased(&mut tensor, weights.data),
        }
    }
    Ok(tensor)
}

/// One quantiser of the ladder on weights and options that have been checked.
fn run(
    rung: Rung,
    weights: &Weights<'_>,
    (rows, columns): (usize, usize),
    metric: Option<&Covariance>,
    step: f32,
    options: &LadderOptions,
) -> Result<QuantizedTensor, QuantError> {
    let (strength, gain) = (options.strength(rung), options.gain);
    let damped = || -> Result<(Mat<f64>, Metric), QuantError> {
        let name = || weights.name.to_owned();
        let metric = metric.ok_or_else(|| QuantError::NoCovariance { name: name(), rung })?;
        Ok((matrix_of(weights, rows, columns), metric.damped(options.ridge)?))
    };
    // Shapes without a trellis take the quantiser that comes before.
    match (rung, Trellis::of(weights.shape, strength)) {
        (Rung::Rtn, _) => match gain {
            Gain::LeastSquares => {
                quantize_to_centroids(weights.name, weights.shape, weights.data, step)
            }
            Gain::Unbiased => quantize(weights.name, weights.shape, weights.data, step),
        },
        (Rung::Rdoq, _) => Ok(rdoq::quantize(weights, columns, metric, step, strength, gain)),
        (Rung::Trellis, None) => Ok(rdoq::quantize(weights, columns, None, step, strength, gain)),
        (Rung::EntQuant, _) => Ok(entquant::quantize(weights, columns, step, gain)),
        (Rung::Trellis, Some(trellis)) => {
            let matrix = matrix_of(weights, rows, columns);
            Ok(trellis::quantize(weights, &matrix, step, trellis, gain))
        }
        (Rung::Gptq, _) => {
            let (matrix, metric) = damped()?;
            Ok(gptq::quantize(weights, &matrix, &metric, step, gain))
        }
        (Rung::Watersic, _) | (Rung::WatersicRate, None) => {
            let (matrix, metric) = damped()?;
            watersic::quantize(weights, &matrix, &metric, step, options)
        }
        (Rung::WatersicRate, Some(trellis)) => {
            let (matrix, metric) = damped()?;
            watersic_rate::quantize(weights, &matrix, &metric, step, trellis, options)
        }
    }
}

/// Rows and columns of the matrix that a tensor is seen as.
pub(crate) fn matrix_shape(weights: &Weights<'_>) -> Result<(usize, usize), QuantError> {
    let Weights { name, shape, data } = *weights;
    let count = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    if count.is_none_or(|count| count != data.len()) {
        let (name, shape) = (name.to_owned(), shape.to_vec());
        return Err(QuantError::Shape { name, shape, count: data.len() });
    }
    let rows = if shape.len() > 1 { shape[0] } else { 1 };
    Ok((rows, data.len().checked_div(rows).unwrap_or(0)))
}

/// The weights in double precision, one column after the other.
pub(super) fn matrix_of(weights: &Weights<'_>, rows: usize, columns: usize) -> Mat<f64> {
    Mat::from_fn(rows, columns, |row, column| f64::from(weights.data[row * columns + column]))
}

/// A tensor of these codes without scales.
pub(super) fn tensor_of(weights: &Weights<'_>, codes: Vec<i32>, step: f32) -> QuantizedTensor {
    QuantizedTensor {
        shape: weights.shape.to_vec(),
        codes,
        step,
        row_scales: None,
        column_scales: None,
        reconstruction: Reconstruction::Uniform,
        origin: None,
    }
}
