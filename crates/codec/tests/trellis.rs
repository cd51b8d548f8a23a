//! Codes on a trellis in the container: sizes against the entropy, round trips, and what is refused.

mod common;
mod tensors;
mod viterbi;

use backslash_codec::trellis::rows_per_run;
use backslash_codec::{
    Artifact, CodecError, Effort, Limits, QuantizedTensor, Tensor, TensorReport, decode,
    encode_with, encoded_size, estimated_size, inspect_codes, reseal,
};
use common::codes_of;
use proptest::prelude::*;
use tensors::tensor;
use viterbi::{Noise, quantise};

const SIDE: usize = 1024;

fn artifact(tensor: &QuantizedTensor) -> Artifact {
    let mut artifact = Artifact::default();
    artifact.tensors.insert("weight".into(), Tensor::Quantized(tensor.clone()));
    artifact
}

/// What a file of this tensor alone says of it, after a round trip.
fn report(tensor: &QuantizedTensor, effort: Effort) -> TensorReport {
    let artifact = artifact(tensor);
    let file = encode_with(&artifact, effort).unwrap();
    assert!(decode(&file, &Limits::default()).unwrap() == artifact);
    inspect_codes(&file, &Limits::default()).unwrap().tensors.remove(0)
}

/// A square tensor of weights, given column by column in units of the step, at three quarters of the price that is
/// optimal for fine steps.
fn quantised(weights: &[f64]) -> QuantizedTensor {
    tensor(&[SIDE, SIDE], quantise(weights, SIDE, 0.75 * 4.0 * std::f64::consts::LN_2 / 6.0))
}

/// Codes of independent weights at 1, 2 and 3 bits.
#[test]
fn independent_weights_cost_little_more_than_their_conditional_entropy() {
    for gaussian in [true, false] {
        for (step, rate) in [(1.1, 1.0), (0.55, 2.0), (0.27, 3.0)] {
            let mut noise = Noise::new(7);
            let mut weight = || if gaussian { noise.gaussian() } else { noise.laplace() } / step;
            let tensor = quantised(&(0..SIDE * SIDE).map(|_| weight()).collect::<Vec<_>>());
            let entropy = tensor.entropy_bits();
            assert!((entropy - rate).abs() < 0.06, "{entropy}");
            // A vector has no trellis: the codes themselves are coded.
            let plain = report(
                &QuantizedTensor { shape: vec![SIDE * SIDE], ..tensor.clone() },
                Effort::Fast,
            );
            for (effort, coder) in
                [(Effort::Smallest, "trellis mix"), (Effort::Fast, "trellis rans")]
            {
                let found = report(&tensor, effort);
                assert_eq!((&found.coder[..], found.entropy_bits), (coder, Some(entropy)));
                let excess = found.bits_per_weight / entropy - 1.0;
                let saved = plain.bits_per_weight - found.bits_per_weight;
                eprintln!(
                    "{coder}: {entropy:.3} bits and {:.3} %, {saved:.3} less than plain",
                    100.0 * excess
                );
                assert!(excess < 0.003, "{coder}: {entropy} bits and {excess}");
                assert!(saved > 0.25, "{coder}: {saved}");
            }
        }
    }
}

/// Rows and columns of different scale: the entropy of all indices together is no bound there.
#[test]
fn uneven_lines_are_told_apart_by_both_coders() {
    for transposed in [false, true] {
        let mut noise = Noise::new(3);
        let scales: Vec<f64> = (0..SIDE).map(|_| (0.6 * noise.gaussian()).exp()).collect();
        let line = |index: usize| if transposed { index / SIDE } else { index % SIDE };
        let weights = (0..SIDE * SIDE).map(|index| noise.gaussian() * scales[line(index)] / 0.55);
        let tensor = quantised(&weights.collect::<Vec<_>>());
        let [mix, rans] = [Effort::Smallest, Effort::Fast].map(|effort| report(&tensor, effort));
        assert_eq!([&mix.coder[..], &rans.coder], ["trellis mix", "trellis rans"]);
        let (mix, rans, entropy) =
            (mix.bits_per_weight, rans.bits_per_weight, tensor.entropy_bits());
        eprintln!("mix {mix:.4}, rans {rans:.4}, entropy of all together {entropy:.4}");
        assert!(mix < 0.92 * entropy && rans < 1.01 * mix, "{mix}, {rans}, {entropy}");
        let artifact = artifact(&tensor);
        let exact = encoded_size(&artifact).unwrap().total() as f64;
        let estimate = estimated_size(&artifact).unwrap().total() as f64;
        assert!((estimate / exact - 1.0).abs() < 3e-3, "{estimate} against {exact}");
    }
}

/// One code off the trellis, and the tensor is coded as it always was.
#[test]
fn one_code_decides_between_the_coders() {
    let indices: Vec<i32> = (0..4000).map(|index| index * index % 11 % 5 - 2).collect();
    let on = tensor(&[80, 50], codes_of(&indices, 80, 50));
    let mut off = on.clone();
    off.codes[0] += 1;
    for (effort, coder) in [(Effort::Smallest, "mix"), (Effort::Fast, "rans")] {
        assert_eq!(report(&on, effort).coder, format!("trellis {coder}"));
        assert_eq!(report(&off, effort).coder, coder);
        // The minor version says whether a reader of version 1.0 will do.
        let minor = |tensor| encode_with(&artifact(tensor), effort).unwrap()[10];
        assert_eq!([minor(&on), minor(&off)], [1, 0]);
    }
}

/// More than 2^20 codes: the states begin anew in each block.
#[test]
fn blocks_start_in_state_zero() {
    let (rows, columns) = (20, 60_000);
    assert_eq!(rows_per_run(&[rows, columns]), Some(17));
    let mut noise = Noise::new(1);
    let indices: Vec<i32> =
        (0..rows * columns).map(|_| noise.laplace().clamp(-9.0, 9.0) as i32).collect();
    let tensor = tensor(&[rows, columns], codes_of(&indices, rows, columns));
    assert_eq!(report(&tensor, Effort::Fast).coder, "trellis rans");
    assert_eq!(report(&tensor, Effort::Smallest).coder, "trellis mix");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tensors_on_the_trellis_come_back(
        indices in prop::collection::vec(prop_oneof![9 => -3..4, 1 => -400..400, 1 => -1 << 30..1 << 30], 150..2500),
        columns in 1_usize..70,
        uneven in any::<bool>(),
    ) {
        let rows = indices.len() / columns;
        let mut indices = indices[..rows * columns].to_vec();
        if uneven {
            indices.iter_mut().step_by(2).for_each(|index| *index /= 40);
        }
        let tensor = tensor(&[rows, columns], codes_of(&indices, rows, columns));
        let nonzero = indices.iter().filter(|index| **index != 0).count();
        for effort in [Effort::Smallest, Effort::Fast] {
            prop_assert_eq!(report(&tensor, effort).coder.starts_with("trellis"), nonzero >= 64);
        }
    }
}

/// The bytes of a file in which the only tensor, called `weight`, is said to have another coder.
fn with_coder(mut file: Vec<u8>, from: u8, to: u8) -> Vec<u8> {
    let directory = u64::from_le_bytes(file[20..28].try_into().unwrap()) as usize;
    // Number of entries, length shared with the name before, length, name, kind, flags.
    let place = 64 + 3 + "weight".len() + 2;
    assert_eq!(file[place], from);
    file[place] = to;
    reseal(&mut file, directory);
    file
}

#[test]
fn shapes_without_a_trellis_are_refused() {
    let vector = tensor(&[1500], (0..1500).map(|index| index % 5 - 2).collect());
    for effort in [Effort::Smallest, Effort::Fast] {
        let file = encode_with(&artifact(&vector), effort).unwrap();
        let coder = u8::from(effort == Effort::Smallest);
        for (to, problem) in
            [(2, "has no trellis"), (3, "has no trellis"), (4, "coder 4 is unknown")]
        {
            let error =
                decode(&with_coder(file.clone(), coder, to), &Limits::default()).unwrap_err();
            assert!(matches!(&error, CodecError::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(problem), "{error}");
        }
    }
}

/// In the first row, where all states are 0, coders 1 and 2 read the same numbers.
#[test]
fn an_index_whose_code_exceeds_32_bits_is_refused() {
    let wide = tensor(&[2, 3], vec![1 << 30, 0, 0, 0, 0, 0]);
    let fits = tensor(&[2, 3], vec![(1 << 30) - 1, 0, 0, 0, 0, 0]);
    for (tensor, fits) in [(wide, false), (fits, true)] {
        let file = encode_with(&artifact(&tensor), Effort::Smallest).unwrap();
        let found = decode(&with_coder(file, 1, 2), &Limits::default());
        match found {
            Ok(found) => {
                let Tensor::Quantized(found) = &found.tensors["weight"] else {
                    panic!("quantised")
                };
                assert!(fits && found.codes[0] == i32::MAX - 1);
            }
            Err(error) => assert!(!fits && error.to_string().contains("out of range"), "{error}"),
        }
    }
}
