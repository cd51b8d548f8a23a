//! What all optimizers have in common, on a small network.

use super::*;
use crate::{Beginning, Trainer, TrainingSet, checkpoint, config};

/// Every method, and every option that has code of its own.
const SETTINGS: [&[&str]; 12] = [
    &["method=adamw"],
    &["method=adamw", "cautious_decay=true", "spectral_decay=0.1", "spectral_decay_interval=4"],
    &["method=muon"],
    &["method=muon", "momentum_warmup_steps=10", "orthogonalization=polar-express"],
    &["method=muon", "nesterov=false", "cautious_decay=true"],
    &[
        "method=muon",
        "momentum_warmup_steps=500",
        "matrix.learning_rate=0.04",
        "embedding.learning_rate=0.05",
    ],
    &["method=normuon", "update_scale=match-adamw", "matrix.learning_rate=0.01"],
    &["method=muoneq-r", "matrix.weight_decay=0"],
    &["method=muoneq-r", "constant_norm=true"],
    &["method=numuon", "rank_end=0.1"],
    &["method=numuon", "rank_start=0.2", "rank_schedule=constant"],
    &["method=numuon", "spectral_decay=0.4", "spectral_decay_of=largest"],
];

const STEPS: u64 = 40;

fn trainer(settings: &[&str], architecture: &str) -> (Trainer, Vec<u16>) {
    let mut sets: Vec<String> = [
        "model.vocabulary_size=32",
        "model.width=32",
        "model.layers=1",
        "model.heads=2",
        "model.kv_heads=2",
        "model.context=16",
        "train.batch_size=4",
        "train.warmup_steps=0",
        "train.learning_rate=0.02",
    ]
    .map(str::to_owned)
    .into();
    sets.push(format!("model.architecture={architecture}"));
    sets.push(format!("train.steps={STEPS}"));
    sets.extend(settings.iter().map(|set| format!("optimizer.{set}")));
    let config = config::parse("", &sets).unwrap();
    let tokens: Vec<u16> = (0..2000_u32).map(|i| (i * i % 31) as u16).collect();
    let weights = backslash_model::initial_weights(&config.model, config.train.seed).unwrap();
    let beginning = Beginning { weights, metadata: Default::default() };
    (Trainer::new(&config, TrainingSet::Tokens(&tokens), beginning).unwrap(), tokens)
}

/// Takes steps up to the given one; the losses.
fn run(trainer: &mut Trainer, tokens: &[u16], until: u64) -> Vec<f64> {
    let mut losses = Vec::new();
    while trainer.steps_taken() < until {
        losses.push(trainer.step(TrainingSet::Tokens(tokens)).unwrap().loss);
    }
    losses
}

#[test]
fn every_optimizer_lowers_the_loss() {
    for settings in SETTINGS {
        for architecture in ["golf", "gpt2"] {
            let (mut trainer, tokens) = trainer(settings, architecture);
            let losses = run(&mut trainer, &tokens, STEPS);
            let last = losses[losses.len() - 4..].iter().sum::<f64>() / 4.0;
            assert!(last < 0.7 * losses[0], "{settings:?} {architecture}: {} {last}", losses[0]);
            trainer.weights().check_finite().unwrap();
        }
    }
}

/// The step in the middle of the run has a rank below the full one for NuMuon.
#[test]
fn a_checkpoint_continues_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for settings in SETTINGS {
        let (mut first, tokens) = trainer(settings, "golf");
        run(&mut first, &tokens, 25);
        checkpoint::save(&first, "data", folder.path()).unwrap();
        let path = folder.path().join("step-00000025.safetensors");
        let (mut second, _) = trainer(settings, "golf");
        checkpoint::load(&mut second, "data", &path).unwrap();
        assert_eq!(first.optimizer.parameters, second.optimizer.parameters, "{settings:?}");
        assert_eq!(run(&mut first, &tokens, 30), run(&mut second, &tokens, 30), "{settings:?}");
        assert_eq!(first.weights(), second.weights(), "{settings:?}");
        assert_eq!(first.optimizer.parameters, second.optimizer.parameters, "{settings:?}");
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    for settings in SETTINGS {
        let [one, two] = [1, 2].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (mut trainer, _) = trainer(settings, "golf");
            // The network's gradients are those of one thread, so that only the optimizer is compared.
            let gradients = Gradients {
                values: trainer.weights.tensors().iter().map(|t| cosines(t.data.len())).collect(),
            };
            for step in 0..6 {
                let Trainer { optimizer, weights, .. } = &mut trainer;
                pool.install(|| optimizer.update(6 * step, 1.0, weights, &gradients));
            }
            (trainer.weights.clone(), trainer.optimizer.parameters.clone())
        });
        assert_eq!(one, two, "{settings:?}");
    }
}

fn cosines(count: usize) -> Vec<f32> {
    (0..count).map(|index| 1e-3 * ((index * index) as f32).cos()).collect()
}

/// The matrix of a linear layer of three inputs and six outputs.
fn matrix() -> NamedTensor {
    NamedTensor { name: "blocks.0.mlp.fc.weight".to_owned(), shape: vec![6, 3], data: cosines(18) }
}

#[test]
fn a_state_of_another_shape_is_refused_by_name() {
    let (mut trainer, _) = trainer(&["method=numuon"], "golf");
    let state: Vec<(String, Vec<f32>)> =
        trainer.optimizer.state().into_iter().map(|(name, part)| (name, part.to_vec())).collect();
    let read = |changed: &'static str, length: Option<usize>| {
        let state = state.clone();
        move |name: &str| {
            let part = state.iter().find(|(known, _)| known == name).map(|(_, part)| part.clone());
            if name == changed { length.map(|length| vec![0.0; length]) } else { part }
        }
    };
    let mut restore = |changed, length| trainer.optimizer.restore(read(changed, length));
    let [basis, momentum] = ["basis/blocks.0.mlp.fc.weight", "momentum/blocks.0.mlp.fc.weight"];
    assert_eq!(restore("", None), Ok(()));
    assert_eq!(restore(basis, Some(3 * 128)), Ok(()));
    assert_eq!(restore(basis, Some(100)), Err(basis.to_owned()));
    assert_eq!(restore(momentum, Some(100)), Err(momentum.to_owned()));
    assert_eq!(restore(momentum, None), Err(momentum.to_owned()));
}

#[test]
fn groups_have_their_rates_and_decays() {
    let settings = ["method=muon", "embedding.learning_rate=0.5", "matrix.weight_decay=0.3"];
    let (trainer, _) = trainer(&settings, "golf");
    for parameter in &trainer.optimizer.parameters {
        let Parameter { name, learning_rate, weight_decay, state, .. } = parameter;
        let adamw = matches!(state, parameter::State::AdamW(_));
        let expected = match name.as_str() {
            "tok_emb.weight" => (0.5, 0.1, true),
            name if name.ends_with(".weight") => (0.02, 0.3, false),
            // Sets of vectors have always decayed.
            "blocks.0.resid_mix" | "skip_weights" => (0.02, 0.1, true),
            _ => (0.02, 0.0, true),
        };
        assert_eq!((*learning_rate, *weight_decay, adamw), expected, "{name}");
    }
}

#[test]
fn cautious_decay_is_whole_where_the_step_shrinks_and_none_elsewhere() {
    for method in ["method=adamw", "method=normuon"] {
        let [free, decayed, cautious] =
            [["0", "false"], ["0.5", "false"], ["0.5", "true"]].map(|[decay, cautious]| {
                let decay = format!("matrix.weight_decay={decay}");
                let cautious = format!("cautious_decay={cautious}");
                let (mut trainer, _) = trainer(&[method, &decay, &cautious], "golf");
                let Trainer { optimizer, weights, .. } = &mut trainer;
                let before = weights.clone();
                let lengths = before.tensors().iter().map(|tensor| tensor.data.len());
                let gradients = Gradients { values: lengths.map(cosines).collect() };
                optimizer.update(0, 1.0, weights, &gradients);
                let at = |weights: &NamedWeights| {
                    weights.get("blocks.0.mlp.fc.weight").unwrap().data.clone()
                };
                (at(&before), at(weights))
            });
        let mut kinds = [0, 0];
        for (index, before) in free.0.iter().enumerate() {
            let shrinks = (free.1[index] - before) * before <= 0.0;
            let expected = if shrinks { decayed.1[index] } else { free.1[index] };
            assert_eq!(cautious.1[index], expected, "{method} {index}");
            kinds[usize::from(shrinks)] += 1;
        }
        assert!(kinds.iter().all(|count| *count > 1000), "{method} {kinds:?}");
    }
}

/// One step of the golf preset on one matrix, by its published formulas.
#[test]
fn the_golf_preset_takes_the_steps_of_the_baseline() {
    let config = RunConfig { optimizer: OptimizerConfig::golf(), ..RunConfig::default() };
    let layout = groups::Layout { outputs: 6, inputs: 3, by_output: true };
    let tensor = matrix();
    let mut weights = NamedWeights::new(vec![tensor.clone()]);
    let mut optimizer = Optimizer::new(&config, &weights);
    let gradient: Vec<f32> = cosines(18).iter().map(|x| x + 1e-3).collect();
    let gradients = Gradients { values: vec![gradient.clone()] };
    optimizer.update(0, 0.5, &mut weights, &gradients);

    let direction = orthogonalize::orthogonalize(
        layout.load(&gradient.iter().map(|g| 1.85 * g).collect::<Vec<f32>>()).as_ref(),
        orthogonalize::Polar::exact(config.optimizer.orthogonalization),
    );
    let moved = layout.store(direction.as_ref());
    for ((w, before), moved) in weights.tensors()[0].data.iter().zip(&tensor.data).zip(moved) {
        let expected = before - 0.5 * 0.04 * 2.0_f32.sqrt() * moved;
        assert!((w - expected).abs() < 1e-6, "{w} {expected}");
    }
}

/// The first step of Adam is one learning rate for every weight, whatever its gradient; that of the golf preset is for
/// orthogonal updates, whose entries have a root mean square of √2/√6 here where those of AdamW count as 0.28.
#[test]
fn adamw_takes_over_where_the_rate_begins_with_updates_of_the_same_size() {
    let config = RunConfig { optimizer: OptimizerConfig::golf(), ..RunConfig::default() };
    let mut weights = NamedWeights::new(vec![matrix()]);
    let gradients = Gradients { values: vec![cosines(18).iter().map(|x| x + 1e-3).collect()] };
    let mut optimizer = Optimizer::new(&config, &weights);
    optimizer.update(0, 1.0, &mut weights, &gradients);
    let before = weights.tensors()[0].data.clone();
    optimizer.begin_pricing(1, &weights);
    optimizer.update(1, 0.5, &mut weights, &gradients);
    let length = 0.5 * 0.04 * 2.0_f32.sqrt() / (0.28 * 6.0_f32.sqrt());
    for ((w, before), g) in weights.tensors()[0].data.iter().zip(before).zip(&gradients.values[0]) {
        assert!((w - (before - length * g.signum())).abs() < 1e-5, "{w} {before} {g}");
    }
}

/// A gradient of zero leaves spectral decay alone to move a matrix: in steps that are as much larger as they are rare, and
/// from the start of the rate on by its multiples.
#[test]
fn spectral_decay_has_an_interval_and_a_multiple_under_the_rate() {
    let sets = [
        "optimizer.method=muon",
        "optimizer.spectral_decay=0.2",
        "optimizer.spectral_decay_interval=4",
        "train.learning_rate=0.01",
        "train.weight_decay=0",
        "rate.method=bits",
        "rate.matrix_method=muon",
        "rate.matrix_learning_rate=0.5",
        "rate.matrix_spectral_decay=0.25",
    ];
    let config = config::parse("", &sets.map(str::to_owned)).unwrap();
    let layout = groups::Layout { outputs: 6, inputs: 3, by_output: true };
    let mut weights = NamedWeights::new(vec![matrix()]);
    let mut optimizer = Optimizer::new(&config, &weights);
    let gradients = Gradients { values: vec![vec![0.0; 18]] };
    let polar = orthogonalize::Polar::exact(config.optimizer.orthogonalization);
    for (step, amount) in [(0, 4.0 * 0.01 * 0.2), (1, 0.0), (3, 0.0), (4, 4.0 * 0.005 * 0.05)] {
        if step == 4 {
            optimizer.begin_pricing(step, &weights);
        }
        let before = weights.tensors()[0].data.clone();
        let direction = orthogonalize::orthogonalize(layout.load(&before).as_ref(), polar);
        optimizer.update(step, 1.0, &mut weights, &gradients);
        let after = &weights.tensors()[0].data;
        for ((w, before), d) in after.iter().zip(before).zip(layout.store(direction.as_ref())) {
            assert!((w - (before - amount * d)).abs() < 1e-7, "{step}: {w} {before} {d}");
        }
    }
}

/// From the start of the rate on a matrix moves as under an optimizer that always had its momentum.
#[test]
fn a_rate_can_have_a_momentum_of_its_own() {
    let tensor = matrix();
    let ends = |sets: &[&str], priced: bool| {
        let always = ["optimizer.method=muon", "rate.method=bits", "rate.matrix_method=muon"];
        let sets: Vec<String> = always.iter().chain(sets).map(ToString::to_string).collect();
        let config = config::parse("", &sets).unwrap();
        let mut weights = NamedWeights::new(vec![tensor.clone()]);
        let mut optimizer = Optimizer::new(&config, &weights);
        if priced {
            optimizer.begin_pricing(0, &weights);
        }
        for step in 0..3 {
            let values = (0..18).map(|at| ((at * (step + 2)) as f32).sin()).collect();
            let gradients = Gradients { values: vec![values] };
            optimizer.update(step, 1.0, &mut weights, &gradients);
        }
        weights.tensors()[0].data.clone()
    };
    let short = ends(&["optimizer.momentum=0.5"], true);
    let own = ["optimizer.momentum=0.9", "rate.matrix_momentum=0.5"];
    assert_eq!(ends(&own, true), short);
    assert_eq!(ends(&own, false), ends(&["optimizer.momentum=0.9"], true));
    assert_ne!(ends(&own, false), short);
}

/// Of noise whose scale differs by row and by column the memory of every optimizer tells by how much.
#[test]
fn squared_gradients_are_remembered_by_row_and_column() {
    let (rows, columns) = (240, 256);
    let row_scale = |row: usize| [1.0, 4.0, 0.5][row % 3];
    let column_scale = |column: usize| [1.0, 3.0][column % 2];
    let tensor =
        NamedTensor { shape: vec![rows, columns], data: vec![0.1; rows * columns], ..matrix() };
    let weights = NamedWeights::new(vec![tensor]);
    for method in ["adamw", "muon", "muoneq-r", "normuon", "numuon"] {
        let config = config::parse("", &[format!("optimizer.method={method}")]).unwrap();
        let mut optimizer = Optimizer::new(&config, &weights);
        let mut moved = weights.clone();
        for step in 0..30 {
            let mut values = vec![0.0; rows * columns];
            backslash_rate::add_uniform_noise(&values.clone(), 1.0, step, 0, &mut values);
            for (at, value) in values.iter_mut().enumerate() {
                *value *= row_scale(at / columns) * column_scale(at % columns);
            }
            let gradients = Gradients { values: vec![values] };
            optimizer.update(step, 1.0, &mut moved, &gradients);
        }
        let squares = optimizer.squared_gradients(&weights, 1e6);
        let (by_row, by_column) = (squares.by_row(0), squares.by_column(0));
        for (row, sum) in by_row.iter().enumerate() {
            let expected = f64::from(row_scale(row)).powi(2) * by_row[0];
            assert!((0.4..2.5).contains(&(sum / expected)), "{method}, row {row}: {by_row:?}");
        }
        for (column, sum) in by_column.iter().enumerate() {
            let expected = f64::from(column_scale(column)).powi(2) * by_column[0];
            assert!((0.4..2.5).contains(&(sum / expected)), "{method}, column {column}");
        }
    }
}
