//! A linear layer as one operation.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};

use super::buffer::{contiguous, dimensions, tensor, values};
use super::matrix::MatrixView;
use super::product::product;
use crate::Precision;

/// y = x·Wᵀ as one operation.
#[backend_extension(Autodiff, Flex)]
pub(in crate::network) trait LinearProduct: Backend {
    /// x is `[n, inputs]`, W `[outputs, inputs]`. The gradients are products of operands in the same precision.
    fn linear_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;
}

impl LinearProduct for Flex {
    fn linear_product(x: FlexTensor, weight: FlexTensor, precision: Precision) -> FlexTensor {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let [count, _] = dimensions(&x);
        let [outputs, _] = dimensions(&weight);
        tensor(product(precision, view(&x), view(&weight).transposed()), [count, outputs])
    }
}

/// A contiguous matrix.
pub(super) fn view(x: &FlexTensor) -> MatrixView<'_> {
    let [_, columns] = dimensions(x);
    MatrixView::new(values(x), columns)
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 2> for Step {
    /// Input and matrix, and how exactly they are multiplied.
    type State = ([FlexTensor; 2], Precision);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
        let ([x, weight], precision) = &ops.state;
        let [of_x, of_weight] = ops.parents;
        if let Some(node) = of_x {
            let values = product(*precision, view(&gradient), view(weight));
            gradients.register::<Flex>(node.id, tensor(values, x.shape()));
        }
        if let Some(node) = of_weight {
            let values = product(*precision, view(&gradient).transposed(), view(x));
            gradients.register::<Flex>(node.id, tensor(values, weight.shape()));
        }
    }
}

impl<C: CheckpointStrategy> LinearProduct for Autodiff<Flex, C> {
    fn linear_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node()];
        let (x, weight) = (contiguous(x.into_primitive()), contiguous(weight.into_primitive()));
        let output = Flex::linear_product(x.clone(), weight.clone(), precision);
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(preparation) => preparation.finish(([x, weight], precision), output),
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

    const SIZES: [[usize; 3]; 3] = [[1, 1, 1], [50, 40, 70], [100, 64, 33]];

    fn fused(size: [usize; 3], precision: Precision) -> Vec<Vec<f32>> {
        let [count, inputs, outputs] = size;
        run(&[[count, inputs], [outputs, inputs]], |mut x: Vec<Tensor<2>>| {
            let weight = x.remove(1);
            linear(x.remove(0), weight, precision)
        })
    }

    #[test]
    fn it_agrees_with_the_composed_product() {
        for [count, inputs, outputs] in SIZES {
            let composed = run(&[[count, inputs], [outputs, inputs]], |mut x: Vec<Tensor<2>>| {
                let weight = x.remove(1);
                x.remove(0).matmul(weight.transpose())
            });
            let fused = fused([count, inputs, outputs], Precision::Fp32);
            assert_close(&fused, &composed, 1e-5, &format!("{count} {inputs} {outputs}"));
        }
    }

    #[test]
    fn values_and_gradients_in_bf16_are_near_those_in_f32() {
        for size in SIZES {
            let (rounded, expected) = (fused(size, Precision::Bf16), fused(size, Precision::Fp32));
            assert_close(&rounded, &expected, 0.01, &format!("{size:?}"));
            assert_ne!(rounded, expected);
        }
    }
}
