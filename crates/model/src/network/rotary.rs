//! Rotary positions.

use burn::tensor::{Device, Tensor, TensorData};

use crate::ModelConfig;

/// Cosines and sines for the positions of one row.
///
/// Channel pair (i, i + d/2) of a head of d channels turns by the angle position · base^(−2i/d), in one
/// direction or the other: the first half becomes x₁·cos + x₂·sin, the second x₂·cos − x₁·sin, the sines
/// being negative where the turn is counterclockwise.
#[derive(Debug)]
pub(super) struct Rotary {
    /// Tokens of a row.
    pub(super) tokens: usize,
    /// `[1, tokens, 1, d/2]`.
    pub(super) cosines: Tensor<4>,
    /// `[1, tokens, 1, d/2]`.
    pub(super) sines: Tensor<4>,
}

impl Rotary {
    /// The direction of the Parameter Golf baseline.
    pub(super) fn clockwise(config: &ModelConfig, tokens: usize, device: &Device) -> Self {
        let (cosines, sines) = tables(config, tokens);
        let shape = [1, tokens, 1, config.head_width() / 2];
        Self {
            tokens,
            cosines: Tensor::from_data(TensorData::new(cosines, shape), device),
            sines: Tensor::from_data(TensorData::new(sines, shape), device),
        }
    }

    /// The direction of the Llama family (RoFormer, arXiv 2104.09864, equation 34).
    pub(super) fn counterclockwise(config: &ModelConfig, tokens: usize, device: &Device) -> Self {
        let Self { tokens, cosines, sines } = Self::clockwise(config, tokens, device);
        Self { tokens, cosines, sines: sines.neg() }
    }

    /// Turns `[rows, tokens, heads, d]`.
    pub(super) fn turn(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let first = x.clone().slice_dim(3, 0..half);
        let second = x.slice_dim(3, half..2 * half);
        let turned_first =
            first.clone() * self.cosines.clone() + second.clone() * self.sines.clone();
        let turned_second = second * self.cosines.clone() - first * self.sines.clone();
        Tensor::cat(vec![turned_first, turned_second], 3)
    }
}

/// Cosines and sines, `[tokens, d/2]`, computed in `f64` so that they are the same everywhere.
fn tables(config: &ModelConfig, tokens: usize) -> (Vec<f32>, Vec<f32>) {
    let half = config.head_width() / 2;
    let angle = |index: usize| {
        let (position, pair) = (index / half, index % half);
        position as f64 * f64::from(config.rope_base).powf(-(pair as f64) / half as f64)
    };
    (0..tokens * half).map(|index| (angle(index).cos() as f32, angle(index).sin() as f32)).unzip()
}
