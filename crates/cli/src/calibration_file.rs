//! Files with what PyTorch has learned of a model by running it: `calibration.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use backslash_compress::{Calibration, CalibrationIndex};
use backslash_model::CheckpointReader;
use backslash_quant::Weights;

/// Key in the file's metadata under which it says what its tensors belong to.
const INDEX_KEY: &str = "backslash_calibration";

/// Reads the calibration of `weights`.
pub fn open(path: &Path, weights: &[Weights<'_>]) -> Result<Calibration> {
    let mut reader = CheckpointReader::open(path)?;
    let index = reader.metadata(INDEX_KEY).with_context(|| {
        format!(
            "{} has no `{INDEX_KEY}` in its metadata: a file that backslash.transformers has written is right",
            path.display()
        )
    })?;
    let index: CalibrationIndex = serde_json::from_str(index)
        .with_context(|| format!("{}: `{INDEX_KEY}` cannot be read", path.display()))?;
    let mut tensors = BTreeMap::new();
    for tensor in reader.tensors() {
        let values = reader.read_all_f32(&tensor.name)?;
        tensors.insert(tensor.name, (tensor.shape, values));
    }
    Calibration::gathered(&index, &tensors, weights).with_context(|| path.display().to_string())
}
