//! `backslash prune-curve`.

use std::path::Path;

use anyhow::{Result, bail};
use backslash_codec::{Limits, read_file, write_bytes};
use backslash_eval::ModelFile;
use backslash_eval::ladder::scored_fingerprint;
use backslash_eval::plot::{prune_curves, standalone};
use backslash_eval::prune::{
    Matrices, PruneCurve, PruneCurves, PrunePoint, Pruner, Reached, Scope,
};
use backslash_eval::table::{Column, Table, fixed, grouped};
use backslash_model::Architecture;
use serde_json::json;

use crate::arguments;
use crate::console::{Progress, say};
use crate::failure::Usage;
use crate::scored::Scored;
use crate::{document, output, session};

/// Greatest sparsity, in percent.
const MOST: u32 = 95;
/// Share of the quality whose loss is looked for.
const LOSS: f64 = 0.1;
/// What the figures are of.
pub const NOTE: &str = "Where codes count from numbers that the decoder draws, a pruned weight is that number. Bytes are those of weights alone.";

/// A model to be pruned.
struct Model {
    /// What it is a seed of, or its own name.
    kind: String,
    name: String,
    file: ModelFile,
    pruner: Pruner,
}

pub fn run(arguments: arguments::PruneCurve) -> Result<()> {
    document::check(arguments.document.section.as_deref())?;
    let plot = match &arguments.plot {
        Some(path) => Some((path, session::overwrite(path, arguments.force)?)),
        None => None,
    };
    let matrices = if arguments.embeddings { Matrices::All } else { Matrices::OfLayers };
    let open = |model: &String| open(model, arguments.bits_per_weight, matrices);
    let models = arguments.models.iter().map(open);
    let models = models.collect::<Result<Vec<Model>>>()?;
    let is_classifier = |model: &Model| model.file.config.is_classifier();
    if models.iter().any(is_classifier) && !models.iter().all(is_classifier) {
        bail!(Usage(
            "classifiers and decoders have no figure in common: draw their curves apart".to_owned()
        ));
    }
    let (kinds, fingerprints) = measure(&arguments, &models)?;
    let losses: Vec<String> = kinds.iter().map(loss).collect();
    let pruned = pruned(arguments.embeddings);

    if let (Some((path, overwrite)), Some(figure)) = (plot, prune_curves(&kinds)?) {
        write_bytes(path, standalone(&figure).as_bytes(), overwrite)?;
    }
    let points = table(&kinds);
    let tables =
        format!("{pruned} {NOTE}\n\n{}\n- {}\n", points.to_markdown(), losses.join("\n- "));
    let text = document::section(&tables, &fingerprints);
    let arguments::Document { markdown, section } = &arguments.document;
    document::replace(markdown.as_deref(), section.as_deref(), &text)?;
    if arguments.json {
        let value = |curve: &PruneCurve| {
            json!({
                "model": curve.name,
                "points": curve.points,
                "sparsity_at_10_percent_loss": curve.sparsity_at_loss(LOSS),
            })
        };
        let curves = kinds.iter().flat_map(|kind| &kind.curves);
        return output::print_json(&json!({
            "embeddings": arguments.embeddings,
            "scope": if arguments.per_tensor { "per tensor" } else { "global" },
            "curves": curves.map(value).collect::<Vec<_>>(),
            "kinds": kinds.iter().map(kind_json).collect::<Vec<_>>(),
        }));
    }
    output::print(&format!("{points}\n{}\n\n{pruned} {NOTE}", losses.join("\n")))
}

/// Which matrices are pruned, in words.
pub fn pruned(embeddings: bool) -> &'static str {
    match embeddings {
        false => {
            "Pruned are the matrices of linear layers alone, not embeddings, output matrices and vectors."
        }
        true => "Pruned are all matrices, embeddings too, but no vectors.",
    }
}

/// Where several seeds of a kind of model lose a tenth.
fn kind_json(kind: &PruneCurves) -> serde_json::Value {
    let lost = kind.sparsity_at_loss(LOSS);
    json!({
        "kind": kind.name,
        "models": kind.curves.iter().map(|curve| &curve.name).collect::<Vec<_>>(),
        "sparsity_at_10_percent_loss": lost.map(|lost| lost.mean),
        "interval": lost.and_then(|lost| lost.interval()),
        "models_that_lose_as_much": lost.map_or(0, |lost| lost.count),
    })
}

/// A model with its own codes, or with steps for its float weights; given as a path, or as KIND=PATH.
fn open(model: &str, bits_per_weight: f64, matrices: Matrices) -> Result<Model> {
    let (kind, path) = match model.split_once('=') {
        Some((kind, path)) if !Path::new(model).exists() => (Some(kind), Path::new(path)),
        _ => (None, Path::new(model)),
    };
    let own = match path.is_dir() {
        true if session::learned_plan(path)?.is_some() => Some(path.join("model.bsl")),
        true => None,
        false => Some(path.to_owned()),
    };
    let (file, pruner) = match own {
        Some(own) => {
            let artifact = read_file(&own, &Limits::default())?;
            (ModelFile::from_artifact(&own, &artifact)?, Pruner::of_codes(artifact, matrices))
        }
        None => {
            let file = session::open_model(path)?;
            say(&format!(
                "{}: has no steps of its own, so its float weights are coded at {bits_per_weight} bits per weight",
                path.display()
            ));
            let pruner = Pruner::of_floats(file.weights.clone(), bits_per_weight, matrices)?;
            (file, pruner)
        }
    };
    if file.config.architecture == Architecture::Bert && !file.config.is_classifier() {
        bail!(Usage(format!(
            "{} is an encoder without classes, which has no bits per byte",
            path.display()
        )));
    }
    let name = name(path);
    Ok(Model { kind: kind.map_or_else(|| name.clone(), str::to_owned), name, file, pruner })
}

/// The folder of a run, or the path of a file.
fn name(path: &Path) -> String {
    let folder = path.file_name().filter(|_| path.is_dir());
    folder.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Names, each with a hash.
type Fingerprints = Vec<(String, String)>;

/// The curves of all models, those of one kind together, and what they are of.
fn measure(
    arguments: &arguments::PruneCurve,
    models: &[Model],
) -> Result<(Vec<PruneCurves>, Fingerprints)> {
    let percents = (0..MOST).step_by(arguments.step as usize).chain([MOST]);
    let sparsities: Vec<f64> = percents.map(|percent| f64::from(percent) / 100.0).collect();
    let scope = if arguments.per_tensor { Scope::PerTensor } else { Scope::Global };
    let mut progress = Progress::new("point", 0, (sparsities.len() * models.len()) as u64);
    let mut done = 0;
    let (mut kinds, mut fingerprints): (Vec<PruneCurves>, Fingerprints) = Default::default();
    for Model { kind, name, file, pruner } in models {
        let scored = Scored::open(file, &arguments.data.config(), arguments.tokens)?;
        fingerprints.push((name.clone(), scored_fingerprint(file, scored.test())));
        let model = (&file.config, pruner);
        let mut advance = |point: &PrunePoint| {
            done += 1;
            progress.at(done, &format!("{name}, {:.0} % pruned", 100.0 * point.sparsity));
        };
        let at = (&sparsities[..], scope);
        let curve = PruneCurve::measure(name, model, scored.test(), at, &mut advance)?;
        match kinds.iter_mut().find(|known| known.name == *kind) {
            Some(known) => known.curves.push(curve),
            None => kinds.push(PruneCurves { name: kind.clone(), curves: vec![curve] }),
        }
    }
    progress.finish();
    Ok((kinds, fingerprints))
}

/// Means over the models of each kind.
fn table(kinds: &[PruneCurves]) -> Table<7> {
    let curves: Vec<PruneCurve> = kinds.iter().map(PruneCurves::mean).collect();
    let first = curves.iter().find_map(|curve| curve.points.first());
    let title = match first.map(|point| point.decoded) {
        Some(Reached::Accuracy(_)) => "% correct, pruned",
        _ => "bits per byte, pruned",
    };
    let figure = |reached| match reached {
        Reached::BitsPerByte(bits) => fixed(bits, 4),
        Reached::Accuracy(share) => fixed(100.0 * share, 2),
    };
    let mut table = Table::new([
        Column::text("model"),
        Column::number("pruned"),
        Column::number("zero codes"),
        Column::number("file bytes"),
        Column::number("bits/weight"),
        Column::number(title),
        Column::number("decoded"),
    ]);
    let percent = |share: f64| format!("{} %", fixed(100.0 * share, 1));
    for curve in &curves {
        for point in &curve.points {
            table.push([
                curve.name.clone(),
                percent(point.sparsity),
                percent(point.zeros),
                grouped(point.bytes),
                fixed(point.bits_per_weight, 3),
                figure(point.pruned),
                figure(point.decoded),
            ]);
        }
    }
    table
}

fn loss(kind: &PruneCurves) -> String {
    let first = kind.curves.iter().find_map(|curve| curve.points.first());
    let what = match first.map(|point| point.decoded) {
        Some(Reached::Accuracy(_)) => "10 % fewer correct",
        _ => "10 % more bits per byte",
    };
    let Some(lost) = kind.sparsity_at_loss(LOSS) else {
        return format!("{}: less than {what} at {MOST} % pruned", kind.name);
    };
    let percent = |share: f64| fixed(100.0 * share, 1);
    let models = kind.curves.len();
    let seeds = match (lost.interval(), lost.count == models) {
        (None, true) => String::new(),
        (_, false) => format!(" ({} of {models} models lose as much)", lost.count),
        (Some((from, to)), true) => format!(
            " (mean of {models} models, 95 % interval {} to {} %)",
            percent(from),
            percent(to)
        ),
    };
    format!("{}: {what} than unpruned at {} % pruned{seeds}", kind.name, percent(lost.mean))
}
