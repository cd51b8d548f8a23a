//! Where a forward pass shows the inputs of its linear layers.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
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

    /// A tap that knows the weights of `network` by name.
    pub(super) fn open(network: &impl Module, observer: &'a mut InputObserver<'a>) -> Self {
        let mut names = Names::default();
        network.visit(&mut names);
        Self(Some(Observation { names: names.found, observer }))
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

/// Collects the names of all parameters by their identity.
#[derive(Default)]
struct Names {
    path: Vec<String>,
    found: HashMap<ParamId, String>,
}

impl ModuleVisitor for Names {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.insert(param.id, self.path.join("."));
    }
}
