//! Shapes: how many elements they have, and the matrix that the coders see.

/// Number of elements, or `None` when it does not fit in memory.
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1_usize, |product, &size| {
        // A zero anywhere makes the tensor empty, whatever the other sizes are.
        if product == 0 { Some(0) } else { product.checked_mul(size) }
    });
    if shape.contains(&0) { Some(0) } else { count }
}

/// Rows and columns: first dimension × rest; a vector or scalar is one row. Saturates on overflow,
/// which `element_count` rejects first.
pub(crate) fn matrix_shape(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [columns] => (1, *columns),
        [rows, rest @ ..] => {
            (*rows, rest.iter().fold(1, |product: usize, &size| product.saturating_mul(size)))
        }
    }
}
