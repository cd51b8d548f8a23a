//! Errors as a person sees them, and the exit codes.

use std::io::ErrorKind;
use std::process::ExitCode;

use backslash_train::TrainError;

/// Exit code of a usage error.
const USAGE: u8 = 2;
/// Exit code of anything else.
const DATA: u8 = 1;

/// Prints an error to stderr and chooses the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    ExitCode::from(if is_usage(error) { USAGE } else { DATA })
}

/// A wrong argument that only shows once its value is looked at.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn is_usage(error: &anyhow::Error) -> bool {
    let configuration = |error: &TrainError| {
        matches!(
            error,
            TrainError::ConfigSyntax { .. }
                | TrainError::ConfigValue { .. }
                | TrainError::UnknownKey { .. }
                | TrainError::RunExists { .. }
                | TrainError::NoCheckpoint { .. }
                | TrainError::BudgetUnreachable { .. }
                | TrainError::Model(backslash_model::ModelError::Config { .. })
        )
    };
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || matches!(cause.downcast_ref(), Some(backslash_model::ModelError::Device { .. }))
            || cause.downcast_ref::<TrainError>().is_some_and(configuration)
            || matches!(cause.downcast_ref(), Some(backslash_codec::CodecError::Exists { .. }))
    })
}

/// Whoever reads our output has had enough: no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}
