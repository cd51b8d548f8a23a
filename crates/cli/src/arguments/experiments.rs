//! Commands that measure and compare: of what is done to models, and of many runs.

use std::path::PathBuf;

use backslash_quant::Rung;
use clap::Args;

use super::{Allocation, Columns, Data, positive};

#[derive(Debug, Args)]
pub struct Ledger {
    /// A run's folder, or one with model.safetensors, config.json and tokenizer.
    pub input: PathBuf,
    /// Text files, folders or token shards, of a classifier tab-separated files of texts and labels: the first
    /// --calibration-tokens calibrate, the next --slope-tokens measure.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    pub text: Vec<PathBuf>,
    #[command(flatten)]
    pub columns: Columns,
    /// Tokens of --text to calibrate on.
    #[arg(long, value_name = "N", default_value_t = 49_152)]
    pub calibration_tokens: usize,
    /// Tokens of --text to measure on.
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    pub slope_tokens: usize,
    /// The file to measure around, in bits per weight; 3 without any of these.
    #[arg(long, value_name = "BITS", value_parser = positive, group = "goal")]
    pub bits_per_weight: Option<f64>,
    /// Its size, in bytes, or with kB or MB behind the number.
    #[arg(long, value_name = "SIZE", value_parser = crate::session::parse_size, group = "goal")]
    pub budget: Option<u64>,
    /// Its κ.
    #[arg(long, value_name = "K", value_parser = positive, group = "goal")]
    pub kappa: Option<f64>,
    /// Quantiser: rtn, rdoq, entquant, trellis, gptq, watersic or watersic-rate.
    #[arg(long, value_name = "NAME", default_value = "watersic")]
    pub rung: Rung,
    /// Write a line for every finished entry, and go on from those that are there.
    #[arg(long, value_name = "FILE.jsonl")]
    pub results: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// The part of a document that a command makes.
#[derive(Debug, Args)]
pub struct Document {
    /// Put the tables into this document too, between marks with the name of --section.
    #[arg(long, value_name = "FILE.md", requires = "section")]
    pub markdown: Option<PathBuf>,
    /// Name of the part of the document that is replaced, or added.
    #[arg(long, value_name = "NAME", requires = "markdown")]
    pub section: Option<String>,
}

#[derive(Debug, Args)]
pub struct Ladder {
    /// Models in folders, such as several seeds of one configuration; or, without --text, any safetensors files, which
    /// are compared by their squared error.
    #[arg(required = true)]
    pub inputs: Vec<PathBuf>,
    /// Text files, folders or token shards to calibrate on, of classifiers tab-separated files of texts and labels.
    #[arg(long, value_name = "PATH", num_args = 1.., requires_all = ["data", "results"])]
    pub text: Vec<PathBuf>,
    /// Such files to measure the loss on.
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "text")]
    pub data: Vec<PathBuf>,
    #[command(flatten)]
    pub columns: Columns,
    /// Sizes of files, in bits per weight.
    #[arg(long, value_name = "BITS", value_delimiter = ',', default_values_t = [1.5, 2.0, 2.5, 3.0, 4.0], value_parser = positive)]
    pub bits: Vec<f64>,
    /// Quantisers, all without this: the first is the one to compare with, the last the best.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub rungs: Vec<Rung>,
    /// How steps are shared out: by rows for every quantiser, in the other ways for the first and the last.
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',', default_values_t = [Allocation::Rows, Allocation::Tensors, Allocation::Relative])]
    pub allocations: Vec<Allocation>,
    /// Tokens of --text to calibrate on.
    #[arg(long, value_name = "N", default_value_t = 49_152)]
    pub calibration_tokens: usize,
    /// Tokens of --data to score, of a classifier examples; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 131_072)]
    pub tokens: usize,
    /// Where finished points are kept, a line each, and looked for.
    #[arg(long, value_name = "FILE.jsonl")]
    pub results: Option<PathBuf>,
    #[command(flatten)]
    pub document: Document,
    /// Print the points as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Sweep {
    /// What is compared: a TOML file with a configuration, seeds, and curves with `set`, `grid` and `export`.
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,
    #[command(flatten)]
    pub data: Data,
    /// `bytes`, `bpe:N`, or a SentencePiece .model or tokenizer.json file; for a classifier `wordpiece:N`, or a WordPiece
    /// vocab.txt or tokenizer.json file.
    #[arg(long, value_name = "TOKENIZER")]
    pub tokenizer: Option<String>,
    /// Where finished files are kept, a line each, and looked for.
    #[arg(long, value_name = "FILE.jsonl", required_unless_present = "check")]
    pub results: Option<PathBuf>,
    /// Folder of the runs.
    #[arg(long, value_name = "FOLDER", default_value = "runs/sweep")]
    pub out: PathBuf,
    /// Runs that are trained at the same time, which share the cores.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=256))]
    pub workers: usize,
    /// Training tokens that the quantisers calibrate on.
    #[arg(long, value_name = "N", default_value_t = 49_152)]
    pub calibration_tokens: usize,
    /// Put the tables into this document too, between marks with the name of --section.
    #[arg(long, value_name = "FILE.md", requires = "section", group = "document")]
    pub markdown: Option<PathBuf>,
    /// Name of the part of the document that is replaced or added, or checked.
    #[arg(long, value_name = "NAME", requires = "document")]
    pub section: Option<String>,
    /// Draw the best files of every curve.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Make the files of one --row of this document's --section again, in --out, and say whether its figures hold.
    #[arg(long, value_name = "FILE.md", requires_all = ["section", "row"], group = "document", conflicts_with_all = ["results", "plot"])]
    pub check: Option<PathBuf>,
    /// The first cell of the row that is checked.
    #[arg(long, value_name = "CURVE: SETTING", requires = "check")]
    pub row: Option<String>,
    /// By how much figures may differ that are the same on one machine, in percent: another one rounds sums differently.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.5, value_parser = positive)]
    pub within: f64,
    /// Print the lines of the results as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PruneCurve {
    /// Decoders or classifiers: .bsl files, whose codes are pruned and whose steps stay; runs with learned steps, of which model.bsl is
    /// taken; and runs and folders without, whose float weights are pruned and coded at --bits-per-weight. Models given as
    /// KIND=MODEL with one KIND are seeds of one curve.
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
    #[command(flatten)]
    pub data: Data,
    /// Score this many tokens, of a classifier examples, from the beginning; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 131_072)]
    pub tokens: usize,
    /// Prune every matrix to the same sparsity; without this, the smallest weights of all matrices together.
    #[arg(long)]
    pub per_tensor: bool,
    /// Prune embeddings and output matrices too.
    #[arg(long)]
    pub embeddings: bool,
    /// Sparsity from point to point, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=95))]
    pub step: u32,
    /// Size of the unpruned files of models without steps of their own, at the nearest codes.
    #[arg(long, value_name = "BITS", default_value_t = 3.0, value_parser = positive)]
    pub bits_per_weight: f64,
    #[command(flatten)]
    pub document: Document,
    /// Draw the curves.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Replace the plot if it exists.
    #[arg(long)]
    pub force: bool,
    /// Print the points as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Report {
    /// Folders of finished runs, results of sweeps (.jsonl), and what `prune-curve --json` has printed (.json). Models of
    /// different size, figures of different validation texts, and classifiers get charts of their own.
    #[arg(required = true, value_name = "RUN_OR_RESULTS")]
    pub inputs: Vec<PathBuf>,
    /// The page to write.
    #[arg(short, long, value_name = "FILE.html")]
    pub output: PathBuf,
    /// Write every figure into this folder too, as SVG.
    #[arg(long, value_name = "FOLDER")]
    pub svg: Option<PathBuf>,
    /// Write the figures behind the page into this folder too, as CSV.
    #[arg(long, value_name = "FOLDER")]
    pub csv: Option<PathBuf>,
    /// Decode and evaluate the file of every run that the results have no figure of, on the validation text of the run's
    /// own configuration.
    #[arg(long)]
    pub evaluate: bool,
    /// Heading of the page.
    #[arg(long, value_name = "TEXT", default_value = "Size and quality of runs")]
    pub title: String,
    /// Replace what exists.
    #[arg(long)]
    pub force: bool,
    /// Print what was written as JSON.
    #[arg(long)]
    pub json: bool,
}
