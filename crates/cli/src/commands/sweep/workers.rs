//! Training in processes of their own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::Duration;

use anyhow::{Context, Result};
use backslash_codec::{Overwrite, write_bytes};
use backslash_train::Record;

use super::runs::Planned;

/// How often a child is asked whether it has ended, and progress is shown.
const MOMENT: Duration = Duration::from_millis(200);

/// Bytes that have a whole line of metrics in them.
const FEW_LINES: u64 = 2048;

/// Name of the file that a trainer's own words go to.
const LOG: &str = "train.log";

/// Which run is the next, and whether there is to be one.
#[derive(Debug, Default)]
pub struct Queue {
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Queue {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs that are being trained, and what has become of those that were.
pub struct Training<'a> {
    out: &'a Path,
    to_train: Vec<&'a Planned>,
    ended: Receiver<(usize, Result<()>)>,
    results: BTreeMap<String, Result<()>>,
    queue: &'a Queue,
}

impl<'a> Training<'a> {
    /// Begins to train the runs, `workers` of them at a time, in their order. Where there is a run in the folder already it
    /// goes on from its newest checkpoint.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, 'a>,
        to_train: Vec<&'a Planned>,
        out: &'a Path,
        workers: usize,
        queue: &'a Queue,
    ) -> Self {
        let (sender, ended) = channel();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / workers).max(1);
        for _ in 0..workers.min(to_train.len()) {
            let (sender, runs): (Sender<_>, Vec<&Planned>) = (sender.clone(), to_train.clone());
            scope.spawn(move || {
                while !queue.is_stopped() {
                    let index = queue.next.fetch_add(1, Ordering::Relaxed);
                    let Some(run) = runs.get(index) else { break };
                    let result = train(run, &run.folder(out), threads, queue);
                    if sender.send((index, result)).is_err() {
                        break;
                    }
                }
            });
        }
        Self { out, to_train, ended, results: BTreeMap::new(), queue }
    }

    /// Waits until a run has ended, telling `tell` the steps of all runs that have been taken. Runs that were not to be
    /// trained have ended well.
    pub fn wait(&mut self, run: &Planned, tell: &mut dyn FnMut(u64)) -> Result<()> {
        if !self.to_train.iter().any(|other| other.name == run.name) {
            return Ok(());
        }
        loop {
            if let Some(result) = self.results.remove(&run.name) {
                return result;
            }
            tell(self.steps());
            match self.ended.recv_timeout(MOMENT) {
                Ok((index, result)) => {
                    self.results.insert(self.to_train[index].name.clone(), result);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    anyhow::bail!("{}: its trainer is gone", run.name)
                }
            }
        }
    }

    /// Steps that all runs have taken.
    pub fn steps(&self) -> u64 {
        self.to_train.iter().map(|run| steps_taken(&run.folder(self.out))).sum()
    }
}

/// Nothing goes on once nobody waits for it.
impl Drop for Training<'_> {
    fn drop(&mut self) {
        self.queue.stop.store(true, Ordering::Relaxed);
    }
}

/// Whether a run has left its model.
pub fn is_finished(folder: &Path) -> bool {
    folder.join("model.bsl").exists()
}

/// Steps of a run, by the end of its metrics.
fn steps_taken(folder: &Path) -> u64 {
    let last = || -> std::io::Result<String> {
        let mut file = File::open(folder.join("metrics.jsonl"))?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(FEW_LINES)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let text = last().unwrap_or_default();
    match text.lines().rev().find_map(|line| serde_json::from_str(line).ok()) {
        Some(Record::Step(record)) => record.step,
        Some(Record::Evaluation(record)) => record.step,
        None => 0,
    }
}

/// Trains one run in a process of its own.
fn train(run: &Planned, folder: &Path, threads: usize, queue: &Queue) -> Result<()> {
    let at = |path: &Path| path.display().to_string();
    std::fs::create_dir_all(folder).with_context(|| at(folder))?;
    let config = folder.join("config.toml");
    if !config.exists() {
        write_bytes(&config, run.config.to_toml().as_bytes(), Overwrite::Replace)?;
    }
    let log = folder.join(LOG);
    let output = File::create(&log).with_context(|| at(&log))?;
    let child = Command::new(std::env::current_exe()?)
        .args(["train", "--with-parent", "--resume", "--out"])
        .arg(folder)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot start a trainer")?;
    let mut child = Ended(child);
    let status = loop {
        if queue.is_stopped() {
            anyhow::bail!("{}: stopped", run.name);
        }
        match child.0.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(MOMENT),
        }
    };
    anyhow::ensure!(status.success(), "{}: {}", run.name, last_words(&log));
    Ok(())
}

/// The error that a trainer ended with.
fn last_words(log: &PathBuf) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().find(|line| line.starts_with("error: "));
    last.map_or_else(
        || format!("its trainer was ended from outside (see {})", log.display()),
        |line| line.trim_start_matches("error: ").to_owned(),
    )
}

/// A process that does not outlive whoever waits for it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // A process that has ended by itself cannot be ended again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
