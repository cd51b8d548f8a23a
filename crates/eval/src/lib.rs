//! Presentation of what was measured: tables for the terminal, and one self-contained page with
//! charts.
//!
//! Everything here takes plain figures and knows nothing of models or files. [`table`] prints,
//! [`plot`] draws, [`report`] puts both on a page.

mod error;
pub mod plot;
pub mod report;
pub mod table;

pub use error::EvalError;
