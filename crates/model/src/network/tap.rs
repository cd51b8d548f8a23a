//! Where a forward pass shows the inputs of its linear layers.

use std::collections::HashMap;

use burn::module::{Param, ParamId};
use burn::tensor::Tensor;

/// Receives the names of the matrices that read one input, that input row-major, and its channels.
pub type InputObserver<'a> = dyn FnMut(&[&str], &[f32], usize) + 'a;

/// Hands inputs to an observer, if there is one; otherwise costs nothing.
pub(super) struct Tap<'a>(Option<Observation<'a>>);

struct Observation<'a> {
    names: HashMap<ParamId, String>,
    observer: &'a mut InputObserver<'a>,
}

impl<'a> Tap<'a> {
    /// A tap that nobody observes.
    pub(super) fn closed() -> Self {
        Self(None)
    }

    /// A tap of a network whose weights have these names.
    pub(super) fn open(
        names: HashMap<ParamId, String>,
        observer: &'a mut InputObserver<'a>,
    ) -> Self {
        Self(Some(Observation { names, observer }))
    }

    /// Shows `x`, `[positions, inputs]`, which is about to be multiplied by each of these matrices.
    pub(super) fn show(&mut self, matrices: &[&Param<Tensor<2>>], x: &Tensor<2>) {
        let Some(Observation { names, observer }) = &mut self.0 else { return };
        let names: Vec<&str> = matrices.iter().map(|matrix| names[&matrix.id].as_str()).collect();
        let [_, inputs] = x.dims();
        let values = x.to_data().try_into_vec::<f32>().expect("activations are f32");
        observer(&names, &values, inputs);
    }
}
