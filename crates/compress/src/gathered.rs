//! Calibrations that were gathered elsewhere: by PyTorch, where the model runs.

use std::collections::{BTreeMap, BTreeSet};

use backslash_quant::{Covariance, Weights, is_coded};
use serde::Deserialize;

use crate::calibration::TIED_HEAD_WEIGHT;
use crate::{Calibration, CompressError, Sensitivity};

/// Start of the names of tensors that hold second moments E\[x·xᵀ\] of inputs, row-major.
const MOMENTS: &str = "moments/";
/// Start of the names of tensors that hold the Fisher information of each row of a matrix.
const SENSITIVITY: &str = "sensitivity/";

/// What a gathered calibration says beside its tensors.
///
/// The tensors are, by name: `moments/INPUT`, shape \[n, n\], the mean of x·xᵀ over what a layer of n inputs has read; and
/// `sensitivity/MATRIX`, shape \[rows\], the mean over a row's weights of the Fisher information of the loss per token
/// ([`Sensitivity`]).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CalibrationIndex {
    /// Tokens of text that were seen.
    pub tokens: usize,
    /// The INPUT that each matrix multiplies, by the name of the matrix.
    pub inputs: BTreeMap<String, String>,
    /// How many vectors the moments of each INPUT are the mean of.
    pub samples: BTreeMap<String, u64>,
    /// Matrices whose rows are read as they are, too: an embedding that is also the head.
    pub tied: BTreeSet<String>,
    /// Matrices that are stored with one row per input.
    pub inputs_first: BTreeSet<String>,
}

/// A tensor of a gathered calibration: shape, and values row-major.
pub type GatheredTensor = (Vec<usize>, Vec<f32>);

impl Calibration {
    /// The calibration of `weights` that an index and its tensors hold.
    ///
    /// # Errors
    /// If a tensor is missing, has another shape than its matrix asks for, or holds what no moment or Fisher
    /// information can be; if a matrix is not among the weights; if a coded matrix has no sensitivity.
    pub fn gathered(
        index: &CalibrationIndex,
        tensors: &BTreeMap<String, GatheredTensor>,
        weights: &[Weights<'_>],
    ) -> Result<Self, CompressError> {
        let shapes: BTreeMap<&str, &[usize]> =
            weights.iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        let mut moments = BTreeMap::new();
        for input in index.inputs.values() {
            if !moments.contains_key(input.as_str()) {
                moments.insert(input.as_str(), read_moments(index, tensors, input)?);
            }
        }
        let mut covariances = BTreeMap::new();
        for (matrix, input) in &index.inputs {
            let [rows, columns] = matrix_of(&shapes, matrix)?;
            let width = if index.inputs_first.contains(matrix) { rows } else { columns };
            let mut covariance = moments[input.as_str()].clone();
            if covariance.width() != width {
                return Err(problem(format!(
                    "`{MOMENTS}{input}` is of {} inputs, and `{matrix}` has {width}",
                    covariance.width()
                )));
            }
            if !covariance.has_moments() {
                continue;
            }
            if index.tied.contains(matrix) {
                covariance = covariance.identity_plus(TIED_HEAD_WEIGHT)?;
            }
            covariances.insert(matrix.clone(), covariance);
        }
        let mut sensitivities = BTreeMap::new();
        for tensor in weights.iter().filter(|tensor| is_coded(tensor.shape)) {
            sensitivities.insert(tensor.name.to_owned(), read_sensitivity(tensors, tensor)?);
        }
        for matrix in index.tied.iter().chain(&index.inputs_first) {
            matrix_of(&shapes, matrix)?;
        }
        let (inputs_first, tokens) = (index.inputs_first.clone(), index.tokens);
        Ok(Self { covariances, sensitivities, inputs_first, tokens })
    }
}

fn problem(reason: String) -> CompressError {
    CompressError::Gathered { reason }
}

/// Rows and columns of a matrix of the model.
fn matrix_of(shapes: &BTreeMap<&str, &[usize]>, name: &str) -> Result<[usize; 2], CompressError> {
    let shape = shapes.get(name).ok_or_else(|| {
        problem(format!("knows `{name}`, which the weights do not have: it is of another model"))
    })?;
    <[usize; 2]>::try_from(*shape)
        .map_err(|_| problem(format!("`{name}` has the shape {shape:?}, which is no matrix")))
}

fn tensor<'a>(
    tensors: &'a BTreeMap<String, GatheredTensor>,
    name: &str,
) -> Result<&'a GatheredTensor, CompressError> {
    let tensor = tensors.get(name).ok_or_else(|| problem(format!("has no tensor `{name}`")))?;
    let elements = tensor.0.iter().try_fold(1_usize, |count, &extent| count.checked_mul(extent));
    match elements == Some(tensor.1.len()) {
        true => Ok(tensor),
        false => Err(problem(format!(
            "`{name}` has {} values for the shape {:?}",
            tensor.1.len(),
            tensor.0
        ))),
    }
}

fn read_moments(
    index: &CalibrationIndex,
    tensors: &BTreeMap<String, GatheredTensor>,
    input: &str,
) -> Result<Covariance, CompressError> {
    let name = format!("{MOMENTS}{input}");
    let (shape, values) = tensor(tensors, &name)?;
    let samples = index.samples.get(input).copied().unwrap_or_default();
    match shape[..] {
        [width, height] if width == height && samples > 0 => {
            let values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
            Covariance::from_moments(width, samples, &values)
                .map_err(|error| problem(format!("`{name}`: {error}")))
        }
        [width, height] if width == height => {
            Err(problem(format!("`{name}` is the mean of no samples")))
        }
        _ => Err(problem(format!("`{name}` has the shape {shape:?}, which is not square"))),
    }
}

fn read_sensitivity(
    tensors: &BTreeMap<String, GatheredTensor>,
    weights: &Weights<'_>,
) -> Result<Sensitivity, CompressError> {
    let name = format!("{SENSITIVITY}{}", weights.name);
    let (shape, values) = tensor(tensors, &name)?;
    let rows = weights.shape[0];
    if shape[..] != [rows] {
        return Err(problem(format!(
            "`{name}` has the shape {shape:?}; one value for each of the {rows} rows is right"
        )));
    }
    if let Some(row) = values.iter().position(|value| !(0.0..f32::INFINITY).contains(value)) {
        return Err(problem(format!(
            "`{name}` is {} in row {row}: a Fisher information is not below zero",
            values[row]
        )));
    }
    let rows = values.iter().map(|value| f64::from(*value)).collect();
    Ok(Sensitivity { rows, columns: weights.data.len() / weights.shape[0].max(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 2] = [2048, 2];

    fn index() -> CalibrationIndex {
        CalibrationIndex {
            tokens: 64,
            inputs: BTreeMap::from([("w".to_owned(), "x".to_owned())]),
            samples: BTreeMap::from([("x".to_owned(), 64)]),
            tied: BTreeSet::new(),
            inputs_first: BTreeSet::new(),
        }
    }

    fn tensors() -> BTreeMap<String, GatheredTensor> {
        BTreeMap::from([
            ("moments/x".to_owned(), (vec![2, 2], vec![2.0, 0.5, 0.5, 3.0])),
            ("sensitivity/w".to_owned(), (vec![2048], vec![0.25; 2048])),
        ])
    }

    fn gathered(
        index: &CalibrationIndex,
        tensors: &BTreeMap<String, GatheredTensor>,
    ) -> Result<Calibration, CompressError> {
        let data = vec![0.1; SHAPE[0] * SHAPE[1]];
        Calibration::gathered(index, tensors, &[Weights { name: "w", shape: &SHAPE, data: &data }])
    }

    #[test]
    fn moments_and_sensitivities_are_those_of_the_tensors() {
        let calibration = gathered(&index(), &tensors()).unwrap();
        let covariance = &calibration.covariances["w"];
        assert_eq!((covariance.width(), covariance.samples()), (2, 64));
        assert_eq!([(0, 0), (1, 0), (1, 1)].map(|(i, j)| covariance.moment(i, j)), [2.0, 0.5, 3.0]);
        let expected = Sensitivity { rows: vec![0.25; 2048], columns: 2 };
        assert_eq!(calibration.sensitivities["w"], expected);
        assert_eq!(calibration.tokens, 64);
    }

    #[test]
    fn an_embedding_that_is_the_head_is_read_row_by_row_too() {
        let tied = CalibrationIndex { tied: BTreeSet::from(["w".to_owned()]), ..index() };
        let covariance = gathered(&tied, &tensors()).unwrap().covariances["w"].clone();
        let plain = gathered(&index(), &tensors()).unwrap().covariances["w"].clone();
        assert_eq!(covariance, plain.identity_plus(TIED_HEAD_WEIGHT).unwrap());
        assert_ne!(covariance, plain);
    }

    #[test]
    fn a_matrix_that_was_shown_nothing_but_zeros_has_no_moments() {
        let mut tensors = tensors();
        tensors.insert("moments/x".to_owned(), (vec![2, 2], vec![0.0; 4]));
        assert!(gathered(&index(), &tensors).unwrap().covariances.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let message =
            |change: &dyn Fn(&mut CalibrationIndex, &mut BTreeMap<String, GatheredTensor>)| {
                let (mut index, mut tensors) = (index(), tensors());
                change(&mut index, &mut tensors);
                gathered(&index, &tensors).unwrap_err().to_string()
            };
        let missing = message(&|_, tensors| drop(tensors.remove("moments/x")));
        assert!(missing.contains("no tensor `moments/x`"), "{missing}");
        let missing = message(&|_, tensors| drop(tensors.remove("sensitivity/w")));
        assert!(missing.contains("no tensor `sensitivity/w`"), "{missing}");
        let wide = message(&|_, tensors| {
            tensors.insert("moments/x".to_owned(), (vec![3, 3], vec![1.0; 9]));
        });
        assert!(wide.contains("of 3 inputs, and `w` has 2"), "{wide}");
        let flat = message(&|_, tensors| tensors.get_mut("moments/x").unwrap().0 = vec![4]);
        assert!(flat.contains("[4], which is not square"), "{flat}");
        let cut = message(&|_, tensors| tensors.get_mut("moments/x").unwrap().1.truncate(3));
        assert!(cut.contains("3 values for the shape [2, 2]"), "{cut}");
        let none = message(&|index, _| index.samples.clear());
        assert!(none.contains("the mean of no samples"), "{none}");
        let nan = message(&|_, tensors| tensors.get_mut("moments/x").unwrap().1[0] = f32::NAN);
        assert!(nan.contains("`moments/x`") && nan.contains("NaN"), "{nan}");
        let negative = message(&|_, tensors| tensors.get_mut("sensitivity/w").unwrap().1[7] = -1.0);
        assert!(negative.contains("is -1 in row 7"), "{negative}");
        let rows = message(&|_, tensors| {
            tensors.insert("sensitivity/w".to_owned(), (vec![1], vec![1.0]));
        });
        assert!(rows.contains("each of the 2048 rows"), "{rows}");
        let other = message(&|index, _| drop(index.inputs.insert("v".to_owned(), "x".to_owned())));
        assert!(other.contains("knows `v`"), "{other}");
        let other = message(&|index, _| index.tied.extend(["v".to_owned()]));
        assert!(other.contains("knows `v`"), "{other}");
    }
}
