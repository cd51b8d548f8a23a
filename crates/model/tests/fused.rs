//! The network on the fused operations of the CPU against the network on the composed ones.

use std::sync::Mutex;

use backslash_model::{
    Architecture, Gradients, ModelConfig, NamedWeights, Precision, Transformer, device,
    initial_weights, use_composed_operations,
};

/// Which operations run is a setting of the process.
static SETTING: Mutex<()> = Mutex::new(());

const ROW: usize = 70;
const ROWS: usize = 5;

fn configurations() -> [ModelConfig; 2] {
    let decoder = ModelConfig {
        vocabulary_size: 300,
        width: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        mlp_ratio: 4,
        context: ROW,
        ..ModelConfig::default()
    };
    let golf = ModelConfig { architecture: Architecture::Golf, layers: 4, ..decoder.clone() };
    [decoder, golf]
}

/// Tokens of a text in which each token says much about the next.
fn tokens() -> Vec<u16> {
    (0..=ROWS * ROW).map(|i| (i * i % 97 + i % 3 * 100) as u16).collect()
}

fn step(config: &ModelConfig, weights: &NamedWeights) -> (f32, Gradients) {
    step_in(Precision::Fp32, config, weights)
}

fn step_in(precision: Precision, config: &ModelConfig, weights: &NamedWeights) -> (f32, Gradients) {
    let tokens = tokens();
    let network = Transformer::from_weights(config, weights, &device().autodiff()).unwrap();
    let network = network.in_precision(precision);
    let loss = network.loss(&tokens[..ROWS * ROW], &tokens[1..], ROW);
    let gradients = network.gradients(&loss, weights);
    (loss.into_scalar(), gradients)
}

/// Losses of steps of plain gradient descent.
fn losses(precision: Precision, config: &ModelConfig) -> Vec<f32> {
    let mut weights = initial_weights(config, 3).unwrap();
    (0..100)
        .map(|_| {
            let (loss, gradients) = step_in(precision, config, &weights);
            for (tensor, gradient) in weights.tensors_mut().iter_mut().zip(&gradients.values) {
                for (weight, slope) in tensor.data.iter_mut().zip(gradient) {
                    *weight -= 0.3 * slope;
                }
            }
            loss
        })
        .collect()
}

#[test]
fn the_losses_of_a_hundred_steps_agree() {
    let _guard = SETTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for config in configurations() {
        use_composed_operations(true);
        let composed = losses(Precision::Fp32, &config);
        use_composed_operations(false);
        let fused = losses(Precision::Fp32, &config);
        assert!(composed[99] < 0.8 * composed[0], "{composed:?}");
        for (at, (composed, fused)) in composed.iter().zip(&fused).enumerate() {
            let difference = (fused / composed - 1.0).abs();
            assert!(difference < 1e-3, "step {at}: {fused} instead of {composed}");
        }
    }
}

/// Rounding operands to 8 bits of mantissa makes errors of some 10⁻³, and steps that are as good. Runs on any processor, if
/// slowly where there are no instructions for it.
#[test]
fn steps_in_bf16_lower_the_loss_as_those_in_f32_do() {
    let _guard = SETTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    use_composed_operations(false);
    for config in configurations() {
        let [rounded, exact] =
            [Precision::Bf16, Precision::Fp32].map(|precision| losses(precision, &config));
        assert_ne!(rounded, exact);
        for (at, (rounded, exact)) in rounded.iter().zip(&exact).enumerate() {
            let difference = (rounded / exact - 1.0).abs();
            assert!(difference < 0.02, "step {at}: {rounded} instead of {exact}");
        }
    }
}

#[test]
fn losses_per_target_average_to_the_training_loss() {
    let _guard = SETTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let tokens = tokens();
    for config in configurations() {
        let weights = initial_weights(&config, 4).unwrap();
        let mean = |device| {
            let network = Transformer::from_weights(&config, &weights, &device).unwrap();
            let losses = network.losses(&tokens[..ROWS * ROW], &tokens[1..], ROW);
            let losses: Vec<f32> = losses.into_data().try_into_vec().unwrap();
            losses.iter().sum::<f32>() / losses.len() as f32
        };
        let (loss, _) = step(&config, &weights);
        for device in [device(), device().autodiff()] {
            assert!((mean(device) / loss - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let _guard = SETTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for config in configurations() {
        let weights = initial_weights(&config, 5).unwrap();
        let [one, two] = [1, 2].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (loss, gradients) = step(&config, &weights);
                (loss, gradients.values)
            })
        });
        assert_eq!(one, two);
    }
}
