//! Where the time of training goes.

use std::time::{Duration, Instant};

use backslash_model::wait_for_device;

/// A part of a training step, or what happens between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The next batch.
    Data,
    /// Weights to the device, and the loss.
    Forward,
    /// Gradients, back on the host.
    Backward,
    /// The weights as the quantiser perturbs them, their price and its gradient; sizes of files where there is a budget.
    Rate,
    /// Clipping, and the optimizer's update.
    Optimizer,
    /// Loss on the validation tokens.
    Evaluation,
    /// Metrics and checkpoints.
    Writing,
}

impl Part {
    /// All of them, in their order.
    pub const ALL: [Self; 7] = [
        Self::Data,
        Self::Forward,
        Self::Backward,
        Self::Rate,
        Self::Optimizer,
        Self::Evaluation,
        Self::Writing,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Rate => "quantiser and rate",
            Self::Optimizer => "optimizer",
            Self::Evaluation => "evaluation",
            Self::Writing => "metrics and checkpoints",
        }
    }
}

/// Seconds by [`Part`], measured only once it has been [started](Profile::start): on a GPU each part then waits for the
/// device, which costs time by itself.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    last: Option<Instant>,
    spent: [Duration; Part::ALL.len()],
}

impl Profile {
    /// Begins to measure: what comes next belongs to the part that ends first.
    pub fn start(&mut self) {
        self.last = Some(Instant::now());
    }

    /// The time since the last part's end was this part's.
    pub(crate) fn ends(&mut self, part: Part) {
        if let Some(last) = self.last {
            wait_for_device();
            let now = Instant::now();
            self.spent[part as usize] += now - last;
            self.last = Some(now);
        }
    }

    /// Seconds of a part.
    pub fn seconds(&self, part: Part) -> f64 {
        self.spent[part as usize].as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_belongs_to_the_part_that_ends() {
        let mut profile = Profile::default();
        profile.ends(Part::Data);
        assert_eq!(profile.seconds(Part::Data), 0.0);
        profile.start();
        let start = Instant::now();
        for part in [Part::Forward, Part::Rate, Part::Forward] {
            std::thread::sleep(Duration::from_millis(2));
            profile.ends(part);
        }
        let all: f64 = Part::ALL.map(|part| profile.seconds(part)).into_iter().sum();
        assert!(all <= start.elapsed().as_secs_f64());
        assert!(profile.seconds(Part::Forward) >= 0.004 && profile.seconds(Part::Rate) >= 0.002);
        assert_eq!(profile.seconds(Part::Evaluation), 0.0);
    }
}
