//! Training in processes of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Scope;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use backslash_codec::{Overwrite, write_bytes};
use backslash_model::device_in_use;
use backslash_train::{Record, RunConfig, branch, has_checkpoint};

use super::runs::Planned;

/// How often a child is asked whether it has ended, and progress is shown.
const MOMENT: Duration = Duration::from_millis(200);

/// Bytes that have a whole line of metrics in them.
const FEW_LINES: u64 = 2048;

/// Name of the file that a trainer's own words go to.
const LOG: &str = "train.log";

/// Fewest runs with a trunk in common for which it is trained by itself.
const SHARED: usize = 2;

/// What a process of its own does.
#[derive(Clone, Copy)]
enum Job<'a> {
    /// The first steps, those that several runs have in common.
    Trunk(&'a Planned),
    /// A whole run, from its trunk on where that is trained by itself.
    Run(&'a Planned, bool),
}

impl Job<'_> {
    /// Whether what it goes on from is there, or will never be.
    fn can_begin(&self, out: &Path, queue: &Queue) -> bool {
        match self {
            Self::Run(run, true) => has_trunk(run, out) || queue.why_fallen(run).is_some(),
            Self::Trunk(_) | Self::Run(_, false) => true,
        }
    }
}

/// Which jobs are under way, and whether more are to be.
#[derive(Debug, Default)]
pub struct Queue {
    taken: Mutex<BTreeSet<usize>>,
    stop: AtomicBool,
    /// Trunks that have failed, and why.
    fallen: Mutex<BTreeMap<String, String>>,
}

impl Queue {
    /// Takes the first of `count` jobs that nobody has taken and that can begin, and waits until there is one; `None` where all
    /// are taken, or none is to be any more.
    fn take(&self, count: usize, can_begin: impl Fn(usize) -> bool) -> Option<usize> {
        while !self.is_stopped() {
            let mut taken = self.taken.lock().expect("nobody panics with it");
            let left: Vec<usize> = (0..count).filter(|index| !taken.contains(index)).collect();
            if left.is_empty() {
                return None;
            }
            if let Some(index) = left.into_iter().find(|index| can_begin(*index)) {
                taken.insert(index);
                return Some(index);
            }
            drop(taken);
            std::thread::sleep(MOMENT);
        }
        None
    }

    fn why_fallen(&self, run: &Planned) -> Option<String> {
        self.fallen.lock().expect("nobody panics with it").get(&run.trunk.0).cloned()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Lets a moment pass.
    fn pause(&self) -> Result<()> {
        ensure!(!self.is_stopped(), "stopped");
        std::thread::sleep(MOMENT);
        Ok(())
    }
}

/// Runs that are being trained, and what has become of those that were.
pub struct Training<'a> {
    out: &'a Path,
    jobs: Vec<Job<'a>>,
    ended: Receiver<(&'a Planned, Result<()>)>,
    results: BTreeMap<String, Result<()>>,
    queue: &'a Queue,
}

impl<'a> Training<'a> {
    /// Begins to train the runs, `workers` of them at a time, in their order as far as the steps are there that several have in
    /// common.
    /// Where there is a run in the folder already it goes on from its newest checkpoint.
    pub fn start<'scope>(
        scope: &'scope Scope<'scope, 'a>,
        to_train: &[&'a Planned],
        out: &'a Path,
        workers: usize,
        queue: &'a Queue,
    ) -> Self {
        let jobs = jobs(to_train, out);
        let (sender, ended) = channel();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / workers).max(1);
        for _ in 0..workers.min(jobs.len()) {
            let (sender, jobs) = (sender.clone(), jobs.clone());
            scope.spawn(move || {
                let can_begin = |index: usize| jobs[index].can_begin(out, queue);
                while let Some(index) = queue.take(jobs.len(), can_begin) {
                    match jobs[index] {
                        Job::Trunk(run) => train_trunk(run, out, threads, queue),
                        Job::Run(run, branches) => {
                            let result = train_run(run, branches, out, threads, queue);
                            if sender.send((run, result)).is_err() {
                                break;
                            }
                        }
                    }
                }
            });
        }
        Self { out, jobs, ended, results: BTreeMap::new(), queue }
    }

    /// Waits until a run has ended, telling `tell` the steps that have been taken. Runs that were not to be trained have ended
    /// well.
    pub fn wait(&mut self, run: &Planned, tell: &mut dyn FnMut(u64)) -> Result<()> {
        let is_it = |job: &Job<'_>| matches!(job, Job::Run(other, _) if other.name == run.name);
        if !self.jobs.iter().any(is_it) {
            return Ok(());
        }
        loop {
            if let Some(result) = self.results.remove(&run.name) {
                return result;
            }
            tell(self.steps().0);
            match self.ended.recv_timeout(MOMENT) {
                Ok((run, result)) => {
                    self.results.insert(run.name.clone(), result);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("{}: its trainer is gone", run.name),
            }
        }
    }

    /// Steps that all jobs have taken, and that they take.
    pub fn steps(&self) -> (u64, u64) {
        let of = |job: &Job<'_>| match job {
            Job::Trunk(run) => (steps_taken(&trunk_folder(run, self.out)), run.trunk.1),
            Job::Run(run, branches) => {
                let first = if *branches { run.trunk.1 } else { 0 };
                let taken = steps_taken(&run.folder(self.out)).max(first);
                (taken - first, run.config.train.steps - first)
            }
        };
        self.jobs.iter().map(of).fold((0, 0), |sum, (taken, all)| (sum.0 + taken, sum.1 + all))
    }
}

/// Nothing goes on once nobody waits for it.
impl Drop for Training<'_> {
    fn drop(&mut self) {
        self.queue.stop.store(true, Ordering::Relaxed);
    }
}

/// Trunks first, so that runs have theirs soon.
fn jobs<'a>(to_train: &[&'a Planned], out: &Path) -> Vec<Job<'a>> {
    let branches = |run: &Planned| {
        let alike = to_train.iter().filter(|other| other.trunk == run.trunk).count();
        let has_begun = has_checkpoint(&run.folder(out), None);
        run.trunk.1 > 0 && (alike >= SHARED || has_trunk(run, out)) && !has_begun
    };
    let mut trunks: Vec<&Planned> = Vec::new();
    for run in to_train.iter().filter(|run| branches(run) && !has_trunk(run, out)) {
        if !trunks.iter().any(|trunk| trunk.trunk == run.trunk) {
            trunks.push(run);
        }
    }
    let runs = to_train.iter().map(|run| Job::Run(run, branches(run)));
    trunks.into_iter().map(Job::Trunk).chain(runs).collect()
}

/// Whether a run has left its model.
pub fn is_finished(folder: &Path) -> bool {
    folder.join("model.bsl").exists()
}

fn trunk_folder(run: &Planned, out: &Path) -> std::path::PathBuf {
    out.join(&run.trunk.0)
}

fn has_trunk(run: &Planned, out: &Path) -> bool {
    has_checkpoint(&trunk_folder(run, out), Some(run.trunk.1))
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

fn train_trunk(run: &Planned, out: &Path, threads: usize, queue: &Queue) {
    let folder = trunk_folder(run, out);
    if let Err(error) = train(&folder, &run.config, Some(run.trunk.1), threads, queue) {
        let mut fallen = queue.fallen.lock().expect("nobody panics with it");
        fallen.insert(run.trunk.0.clone(), format!("{error:#}"));
    }
}

fn train_run(
    run: &Planned,
    branches: bool,
    out: &Path,
    threads: usize,
    queue: &Queue,
) -> Result<()> {
    let folder = run.folder(out);
    if branches {
        if let Some(reason) = queue.why_fallen(run) {
            bail!("{}: {reason}", run.name);
        }
        branch(&trunk_folder(run, out), run.trunk.1, &folder)?;
    }
    train(&folder, &run.config, None, threads, queue)
}

/// Trains in a process of its own.
fn train(
    folder: &Path,
    config: &RunConfig,
    until: Option<u64>,
    threads: usize,
    queue: &Queue,
) -> Result<()> {
    let at = |path: &Path| path.display().to_string();
    std::fs::create_dir_all(folder).with_context(|| at(folder))?;
    let path = folder.join("config.toml");
    if !path.exists() {
        write_bytes(&path, config.to_toml().as_bytes(), Overwrite::Replace)?;
    }
    let log = folder.join(LOG);
    let output = File::create(&log).with_context(|| at(&log))?;
    let child = Command::new(std::env::current_exe()?)
        .args(["train", "--device", &device_in_use().to_string()])
        .args(["--with-parent", "--resume", "--out"])
        .arg(folder)
        .args(until.map(|step| format!("--until={step}")))
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot start a trainer")?;
    let mut child = Ended(child);
    let status = loop {
        match child.0.try_wait()? {
            Some(status) => break status,
            None => queue.pause()?,
        }
    };
    ensure!(status.success(), "{}: {}", folder.display(), last_words(&log));
    Ok(())
}

/// The error that a trainer ended with.
fn last_words(log: &Path) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_job_that_can_begin_is_taken_and_others_are_waited_for() {
        let queue = Queue::default();
        // A trunk, a run that goes on from it, and one that does not.
        let trunk_is_there = AtomicBool::new(false);
        let can_begin = |index: usize| index != 1 || trunk_is_there.load(Ordering::Relaxed);
        assert_eq!(queue.take(3, can_begin), Some(0));
        assert_eq!(queue.take(3, can_begin), Some(2));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.take(3, can_begin));
            trunk_is_there.store(true, Ordering::Relaxed);
            assert_eq!(waiting.join().unwrap(), Some(1));
        });
        assert_eq!(queue.take(3, can_begin), None);
    }

    #[test]
    fn a_queue_that_is_stopped_gives_nothing() {
        let queue = Queue::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.take(1, |_| false));
            queue.stop.store(true, Ordering::Relaxed);
            assert_eq!(waiting.join().unwrap(), None);
        });
        assert_eq!(queue.take(1, |_| true), None);
    }
}
