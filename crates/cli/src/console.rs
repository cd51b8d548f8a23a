//! Progress on stderr: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two plain lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Progress of something that takes a known number of steps.
pub struct Progress {
    bar: Option<ProgressBar>,
    title: String,
    total: u64,
    first: u64,
    started: Instant,
    printed: Instant,
}

impl Progress {
    /// Begins at `first` of `total` steps.
    pub fn new(title: &str, first: u64, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(first);
            let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len}  {msg}");
            bar.set_style(style.expect("a valid template"));
            bar.set_prefix(title.to_owned());
            bar
        });
        let now = Instant::now();
        Self { bar, title: title.to_owned(), total, first, started: now, printed: now }
    }

    /// Says where it stands; `message` is shown beside the count and the time left. Before the first position, where steps are
    /// taken again that were lost, time is counted from here on.
    pub fn at(&mut self, position: u64, message: &str) {
        if position < self.first {
            (self.first, self.started) = (position, Instant::now());
        }
        let left = left(self.started.elapsed(), position - self.first, self.total - position);
        match &self.bar {
            Some(bar) => {
                bar.set_position(position);
                bar.set_message(format!("{message}  {left}"));
            }
            None if self.printed.elapsed() >= INTERVAL || position == self.total => {
                self.printed = Instant::now();
                eprintln!("{} {position}/{}  {message}  {left}", self.title, self.total);
            }
            None => {}
        }
    }

    /// A line that stays, above the bar.
    pub fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line on stderr.
pub fn say(line: &str) {
    eprintln!("{line}");
}

fn left(elapsed: Duration, done: u64, to_do: u64) -> String {
    if done == 0 {
        return "ETA unknown".to_owned();
    }
    let seconds = (elapsed.as_secs_f64() / done as f64 * to_do as f64).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("ETA {seconds}s"),
        (0, minutes, seconds) => format!("ETA {minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("ETA {hours}h{minutes:02}m"),
    }
}

/// Does something that tells how many of how many parts are done, and shows that.
pub fn watched<T>(name: &str, act: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
    let mut progress: Option<Progress> = None;
    let result = act(&mut |done, total| {
        progress.get_or_insert_with(|| Progress::new(name, 0, total as u64)).at(done as u64, "");
    });
    if let Some(progress) = progress {
        progress.finish();
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_steps_to_come() {
        assert_eq!(left(Duration::from_secs(10), 5, 30), "ETA 1m00s");
        assert_eq!(left(Duration::from_secs(10), 10, 3), "ETA 3s");
        assert_eq!(left(Duration::from_secs(100), 1, 72), "ETA 2h00m");
        assert_eq!(left(Duration::ZERO, 0, 10), "ETA unknown");
    }

    #[test]
    fn steps_that_are_taken_again_are_counted_from_where_they_begin() {
        let mut progress = Progress::new("step", 10, 30);
        progress.at(6, "");
        progress.at(8, "");
        assert_eq!(progress.first, 6);
        assert!(progress.started.elapsed() < progress.printed.elapsed());
    }
}
