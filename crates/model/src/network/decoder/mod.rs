//! The project's own decoder, and the Parameter Golf baseline.
//!
//! They are one network: the baseline adds learned controls (residual mix, branch scales, query gains) and
//! U-net skips, and may run its blocks several times with scales and shifts of their own for each time.
//! Both may have more embeddings, of pairs and triples of tokens, and more MLPs, of which a token takes one.

mod attention;
mod block;
mod experts;
mod mlp;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use self::block::Block;
use super::LanguageModel;
use super::linear::{Linear, parameter};
use super::operations::rms_norm;
use super::rotary::Rotary;
use super::tap::Tap;
use super::tokens::Tokens;
use crate::{Architecture, ModelConfig};

/// The embedding is tied: it is the first and the last matrix.
#[derive(Module, Debug)]
pub(super) struct Decoder {
    tok_emb: Linear,
    bigram_emb: Option<Linear>,
    trigram_emb: Option<Linear>,
    ngram_proj: Option<Linear>,
    blocks: Vec<Block>,
    skip_weights: Option<Param<Tensor<2>>>,
    repeat_scales: Option<Param<Tensor<2>>>,
    repeat_shifts: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: ModelConfig,
}

impl Decoder {
    pub(super) fn new(config: &ModelConfig, device: &Device) -> Self {
        let golf = config.architecture == Architecture::Golf;
        let repeated = golf && config.repeats > 1;
        let per_run = || repeated.then(|| parameter([config.runs(), config.width], device));
        let narrow = config.ngram_width > 0;
        let channels = if narrow { config.ngram_width } else { config.width };
        let ngrams = |rows| (rows > 0).then(|| Linear::new(channels, rows, device));
        Self {
            tok_emb: Linear::new(config.width, config.vocabulary_size, device),
            bigram_emb: ngrams(config.bigram_rows),
            trigram_emb: ngrams(config.trigram_rows),
            ngram_proj: narrow.then(|| Linear::new(channels, config.width, device)),
            blocks: (0..config.layers).map(|at| Block::new(config, at, device)).collect(),
            skip_weights: golf.then(|| parameter([config.skips(), config.width], device)),
            repeat_scales: per_run(),
            repeat_shifts: per_run(),
            config: config.clone(),
        }
    }

    /// The row of each token, and with it those of the pair and the triple that it ends.
    fn embedded(&self, tokens: &Tokens<'_>, tap: &Tap<'_>) -> Tensor<2> {
        let embedded = tokens.embedded(self.tok_emb.weight.val());
        let pairs = self.bigram_emb.iter().map(|table| tokens.bigrams(table.weight.val()));
        let triples = self.trigram_emb.iter().map(|table| tokens.trigrams(table.weight.val()));
        match (pairs.chain(triples).reduce(|pairs, triples| pairs + triples), &self.ngram_proj) {
            (None, _) => embedded,
            (Some(rows), None) => embedded + rows,
            (Some(rows), Some(matrix)) => embedded + matrix.forward(rows, tap),
        }
    }

    /// The decoder: one block after the other.
    fn plain(
        &self,
        start: Tensor<2>,
        rotary: &Rotary,
        tokens: &Tokens<'_>,
        tap: &mut Tap<'_>,
    ) -> Tensor<2> {
        let blocks = self.blocks.iter();
        blocks.fold(start, |x, block| block.forward(x, None, rotary, tokens, tap))
    }

    /// The golf network: the first half of the runs of blocks stores its outputs, the second half adds
    /// them, last in first out, each times its own skip weights.
    fn skipping(
        &self,
        start: Tensor<2>,
        weights: Tensor<2>,
        rotary: &Rotary,
        tokens: &Tokens<'_>,
        tap: &mut Tap<'_>,
    ) -> Tensor<2> {
        let mut x = start.clone();
        let mut stored = Vec::new();
        let skips = self.config.skips();
        for run in 0..self.config.runs() {
            if run >= skips
                && let Some(output) = stored.pop()
            {
                x = x + row(&weights, run - skips) * output;
            }
            let block = &self.blocks[run % self.blocks.len()];
            x = block.forward(x, Some(start.clone()), rotary, tokens, tap);
            if let (Some(scales), Some(shifts)) = (&self.repeat_scales, &self.repeat_shifts) {
                x = row(&scales.val(), run) * x + row(&shifts.val(), run);
            }
            if run < skips {
                stored.push(x.clone());
            }
        }
        x
    }
}

fn row(matrix: &Tensor<2>, at: usize) -> Tensor<2> {
    matrix.clone().slice_dim(0, at..at + 1)
}

impl LanguageModel for Decoder {
    fn hidden(&self, tokens: &Tokens<'_>, tap: &mut Tap<'_>) -> Tensor<2> {
        let rotary = Rotary::clockwise(&self.config, tokens.row, &self.tok_emb.weight.device());
        let start = rms_norm(self.embedded(tokens, tap), f32::EPSILON);
        let hidden = match &self.skip_weights {
            None => self.plain(start, &rotary, tokens, tap),
            Some(weights) => self.skipping(start, weights.val(), &rotary, tokens, tap),
        };
        rms_norm(hidden, f32::EPSILON)
    }

    fn head(&self) -> &Param<Tensor<2>> {
        &self.tok_emb.weight
    }
}
