//! Bits, weighted error and seconds of every quantiser on matrices of a small transformer's shapes, with
//! correlated inputs; and seconds of gathering a covariance and of rounding 100 million weights.
//!
//! Bits are the entropy of each column under a table of its own, with 6 bits for every scale: a proxy of a file.

use std::time::Instant;

use backslash_codec::QuantizedTensor;
use backslash_quant::{Covariance, LadderOptions, Rung, Weights, quantize_matrix, weighted_error};
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

struct Layer {
    shape: [usize; 2],
    data: Vec<f32>,
    inputs: Covariance,
}

fn gaussian(count: usize, seed: u64) -> Vec<f32> {
    let mut random = rand_pcg::Pcg64::seed_from_u64(seed);
    StandardNormal.sample_iter(&mut random).take(count).collect()
}

/// Inputs with a few strong common directions and features of uneven size, as behind a nonlinearity.
fn layer(shape: [usize; 2], seed: u64) -> Layer {
    let width = shape[1];
    let directions = gaussian(8 * width, seed);
    let sizes = gaussian(width, seed + 1);
    let samples: Vec<f32> = (0..4 * width as u64)
        .into_par_iter()
        .flat_map_iter(|sample| {
            let (common, own) =
                (gaussian(8, seed + 100 + 2 * sample), gaussian(width, seed + 101 + 2 * sample));
            let value = |i: usize| {
                let shared: f32 = (0..8).map(|k| common[k] * directions[k * width + i]).sum();
                (0.5 * sizes[i]).exp() * (own[i] + 0.5 * shared)
            };
            (0..width).map(value).collect::<Vec<f32>>()
        })
        .collect();
    let mut inputs = Covariance::new(width).unwrap();
    inputs.accumulate(&samples).unwrap();
    Layer { shape, data: gaussian(shape[0] * width, seed + 2), inputs }
}

fn bits(tensor: &QuantizedTensor) -> f64 {
    let columns = tensor.columns();
    let column = |column| tensor.codes.iter().skip(column).step_by(columns).copied();
    let codes: f64 = (0..columns)
        .map(|index| {
            let codes: Vec<i32> = column(index).collect();
            backslash_rate::entropy_bits(&codes) * codes.len() as f64
        })
        .sum();
    let scales = tensor.row_scales.iter().chain(&tensor.column_scales).map(Vec::len).sum::<usize>();
    codes + 6.0 * scales as f64
}

fn table(layers: &[Layer]) {
    let options = LadderOptions::default();
    for rung in Rung::ALL {
        for step in [0.6, 1.2, 1.8, 2.4, 3.0] {
            let start = Instant::now();
            let tensors: Vec<QuantizedTensor> = layers
                .par_iter()
                .map(|layer| {
                    let weights = Weights { name: "w", shape: &layer.shape, data: &layer.data };
                    quantize_matrix(rung, &weights, Some(&layer.inputs), step, &options).unwrap()
                })
                .collect();
            let seconds = start.elapsed().as_secs_f64();
            let count: usize = layers.iter().map(|layer| layer.data.len()).sum();
            let bits = tensors.iter().map(bits).sum::<f64>() / count as f64;
            // Of the output's power in each layer.
            let error: f64 = layers
                .iter()
                .zip(&tensors)
                .map(|(layer, tensor)| {
                    let zeros = vec![0.0; layer.data.len()];
                    let error = |decoded: &[f32]| {
                        weighted_error(&layer.data, decoded, &layer.inputs).unwrap()
                    };
                    error(&tensor.dequantize()) / error(&zeros)
                })
                .sum::<f64>()
                / layers.len() as f64;
            let equivalent = bits + 0.5 * error.log2();
            println!(
                "{rung:14} step {step:3.1}: {bits:.3} bits, error {:6.2} dB, bits at 0 dB {equivalent:6.3}, {seconds:.2} s",
                10.0 * error.log10()
            );
        }
    }
}

fn main() {
    let mut shapes = vec![[1024, 192]];
    for _ in 0..6 {
        shapes.extend([[192, 192], [192, 192], [768, 192], [192, 768]]);
    }
    let layers: Vec<Layer> = shapes
        .iter()
        .enumerate()
        .map(|(index, &shape)| layer(shape, 1000 * index as u64))
        .collect();
    table(&layers);

    let inputs = gaussian(8192 * 768, 5);
    let mut covariance = Covariance::new(768).unwrap();
    let start = Instant::now();
    covariance.accumulate(&inputs).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!("covariance: {:.2} s for 50,000 × 768", seconds * 50_000.0 / 8192.0);

    let data: Vec<f32> = gaussian(1 << 20, 6).repeat(96);
    let start = Instant::now();
    (0..24).into_par_iter().for_each(|index| {
        let shape = [4096, 1024];
        let data = &data[index * shape[0] * shape[1]..][..shape[0] * shape[1]];
        let weights = Weights { name: "w", shape: &shape, data };
        quantize_matrix(Rung::Rtn, &weights, None, 0.5, &LadderOptions::default()).unwrap();
    });
    println!("rtn: {:.2} s for 100.7 million weights", start.elapsed().as_secs_f64());
}
