//! Matrices as products of two narrow ones: what a network of low rank could be stored as.

use std::collections::{BTreeMap, BTreeSet};

use backslash_codec::{Artifact, Limits, QuantizedTensor, Tensor, decode, encode};
use backslash_compress::Calibration;
use backslash_model::{NamedTensor, NamedWeights};
use backslash_quant::{
    Covariance, LadderOptions, LowRank, Weights, is_coded, low_rank_correction,
    quantize_to_centroids, store_uncoded,
};
use backslash_rate::Moments;

use super::exporters::largest_that_fits;
use super::subject::Made;
use crate::{EvalError, views};

/// Step of the matrices that are not factored, in units of their root mean square: about four bits for each weight.
const OTHER_STEP: f64 = 0.25;
/// ln of the full rank over the rank, between which is searched.
const RANKS: (f64, f64) = (0.0, 5.0);

/// The file of at most `budget` bytes in which every matrix of a linear layer, but for those that `embeds` names, is
/// A·B of the largest rank that fits, the same share of the full one for all: A·B is what is best for the outputs of the
/// layer on the text of the calibration ([`low_rank_correction`] of a matrix of zeros).
pub(super) fn factored(
    weights: &NamedWeights,
    calibration: &Calibration,
    embeds: impl Fn(&str) -> bool,
    budget: u64,
) -> Result<Made, EvalError> {
    let views = views(weights);
    let is_factored = |name: &str| calibration.covariances.contains_key(name) && !embeds(name);
    let whole: BTreeMap<String, Tensor> = views
        .iter()
        .filter(|tensor| !is_factored(tensor.name))
        .map(|tensor| Ok((tensor.name.to_owned(), unfactored(tensor)?)))
        .collect::<Result<_, EvalError>>()?;
    let layers: Vec<&Weights<'_>> =
        views.iter().filter(|tensor| is_factored(tensor.name)).collect();
    let (_, file) = largest_that_fits(RANKS, budget, |log_share| {
        let mut tensors = whole.clone();
        for tensor in &layers {
            // The moments are those of the inputs, which are not the columns of a matrix with one row per input.
            let inputs_first = calibration.inputs_first.contains(tensor.name);
            let metric = calibration.covariances.get(tensor.name).filter(|_| !inputs_first);
            let LowRank { left, right } = factors(tensor, metric, (-log_share).exp())?;
            for (side, factor) in [(LEFT, left), (RIGHT, right)] {
                tensors.insert(format!("{}{side}", tensor.name), Tensor::Quantized(factor));
            }
        }
        let file = encode(&Artifact { metadata: BTreeMap::new(), tensors })?;
        Ok((file.len() as u64, file))
    })?;
    let names = layers.iter().map(|tensor| tensor.name).collect();
    let decoded = multiplied(&decode(&file, &Limits::default())?, weights, &names)?;
    Ok(Made::exported(file.len() as u64, decoded, None))
}

const LEFT: &str = ".left";
const RIGHT: &str = ".right";

fn unfactored(tensor: &Weights<'_>) -> Result<Tensor, EvalError> {
    let Weights { name, shape, data } = *tensor;
    if !is_coded(shape) {
        return Ok(Tensor::Raw(store_uncoded(name, shape, data)?));
    }
    let step = OTHER_STEP * Moments::of(data).root_mean_square().max(f64::from(f32::MIN_POSITIVE));
    Ok(Tensor::Quantized(quantize_to_centroids(name, shape, data, step as f32)?))
}

fn factors(
    tensor: &Weights<'_>,
    metric: Option<&Covariance>,
    share: f64,
) -> Result<LowRank, EvalError> {
    let rows = tensor.shape[0];
    let columns = tensor.data.len() / rows;
    let rank = ((share * rows.min(columns) as f64).round() as usize).max(1);
    let nothing = vec![0.0; tensor.data.len()];
    let ridge = LadderOptions::default().ridge;
    Ok(low_rank_correction(tensor, &nothing, metric, rank, ridge)?)
}

/// The tensors of `like`, of which those named are products of two in the file.
fn multiplied(
    artifact: &Artifact,
    like: &NamedWeights,
    layers: &BTreeSet<&str>,
) -> Result<NamedWeights, EvalError> {
    let factor = |name: &str, side: &str| match &artifact.tensors[&format!("{name}{side}")] {
        Tensor::Quantized(tensor) => QuantizedTensor::clone(tensor),
        Tensor::Raw(_) => unreachable!("factors are quantised"),
    };
    let tensors = like.tensors().iter().map(|NamedTensor { name, shape, data }| {
        let data = if layers.contains(&name[..]) {
            let mut product = vec![0.0; data.len()];
            LowRank { left: factor(name, LEFT), right: factor(name, RIGHT) }.add_to(&mut product);
            product
        } else {
            artifact.tensors[name].to_f32(name)?
        };
        Ok(NamedTensor { name: name.clone(), shape: shape.clone(), data })
    });
    Ok(NamedWeights::new(tensors.collect::<Result<_, EvalError>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};

    /// A matrix of rank 8 with noise of the given size, beside one that is not factored.
    fn weights(noise: f32) -> NamedWeights {
        let mut random = rand_pcg::Pcg64::seed_from_u64(5);
        let mut gaussian = |count: usize| -> Vec<f32> {
            StandardNormal.sample_iter(&mut random).take(count).collect()
        };
        let (left, right, rest) = (gaussian(128 * 8), gaussian(8 * 96), gaussian(128 * 96));
        let data = (0..128 * 96).map(|at| {
            let (row, column) = (at / 96, at % 96);
            let product: f32 = (0..8).map(|k| left[row * 8 + k] * right[k * 96 + column]).sum();
            product + noise * rest[at]
        });
        let layer =
            NamedTensor { name: "fc".to_owned(), shape: vec![128, 96], data: data.collect() };
        let other =
            NamedTensor { name: "tok".to_owned(), shape: vec![64, 16], data: gaussian(1024) };
        NamedWeights::new(vec![layer, other])
    }

    fn calibration() -> Calibration {
        Calibration {
            covariances: ["fc", "tok"]
                .map(|name| (name.to_owned(), Covariance::identity(96).unwrap()))
                .into(),
            sensitivities: BTreeMap::new(),
            inputs_first: BTreeSet::new(),
            tokens: 0,
        }
    }

    fn relative_error(noise: f32, budget: u64) -> (u64, f64) {
        let weights = weights(noise);
        let made = factored(&weights, &calibration(), |name| name == "tok", budget).unwrap();
        let (from, to) = (&weights.tensors()[0].data, &made.weights.tensors()[0].data);
        let squares = |values: &mut dyn Iterator<Item = f32>| -> f64 {
            values.map(|value| f64::from(value).powi(2)).sum()
        };
        let error = squares(&mut from.iter().zip(to).map(|(from, to)| from - to));
        (made.bytes, error / squares(&mut from.iter().copied()))
    }

    #[test]
    fn a_matrix_of_low_rank_takes_the_bytes_of_its_factors() {
        // The other tensor takes about 600 bytes, factors of rank 8 about 3 bits for each of 1,792 entries.
        let (bytes, error) = relative_error(0.0, 1600);
        assert!(bytes <= 1600, "{bytes}");
        assert!(error < 0.06, "{error}");
        // With noise as large as the product no rank below the full one is enough, ...
        let (_, noisy) = relative_error(2.8, 1600);
        assert!(noisy > 0.4, "{noisy}");
        // ... and more bytes buy more of it.
        let (bytes, more) = relative_error(2.8, 6000);
        assert!((5000..=6000).contains(&bytes) && more < 0.5 * noisy, "{bytes}: {more}");
    }
}
