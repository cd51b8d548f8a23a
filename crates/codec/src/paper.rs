//! Sizes under the codes of the BackSlash paper (arXiv 2504.16968): values ranked by frequency, then
//! exponential Golomb, Huffman or fixed length, with the table from rank to value counted.

use std::collections::{BTreeMap, BinaryHeap};

/// Bits of the same codes under the paper's three codes; the table is counted apart.
#[derive(Debug, Clone, PartialEq)]
pub struct PaperBits {
    /// Exponential Golomb of the rank, for each order from 0.
    pub exponential_golomb: Vec<u64>,
    /// Huffman code of the values.
    pub huffman: u64,
    /// ⌈log2 of the number of different values⌉ per code.
    pub fixed_length: u64,
    /// Empirical entropy of the values: what no code that takes them one by one can be below.
    pub entropy: f64,
    /// The values in order of rank, 16 bits each where they fit, else 32.
    pub table: u64,
}

/// Highest order of the exponential Golomb code that is tried.
const MAX_ORDER: u32 = 8;

/// Bits of `codes` under the codes of the paper. An exponential Golomb code of order k spends
/// 2·⌊log2(r + 2^k)⌋ − k + 1 bits on rank r = 0, 1, …
///
/// ```
/// let bits = backslash_codec::paper_bits(&[0, 0, 0, 0, 1, 1, -1]);
/// assert_eq!(bits.exponential_golomb[0], 4 + 2 * 3 + 3);
/// assert_eq!(bits.huffman, 4 + 2 * 2 + 2);
/// assert_eq!(bits.fixed_length, 7 * 2);
/// assert!((bits.entropy - (4.0 * 1.75_f64.log2() + 2.0 * 3.5_f64.log2() + 7_f64.log2())).abs() < 1e-12);
/// ```
#[must_use]
pub fn paper_bits(codes: &[i32]) -> PaperBits {
    let mut counts = BTreeMap::new();
    for &code in codes {
        *counts.entry(code).or_insert(0_u64) += 1;
    }
    let mut ranked: Vec<(i32, u64)> = counts.into_iter().collect();
    ranked.sort_by_key(|&(value, count)| (std::cmp::Reverse(count), value));
    let length = |rank: usize, order: u32| {
        let shifted = rank as u64 + (1 << order);
        u64::from(2 * shifted.ilog2() - order + 1)
    };
    let golomb =
        |order| ranked.iter().enumerate().map(|(rank, entry)| length(rank, order) * entry.1).sum();
    let fixed = ranked.len().max(1).next_power_of_two().ilog2();
    let narrow = ranked.iter().all(|entry| i16::try_from(entry.0).is_ok());
    PaperBits {
        exponential_golomb: (0..=MAX_ORDER).map(golomb).collect(),
        huffman: huffman_bits(ranked.iter().map(|entry| entry.1)),
        fixed_length: u64::from(fixed) * codes.len() as u64,
        entropy: entropy_bits(ranked.iter().map(|entry| entry.1), codes.len()),
        table: ranked.len() as u64 * if narrow { 16 } else { 32 },
    }
}

/// −Σ n·log2(n/N) over the counts n of all values.
fn entropy_bits(counts: impl Iterator<Item = u64>, codes: usize) -> f64 {
    counts.map(|count| count as f64 * (codes as f64 / count as f64).log2()).sum()
}

/// Sum of the weights of all inner nodes of the Huffman tree; one bit per code for a single value.
fn huffman_bits(counts: impl Iterator<Item = u64>) -> u64 {
    let mut heap: BinaryHeap<_> = counts.map(std::cmp::Reverse).collect();
    if heap.len() == 1 {
        return heap.pop().map_or(0, |count| count.0);
    }
    let mut bits = 0;
    while let (Some(first), Some(second)) = (heap.pop(), heap.pop()) {
        bits += first.0 + second.0;
        if heap.is_empty() {
            break;
        }
        heap.push(std::cmp::Reverse(first.0 + second.0));
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huffman_is_within_a_bit_of_the_entropy() {
        let codes: Vec<i32> =
            (0..5000_i64).map(|index| (index * index % 97 % 13) as i32 - 6).collect();
        let bits = paper_bits(&codes);
        let mut counts = BTreeMap::new();
        codes.iter().for_each(|code| *counts.entry(code).or_insert(0.0) += 1.0);
        let entropy: f64 = counts.values().map(|count: &f64| count * (5000.0 / count).log2()).sum();
        assert!((bits.entropy / entropy - 1.0).abs() < 1e-12);
        assert!(bits.huffman as f64 >= entropy && (bits.huffman as f64) < entropy + 5000.0);
        assert!(bits.fixed_length >= bits.huffman);
        assert_eq!(bits.table, 13 * 16);
    }

    #[test]
    fn empty_and_single_values() {
        assert_eq!(paper_bits(&[]).huffman, 0);
        assert_eq!(paper_bits(&[7, 7]).huffman, 2);
        assert_eq!(paper_bits(&[7, 7]).exponential_golomb[0], 2);
    }
}
