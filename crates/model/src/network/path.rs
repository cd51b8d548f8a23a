//! The names of parameters: the fields of the modules that lead to them.

use std::collections::HashMap;

use burn::module::{ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

/// Where a walk through a module stands.
#[derive(Default)]
pub(crate) struct Path(Vec<String>);

impl Path {
    /// Steps into a field. Checkpoints have names that a Rust field cannot have; they are given here.
    pub(crate) fn enter(&mut self, field: &str) {
        let part = match field {
            "self_attention" => "self",
            "layer_norm" => "LayerNorm",
            _ => field,
        };
        self.0.push(part.to_owned());
    }

    /// Steps out of the last field.
    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    /// The name of the parameter that stands here.
    pub(crate) fn name(&self) -> String {
        self.0.join(".")
    }
}

/// Collects names and shapes without allocating any weight.
#[derive(Default)]
pub(crate) struct Layout {
    path: Path,
    /// In the order of the network.
    pub(crate) found: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Layout {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.lazy_shape();
        self.found.push((self.path.name(), shape.iter().copied().collect()));
    }
}

/// Collects the names of all parameters by their identity.
#[derive(Default)]
pub(crate) struct Names {
    path: Path,
    pub(crate) found: HashMap<ParamId, String>,
}

impl ModuleVisitor for Names {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.insert(param.id, self.path.name());
    }
}
