//! The real binary in a fresh folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Options of a model small enough to train in a second.
pub const SMALL: &[&str] = &[
    "--tokenizer",
    "bytes",
    "--set",
    "model.width=32",
    "--set",
    "model.layers=1",
    "--set",
    "model.heads=2",
    "--set",
    "model.kv_heads=2",
    "--set",
    "model.context=32",
    "--set",
    "train.batch_size=4",
    "--set",
    "data.validation_tokens=200",
];

/// A folder with a text in it, removed at the end.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (0..400)
            .map(|line| format!("{line} green bottles, {} on the wall;\n", line * line % 97))
            .collect();
        std::fs::write(folder.path().join("text.txt"), text).unwrap();
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backslash"));
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and gives its stdout.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with an exit code and a message.
    pub fn fails(&self, arguments: &[&str], code: i32, message: &str) {
        let output = self.run(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(message), "{arguments:?}: expected {message:?} in {text}");
        assert!(!text.contains("panicked"), "{text}");
    }

    /// `train` on the text with a small model; more options can follow.
    pub fn train(&self, out: &str, more: &[&str]) -> Vec<String> {
        let mut arguments = vec!["train", "--data", "text.txt", "--out", out];
        arguments.extend(SMALL);
        arguments.extend(more);
        arguments.iter().map(ToString::to_string).collect()
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// A result that was printed with `--json`.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
