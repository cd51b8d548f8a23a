//! From named weights to a network on a device and, for gradients, back.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};

use crate::{ModelConfig, ModelError, NamedWeights, Transformer};

/// The device that networks live on: the CPU.
pub fn device() -> Device {
    Device::flex()
}

/// Gradients of one loss, one slice per tensor.
///
/// The values stand in the order of [`NamedWeights::tensors`], each as long as its tensor.
pub struct Gradients {
    /// Gradient of each tensor, row-major.
    pub values: Vec<Vec<f32>>,
}

impl Transformer {
    /// The network of a configuration with the given weights.
    ///
    /// On a device with automatic differentiation every weight takes a gradient.
    ///
    /// # Errors
    /// If the configuration is not valid, or a weight is missing, unknown, or of another shape.
    pub fn from_weights(
        config: &ModelConfig,
        weights: &NamedWeights,
        device: &Device,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        check_layout(config, weights)?;
        let mut bind = Bind { path: Vec::new(), weights, device };
        Ok(Self::skeleton(config, device).map(&mut bind))
    }

    /// Runs the loss backwards and takes the gradients of all weights off the device.
    ///
    /// `weights` gives the order; the network must have been made from them, on a device with automatic
    /// differentiation. A weight the loss does not depend on has a gradient of zeros.
    pub fn gradients(&self, loss: &Tensor<1>, weights: &NamedWeights) -> Gradients {
        let mut collect = Collect {
            path: Vec::new(),
            gradients: loss.backward(),
            weights,
            values: weights.tensors().iter().map(|_| Vec::new()).collect(),
        };
        self.visit(&mut collect);
        Gradients { values: collect.values }
    }

    /// Gradients of Σ ⟨h_p, d_p⟩ over positions p: h_p are the [hidden](Transformer::hidden) states, and
    /// d_p the rows of `directions`, `[tokens.len(), width]` row-major. A position with d_p = 0 takes no
    /// part.
    ///
    /// # Panics
    /// As [`Transformer::hidden`]; and if `directions` is not one row per token.
    pub fn hidden_gradients(
        &self,
        tokens: &[u16],
        row: usize,
        directions: &[f32],
        weights: &NamedWeights,
    ) -> Gradients {
        let hidden = self.hidden(tokens, row);
        assert_eq!(directions.len(), hidden.shape().num_elements(), "one direction per token");
        let directions = TensorData::new(directions.to_vec(), hidden.dims());
        let directions = Tensor::from_data(directions, &hidden.device());
        self.gradients(&(hidden * directions).sum(), weights)
    }
}

/// Compares names and shapes with what the configuration asks for.
fn check_layout(config: &ModelConfig, weights: &NamedWeights) -> Result<(), ModelError> {
    let layout = Transformer::layout(config);
    for (name, expected) in &layout {
        let tensor =
            weights.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.clone() })?;
        if tensor.shape != *expected {
            return Err(ModelError::Shape {
                name: name.clone(),
                found: tensor.shape.clone(),
                expected: expected.clone(),
            });
        }
    }
    let known = |name: &str| layout.iter().any(|(expected, _)| expected == name);
    match weights.tensors().iter().find(|tensor| !known(&tensor.name)) {
        Some(tensor) => Err(ModelError::UnknownTensor { name: tensor.name.clone() }),
        None => Ok(()),
    }
}

/// Puts host weights into the parameters of the same path.
struct Bind<'a> {
    path: Vec<String>,
    weights: &'a NamedWeights,
    device: &'a Device,
}

impl ModuleMapper for Bind<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        let tensor = self.weights.get(&name).expect("the layout has been checked");
        let data = TensorData::new(tensor.data.clone(), tensor.shape.clone());
        let value = Tensor::from_data(data, self.device);
        let value = if self.device.is_autodiff() { value.require_grad() } else { value };
        Param::initialized(param.id, value)
    }
}

/// Takes the gradients of the parameters of the same path.
struct Collect<'a> {
    path: Vec<String>,
    gradients: burn::tensor::Gradients,
    weights: &'a NamedWeights,
    values: Vec<Vec<f32>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let at = self.weights.position(&name).expect("the network was made from these weights");
        self.values[at] = match param.val().grad_remove(&mut self.gradients) {
            Some(gradient) => gradient.into_data().try_into_vec().expect("gradients are f32"),
            None => vec![0.0; self.weights.tensors()[at].data.len()],
        };
    }
}
