//! Times steps of training with and without the rate in bits, in turn.
//!
//! ```text
//! cargo bench -p backslash-train --bench rate                    # 2 M parameters, 32 rows of 256 tokens
//! cargo bench -p backslash-train --bench rate -- golf rows=8     # the 17 M golf preset
//! ```
//!
//! Settings: `rows` (of a batch) and `steps` (of each kind). Printed are the fastest step of each kind; the median over the
//! rounds of what a step takes more than the one without a rate in its round; and the time of quantiser and rate within
//! the steps, also as a share of the rest of them, which a machine whose speed drifts does not change.
//! `RAYON_NUM_THREADS` sets the threads.

use std::time::Instant;

use backslash_model::{ModelConfig, initial_weights};
use backslash_train::{
    Beginning, OriginRule, Part, Profile, RateConfig, RateMethod, RunConfig, TrainConfig, Trainer,
    TrainingSet,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let golf = arguments.iter().any(|argument| argument == "golf");
    let number = |key: &str, default: usize| {
        let of = |argument: &String| argument.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
        arguments.iter().find_map(of).unwrap_or(default)
    };
    let (rows, steps) =
        (number("rows", if golf { 8 } else { 32 }), number("steps", if golf { 7 } else { 31 }));
    let model = match golf {
        true => ModelConfig::golf(),
        false => {
            ModelConfig { vocabulary_size: 1024, width: 192, kv_heads: 4, ..ModelConfig::default() }
        }
    };
    let vocabulary = model.vocabulary_size;
    let token = |i: usize| ((i * i * 31 + i * 7919) % vocabulary) as u16;
    let tokens: Vec<u16> = (0..2 * rows * (model.context + 1)).map(token).collect();

    let trainer = |method, rounding_from, origin| {
        let rate =
            RateConfig { method, start: 0.0, rounding_from, origin, ..RateConfig::default() };
        let train = TrainConfig { batch_size: rows, steps: 1_000_000, ..TrainConfig::default() };
        let config = RunConfig { model: model.clone(), rate, train, ..RunConfig::default() };
        let weights = initial_weights(&model, 1).expect("the settings make a network");
        let beginning = Beginning { weights, metadata: Default::default() };
        Trainer::new(&config, TrainingSet::Tokens(&tokens), beginning)
            .expect("a valid configuration")
    };
    let mut kinds = [
        ("none", trainer(RateMethod::None, 0.0, OriginRule::Zero)),
        ("noise", trainer(RateMethod::Bits, 1.0, OriginRule::Zero)),
        ("rounding", trainer(RateMethod::Bits, 0.0, OriginRule::Zero)),
        ("rounding from an origin", trainer(RateMethod::Bits, 0.0, OriginRule::Initial)),
    ];
    let mut rounds: Vec<[f64; 4]> = Vec::new();
    // The first round makes the state of the optimizers, and is not counted.
    for round in 0..=steps {
        let mut seconds = [0.0; 4];
        for turn in 0..kinds.len() {
            let kind = (round + turn) % kinds.len();
            let trainer = &mut kinds[kind].1;
            let start = Instant::now();
            trainer.profile.start();
            trainer.step(TrainingSet::Tokens(&tokens)).expect("a finite loss");
            seconds[kind] = start.elapsed().as_secs_f64();
            if round == 0 {
                trainer.profile = Profile::default();
            }
        }
        if round > 0 {
            rounds.push(seconds);
        }
    }
    println!(
        "{} parameters, {} tokens a step, {} threads",
        model.parameters(),
        rows * model.context,
        rayon::current_num_threads()
    );
    println!("rate                     step ms  tokens/s     more  rate ms  of the rest");
    for (kind, (name, trainer)) in kinds.iter().enumerate() {
        let rate = trainer.profile.seconds(Part::Rate);
        let all: f64 = Part::ALL.map(|part| trainer.profile.seconds(part)).into_iter().sum();
        let best = rounds.iter().map(|round| round[kind]).fold(f64::INFINITY, f64::min);
        let mut ratios: Vec<f64> = rounds.iter().map(|round| round[kind] / round[0]).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "{name:23}  {:7.1}  {:8.0}  {:+6.2} %  {:7.2}  {:9.2} %",
            1e3 * best,
            (rows * model.context) as f64 / best,
            100.0 * (ratios[ratios.len() / 2] - 1.0),
            1e3 * rate / rounds.len() as f64,
            100.0 * rate / (all - rate)
        );
    }
}
