//! One file per command.

mod bench_codec;
mod compress;
mod decompress;
mod demo;
mod eval;
mod fit;
mod generate;
mod inspect;
mod ladder;
mod ledger;
mod measured;
mod prune_curve;
mod report;
mod sweep;
mod train;
mod verify;

use anyhow::Result;
use backslash_model::{DeviceChoice, device_in_use, use_device};

use crate::arguments::{Arguments, Command};
use crate::console::say;

/// Runs a command, its networks on the device that was asked for.
pub fn run(Arguments { device, command }: Arguments) -> Result<()> {
    if command.runs_networks() {
        let description = use_device(device)?;
        if device_in_use() != DeviceChoice::Cpu {
            say(&format!("device: {description}"));
        }
    }
    match command {
        Command::Train(arguments) => train::run(arguments),
        Command::Compress(arguments) => compress::run(arguments),
        Command::Ladder(arguments) => ladder::run(arguments),
        Command::Sweep(arguments) => sweep::run(arguments),
        Command::PruneCurve(arguments) => prune_curve::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Ledger(arguments) => ledger::run(arguments),
        Command::Decompress(arguments) => decompress::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::BenchCodec(arguments) => bench_codec::run(arguments),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Demo(arguments) => demo::run(arguments),
    }
}
