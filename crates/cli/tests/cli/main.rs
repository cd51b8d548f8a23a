//! The command line as a person meets it: the real binary, real files, exit codes and messages.

mod bad_input;
mod calibration;
mod chain;
mod checkpoint;
mod classifier;
mod encoder;
mod fit;
mod golf;
mod gpt2;
mod ladder;
mod ledger;
mod place;
mod prune;
mod report;
mod resume;
mod sweep;
