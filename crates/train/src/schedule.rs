//! The learning rate over a run.

use crate::TrainConfig;

/// Learning rate of a step, as a multiple of its peak: that of its [`cycle`], which after a restart begins at
/// `restart_scale`.
pub(crate) fn multiplier(config: &TrainConfig, step: u64) -> f64 {
    let peak = if step < config.restart_step() { 1.0 } else { config.restart_scale };
    peak * cycle(config, step)
}

/// Learning rate of a step, as a multiple of that which its cycle begins with.
///
/// Rises linearly over the warm-up, stays at 1, and falls linearly to zero over the last `warmdown` share
/// of the steps before the restart. After that it falls linearly all the way to the last step.
pub(crate) fn cycle(config: &TrainConfig, step: u64) -> f64 {
    let end = config.restart_step();
    if step >= end {
        return (config.steps - step) as f64 / (config.steps - end) as f64;
    }
    let warmup = (step + 1) as f64 / config.warmup_steps.max(1) as f64;
    let left = (end - step) as f64 / (config.warmdown * end as f64).max(1.0);
    warmup.min(left).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_stays_and_falls() {
        let config =
            TrainConfig { steps: 100, warmup_steps: 10, warmdown: 0.5, ..Default::default() };
        assert_eq!(multiplier(&config, 0), 0.1);
        assert_eq!(multiplier(&config, 9), 1.0);
        assert_eq!(multiplier(&config, 50), 1.0);
        assert_eq!(multiplier(&config, 75), 0.5);
        assert_eq!(multiplier(&config, 99), 0.02);
        let flat = TrainConfig { steps: 100, warmup_steps: 0, warmdown: 0.0, ..Default::default() };
        assert!((0..100).all(|step| multiplier(&flat, step) == 1.0));
    }

    #[test]
    fn until_it_starts_again_it_is_that_of_a_shorter_run() {
        let once = TrainConfig { steps: 80, warmup_steps: 10, ..Default::default() };
        let twice = TrainConfig { steps: 100, restart: 0.8, restart_scale: 0.5, ..once.clone() };
        assert!((0..80).all(|step| multiplier(&twice, step) == multiplier(&once, step)));
        assert_eq!([80, 90, 99].map(|step| multiplier(&twice, step)), [0.5, 0.25, 0.025]);
        assert_eq!([80, 90, 99].map(|step| cycle(&twice, step)), [1.0, 0.5, 0.05]);
    }
}
