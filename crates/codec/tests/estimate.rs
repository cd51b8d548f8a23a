//! The estimate of a size against the size, for codes of which only some rows are looked at.

mod tensors;

use backslash_codec::{Artifact, Tensor, encoded_size, estimated_size};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use tensors::tensor;

const COLUMNS: usize = 48;

/// A file with nothing but the rounded values, in rows.
fn artifact(values: impl Iterator<Item = f64>) -> Artifact {
    let codes: Vec<i32> = values.map(|value| value.round() as i32).collect();
    let tensor = tensor(&[codes.len() / COLUMNS, COLUMNS], codes);
    let mut artifact = Artifact::default();
    artifact.tensors.insert("weight".into(), Tensor::Quantized(tensor));
    artifact
}

fn laplace(random: &mut Pcg64) -> f64 {
    let uniform: f64 = random.random();
    let sign = if random.random() { 1.0 } else { -1.0 };
    -sign * (1.0 - uniform).ln()
}

/// The estimate over the size.
fn ratio(artifact: &Artifact) -> f64 {
    let [estimate, exact] = [estimated_size(artifact), encoded_size(artifact)].map(Result::unwrap);
    assert_eq!((estimate.scales, estimate.uncoded), (exact.scales, exact.uncoded));
    estimate.total() as f64 / exact.total() as f64
}

/// Rows of very different scale, one large value for each of them that all its columns share in, and neither.
#[test]
fn it_is_near_the_size_whatever_pays_for_the_codes() {
    let rows = 20_000;
    for (spread, shared) in [(0.0, 0.0), (0.5, 0.0), (0.3, 3.0)] {
        let mut random = Pcg64::seed_from_u64(1);
        let side: Vec<f64> = (0..COLUMNS).map(|_| random.random_range(-1.0..1.0)).collect();
        let values = (0..rows * COLUMNS).scan((1.0, 0.0), |(scale, mean), index| {
            if index.is_multiple_of(COLUMNS) {
                *scale = (spread * laplace(&mut random)).exp();
                *mean = shared * laplace(&mut random);
            }
            Some(*scale * laplace(&mut random) + *mean * side[index % COLUMNS])
        });
        let ratio = ratio(&artifact(values));
        assert!((ratio - 1.0).abs() < 3e-3, "{spread} {shared}: {ratio}");
    }
}

#[test]
fn it_is_the_size_of_small_tensors() {
    let mut random = Pcg64::seed_from_u64(2);
    for rows in [1, 7, 1300] {
        assert_eq!(ratio(&artifact((0..rows * COLUMNS).map(|_| laplace(&mut random)))), 1.0);
    }
}
