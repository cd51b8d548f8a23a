//! The learning rate over a run.

use crate::TrainConfig;

/// Learning rate of a step, as a multiple of its peak.
///
/// Rises linearly over the warm-up, stays at 1, and falls linearly to zero over the last `warmdown` share
/// of the steps.
pub(crate) fn multiplier(config: &TrainConfig, step: u64) -> f64 {
    let warmup = (step + 1) as f64 / config.warmup_steps.max(1) as f64;
    let left = (config.steps - step) as f64 / (config.warmdown * config.steps as f64).max(1.0);
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
}
