//! Compares a fused operation with the composed one that defines it.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};

/// Values in ±2.
pub(super) fn random(length: usize, seed: u64) -> Vec<f32> {
    let mut generator = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
    (0..length).map(|_| 4.0 * ((generator.next_u32() >> 8) as f32 / 16_777_216.0) - 2.0).collect()
}

/// The result of an operation and the gradient of each input, for random inputs of the given shapes and a
/// random gradient of the result.
pub(super) fn run<const D: usize, const E: usize>(
    shapes: &[[usize; D]],
    operation: impl Fn(Vec<Tensor<D>>) -> Tensor<E>,
) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let tensor = |at: usize, shape: [usize; D]| {
        let values = random(shape.iter().product(), at as u64);
        Tensor::<D>::from_data(TensorData::new(values, shape), &device).require_grad()
    };
    let inputs: Vec<Tensor<D>> =
        shapes.iter().enumerate().map(|(at, shape)| tensor(at, *shape)).collect();
    let output = operation(inputs.clone());
    let shape = output.dims();
    let weights = random(shape.iter().product(), 99);
    let weights = Tensor::<E>::from_data(TensorData::new(weights, shape), &device);
    let gradients = (output.clone() * weights).sum().backward();
    let values = |data: TensorData| data.try_into_vec::<f32>().expect("f32");
    let mut found = vec![values(output.into_data())];
    found.extend(inputs.iter().map(|x| values(x.grad(&gradients).expect("used").into_data())));
    found
}

/// Asserts that two results of [`run`] agree within `tolerance` of the largest value of each tensor.
pub(super) fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        let scale = expected.iter().fold(1.0_f32, |a, x| a.max(x.abs()));
        for (i, (x, y)) in found.iter().zip(expected).enumerate() {
            assert!(
                (x - y).abs() <= tolerance * scale,
                "{what}: tensor {at}, value {i}: {x} instead of {y}"
            );
        }
    }
}

/// Runs on a pool of so many threads.
pub(super) fn with_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("a pool of threads").install(run)
}
