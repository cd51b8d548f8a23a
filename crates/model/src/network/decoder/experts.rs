//! MLPs of which each token takes one.

use burn::tensor::Tensor;

use super::mlp::Mlp;
use crate::network::tap::Tap;
use crate::network::tokens::{Tokens, indices};

/// `x`, one row per token, each row through the MLP that [its token has](Tokens::positions_by_expert) in this block.
///
/// Rows are brought together by MLP, so that each is a product of whole matrices, and all of them take as long as one MLP
/// does for all tokens.
///
/// Source: Roller et al., Hash layers for large sparse models (2021), section 3.
pub(super) fn by_token(
    experts: &[Mlp],
    block: usize,
    x: &Tensor<2>,
    tokens: &Tokens<'_>,
    tap: &mut Tap<'_>,
) -> Tensor<2> {
    let positions = tokens.positions_by_expert(experts.len(), block);
    let mut parts = Vec::new();
    for (expert, positions) in experts.iter().zip(&positions) {
        if !positions.is_empty() {
            let rows = x.clone().select(0, indices(positions.iter().copied(), &x.device()));
            parts.push(expert.forward(rows, tap));
        }
    }
    let mut places = vec![0; tokens.ids.len()];
    for (place, position) in (0..).zip(positions.iter().flatten()) {
        places[*position as usize] = place;
    }
    Tensor::cat(parts, 0).select(0, indices(places.into_iter(), &x.device()))
}
