//! Quantising a tensor that is read in pieces and never whole in memory.

use backslash_codec::QuantizedTensor;
use backslash_rate::Moments;

use crate::plan::relative_step;
use crate::uniform::Excess;
use crate::{QuantError, quantize};

/// What [`Plan::relative`](crate::Plan::relative), scaled by `factor`, makes of a tensor, from two passes over
/// its pieces: the codes are all that is kept.
///
/// `pieces` gives all weights, row-major, to the function that it is called with; it is called twice, first
/// for the root mean square that the step is `factor` times, then for the codes.
///
/// ```
/// let weights: Vec<f32> = (0..64 * 64).map(|at| if at % 3 == 0 { -2.0 } else { 2.0 }).collect();
/// let pieces = |sink: &mut dyn FnMut(&[f32]) -> Result<(), backslash_quant::QuantError>| {
///     weights.chunks(1000).try_for_each(sink)
/// };
/// let tensor = backslash_quant::quantize_pieces("w", &[64, 64], 0.5, pieces)?;
/// assert_eq!((tensor.step, tensor.codes[0]), (1.0, -2));
/// # Ok::<(), backslash_quant::QuantError>(())
/// ```
///
/// # Errors
/// Those of [`quantize`](crate::quantize), and of `pieces`.
pub fn quantize_pieces<E: From<QuantError>>(
    name: &str,
    shape: &[usize],
    factor: f32,
    mut pieces: impl FnMut(&mut dyn FnMut(&[f32]) -> Result<(), E>) -> Result<(), E>,
) -> Result<QuantizedTensor, E> {
    let mut moments = Moments::default();
    pieces(&mut |weights| {
        moments.extend(weights);
        Ok(())
    })?;
    let step = factor * relative_step(&moments, 1.0);
    let mut excess = Excess::default();
    // An empty tensor gets its checks, too.
    let mut tensor = quantize(name, &[0], &[], step)?;
    tensor.codes.reserve_exact(shape.iter().product());
    pieces(&mut |weights| {
        let done = tensor.codes.len();
        let piece = quantize(name, &[weights.len()], weights, step);
        let piece = piece.map_err(|error| error.at_position(done))?;
        excess.extend(&piece.codes, weights, 1.0 / step);
        tensor.codes.extend(piece.codes);
        Ok(())
    })?;
    tensor.shape = shape.to_vec();
    tensor.reconstruction = excess.best_shrink();
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Plan, Weights};
    use backslash_codec::Tensor;
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};
    use std::collections::BTreeMap;

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let mut random = rand_pcg::Pcg64::seed_from_u64(4);
        let data: Vec<f32> = StandardNormal.sample_iter(&mut random).take(100 * 77).collect();
        let weights = [Weights { name: "w", shape: &[100, 77], data: &data }];
        for (factor, length) in [(0.5, 1), (0.7, 1000), (3.0, 10_000)] {
            let plan = Plan::relative(&weights, 1.0).scaled(factor);
            let whole = plan.artifact(&weights, &BTreeMap::new()).unwrap();
            let pieces = quantize_pieces::<QuantError>("w", &[100, 77], factor, |sink| {
                data.chunks(length).try_for_each(sink)
            });
            assert_eq!(whole.tensors["w"], Tensor::Quantized(pieces.unwrap()));
        }
    }

    #[test]
    fn positions_are_those_in_the_whole() {
        let mut data = vec![1.0_f32; 5000];
        data[4321] = f32::INFINITY;
        let error = quantize_pieces::<QuantError>("w", &[5000], 0.5, |sink| {
            data.chunks(100).try_for_each(sink)
        });
        assert!(error.unwrap_err().to_string().contains("`w` holds inf at index 4321"));
    }
}
