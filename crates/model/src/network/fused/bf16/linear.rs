//! A linear layer as one operation.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};

use super::{MatrixView, product};
use crate::network::fused::buffer::{contiguous, dimensions, tensor, values};

/// y = x·Wᵀ in bf16 as one operation.
#[backend_extension(Autodiff, Flex)]
pub(in crate::network) trait Bf16Linear: Backend {
    /// x is `[n, inputs]`, W `[outputs, inputs]`. The gradients are products of operands rounded to bf16 too.
    fn bf16_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Bf16Linear for Flex {
    fn bf16_linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let [count, _] = dimensions(&x);
        let [outputs, _] = dimensions(&weight);
        tensor(product(view(&x), view(&weight).transposed()), [count, outputs])
    }
}

/// A contiguous matrix.
pub(in crate::network::fused) fn view(x: &FlexTensor) -> MatrixView<'_> {
    let [_, columns] = dimensions(x);
    MatrixView::new(values(x), columns)
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 2> for Step {
    /// Input and matrix.
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
        let [x, weight] = &ops.state;
        let [of_x, of_weight] = ops.parents;
        if let Some(node) = of_x {
            let values = product(view(&gradient), view(weight));
            gradients.register::<Flex>(node.id, tensor(values, x.shape()));
        }
        if let Some(node) = of_weight {
            let values = product(view(&gradient).transposed(), view(x));
            gradients.register::<Flex>(node.id, tensor(values, weight.shape()));
        }
    }
}

impl<C: CheckpointStrategy> Bf16Linear for Autodiff<Flex, C> {
    fn bf16_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (contiguous(x.into_primitive()), contiguous(weight.into_primitive()));
        let output = Flex::bf16_linear(x.clone(), weight.clone());
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish([x, weight], output),
            OpsKind::UnTracked(preparation) => preparation.finish(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use crate::Precision;
    use crate::network::fused::check::{assert_close, run};
    use crate::network::operations::linear;

    #[test]
    fn values_and_gradients_are_near_those_in_f32() {
        for [count, inputs, outputs] in [[1, 1, 1], [50, 40, 70], [100, 64, 33]] {
            let [rounded, expected] = [Precision::Bf16, Precision::Fp32].map(|precision| {
                run(&[[count, inputs], [outputs, inputs]], |mut x: Vec<Tensor<2>>| {
                    let weight = x.remove(1);
                    linear(x.remove(0), weight, precision)
                })
            });
            assert_close(&rounded, &expected, 0.01, &format!("{count} {inputs} {outputs}"));
            assert_ne!(rounded, expected);
        }
    }
}
