use burn::tensor::Tensor;

use super::kernel::{Head, Saved, Scratch, Shape, Written, backward_kernel, forward_kernel};
use crate::Precision;
use crate::network::fused::check::{assert_close, random, run, with_threads};
use crate::network::operations::{self, composed};

fn causal_attention(queries: Tensor<4>, keys: Tensor<4>, values: Tensor<4>) -> Tensor<4> {
    operations::causal_attention(queries, keys, values, Precision::Fp32)
}

fn in_bf16(queries: Tensor<4>, keys: Tensor<4>, values: Tensor<4>) -> Tensor<4> {
    operations::causal_attention(queries, keys, values, Precision::Bf16)
}

fn shapes([rows, tokens, heads, kv_heads, width]: [usize; 5]) -> [[usize; 4]; 3] {
    let shared = [rows, tokens, kv_heads, width];
    [[rows, tokens, heads, width], shared, shared]
}

fn three(mut x: Vec<Tensor<4>>) -> [Tensor<4>; 3] {
    let values = x.pop().expect("three inputs");
    let keys = x.pop().expect("three inputs");
    [x.pop().expect("three inputs"), keys, values]
}

/// Rows, tokens, heads, key heads, width.
const SIZES: [[usize; 5]; 9] = [
    [1, 1, 1, 1, 2],
    [3, 1, 2, 1, 4],
    [2, 7, 4, 2, 6],
    [1, 31, 4, 4, 16],
    [2, 33, 2, 2, 48],
    [2, 65, 6, 2, 20],
    [1, 100, 4, 1, 64],
    [1, 256, 2, 1, 48],
    [2, 130, 1, 1, 80],
];

fn composed_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    composed::causal_attention(q, k, v, Precision::Fp32)
}

#[test]
fn values_and_gradients_are_those_of_the_definition() {
    for size in SIZES {
        let fused = run(&shapes(size), |x| {
            let [q, k, v] = three(x);
            causal_attention(q, k, v)
        });
        let expected = run(&shapes(size), |x| {
            let [q, k, v] = three(x);
            composed_attention(q, k, v)
        });
        assert_close(&fused, &expected, 2e-6, &format!("{size:?}"));
    }
}

#[test]
fn in_bf16_values_and_gradients_are_near_those_in_f32() {
    for size in SIZES {
        let results = [in_bf16, causal_attention].map(|attention| {
            run(&shapes(size), |x| {
                let [q, k, v] = three(x);
                attention(q, k, v)
            })
        });
        assert_close(&results[0], &results[1], 0.02, &format!("{size:?}"));
        assert!(size == SIZES[0] || results[0] != results[1], "{size:?}");
    }
}

#[test]
fn inputs_may_be_views() {
    // Permuted and partly used storage, as no projection makes them.
    let view = |x: Tensor<4>| x.swap_dims(1, 2).slice_dim(1, 1..6);
    let results = [causal_attention, composed_attention].map(|attention| {
        run(&shapes([2, 4, 7, 7, 6]), |x| {
            let [q, k, v] = three(x).map(view);
            attention(q, k, v)
        })
    });
    assert_close(&results[0], &results[1], 2e-6, "views");
}

#[test]
fn large_scores_stay_finite() {
    let results = [causal_attention, composed_attention].map(|attention| {
        run(&shapes([1, 40, 2, 1, 16]), |x| {
            let [q, k, v] = three(x);
            attention(q * 40.0, k * 40.0, v)
        })
    });
    assert!(results[0].iter().flatten().all(|x| x.is_finite()));
    // Scores of thousands: rounding of the scores themselves is what differs.
    assert_close(&results[0][..1], &results[1][..1], 3e-3, "large scores");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let attend = || {
        run(&shapes([3, 90, 6, 3, 20]), |x| {
            let [q, k, v] = three(x);
            causal_attention(q, k, v)
        })
    };
    assert_eq!(with_threads(1, attend), with_threads(2, attend));
    let attend = || {
        run(&shapes([3, 90, 6, 3, 20]), |x| {
            let [q, k, v] = three(x);
            in_bf16(q, k, v)
        })
    };
    assert_eq!(with_threads(1, attend), with_threads(2, attend));
}

/// Output and gradients of one unit by the version for one instruction set.
fn unit<const FMA: bool>(shape: Shape) -> Vec<Vec<f32>> {
    let length = shape.tokens * shape.group * shape.width;
    let data: Vec<Vec<f32>> = (0..4).map(|seed| random(length, seed)).collect();
    let queries = |data| Head { data, stride: shape.group * shape.width };
    let shared = |data| Head { data, stride: shape.width };
    let mut output = vec![0.0; length];
    let mut log_sums = vec![0.0; shape.group * shape.tokens];
    let mut scratch = Scratch::default();
    forward_kernel::<FMA>(
        queries(&data[0]),
        shared(&data[1]),
        shared(&data[2]),
        &mut output.chunks_exact_mut(shape.width).collect(),
        &mut log_sums,
        shape,
        &mut scratch,
    );
    let saved = Saved {
        queries: queries(&data[0]),
        keys: shared(&data[1]),
        values: shared(&data[2]),
        output: queries(&output),
        output_gradient: queries(&data[3]),
        log_sums: &log_sums,
    };
    let mut gradients = [length, length / shape.group, length / shape.group].map(|n| vec![0.0; n]);
    let [q, k, v] = gradients.each_mut().map(|x| x.chunks_exact_mut(shape.width).collect());
    let mut written = Written { queries: q, keys: k, values: v };
    backward_kernel::<FMA>(saved, &mut written, shape, &mut scratch);
    let [q, k, v] = gradients;
    vec![output, log_sums, q, k, v]
}

#[test]
fn the_versions_for_all_instruction_sets_agree() {
    for tokens in [1, 13, 64, 150] {
        let shape = Shape { tokens, group: 2, width: 24 };
        assert_close(&unit::<false>(shape), &unit::<true>(shape), 2e-6, "without fused products");
    }
}
