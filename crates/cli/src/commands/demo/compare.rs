//! The files of both models: the table and the curves.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use backslash_codec::{Artifact, Effort, encoded_size_with};
use backslash_compress::{Target, fit_plan_to_bytes};
use backslash_data::ByteTable;
use backslash_eval::plot::{Curve, Point};
use backslash_eval::report::MethodRow;
use backslash_eval::{ModelFile, Quality, views};
use backslash_model::{ModelConfig, NamedTensor, NamedWeights};
use backslash_quant::golf::{FloatTensor, export_int8_zlib_all_matrices, import_int8_zlib};
use backslash_quant::{Plan, Weights};
use backslash_train::RunConfig;

use super::Finished;
use crate::commands::train::bits_per_byte;
use crate::console::Progress;
use crate::prepared::Prepared;
use crate::session::{self, Measured};

/// Names of the two models.
pub const PLAIN: &str = "plain, nearest codes";
pub const RATED: &str = "rate-trained";

/// Steps of the plain model's curve, over the root mean square of each tensor.
const RELATIVE_STEPS: [f32; 6] = [0.25, 0.4, 0.6, 0.85, 1.2, 1.6];
/// Factors on the learned steps for the rate-trained model's curve.
const LEARNED_FACTORS: [f32; 5] = [0.5, 0.7, 1.0, 1.15, 1.3];
/// The search for the smallest file no worse than int8 rows: evaluations per step rule, and the factors
/// between which it looks.
const SEARCH_EVALUATIONS: u32 = 6;
const SEARCH_FROM: f32 = 0.003;
const SEARCH_TO: f32 = 0.5;

/// What the table and the chart show.
pub struct Comparison<'a> {
    pub plain: &'a Finished,
    pub rated: &'a Finished,
    pub rows: Vec<MethodRow>,
    pub curves: Vec<Curve>,
}

impl<'a> Comparison<'a> {
    pub fn new(
        config: &RunConfig,
        prepared: &Prepared,
        plain: &'a Finished,
        rated: &'a Finished,
    ) -> Result<Self> {
        let bench = Bench {
            config: &config.model,
            tokens: &prepared.text()?.validation,
            table: prepared.tokenizer.byte_table(),
            metadata: ModelFile::metadata(&config.model, &prepared.tokenizer),
        };
        let total =
            RELATIVE_STEPS.len() + LEARNED_FACTORS.len() + 4 + 3 * SEARCH_EVALUATIONS as usize;
        let mut progress = Progress::new("file", 0, total as u64);
        let mut done = 0;
        let mut advance = |what: &str| {
            done += 1;
            progress.at(done, what);
        };

        let plain_views = views(&plain.weights);
        let relative = Plan::relative(&plain_views, 1.0);
        let row = |method: &str, bytes: u64, finished: &Finished, decoded: f64| MethodRow {
            method: method.to_owned(),
            file_bytes: bytes,
            bits_per_weight: bench.bits_per_weight(bytes),
            bits_per_byte_float: bits_per_byte(&finished.float),
            bits_per_byte_decoded: decoded,
        };

        let (int8_bytes, int8) = bench.int8(&plain.weights)?;
        advance("int8 rows + zlib-9");
        let no_worse = bench.smallest_no_worse(&plain_views, bits_per_byte(&int8), &mut advance)?;
        let same_bytes = bench.best_at(&plain_views, rated.file_bytes, &mut advance)?;
        let rated_quality = bits_per_byte(&rated.decoded);
        let rows = vec![
            row("(a) plain, int8 rows + zlib-9", int8_bytes, plain, bits_per_byte(&int8)),
            row(
                "(b) plain, our codec, no worse than (a)",
                no_worse.size(),
                plain,
                no_worse.bits_per_byte(),
            ),
            row(
                "(b) plain, our codec, bytes of (c)",
                same_bytes.size(),
                plain,
                same_bytes.bits_per_byte(),
            ),
            row("(c) rate-trained, our codec", rated.file_bytes, rated, rated_quality),
        ];

        let mut curve = |name: &str, weights: &NamedWeights, plan: &Plan, factors: &[f32]| {
            let views = views(weights);
            let points = factors.iter().map(|factor| {
                let measured = bench.file(&plan.scaled(*factor), &views)?;
                advance(name);
                Ok(Point {
                    bytes: measured.size(),
                    bits_per_weight: bench.bits_per_weight(measured.size()),
                    bits_per_byte: measured.bits_per_byte(),
                    interval: None,
                })
            });
            let points = points.collect::<Result<Vec<_>>>()?;
            Ok::<_, anyhow::Error>(Curve { name: name.to_owned(), points })
        };
        let curves = vec![
            curve(PLAIN, &plain.weights, &relative, &RELATIVE_STEPS)?,
            curve(RATED, &rated.weights, &rated.plan, &LEARNED_FACTORS)?,
        ];
        progress.finish();
        Ok(Self { plain, rated, rows, curves })
    }
}

/// Steps equal, in proportion to the root mean square of each tensor, and in between.
fn step_rules(weights: &[Weights<'_>]) -> [Plan; 3] {
    [Plan::equal(weights, 1.0), Plan::between(weights, 1.0), Plan::relative(weights, 1.0)]
}

impl Measured {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn bits_per_byte(&self) -> f64 {
        bits_per_byte(&self.quality)
    }
}

/// What every file is measured with.
struct Bench<'a> {
    config: &'a ModelConfig,
    tokens: &'a [u16],
    table: ByteTable,
    metadata: BTreeMap<String, Vec<u8>>,
}

impl Bench<'_> {
    fn bits_per_weight(&self, bytes: u64) -> f64 {
        8.0 * bytes as f64 / self.config.parameters() as f64
    }

    fn file(&self, plan: &Plan, weights: &[Weights<'_>]) -> Result<Measured> {
        self.measured(&plan.artifact(weights, &self.metadata)?, Effort::Smallest)
    }

    fn measured(&self, artifact: &Artifact, effort: Effort) -> Result<Measured> {
        session::roundtrip(artifact, effort, self.tokens, &self.table)
    }

    /// The golf baseline with every matrix in int8: its bytes, and the quality of what comes back.
    fn int8(&self, weights: &NamedWeights) -> Result<(u64, Quality)> {
        let tensors: Vec<FloatTensor<'_>> = weights
            .tensors()
            .iter()
            .map(|tensor| FloatTensor {
                name: &tensor.name,
                shape: &tensor.shape,
                values: &tensor.data,
            })
            .collect();
        let export = export_int8_zlib_all_matrices(&tensors)?;
        let decoded = import_int8_zlib(&export.bytes)?.into_iter().map(|tensor| NamedTensor {
            name: tensor.name,
            shape: tensor.shape,
            data: tensor.values,
        });
        let decoded = NamedWeights::new(decoded.collect());
        let quality = session::measure(self.config, &decoded, self.tokens, &self.table)?;
        Ok((export.bytes.len() as u64, quality))
    }

    /// The smallest file of any of three step rules whose decoded model is no worse than `bits_per_byte`.
    ///
    /// The search decodes files of the fast encoding, which hold the same codes; the file that is reported is
    /// encoded as small as it gets.
    fn smallest_no_worse(
        &self,
        weights: &[Weights<'_>],
        bits_per_byte: f64,
        advance: &mut impl FnMut(&str),
    ) -> Result<Measured> {
        let mut best: Option<(u64, Plan)> = None;
        for plan in step_rules(weights) {
            let (mut fine, mut coarse) = (SEARCH_FROM.ln(), SEARCH_TO.ln());
            for _ in 0..SEARCH_EVALUATIONS {
                let middle = 0.5 * (fine + coarse);
                let plan = plan.scaled(middle.exp());
                let artifact = plan.artifact(weights, &self.metadata)?;
                let bytes = encoded_size_with(&artifact, Effort::Fast)?.total();
                advance("the smallest file no worse than int8 rows");
                // Finer steps would make larger files still, so their quality does not matter.
                if best.as_ref().is_some_and(|(smallest, _)| bytes >= *smallest) {
                    fine = middle;
                    continue;
                }
                let measured = self.measured(&artifact, Effort::Fast)?;
                if measured.bits_per_byte() > bits_per_byte {
                    coarse = middle;
                    continue;
                }
                fine = middle;
                best = Some((bytes, plan));
            }
        }
        let plan = match best {
            Some((_, plan)) => plan,
            None => Plan::relative(weights, SEARCH_FROM),
        };
        self.file(&plan, weights)
    }

    /// The best of three step rules at `budget` bytes.
    fn best_at(
        &self,
        weights: &[Weights<'_>],
        budget: u64,
        advance: &mut impl FnMut(&str),
    ) -> Result<Measured> {
        let mut best: Option<Measured> = None;
        let target = Target { budget, effort: Effort::Smallest };
        for plan in step_rules(weights) {
            let fitted = fit_plan_to_bytes(&plan, weights, &self.metadata, target, &mut |_| ())?;
            let measured = self.measured(&fitted.artifact, Effort::Smallest)?;
            advance("the plain model at the bytes of the rate-trained one");
            if best.as_ref().is_none_or(|best| measured.bits_per_byte() < best.bits_per_byte()) {
                best = Some(measured);
            }
        }
        best.context("three plans were tried")
    }
}
