//! Low-rank prediction of the codes: an embedding's codes are partly a sum of few outer products.

use crate::cursor::{Cursor, unzigzag, write_varint, zigzag};
use crate::error::CodecError;
use crate::layout::Layout;

/// Most outer products.
pub(super) const MAX_RANK: usize = 16;

/// Prediction μ(i, j) = Σ_k scale_k·row_k(i)·column_k(j), in units of 1/256 of a code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Factors {
    pub(super) components: Vec<Component>,
}

/// One outer product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Component {
    pub(super) scale: i32,
    pub(super) rows: Vec<i8>,
    pub(super) columns: Vec<i8>,
}

impl Component {
    /// What a product of one in both factors is, in codes.
    pub(super) fn unit(&self) -> f64 {
        f64::from(self.scale) / 256.0
    }
}

impl Factors {
    /// Fills the predictions of one row.
    pub(super) fn predict(&self, row: usize, prediction: &mut [i32]) {
        prediction.fill(0);
        for component in &self.components {
            let factor = component.scale.wrapping_mul(i32::from(component.rows[row]));
            for (prediction, &column) in prediction.iter_mut().zip(&component.columns) {
                *prediction = prediction.wrapping_add(factor.wrapping_mul(i32::from(column)));
            }
        }
    }

    /// What the prediction leaves of the codes.
    pub(super) fn residual(&self, codes: &[i32], columns: usize) -> Vec<i32> {
        let mut prediction = vec![0; columns];
        let mut residual = codes.to_vec();
        for (row, codes) in residual.chunks_mut(columns).enumerate() {
            self.predict(row, &mut prediction);
            for (code, &predicted) in codes.iter_mut().zip(&prediction) {
                *code = code.wrapping_sub(round(predicted));
            }
        }
        residual
    }

    /// Writes the components; their number is written apart.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for component in &self.components {
            write_varint(out, u64::from(zigzag(component.scale)));
            for side in [&component.rows, &component.columns] {
                super::side::write(side, out);
            }
        }
    }

    /// Reads `rank` components.
    pub(super) fn read(cursor: &mut Cursor, layout: Layout, rank: u8) -> Result<Self, CodecError> {
        if usize::from(rank) > MAX_RANK {
            return Err(cursor
                .corrupt(format!("a prediction of rank {rank}; at most {MAX_RANK} is allowed")));
        }
        let mut components = Vec::new();
        for _ in 0..rank {
            let scale = u32::try_from(cursor.varint()?)
                .map_err(|_| cursor.corrupt("a scale exceeds 32 bits"))?;
            let rows = super::side::read(cursor, layout.rows())?;
            let columns = super::side::read(cursor, layout.columns)?;
            components.push(Component { scale: unzigzag(scale), rows, columns });
        }
        Ok(Self { components })
    }
}

/// Prediction in whole codes.
#[inline(always)]
pub(super) fn round(prediction: i32) -> i32 {
    prediction.wrapping_add(128) >> 8
}
