//! Codes on a trellis for several tests.

use backslash_codec::trellis::{next_state, quantiser, rows_per_run, value};

/// The codes of these indices, which are given in row-major order.
pub fn codes_of(indices: &[i32], rows: usize, columns: usize) -> Vec<i32> {
    let run = rows_per_run(&[rows, columns]).expect("the shape has a trellis");
    let mut codes = Vec::new();
    let mut states = vec![0; columns];
    for (row, indices) in indices.chunks(columns).enumerate() {
        if row % run == 0 {
            states.fill(0);
        }
        for (state, &index) in states.iter_mut().zip(indices) {
            codes.push(value(index, quantiser(*state)).expect("small indices"));
            *state = next_state(*state, index);
        }
    }
    codes
}
