//! `backslash`: train language models whose file size is part of the loss, and turn any model into the
//! smallest file that still works.
//!
//! Results go to stdout, progress and warnings to stderr. Exit code 0 is success, 2 a usage error (a wrong
//! argument or configuration), 1 anything wrong with data, files or the run itself.

mod allocator;
mod arguments;
mod calibration;
mod calibration_file;
mod commands;
mod console;
mod document;
mod failure;
mod grid;
mod output;
mod prepared;
mod scored;
mod session;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::run(arguments::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
