//! The Python module `backslash._native`: codec, quantisers and the search for a size, for bytes that NumPy holds.
//!
//! It converts and calls, and decides nothing: what a file holds is what the command line would put there. The
//! interpreter's lock is released wherever tensors are coded or decoded. The types that users see are in the Python
//! files beside it.

mod errors;
mod input;
mod inspection;
mod kernels;
mod progress;
mod reader;
mod save;
mod size;
mod writer;

use pyo3::prelude::*;

/// ρ(ν) = Γ(1/ν)·Γ(3/ν)/Γ(2/ν)² = E[w²]/E[|w|]² of a generalised Gaussian of shape ν.
#[pyfunction]
fn moment_ratio(shape: f64) -> f64 {
    backslash_rate::moment_ratio(shape)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("DEFAULT_MAX_MEMORY", backslash_codec::Limits::default().max_memory)?;
    module.add_class::<reader::Reader>()?;
    module.add_class::<writer::Writer>()?;
    module.add_function(wrap_pyfunction!(save::save_by_factor, module)?)?;
    module.add_function(wrap_pyfunction!(save::save_by_steps, module)?)?;
    module.add_function(wrap_pyfunction!(save::save_by_scaled_steps, module)?)?;
    module.add_function(wrap_pyfunction!(save::save_by_budget, module)?)?;
    module.add_function(wrap_pyfunction!(save::save_by_calibration, module)?)?;
    module.add_function(wrap_pyfunction!(size::size_by_factor, module)?)?;
    module.add_function(wrap_pyfunction!(size::size_by_steps, module)?)?;
    module.add_function(wrap_pyfunction!(size::estimate_by_factor, module)?)?;
    module.add_function(wrap_pyfunction!(inspection::inspect, module)?)?;
    module.add_function(wrap_pyfunction!(kernels::add_noise, module)?)?;
    module.add_function(wrap_pyfunction!(kernels::round_weights, module)?)?;
    module.add_function(wrap_pyfunction!(kernels::add_rate_of_noise, module)?)?;
    module.add_function(wrap_pyfunction!(kernels::add_rate_of_codes, module)?)?;
    module.add_function(wrap_pyfunction!(kernels::moments, module)?)?;
    module.add_function(wrap_pyfunction!(kernels::pull, module)?)?;
    module.add_function(wrap_pyfunction!(moment_ratio, module)?)
}
