//! From named weights to a network on a device and, for gradients, back.

use std::collections::HashSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};

use crate::network::path::{Layout, Path};
use crate::{ModelError, NamedWeights, Transformer};

/// Gradients of one loss, one slice per tensor.
///
/// The values stand in the order of [`NamedWeights::tensors`], each as long as its tensor.
pub struct Gradients {
    /// Gradient of each tensor, row-major.
    pub values: Vec<Vec<f32>>,
}

impl Transformer {
    /// Runs the loss backwards and takes the gradients of all weights off the device.
    ///
    /// `weights` gives the order; the network must have been made from them, on a device with automatic
    /// differentiation. A weight the loss does not depend on has a gradient of zeros.
    pub fn gradients(&self, loss: &Tensor<1>, weights: &NamedWeights) -> Gradients {
        gradients(loss, weights, |collect| self.visit(collect))
    }

    /// Gradients of Σ ⟨h_p, d_p⟩ over predictions p: h_p are the [hidden](Transformer::hidden) states, and
    /// d_p the rows of `directions`, `[predictions, width]` row-major. A position with d_p = 0 takes no
    /// part.
    ///
    /// # Panics
    /// As [`Transformer::hidden`]; and if `directions` is not one row per prediction.
    pub fn hidden_gradients(
        &self,
        tokens: &[u16],
        row: usize,
        directions: &[f32],
        weights: &NamedWeights,
    ) -> Gradients {
        let hidden = self.hidden(tokens, row);
        assert_eq!(directions.len(), hidden.shape().num_elements(), "one direction per prediction");
        let directions = TensorData::new(directions.to_vec(), hidden.dims());
        let directions = Tensor::from_data(directions, &hidden.device());
        self.gradients(&(hidden * directions).sum(), weights)
    }
}

/// A network with all weights at zero, given the weights of the same names.
///
/// # Errors
/// If a weight is missing, unknown, or of another shape.
pub(crate) fn bound<M: Module>(
    skeleton: M,
    weights: &NamedWeights,
    device: &Device,
) -> Result<M, ModelError> {
    let mut layout = Layout::default();
    skeleton.visit(&mut layout);
    check_layout(&layout.found, weights)?;
    Ok(skeleton.map(&mut Bind { path: Path::default(), weights, device }))
}

/// Compares names and shapes with what the configuration asks for.
pub(crate) fn check_layout(
    layout: &[(String, Vec<usize>)],
    weights: &NamedWeights,
) -> Result<(), ModelError> {
    for (name, expected) in layout {
        let tensor = weights.get(name).ok_or_else(|| ModelError::MissingTensor {
            name: name.clone(),
            expected: expected.clone(),
        })?;
        if tensor.shape != *expected {
            return Err(ModelError::Shape {
                name: name.clone(),
                found: tensor.shape.clone(),
                expected: expected.clone(),
            });
        }
    }
    let known: HashSet<&str> = layout.iter().map(|(name, _)| name.as_str()).collect();
    match weights.tensors().iter().find(|tensor| !known.contains(tensor.name.as_str())) {
        Some(tensor) => Err(ModelError::UnknownTensor { name: tensor.name.clone() }),
        None => Ok(()),
    }
}

/// Gradients of a loss for the parameters that `visit` shows.
pub(crate) fn gradients(
    loss: &Tensor<1>,
    weights: &NamedWeights,
    visit: impl FnOnce(&mut Collect<'_>),
) -> Gradients {
    let mut collect = Collect {
        path: Path::default(),
        gradients: loss.backward(),
        weights,
        values: weights.tensors().iter().map(|_| Vec::new()).collect(),
    };
    visit(&mut collect);
    Gradients { values: collect.values }
}

/// Puts host weights into the parameters of the same path.
struct Bind<'a> {
    path: Path,
    weights: &'a NamedWeights,
    device: &'a Device,
}

impl ModuleMapper for Bind<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let tensor = self.weights.get(&name).expect("the layout has been checked");
        let data = TensorData::new(tensor.data.clone(), tensor.shape.clone());
        let value = Tensor::from_data(data, self.device);
        let value = if self.device.is_autodiff() { value.require_grad() } else { value };
        Param::initialized(param.id, value)
    }
}

/// Takes the gradients of the parameters of the same path.
pub(crate) struct Collect<'a> {
    path: Path,
    gradients: burn::tensor::Gradients,
    weights: &'a NamedWeights,
    values: Vec<Vec<f32>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        let at = self.weights.position(&name).expect("the network was made from these weights");
        self.values[at] = match param.val().grad_remove(&mut self.gradients) {
            Some(gradient) => gradient.into_data().try_into_vec().expect("gradients are f32"),
            None => vec![0.0; self.weights.tensors()[at].data.len()],
        };
    }
}
