//! What given integer codes cost.

use std::collections::HashMap;

/// Order-0 entropy of the codes, in bits per code: −Σ p·log₂ p over the values that occur; 0 for none.
///
/// A proxy of the size of a file: it leaves out the table that a decoder needs.
pub fn entropy_bits(codes: &[i32]) -> f64 {
    let mut counts: HashMap<i32, u64> = HashMap::new();
    for code in codes {
        *counts.entry(*code).or_default() += 1;
    }
    let mut counts: Vec<u64> = counts.into_values().collect();
    counts.sort_unstable();
    let total = codes.len() as f64;
    counts.iter().map(|count| *count as f64 / total).map(|p| -p * p.log2()).sum()
}
