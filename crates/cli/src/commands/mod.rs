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
mod sweep;
mod train;
mod verify;

use anyhow::Result;

use crate::arguments::Command;

/// Runs a command.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Train(arguments) => train::run(arguments),
        Command::Compress(arguments) => compress::run(arguments),
        Command::Ladder(arguments) => ladder::run(arguments),
        Command::Sweep(arguments) => sweep::run(arguments),
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
