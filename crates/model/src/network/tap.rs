//! Where a forward pass shows the inputs of its linear layers, and takes other matrices for them.

use std::collections::HashMap;

use burn::module::{Param, ParamId};
use burn::tensor::{Tensor, TensorData};

use crate::Precision;

/// Receives the names of the matrices that read one input, that input row-major, and its channels.
pub type InputObserver<'a> = dyn FnMut(&[&str], &[f32], usize) + 'a;

/// As an [`InputObserver`], and returns what these matrices are from here on, in their order: nothing for as they are.
pub type MatrixReplacer<'a> = dyn FnMut(&[&str], &[f32], usize) -> Vec<Vec<f32>> + 'a;

/// Goes with a forward pass: says how exactly matrices multiply, and hands inputs to somebody who asked for them.
pub(super) struct Tap<'a> {
    precision: Precision,
    observation: Option<Observation<'a>>,
}

struct Observation<'a> {
    names: HashMap<ParamId, String>,
    replacer: &'a mut MatrixReplacer<'a>,
    replaced: HashMap<ParamId, Tensor<2>>,
}

impl<'a> Tap<'a> {
    /// A tap that nobody observes.
    pub(super) fn closed(precision: Precision) -> Self {
        Self { precision, observation: None }
    }

    /// A tap of a network whose weights have these names; what is observed is exact.
    pub(super) fn open(
        names: HashMap<ParamId, String>,
        replacer: &'a mut MatrixReplacer<'a>,
    ) -> Self {
        let observation = Some(Observation { names, replacer, replaced: HashMap::new() });
        Self { precision: Precision::Fp32, observation }
    }

    /// How exactly matrices multiply.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// Shows `x`, `[positions, inputs]`, which is about to be multiplied by each of these matrices.
    pub(super) fn show(&mut self, matrices: &[&Param<Tensor<2>>], x: &Tensor<2>) {
        let Some(Observation { names, replacer, replaced }) = &mut self.observation else { return };
        let names: Vec<&str> = matrices.iter().map(|matrix| names[&matrix.id].as_str()).collect();
        let [_, inputs] = x.dims();
        let values = x.to_data().try_into_vec::<f32>().expect("activations are f32");
        for (matrix, values) in matrices.iter().zip(replacer(&names, &values, inputs)) {
            let values = TensorData::new(values, matrix.lazy_shape());
            replaced.insert(matrix.id, Tensor::from_data(values, &x.device()));
        }
    }

    /// What to multiply by: the matrix itself, or the one that stands in for it.
    pub(super) fn matrix(&self, matrix: &Param<Tensor<2>>) -> Tensor<2> {
        let observation = self.observation.as_ref();
        let replaced = observation.and_then(|observation| observation.replaced.get(&matrix.id));
        replaced.cloned().unwrap_or_else(|| matrix.val())
    }
}
