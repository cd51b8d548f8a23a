//! Times training steps, without the optimizer, on the composed and on the fused operations in turn.
//!
//! ```text
//! cargo bench -p backslash-model --bench step                       # 2 M parameters, 12 rows of 256
//! cargo bench -p backslash-model --bench step -- golf rows=1        # the 17 M golf preset
//! cargo bench -p backslash-model --bench step -- width=256 rows=8   # one setting changed
//! ```
//!
//! Settings: `vocabulary`, `width`, `layers`, `heads`, `kv_heads`, `mlp_ratio`, `tokens` (of a row), `rows`,
//! `steps` (of each kind), `composed` (0 leaves those steps out). The first word may be `golf`. Printed is the fastest step of each kind, and the
//! rate a plain matrix product of the same device reaches, with the tokens per second that a step would
//! make at that rate: a floor for its time. `RAYON_NUM_THREADS` sets the threads.

use std::time::{Duration, Instant};

use backslash_model::{
    Architecture, ModelConfig, Transformer, device, initial_weights, use_composed_operations,
};
use burn::tensor::{Distribution, Tensor};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Settings {
    config: ModelConfig,
    rows: usize,
    tokens: usize,
    steps: usize,
    composed: usize,
}

fn settings() -> Settings {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let golf = arguments.first().is_some_and(|argument| argument == "golf");
    let config = if golf {
        ModelConfig::golf()
    } else {
        ModelConfig { vocabulary_size: 1024, width: 192, kv_heads: 4, ..ModelConfig::default() }
    };
    let tokens = config.context;
    let mut settings =
        Settings { config, rows: if golf { 1 } else { 12 }, tokens, steps: 8, composed: 1 };
    for argument in arguments.iter().skip(usize::from(golf)) {
        let (key, value) = argument.split_once('=').expect("settings are key=value");
        let value: usize = value.parse().expect("values are whole numbers");
        let config = &mut settings.config;
        *match key {
            "vocabulary" => &mut config.vocabulary_size,
            "width" => &mut config.width,
            "layers" => &mut config.layers,
            "heads" => &mut config.heads,
            "kv_heads" => &mut config.kv_heads,
            "mlp_ratio" => &mut config.mlp_ratio,
            "tokens" => &mut settings.tokens,
            "rows" => &mut settings.rows,
            "steps" => &mut settings.steps,
            "composed" => &mut settings.composed,
            _ => panic!("unknown setting {key}"),
        } = value;
    }
    settings
}

/// The fastest times of one kind of step.
struct Best {
    forward: Duration,
    backward: Duration,
    loss: f32,
}

fn main() {
    let settings = settings();
    let Settings { config, rows, tokens: row, steps, composed: with_composed } = &settings;
    let weights = initial_weights(config, 1).expect("the settings make a network");
    let network = Transformer::from_weights(config, &weights, &device().autodiff())
        .expect("the weights fit the network");
    let count = rows * row;
    let vocabulary = config.vocabulary_size;
    let token = |i: usize| (i * i * 31 + i * 7919) % vocabulary;
    let tokens: Vec<u16> = (0..count).map(|i| token(i) as u16).collect();
    let targets: Vec<u16> = (0..count).map(|i| token(i + 1) as u16).collect();

    let mut best =
        [(); 2].map(|()| Best { forward: Duration::MAX, backward: Duration::MAX, loss: 0.0 });
    for _ in 0..*steps {
        for (composed, best) in [true, false].into_iter().zip(&mut best) {
            if composed && *with_composed == 0 {
                continue;
            }
            use_composed_operations(composed);
            let start = Instant::now();
            let loss = network.loss(&tokens, &targets, *row);
            let forward = start.elapsed();
            network.gradients(&loss, &weights);
            let whole = start.elapsed();
            if whole < best.forward.saturating_add(best.backward) {
                (best.forward, best.backward) = (forward, whole - forward);
            }
            best.loss = loss.into_scalar();
        }
    }

    println!(
        "{} parameters, {rows} rows of {row} tokens, {} threads",
        config.parameters(),
        rayon::current_num_threads()
    );
    println!("operations  forward ms  backward ms  tokens/s  loss");
    for (name, best) in ["composed", "fused"].iter().zip(&best) {
        if best.forward == Duration::MAX {
            continue;
        }
        let seconds = (best.forward + best.backward).as_secs_f64();
        println!(
            "{name:10}  {:10.1}  {:11.1}  {:8.0}  {:.6}",
            1e3 * best.forward.as_secs_f64(),
            1e3 * best.backward.as_secs_f64(),
            count as f64 / seconds,
            best.loss
        );
    }
    let rate = product_rate();
    let work = step_operations(config, *row);
    println!(
        "matrix products reach {:.0} GFLOP/s: at most {:.0} tokens/s at {:.1} MFLOP per token",
        rate / 1e9,
        rate / work,
        work / 1e6
    );
}

/// Floating-point operations per token of the matrix products of a step: six per weight, and the causal half
/// of attention twice forward and five times backward.
fn step_operations(config: &ModelConfig, row: usize) -> f64 {
    let controls = match config.architecture {
        Architecture::Golf => 4 * config.width * config.layers,
        _ => 0,
    };
    let attention = 7 * config.layers * config.width * row;
    (6 * (config.parameters() - controls) + attention) as f64
}

/// Operations per second of the best of some products of square matrices.
fn product_rate() -> f64 {
    const SIZE: usize = 1024;
    let matrix = || Tensor::<2>::random([SIZE, SIZE], Distribution::Default, &device());
    let (a, b) = (matrix(), matrix());
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            let product = a.clone().matmul(b.clone());
            let seconds = start.elapsed().as_secs_f64();
            drop(product);
            seconds
        })
        .fold(f64::INFINITY, f64::min);
    2.0 * (SIZE as f64).powi(3) / best
}
