//! Output matrix, soft cap and cross-entropy in one operation, without all logits in memory.
//!
//! Rows are taken in blocks: logits of the block, their loss and at once their gradient in the same memory,
//! then what the gradient contributes to both factors of the product. Of a teacher too there are only the logits of a block. The gradients of the mean are thus
//! known when its value is, and the backward pass only multiplies them by the gradient of the mean (as in
//! Liger Kernel, Hsu et al., arXiv 2410.10989).

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use rayon::prelude::*;

use super::buffer::{contiguous, dimensions, rows_per_task, tensor, update, values};
use super::linear::view;
use super::matrix::MatrixView;
use super::product::product;
use super::simd::{LANES, exp, largest, tanh, total, vectorised};
use crate::Precision;
use crate::network::SoftTargets;

/// Logits that exist at the same time, about.
const BLOCK: usize = 1 << 20;

/// The training loss as one operation.
#[backend_extension(Autodiff, Flex)]
pub(in crate::network) trait MeanCrossEntropy: Backend {
    /// As [`composed::mean_loss`](crate::network::operations::composed::mean_loss).
    fn mean_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: Vec<u16>,
        soft: Option<SoftTargets>,
        cap: Option<f32>,
        precision: Precision,
    ) -> FloatTensor<Self>;
}

/// The losses of an evaluation as one operation, without gradient.
#[backend_extension(Flex)]
pub(in crate::network) trait CrossEntropies: Backend {
    /// As [`composed::token_losses`](crate::network::operations::composed::token_losses).
    fn cross_entropies(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: Vec<u16>,
        cap: Option<f32>,
    ) -> FloatTensor<Self>;
}

impl MeanCrossEntropy for Flex {
    fn mean_cross_entropy(
        hidden: FlexTensor,
        head: FlexTensor,
        targets: Vec<u16>,
        soft: Option<SoftTargets>,
        cap: Option<f32>,
        precision: Precision,
    ) -> FlexTensor {
        untracked(&contiguous(hidden), &contiguous(head), &targets, soft.as_ref(), cap, precision)
    }
}

impl CrossEntropies for Flex {
    fn cross_entropies(
        hidden: FlexTensor,
        head: FlexTensor,
        targets: Vec<u16>,
        cap: Option<f32>,
    ) -> FlexTensor {
        let losses = losses(&contiguous(hidden), &contiguous(head), &targets, cap);
        tensor(losses, [targets.len()])
    }
}

#[derive(Debug)]
struct Step;

impl Backward<Flex, 2> for Step {
    /// Gradients of the mean for hidden states and head.
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let of_mean = contiguous(gradients.consume::<Flex>(&ops.node));
        let factor = values(&of_mean)[0];
        for (node, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, scaled(gradient, factor));
            }
        }
    }
}

impl<C: CheckpointStrategy> MeanCrossEntropy for Autodiff<Flex, C> {
    fn mean_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: Vec<u16>,
        soft: Option<SoftTargets>,
        cap: Option<f32>,
        precision: Precision,
    ) -> FloatTensor<Self> {
        let nodes = [hidden.node(), head.node()];
        let hidden = contiguous(hidden.into_primitive());
        let head = contiguous(head.into_primitive());
        match Step.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(preparation) => {
                let (losses, gradients) =
                    with_gradients(&hidden, &head, &targets, soft.as_ref(), cap, precision);
                preparation.finish(gradients, mean(&losses))
            }
            OpsKind::UnTracked(preparation) => {
                let soft = soft.as_ref();
                preparation.finish(untracked(&hidden, &head, &targets, soft, cap, precision))
            }
        }
    }
}

/// The mean loss where nobody asks for its gradient.
fn untracked(
    hidden: &FlexTensor,
    head: &FlexTensor,
    targets: &[u16],
    soft: Option<&SoftTargets>,
    cap: Option<f32>,
    precision: Precision,
) -> FlexTensor {
    match soft {
        None => mean(&losses(hidden, head, targets, cap)),
        Some(_) => mean(&with_gradients(hidden, head, targets, soft, cap, precision).0),
    }
}

fn mean(losses: &[f32]) -> FlexTensor {
    let sum: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
    tensor(vec![(sum / losses.len() as f64) as f32], [1])
}

fn scaled(x: FlexTensor, factor: f32) -> FlexTensor {
    if factor == 1.0 {
        return x;
    }
    update(x, |x| x.par_iter_mut().for_each(|x| *x *= factor))
}

/// The rows `start..start + count`, and which they are.
fn blocks(hidden: &FlexTensor, vocabulary: usize) -> impl Iterator<Item = (usize, FlexTensor)> {
    let [count, _] = dimensions(hidden);
    let rows = (BLOCK / vocabulary).max(1);
    (0..count).step_by(rows).map(move |start| {
        let layout = hidden.layout().narrow(0, start, rows.min(count - start));
        (start, hidden.clone().with_layout(layout))
    })
}

/// Logits, targets and losses of the rows of a block, cut for the threads.
fn tasks<'a>(
    logits: &'a mut [f32],
    targets: &'a [u16],
    losses: &'a mut [f32],
) -> impl IndexedParallelIterator<Item = ((&'a mut [f32], &'a [u16]), &'a mut [f32])> {
    let vocabulary = logits.len() / targets.len();
    let rows = rows_per_task(vocabulary);
    let logits = logits.par_chunks_mut(rows * vocabulary);
    logits.zip(targets.par_chunks(rows)).zip(losses.par_chunks_mut(rows))
}

/// One value per row.
fn losses(hidden: &FlexTensor, head: &FlexTensor, targets: &[u16], cap: Option<f32>) -> Vec<f32> {
    let [vocabulary, _] = dimensions(head);
    let mut losses = vec![0.0; targets.len()];
    for (start, hidden) in blocks(hidden, vocabulary) {
        let logits = multiply(Precision::Fp32, view(&hidden), view(head).transposed());
        let [count, _] = dimensions(&logits);
        let (targets, losses) = (&targets[start..][..count], &mut losses[start..][..count]);
        update(logits, |logits| {
            tasks(logits, targets, losses)
                .for_each(|((logits, targets), losses)| evaluate(logits, targets, losses, cap));
        });
    }
    losses
}

/// One value per row, and the gradients of their mean.
fn with_gradients(
    hidden: &FlexTensor,
    head: &FlexTensor,
    targets: &[u16],
    soft: Option<&SoftTargets>,
    cap: Option<f32>,
    precision: Precision,
) -> (Vec<f32>, [FlexTensor; 2]) {
    let [vocabulary, width] = dimensions(head);
    let mut losses = vec![0.0; targets.len()];
    let mut hidden_gradient = Vec::with_capacity(targets.len() * width);
    let mut head_gradient: Option<FlexTensor> = None;
    let share = 1.0 / targets.len() as f32;
    for (start, hidden) in blocks(hidden, vocabulary) {
        let logits = multiply(precision, view(&hidden), view(head).transposed());
        let [count, _] = dimensions(&logits);
        let (targets, losses) = (&targets[start..][..count], &mut losses[start..][..count]);
        let gradient = update(logits, |logits| {
            let tasks = tasks(logits, targets, losses);
            let Some(soft) = soft else {
                return tasks.for_each(|((logits, targets), losses)| {
                    differentiate(logits, targets, losses, cap, share);
                });
            };
            let hidden = &soft.hidden[start * soft.width..][..count * soft.width];
            let head = MatrixView::new(&soft.head, soft.width).transposed();
            let mut teacher = product(precision, MatrixView::new(hidden, soft.width), head);
            let teacher = teacher.par_chunks_mut(rows_per_task(vocabulary) * vocabulary);
            tasks.zip(teacher).for_each(|(((logits, targets), losses), teacher)| {
                distil(logits, teacher, targets, losses, cap, share, soft.share);
            });
        });
        let of_hidden = product(precision, view(&gradient), view(head));
        let of_head = multiply(precision, view(&gradient).transposed(), view(&hidden));
        hidden_gradient.extend_from_slice(&of_hidden);
        head_gradient = Some(match head_gradient {
            Some(sum) => Flex::float_add(sum, of_head),
            None => of_head,
        });
    }
    let head_gradient =
        head_gradient.unwrap_or_else(|| tensor(vec![0.0; vocabulary * width], [vocabulary, width]));
    (losses, [tensor(hidden_gradient, [targets.len(), width]), head_gradient])
}

fn multiply(precision: Precision, left: MatrixView<'_>, right: MatrixView<'_>) -> FlexTensor {
    let shape = [left.rows(), right.columns()];
    tensor(product(precision, left, right), shape)
}

/// x ← cap·tanh(x / cap), or nothing where there is no cap.
#[inline(always)]
fn soft_cap<const FMA: bool>(x: &mut [f32], cap: Option<f32>) {
    let Some(cap) = cap else { return };
    let inverse = 1.0 / cap;
    for x in x {
        *x = cap * tanh::<FMA>(inverse * *x);
    }
}

/// ln Σ eˣ.
#[inline(always)]
fn log_sum<const FMA: bool>(x: &[f32]) -> f32 {
    let top = largest(x);
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += exp::<FMA>(chunk[i] - top);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += exp::<FMA>(x - top);
    }
    top + total(lanes).ln()
}

vectorised! {
    /// Rows of raw logits to their losses.
    fn evaluate(logits: &mut [f32], targets: &[u16], losses: &mut [f32], cap: Option<f32>) = evaluate_kernel
}

#[inline(always)]
fn evaluate_kernel<const FMA: bool>(
    logits: &mut [f32],
    targets: &[u16],
    losses: &mut [f32],
    cap: Option<f32>,
) {
    let vocabulary = logits.len() / targets.len();
    let rows = logits.chunks_exact_mut(vocabulary).zip(targets).zip(losses);
    for ((logits, target), loss) in rows {
        soft_cap::<FMA>(logits, cap);
        *loss = log_sum::<FMA>(logits) - logits[usize::from(*target)];
    }
}

vectorised! {
    /// Rows of raw logits to their losses and, in place, to the gradient of `share` times each loss:
    /// share·(softmax(z) − onehot(target))·(1 − (z / cap)²) with z the capped logits; 1 / cap is 0 where there is no cap.
    fn differentiate(logits: &mut [f32], targets: &[u16], losses: &mut [f32], cap: Option<f32>, share: f32) = differentiate_kernel
}

#[inline(always)]
fn differentiate_kernel<const FMA: bool>(
    logits: &mut [f32],
    targets: &[u16],
    losses: &mut [f32],
    cap: Option<f32>,
    share: f32,
) {
    let vocabulary = logits.len() / targets.len();
    let inverse = cap.map_or(0.0, |cap| 1.0 / cap);
    let slope = |z: f32| 1.0 - (inverse * z) * (inverse * z);
    let rows = logits.chunks_exact_mut(vocabulary).zip(targets).zip(losses);
    for ((logits, target), loss) in rows {
        let target = usize::from(*target);
        soft_cap::<FMA>(logits, cap);
        let log_sum = log_sum::<FMA>(logits);
        let wanted = logits[target];
        *loss = log_sum - wanted;
        for z in logits.iter_mut() {
            *z = share * exp::<FMA>(*z - log_sum) * slope(*z);
        }
        logits[target] -= share * slope(wanted);
    }
}

vectorised! {
    /// As [`differentiate`], of the loss with soft targets: share·(softmax(z) − (1 − s)·onehot(target) − s·p)·(1 − (z / cap)²)
    /// with p the softmax of the teacher's logits, which are overwritten.
    fn distil(logits: &mut [f32], teacher: &mut [f32], targets: &[u16], losses: &mut [f32], cap: Option<f32>, share: f32, soft: f32) = distil_kernel
}

#[inline(always)]
fn distil_kernel<const FMA: bool>(
    logits: &mut [f32],
    teacher: &mut [f32],
    targets: &[u16],
    losses: &mut [f32],
    cap: Option<f32>,
    share: f32,
    soft: f32,
) {
    let vocabulary = logits.len() / targets.len();
    let inverse = cap.map_or(0.0, |cap| 1.0 / cap);
    let slope = |z: f32| 1.0 - (inverse * z) * (inverse * z);
    let rows = logits.chunks_exact_mut(vocabulary).zip(teacher.chunks_exact_mut(vocabulary));
    for ((logits, teacher), (target, loss)) in rows.zip(targets.iter().zip(losses)) {
        let target = usize::from(*target);
        soft_cap::<FMA>(teacher, cap);
        let teachers_log_sum = log_sum::<FMA>(teacher);
        for p in teacher.iter_mut() {
            *p = exp::<FMA>(*p - teachers_log_sum);
        }
        soft_cap::<FMA>(logits, cap);
        let log_sum = log_sum::<FMA>(logits);
        let wanted = logits[target];
        *loss = log_sum - (1.0 - soft) * wanted - soft * inner_product(teacher, logits);
        for (z, p) in logits.iter_mut().zip(&*teacher) {
            *z = share * (exp::<FMA>(*z - log_sum) - soft * p) * slope(*z);
        }
        logits[target] -= share * (1.0 - soft) * slope(wanted);
    }
}

/// Σ p·z.
#[inline(always)]
fn inner_product(p: &[f32], z: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((p_chunks, p_rest), (z_chunks, z_rest)) = (p.as_chunks::<LANES>(), z.as_chunks::<LANES>());
    for (p, z) in p_chunks.iter().zip(z_chunks) {
        for i in 0..LANES {
            lanes[i] += p[i] * z[i];
        }
    }
    for (lane, (p, z)) in lanes.iter_mut().zip(p_rest.iter().zip(z_rest)) {
        *lane += p * z;
    }
    total(lanes)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use crate::Precision;
    use crate::network::SoftTargets;
    use crate::network::fused::check::{assert_close, random, run, with_threads};
    use crate::network::operations::{composed, mean_loss, token_losses};

    fn targets(count: usize, vocabulary: usize) -> Vec<u16> {
        (0..count).map(|i| (i * 37 % vocabulary) as u16).collect()
    }

    #[test]
    fn values_and_gradients_are_those_of_the_definition() {
        // The last size takes more than one block.
        for [count, vocabulary, width] in [[1, 1, 2], [3, 11, 16], [50, 300, 24], [70, 30_000, 8]] {
            let targets = targets(count, vocabulary);
            for (cap, factor) in [(Some(2.0), 1.0), (Some(30.0), -3.5), (None, 1.0)] {
                let results = [mean_loss, composed::mean_loss].map(|loss| {
                    run(&[[count, width], [vocabulary, width]], |mut x| {
                        let head = x.remove(1);
                        loss(x.remove(0), head, &targets, None, cap, Precision::Fp32) * factor
                    })
                });
                assert_close(
                    &results[0],
                    &results[1],
                    2e-6,
                    &format!("{count} {vocabulary} {cap:?}"),
                );
                // Gradients of a mean are small: compare them at their own size too.
                let large = |x: &Vec<Vec<f32>>| {
                    x[1..].iter().map(|x| x.iter().map(|x| x * count as f32).collect()).collect()
                };
                let (fused, expected): (Vec<_>, Vec<_>) = (large(&results[0]), large(&results[1]));
                assert_close(&fused, &expected, 1e-5, "gradients");
            }
        }
    }

    /// A teacher of another width.
    fn soft_targets(count: usize, vocabulary: usize, width: usize, share: f32) -> SoftTargets {
        SoftTargets {
            hidden: random(count * width, 3).into(),
            head: random(vocabulary * width, 4).into(),
            width,
            share,
        }
    }

    #[test]
    fn with_soft_targets_values_and_gradients_are_those_of_the_definition() {
        for [count, vocabulary, width] in [[3, 11, 16], [50, 300, 24], [70, 30_000, 8]] {
            let targets = targets(count, vocabulary);
            for (cap, share) in [(Some(2.0), 0.3), (None, 1.0), (Some(30.0), 0.0)] {
                let soft = soft_targets(count, vocabulary, width + 2, share);
                let [fused, expected] = [mean_loss, composed::mean_loss].map(|loss| {
                    run(&[[count, width], [vocabulary, width]], |mut x| {
                        let head = x.remove(1);
                        let soft = Some(&soft);
                        loss(x.remove(0), head, &targets, soft, cap, Precision::Fp32) * count as f32
                    })
                });
                let name = format!("{count} {vocabulary} {cap:?} {share}");
                assert_close(&fused, &expected, 1e-5, &name);
            }
        }
    }

    #[test]
    fn in_bf16_values_and_gradients_are_near_those_in_f32() {
        // The second takes more than one block.
        for [count, vocabulary, width] in [[50, 300, 24], [70, 30_000, 8]] {
            let targets = targets(count, vocabulary);
            let [rounded, exact] = [Precision::Bf16, Precision::Fp32].map(|precision| {
                run(&[[count, width], [vocabulary, width]], |mut x| {
                    let head = x.remove(1);
                    mean_loss(x.remove(0), head, &targets, None, Some(30.0), precision)
                        * count as f32
                })
            });
            assert_close(&rounded, &exact, 0.01, &format!("{count} {vocabulary}"));
            assert_ne!(rounded, exact);
        }
    }

    #[test]
    fn losses_without_gradient_are_those_of_the_definition() {
        let (count, vocabulary, width) = (200, 6_000, 12);
        let tensor = |rows: usize, seed| {
            let data = TensorData::new(random(rows * width, seed), [rows, width]);
            Tensor::<2>::from_data(data, &Device::flex())
        };
        let targets = targets(count, vocabulary);
        let [fused, expected] = [token_losses, composed::token_losses].map(|losses| {
            let found = losses(tensor(count, 1), tensor(vocabulary, 2), &targets, Some(15.0));
            vec![found.into_data().try_into_vec::<f32>().unwrap()]
        });
        assert_close(&fused, &expected, 1e-6, "losses");
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let targets = targets(300, 500);
        let loss = || {
            run(&[[300, 64], [500, 64]], |mut x| {
                let head = x.remove(1);
                mean_loss(x.remove(0), head, &targets, None, Some(30.0), Precision::Fp32)
            })
        };
        assert_eq!(with_threads(1, loss), with_threads(2, loss));
    }
}
