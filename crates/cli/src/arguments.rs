//! The command line.

use std::path::PathBuf;

use backslash_model::{DeviceChoice, Precision};
use backslash_quant::Rung;
use backslash_train::DataConfig;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::failure::Usage;

mod experiments;

pub use experiments::{Document, Ladder, Ledger, PruneCurve, Report, Sweep};

/// Train language models whose file size is part of the loss; make the smallest file of any model.
#[derive(Debug, Parser)]
#[command(name = "backslash", version, propagate_version = true)]
pub struct Arguments {
    /// Where networks run: auto, cpu, cuda, rocm, metal, vulkan or webgpu, with the number of the device where it is not
    /// the first (vulkan:1); auto takes a GPU that this build can use, else the CPU.
    #[arg(long, global = true, value_name = "DEVICE", default_value_t)]
    pub device: DeviceChoice,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model, plain or with the size of its file in the loss.
    Train(Train),
    /// Turn weights into one small .bsl file.
    Compress(Compress),
    /// Measure what a byte buys in each tensor of a compressed model.
    Ledger(Ledger),
    /// Compare all quantisers, and the exporters of others, at given sizes.
    Ladder(Ladder),
    /// Train every setting of a grid with several seeds, and set the curves of their files side by side.
    Sweep(Sweep),
    /// Prune the smallest weights of decoders or classifiers, from none to 95 %, and show what is lost and what files then take.
    PruneCurve(PruneCurve),
    /// Show runs and the results of sweeps on one page: curves over seeds, bytes of tensors, distributions of weights.
    Report(Report),
    /// Turn a .bsl file back into safetensors.
    Decompress(Decompress),
    /// Measure bits per byte, or the accuracy, of decoded models.
    Eval(Eval),
    /// Show what a .bsl file holds and where its bytes go.
    Inspect(Inspect),
    /// Check that a .bsl file is whole, and whether it holds given weights.
    Verify(Verify),
    /// Size and speed of every coder, and of general compressors, on the codes of a .bsl file.
    BenchCodec(BenchCodec),
    /// Let a model write.
    Generate(Generate),
    /// Train two small models, plain and with rate, and compare their files (about four minutes).
    Demo(Demo),
}

impl Command {
    /// Whether it runs networks, and so needs a device.
    pub fn runs_networks(&self) -> bool {
        match self {
            Self::Decompress(_) | Self::Inspect(_) | Self::Verify(_) | Self::BenchCodec(_) => false,
            Self::Report(report) => report.evaluate,
            _ => true,
        }
    }
}

/// Where text comes from.
#[derive(Debug, Args)]
pub struct Data {
    /// Text files, folders or token shards (.bin); without any, the source and documentation text of this
    /// project's own dependencies. For a classifier, tab-separated files of texts and labels (.tsv, .tsv.gz).
    #[arg(long = "data", value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// As --data, to evaluate on; without any, a part of --data is held back. (A finished classifier is scored on all of
    /// --data.)
    #[arg(long, value_name = "PATH")]
    pub validation: Vec<PathBuf>,
    #[command(flatten)]
    pub columns: Columns,
}

/// Where texts and labels are in files for a classifier.
#[derive(Debug, Args)]
pub struct Columns {
    /// Column of the text in files for a classifier, by name or number; found without this (data.text_column).
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<String>,
    /// Column of the label; found without this (data.label_column).
    #[arg(long, value_name = "COLUMN")]
    pub label_column: Option<String>,
}

impl Columns {
    /// Puts what was given in the place of what a configuration has.
    fn put_into(&self, config: &mut DataConfig) {
        if let Some(column) = &self.text_column {
            config.text_column.clone_from(column);
        }
        if let Some(column) = &self.label_column {
            config.label_column.clone_from(column);
        }
    }

    /// Refuses columns where there is no text that they could be columns of.
    pub fn check(&self, text: &[PathBuf]) -> Result<(), Usage> {
        match text.is_empty() && (self.text_column.is_some() || self.label_column.is_some()) {
            true => Err(Usage(
                "--text-column and --label-column say what stands where in --text FILE, which is missing".to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// What was given for files of these paths, as a configuration has it.
    pub fn of(&self, paths: &[PathBuf]) -> DataConfig {
        let paths = paths.to_vec();
        let mut config =
            DataConfig { train: paths.clone(), validation: paths, ..DataConfig::default() };
        self.put_into(&mut config);
        config
    }
}

impl Data {
    /// Puts what was given in the place of what a configuration has.
    pub fn put_into(&self, config: &mut DataConfig) {
        if !self.data.is_empty() {
            config.train.clone_from(&self.data);
        }
        if !self.validation.is_empty() {
            config.validation.clone_from(&self.validation);
        }
        self.columns.put_into(config);
    }

    /// What was given, as a configuration has it.
    pub fn config(&self) -> DataConfig {
        let mut config = DataConfig::default();
        self.put_into(&mut config);
        config
    }
}

#[derive(Debug, Args)]
pub struct Train {
    #[command(flatten)]
    pub data: Data,
    /// A model to go on from, with its network and tokenizer: a run's folder, a .bsl file or a checkpoint's folder.
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["resume", "tokenizer"])]
    pub from: Option<PathBuf>,
    /// Largest file, such as 900kB: the price of bits is then found on the way (rate.budget).
    #[arg(long, value_name = "SIZE", value_parser = super::session::parse_size, conflicts_with = "resume")]
    pub budget: Option<u64>,
    /// `bytes`, `bpe:N`, or a SentencePiece .model or tokenizer.json file; for a classifier `wordpiece:N`, or a WordPiece
    /// vocab.txt or tokenizer.json file.
    #[arg(long, value_name = "TOKENIZER")]
    pub tokenizer: Option<String>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Override one key of the configuration; can be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How exactly matrices multiply in training (train.precision): fp32, or bf16, which is faster where the device has instructions for it.
    #[arg(long, value_name = "PRECISION", conflicts_with = "resume")]
    pub precision: Option<Precision>,
    /// Folder of the run.
    #[arg(long, value_name = "FOLDER", default_value = "runs/run")]
    pub out: PathBuf,
    /// Continue the run in --out from its newest checkpoint, with its own configuration.
    #[arg(long, conflicts_with_all = ["force", "config", "set", "tokenizer", "data", "validation", "text_column", "label_column"])]
    pub resume: bool,
    /// Start over in a folder that holds a run.
    #[arg(long)]
    pub force: bool,
    /// Stop after so many steps in all, with a checkpoint: --resume goes on.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "json")]
    pub until: Option<u64>,
    /// Show where the time goes: milliseconds per step for each part of it.
    #[arg(long)]
    pub profile: bool,
    /// End with whoever holds the other end of the standard input.
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Compress {
    /// A run's folder, a folder with model.safetensors and config.json, a safetensors file, or a folder with
    /// model.safetensors.index.json. The last two are read tensor by tensor, unless there is a --budget.
    pub input: PathBuf,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Largest file, in bytes, or with kB or MB behind the number.
    #[arg(long, value_name = "SIZE", value_parser = super::session::parse_size, group = "goal")]
    pub budget: Option<u64>,
    /// Largest file, in bits per weight.
    #[arg(long, value_name = "BITS", value_parser = positive, group = "goal")]
    pub bits_per_weight: Option<f64>,
    /// The smallest file that loses at most so many nats per token on --text.
    #[arg(long, value_name = "NATS", value_parser = positive, group = "goal")]
    pub max_loss_increase: Option<f64>,
    /// Steps at which every weight costs about κ²/24 nats per token; needs --text.
    #[arg(long, value_name = "K", value_parser = positive, group = "goal")]
    pub kappa: Option<f64>,
    /// Text files, folders or token shards to calibrate on, of a classifier tab-separated files of texts and labels: steps then
    /// follow the sensitivity of the loss, and the quantiser knows what the layers see.
    #[arg(long, value_name = "PATH", num_args = 1.., group = "calibrated")]
    pub text: Vec<PathBuf>,
    #[command(flatten)]
    pub columns: Columns,
    /// The calibration.safetensors of a model that backslash.transformers has run, in place of --text; the file then
    /// holds the tensors of the checkpoint alone.
    #[arg(long, value_name = "FILE", group = "calibrated")]
    pub calibration: Option<PathBuf>,
    /// Tokens of --text to use.
    #[arg(long, value_name = "N", default_value_t = 49_152)]
    pub calibration_tokens: usize,
    /// Quantiser: rtn, rdoq, entquant, trellis, gptq, watersic or watersic-rate. Without this, watersic-rate with --text
    /// or --calibration, and trellis without.
    #[arg(long, value_name = "NAME")]
    pub rung: Option<Rung>,
    /// How steps are shared out among tensors.
    #[arg(long, value_enum, default_value_t = Allocation::Rows, requires = "calibrated")]
    pub allocation: Allocation,
    /// Quantise layer by layer: each is calibrated on, and corrected for, what the layers before it have become.
    #[arg(long, requires = "calibrated")]
    pub sequential: bool,
    /// Count the bytes of this file against the size; can be given again.
    #[arg(long, value_name = "FILE")]
    pub count_code: Vec<PathBuf>,
    /// Print what each tensor would take, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Multiply the steps: learned ones where the run has them, otherwise the root mean square of each
    /// tensor. Without this, 1 for learned steps and 0.5 for others.
    #[arg(long, value_name = "FACTOR", group = "goal", conflicts_with_all = ["calibrated", "rung"])]
    pub step: Option<f32>,
    /// Whether time or bytes are saved.
    #[arg(long, value_enum, default_value_t = Effort::Smallest)]
    pub effort: Effort,
    /// Replace the output if it exists.
    #[arg(long)]
    pub force: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// How steps are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Allocation {
    /// The same step relative to the root mean square of each tensor, whatever its sensitivity.
    Relative,
    /// By the sensitivity of each tensor.
    Tensors,
    /// By the sensitivity of each tensor and of each of its rows.
    Rows,
    /// As rows, then corrected by the slopes of loss against bytes that the decoded model has on more of --text
    /// (32,768 tokens after the calibration tokens).
    Measured,
}

/// What the encoder may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Effort {
    /// The coder with the fewest bytes for each tensor, found by trying.
    Smallest,
    /// The fast coder, for files a few percent larger.
    Fast,
}

#[derive(Debug, Args)]
pub struct Decompress {
    /// The .bsl file.
    pub input: PathBuf,
    /// The safetensors file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the output if it exists.
    #[arg(long)]
    pub force: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Eval {
    /// A .bsl file or a run's folder; the float model beside it is evaluated too.
    pub model: PathBuf,
    #[command(flatten)]
    pub data: Data,
    /// Score this many tokens, of a classifier examples, from the beginning; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 131_072)]
    pub tokens: usize,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// The .bsl file.
    pub file: PathBuf,
    /// Count the decoder too, as contests do: the pure-Python one, plain and compressed.
    #[arg(long)]
    pub accounting: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// The .bsl file.
    pub file: PathBuf,
    /// A safetensors file that the decoded weights must equal.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BenchCodec {
    /// The .bsl file.
    pub file: PathBuf,
    /// Time each decoding this many times and keep the best.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repetitions: u32,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Generate {
    /// A .bsl file or a run's folder.
    pub model: PathBuf,
    /// Text to continue.
    #[arg(long, default_value = "")]
    pub prompt: String,
    /// Tokens to write.
    #[arg(long, default_value_t = 200)]
    pub tokens: usize,
    /// Below 1 is more cautious, 0 takes the most likely token.
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f64,
    /// Draw from this many of the most likely tokens.
    #[arg(long, default_value_t = 50)]
    pub top: usize,
    /// Seed of the draws.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Demo {
    #[command(flatten)]
    pub data: Data,
    /// Folder for both runs and the report; the first free of runs/demo, runs/demo-2, … by default.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Override one key of the configuration of both models; can be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the table as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A positive, finite number.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("expected a positive number".to_owned()),
    }
}
