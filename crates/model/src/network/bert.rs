//! The BERT encoder: learned positions and token types, LayerNorm after each branch, GELU; its head for masked
//! tokens, and its classifier.
//!
//! Fields have the names of Hugging Face checkpoints, without the leading `bert.` that some have. Source:
//! arXiv 1810.04805; the blocks are those of arXiv 1706.03762, section 3.1.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, activation};

use super::LanguageModel;
use super::classifier::Pooler;
use super::linear::{Affine, Linear, parameter};
use super::norm::LayerNorm;
use super::operations;
use super::path::Names;
use super::tap::{InputObserver, Tap};
use super::tokens::{Tokens, assert_known};
use crate::bind::{Gradients, bound, gradients};
use crate::{Architecture, Gelu, ModelConfig, ModelError, NamedWeights, Precision};

/// A network that gives each token a hidden state from the tokens on both sides of it.
///
/// Made by [`Encoder::from_weights`].
#[derive(Module, Debug)]
pub struct Encoder {
    embeddings: Embeddings,
    encoder: Layers,
    cls: Option<Heads>,
    pooler: Option<Pooler>,
    classifier: Option<Affine>,
    #[module(skip)]
    config: ModelConfig,
}

/// Rows of tokens of one length, with what BERT wants to know of them.
#[derive(Clone, Copy, Debug)]
pub struct EncoderInput<'a> {
    /// Token ids, row after row.
    pub tokens: &'a [u16],
    /// The type of each token: 0 for the first text, 1 for the second.
    pub types: &'a [u16],
    /// Tokens of each row that are text; what comes after them is padding, which no token looks at.
    pub lengths: &'a [usize],
}

impl Encoder {
    /// The network with all weights at zero, none of them allocated yet.
    pub(super) fn skeleton(config: &ModelConfig, device: &Device) -> Self {
        Self {
            embeddings: Embeddings::new(config, device),
            encoder: Layers {
                layer: (0..config.layers).map(|_| Layer::new(config, device)).collect(),
            },
            cls: config.masked_head.then(|| Heads { predictions: MaskedHead::new(config, device) }),
            pooler: config.is_classifier().then(|| Pooler::new(config.width, device)),
            classifier: config
                .is_classifier()
                .then(|| Affine::new(config.width, config.labels.len(), device)),
            config: config.clone(),
        }
    }

    /// The network of a configuration with the given weights.
    ///
    /// On a device with automatic differentiation every weight takes a gradient.
    ///
    /// # Errors
    /// If the configuration is not valid or not BERT's, or a weight is missing, unknown, or of another
    /// shape.
    pub fn from_weights(
        config: &ModelConfig,
        weights: &NamedWeights,
        device: &Device,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        if config.architecture != Architecture::Bert {
            return Err(ModelError::Config {
                key: "architecture",
                value: format!("{:?}", config.architecture).to_lowercase(),
                expected: "must be bert: the others are no encoders".to_owned(),
            });
        }
        bound(Self::skeleton(config, device), weights, device)
    }

    /// The configuration the network was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The hidden states after the last block, `[tokens, width]`; those of padding mean nothing.
    ///
    /// # Panics
    /// If the rows are not of one length, are longer than the context, have no text, or hold an id or type
    /// that the network does not know.
    pub fn hidden(&self, input: EncoderInput<'_>) -> Tensor<2> {
        self.hidden_through(input, &mut Tap::closed(Precision::Fp32))
    }

    /// Runs the network forward and shows the input of every linear layer to an observer, padding
    /// included; as [`Transformer::observe_inputs`](crate::Transformer::observe_inputs).
    ///
    /// # Panics
    /// As [`Encoder::hidden`].
    pub fn observe_inputs(&self, input: EncoderInput<'_>, observer: &mut InputObserver<'_>) {
        let mut names = Names::default();
        self.visit(&mut names);
        let mut show = |names: &[&str], values: &[f32], inputs: usize| {
            observer(names, values, inputs);
            Vec::new()
        };
        self.hidden_through(input, &mut Tap::open(names.found, &mut show));
    }

    /// Logits of the classes, `[rows, classes]`.
    ///
    /// # Panics
    /// As [`Encoder::hidden`]; and if the network is no [classifier](ModelConfig::is_classifier).
    pub fn class_logits(&self, input: EncoderInput<'_>) -> Tensor<2> {
        self.class_logits_through(input, &mut Tap::closed(Precision::Fp32))
    }

    pub(super) fn class_logits_through(
        &self,
        input: EncoderInput<'_>,
        tap: &mut Tap<'_>,
    ) -> Tensor<2> {
        let (Some(pooler), Some(classifier)) = (&self.pooler, &self.classifier) else {
            panic!("a classifier");
        };
        let rows = input.lengths.len();
        let hidden = self.hidden_through(input, tap);
        let [positions, width] = hidden.dims();
        let first = hidden.reshape([rows, positions / rows, width]).narrow(1, 0, 1);
        let pooled = pooler.forward(first.reshape([rows, width]), tap);
        tap.show(&[&classifier.weight], &pooled);
        classifier.forward(pooled, tap)
    }

    /// Runs a loss backwards; as [`Transformer::gradients`](crate::Transformer::gradients).
    pub fn gradients(&self, loss: &Tensor<1>, weights: &NamedWeights) -> Gradients {
        gradients(loss, weights, |collect| self.visit(collect))
    }

    fn hidden_through(&self, input: EncoderInput<'_>, tap: &mut Tap<'_>) -> Tensor<2> {
        let EncoderInput { tokens, types, lengths } = input;
        let row = tokens.len() / lengths.len().max(1);
        assert_eq!(row * lengths.len(), tokens.len(), "one length per row");
        assert_eq!(types.len(), tokens.len(), "one type per token");
        assert!(lengths.iter().all(|length| (1..=row).contains(length)), "rows with text");
        assert_known(types, self.config.token_types);
        let tokens = Tokens::new(tokens, row, self.config.vocabulary_size);
        let types = Tokens::new(types, row, self.config.token_types);
        let start = self.embeddings.forward(&tokens, &types);
        self.encoder.layer.iter().fold(start, |x, layer| layer.forward(x, lengths, tap))
    }
}

/// Predicts the tokens behind mask tokens. All rows are whole, and all of their tokens are of type 0.
impl LanguageModel for Encoder {
    fn hidden(&self, tokens: &Tokens<'_>, tap: &mut Tap<'_>) -> Tensor<2> {
        let mask = self.config.special_tokens.expect("checked when the network was made").mask;
        let types = vec![0; tokens.ids.len()];
        let lengths = vec![tokens.row; tokens.ids.len() / tokens.row];
        let input = EncoderInput { tokens: tokens.ids, types: &types, lengths: &lengths };
        let hidden = tokens.select(mask, self.hidden_through(input, tap));
        match &self.cls {
            Some(heads) => heads.predictions.transform.forward(hidden, tap),
            None => hidden,
        }
    }

    fn head(&self) -> &Param<Tensor<2>> {
        &self.embeddings.word_embeddings.weight
    }

    fn head_bias(&self) -> Option<&Param<Tensor<1>>> {
        self.cls.as_ref().map(|heads| &heads.predictions.bias)
    }
}

/// What checkpoints hold for the tasks of pretraining.
#[derive(Module, Debug)]
struct Heads {
    predictions: MaskedHead,
}

/// Logits = E·norm(GELU(dense(h))) + b with E the word embedding.
#[derive(Module, Debug)]
struct MaskedHead {
    bias: Param<Tensor<1>>,
    transform: Transform,
}

impl MaskedHead {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        Self {
            bias: parameter([config.vocabulary_size], device),
            transform: Transform {
                dense: Affine::new(config.width, config.width, device),
                layer_norm: LayerNorm::new(config.width, config.norm_epsilon, device),
                gelu: config.gelu,
            },
        }
    }
}

#[derive(Module, Debug)]
struct Transform {
    dense: Affine,
    layer_norm: LayerNorm,
    #[module(skip)]
    gelu: Gelu,
}

impl Transform {
    fn forward(&self, x: Tensor<2>, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.dense.weight], &x);
        self.layer_norm.forward(gelu(self.dense.forward(x, tap), self.gelu))
    }
}

fn gelu(x: Tensor<2>, formula: Gelu) -> Tensor<2> {
    match formula {
        Gelu::Exact => activation::gelu(x),
        Gelu::Tanh => activation::gelu_approximate(x),
    }
}

/// norm(token + position + type).
#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Linear,
    position_embeddings: Linear,
    token_type_embeddings: Linear,
    layer_norm: LayerNorm,
}

impl Embeddings {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        let table = |rows: usize| Linear::new(config.width, rows, device);
        Self {
            word_embeddings: table(config.vocabulary_size),
            position_embeddings: table(config.context),
            token_type_embeddings: table(config.token_types),
            layer_norm: LayerNorm::new(config.width, config.norm_epsilon, device),
        }
    }

    fn forward(&self, tokens: &Tokens<'_>, types: &Tokens<'_>) -> Tensor<2> {
        let sum = tokens.embedded(self.word_embeddings.weight.val())
            + tokens.positions(self.position_embeddings.weight.val())
            + types.embedded(self.token_type_embeddings.weight.val());
        self.layer_norm.forward(sum)
    }
}

#[derive(Module, Debug)]
struct Layers {
    layer: Vec<Layer>,
}

/// x ← norm(x + Attention(x)), then x ← norm(x + MLP(x)).
#[derive(Module, Debug)]
struct Layer {
    attention: AttentionBranch,
    intermediate: Intermediate,
    output: BranchOutput,
}

impl Layer {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        let (width, hidden) = (config.width, config.mlp_width());
        let matrix = || Affine::new(width, width, device);
        let self_attention =
            SelfAttention { query: matrix(), key: matrix(), value: matrix(), heads: config.heads };
        Self {
            attention: AttentionBranch {
                self_attention,
                output: BranchOutput::new(width, config, device),
            },
            intermediate: Intermediate {
                dense: Affine::new(width, hidden, device),
                gelu: config.gelu,
            },
            output: BranchOutput::new(hidden, config, device),
        }
    }

    fn forward(&self, x: Tensor<2>, lengths: &[usize], tap: &mut Tap<'_>) -> Tensor<2> {
        let attended = self.attention.self_attention.forward(x.clone(), lengths, tap);
        let x = self.attention.output.forward(attended, x, tap);
        tap.show(&[&self.intermediate.dense.weight], &x);
        let Intermediate { dense, gelu: formula } = &self.intermediate;
        let hidden = gelu(dense.forward(x.clone(), tap), *formula);
        self.output.forward(hidden, x, tap)
    }
}

#[derive(Module, Debug)]
struct AttentionBranch {
    self_attention: SelfAttention,
    output: BranchOutput,
}

#[derive(Module, Debug)]
struct Intermediate {
    dense: Affine,
    #[module(skip)]
    gelu: Gelu,
}

/// Softmax attention over the text of a row with scores divided by √d.
#[derive(Module, Debug)]
struct SelfAttention {
    query: Affine,
    key: Affine,
    value: Affine,
    #[module(skip)]
    heads: usize,
}

impl SelfAttention {
    fn forward(&self, x: Tensor<2>, lengths: &[usize], tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.query.weight, &self.key.weight, &self.value.weight], &x);
        let [positions, width] = x.dims();
        let rows = lengths.len();
        let [queries, keys, values] = [&self.query, &self.key, &self.value].map(|matrix| {
            let y = matrix.forward(x.clone(), tap);
            y.reshape([rows, positions / rows, self.heads, width / self.heads])
        });
        operations::full_attention(queries, keys, values, lengths).reshape([positions, width])
    }
}

/// The end of a branch: norm(dense(y) + x).
#[derive(Module, Debug)]
struct BranchOutput {
    dense: Affine,
    layer_norm: LayerNorm,
}

impl BranchOutput {
    fn new(inputs: usize, config: &ModelConfig, device: &Device) -> Self {
        Self {
            dense: Affine::new(inputs, config.width, device),
            layer_norm: LayerNorm::new(config.width, config.norm_epsilon, device),
        }
    }

    fn forward(&self, y: Tensor<2>, x: Tensor<2>, tap: &mut Tap<'_>) -> Tensor<2> {
        tap.show(&[&self.dense.weight], &y);
        self.layer_norm.forward(self.dense.forward(y, tap) + x)
    }
}
