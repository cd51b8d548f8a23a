use proptest::prelude::*;

use super::super::parameters::Statistic;
use super::*;

proptest! {
    #[test]
    fn any_codes_round_trip_under_any_parameters(
        codes in prop::collection::vec(prop_oneof![-3..4, -400..400, any::<i32>()], 1..400),
        columns in 1_usize..40,
        (squares, predict_signs, trellis) in any::<(bool, bool, bool)>(),
        (mean, low_bits) in (1_u32..1 << 24, 0_u32..32),
        levels in prop::collection::vec(-32_i8..33, 440),
    ) {
        let rows = codes.len().div_ceil(columns);
        let parameters = Parameters {
            statistic: if squares { Statistic::Square } else { Statistic::Magnitude },
            low_bits,
            predict_signs,
            trellis,
            row_levels: levels[..rows].to_vec(),
            column_levels: levels[rows..rows + columns].to_vec(),
            ..Parameters::with_mean(mean)
        };
        let coded = encode(&codes, columns, 0, &parameters);
        let mut decoded = vec![0; codes.len()];
        decode(&coded, &mut decoded, columns, 0, &parameters, "test").unwrap();
        prop_assert_eq!(decoded, codes);
    }
}

#[test]
fn independent_codes_cost_little_more_than_their_entropy() {
    let mut state = 5_u64;
    // Sums of several uniform numbers, coarse and fine: 0.3 and 5 bits.
    for width in [260, 9] {
        let codes: Vec<i32> = (0..1 << 20)
            .map(|_| {
                let sum: i32 = (0..6)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6364136223846793005)
                            .wrapping_add(1442695040888963407);
                        (state >> 33) as i32 % 101 - 50
                    })
                    .sum();
                (sum + width / 2).div_euclid(width)
            })
            .collect();
        let mut counts = std::collections::HashMap::new();
        codes.iter().for_each(|code| *counts.entry(code).or_insert(0_u32) += 1);
        let total = codes.len() as f64;
        let entropy: f64 =
            counts.values().map(|&n| f64::from(n) * libm::log2(total / f64::from(n))).sum();
        let parameters =
            Parameters { row_prior: 1 << 15, column_prior: 1 << 15, ..Parameters::plain(&codes) };
        let bits = encode(&codes, 1024, 0, &parameters).len() as f64 * 8.0;
        assert!(bits < entropy * 1.0025, "{width}: {bits} bits against {entropy}");
    }
}
