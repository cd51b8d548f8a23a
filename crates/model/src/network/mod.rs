//! The networks, from token ids to hidden states, logits and loss.
//!
//! One module per family, with the field names of its checkpoints; what they share stands beside them.
//! [`Transformer`] is any family as a language model; [`Encoder`] is BERT without its head, for hidden states
//! of texts of different lengths. Activations are
//! `[rows · tokens, channels]` throughout; only attention looks at them as
//! `[rows, tokens, heads, channels]`.

mod bert;
mod classifier;
mod decoder;
mod fused;
mod gpt2;
mod linear;
mod llama;
mod norm;
mod operations;
pub(crate) mod path;
mod rotary;
mod soft_targets;
mod tap;
mod tokens;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

pub use self::bert::{Encoder, EncoderInput};
use self::decoder::Decoder;
pub(crate) use self::fused::bf16_is_fast_here;
pub use self::fused::{MatrixView, product_in_bf16};
use self::gpt2::Gpt2;
use self::llama::Llama;
pub use self::operations::use_composed_operations;
use self::path::{Layout, Names};
pub use self::soft_targets::SoftTargets;
use self::tap::Tap;
pub use self::tap::{InputObserver, MatrixReplacer};
use self::tokens::{Tokens, assert_known};
use crate::bind::bound;
use crate::{Architecture, ModelConfig, ModelError, NamedWeights, Precision};

/// A loss on a device: one number, of which [`Transformer::gradients`] can be asked for.
pub type Loss = Tensor<1>;

/// What the networks have in common that predict tokens.
trait LanguageModel {
    /// The final hidden states after their norm, `[predictions, width]`: those of all tokens, or in an encoder
    /// of the mask tokens.
    fn hidden(&self, tokens: &Tokens<'_>, tap: &mut Tap<'_>) -> Tensor<2>;

    /// The matrix that makes logits of hidden states, `[vocabulary, width]`.
    fn head(&self) -> &Param<Tensor<2>>;

    /// What is added to all logits, `[vocabulary]`, where there is such a thing.
    fn head_bias(&self) -> Option<&Param<Tensor<1>>> {
        None
    }
}

/// A network that predicts tokens, its weights bound to a device.
///
/// There are two kinds. A *causal* network predicts, at each token, the token that follows, so there are as
/// many predictions as tokens. An *encoder* ([`Architecture::Bert`]) sees its rows from both sides and
/// predicts the token that each [mask token](crate::SpecialTokens::mask) stands for, so there are as many
/// predictions as mask tokens; with [labels](crate::ModelConfig::labels) it also tells the class of a row
/// ([`Transformer::class_logits`]). Made by [`Transformer::from_weights`].
#[derive(Clone, Debug)]
pub struct Transformer {
    family: Family,
    config: ModelConfig,
    precision: Precision,
}

#[derive(Clone, Debug)]
enum Family {
    Decoder(Box<Decoder>),
    Llama(Llama),
    Gpt2(Gpt2),
    Bert(Box<Encoder>),
}

impl Family {
    fn language_model(&self) -> &dyn LanguageModel {
        match self {
            Self::Decoder(network) => network.as_ref(),
            Self::Llama(network) => network,
            Self::Gpt2(network) => network,
            Self::Bert(network) => network.as_ref(),
        }
    }
}

/// Names and shapes of all weights of a configuration, in the order of the network.
fn layout(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    fn of(module: &impl Module) -> Vec<(String, Vec<usize>)> {
        let mut layout = Layout::default();
        module.visit(&mut layout);
        layout.found
    }
    let device = crate::device();
    match config.architecture {
        Architecture::Decoder | Architecture::Golf => of(&Decoder::new(config, &device)),
        Architecture::Llama => of(&Llama::new(config, &device)),
        Architecture::Gpt2 => of(&Gpt2::new(config, &device)),
        Architecture::Bert => of(&Encoder::skeleton(config, &device)),
    }
}

impl ModelConfig {
    /// Names and shapes of all weights, in the order of the network.
    ///
    /// # Panics
    /// If the configuration is not [valid](ModelConfig::validate).
    pub fn layout(&self) -> Vec<(String, Vec<usize>)> {
        layout(self)
    }

    /// Number of parameters.
    ///
    /// ```
    /// assert_eq!(backslash_model::ModelConfig::golf().parameters(), 17_059_912);
    /// ```
    pub fn parameters(&self) -> usize {
        layout(self).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

impl Transformer {
    /// The network of a configuration with the given weights.
    ///
    /// On a device with automatic differentiation every weight takes a gradient.
    ///
    /// # Errors
    /// If the configuration is not valid, or that of an encoder without
    /// [special tokens](ModelConfig::special_tokens), or a weight is missing, unknown, or of another shape.
    pub fn from_weights(
        config: &ModelConfig,
        weights: &NamedWeights,
        device: &Device,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        let family = match config.architecture {
            Architecture::Decoder | Architecture::Golf => {
                let network = bound(Decoder::new(config, device), weights, device)?;
                Family::Decoder(Box::new(network))
            }
            Architecture::Llama => {
                Family::Llama(bound(Llama::new(config, device), weights, device)?)
            }
            Architecture::Gpt2 => Family::Gpt2(bound(Gpt2::new(config, device), weights, device)?),
            Architecture::Bert => {
                if config.special_tokens.is_none() {
                    return Err(ModelError::Config {
                        key: "special_tokens",
                        value: "none".to_owned(),
                        expected: "bert predicts tokens at mask tokens, so their ids must be given"
                            .to_owned(),
                    });
                }
                Family::Bert(Box::new(Encoder::from_weights(config, weights, device)?))
            }
        };
        Ok(Self { family, config: config.clone(), precision: Precision::Fp32 })
    }

    /// The same network with matrix products of another precision; [`Transformer::losses`] keep the output matrix exact.
    #[must_use]
    pub fn in_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Names and shapes of all weights, in the order of the network.
    ///
    /// # Panics
    /// If the configuration is not [valid](ModelConfig::validate).
    pub fn layout(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
        layout(config)
    }

    /// The configuration the network was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Logits, `[predictions, vocabulary]`, soft-capped where the family does that, for `tokens.len() / row`
    /// rows of `row` tokens.
    ///
    /// # Panics
    /// If `tokens` is not a whole number of rows, holds an id outside the vocabulary, or has rows longer
    /// than a context of learned positions.
    pub fn logits(&self, tokens: &[u16], row: usize) -> Tensor<2> {
        let (hidden, head) = self.hidden_and_head(tokens, row);
        let logits = hidden.matmul(head.transpose());
        operations::soft_cap(logits, self.config.cap())
    }

    /// Cross-entropy of each target, in nats, `[targets.len()]`.
    ///
    /// # Panics
    /// As [`Transformer::logits`]; and if there is not one target per prediction.
    pub fn losses(&self, tokens: &[u16], targets: &[u16], row: usize) -> Tensor<1> {
        let (hidden, head) = self.before_losses(tokens, targets, row);
        operations::token_losses(hidden, head, targets, self.config.cap())
    }

    /// Mean cross-entropy in nats per token: the training loss.
    ///
    /// # Panics
    /// As [`Transformer::losses`].
    pub fn loss(&self, tokens: &[u16], targets: &[u16], row: usize) -> Tensor<1> {
        let (hidden, head) = self.before_losses(tokens, targets, row);
        operations::mean_loss(hidden, head, targets, None, self.config.cap(), self.precision)
    }

    /// What [`Transformer::hidden_and_head`] gives, once the targets are checked.
    fn before_losses(&self, tokens: &[u16], targets: &[u16], row: usize) -> (Tensor<2>, Tensor<2>) {
        assert_known(targets, self.config.vocabulary_size);
        let (hidden, head) = self.hidden_and_head(tokens, row);
        assert_eq!(hidden.dims()[0], targets.len(), "one target per prediction");
        (hidden, head)
    }

    /// Final hidden states, `[predictions, n]`, and the matrix that makes logits of them, `[vocabulary, n]`.
    fn hidden_and_head(&self, tokens: &[u16], row: usize) -> (Tensor<2>, Tensor<2>) {
        let (hidden, head) = (self.hidden(tokens, row), self.head().val());
        let Some(bias) = self.family.language_model().head_bias() else { return (hidden, head) };
        // A bias is the column of a channel that is always 1.
        let ones = Tensor::ones([hidden.dims()[0], 1], &hidden.device());
        let bias = bias.val().unsqueeze_dim(1);
        (Tensor::cat(vec![hidden, ones], 1), Tensor::cat(vec![head, bias], 1))
    }

    /// The final hidden states after their norm, `[predictions, width]`: the input of the output matrix.
    ///
    /// # Panics
    /// As [`Transformer::logits`].
    pub fn hidden(&self, tokens: &[u16], row: usize) -> Tensor<2> {
        self.hidden_through(tokens, row, &mut Tap::closed(self.precision))
    }

    /// Runs the network forward and shows the input of every linear layer to an observer.
    ///
    /// The observer is called with the names of the matrices that read an input (several where layers
    /// share it, such as queries, keys and values), the input `[positions, inputs]` row-major, and `inputs`.
    /// Positions are all tokens, except in the head of an encoder, which only sees the predictions. The final
    /// hidden states come under the name of the matrix that makes logits of them.
    ///
    /// ```
    /// use backslash_model::{ModelConfig, Transformer, device, initial_weights};
    ///
    /// let config = ModelConfig { vocabulary_size: 16, width: 8, layers: 1, heads: 2, ..ModelConfig::default() };
    /// let network = Transformer::from_weights(&config, &initial_weights(&config, 1)?, &device())?;
    /// let mut groups = Vec::new();
    /// network.observe_inputs(&[1, 2, 3, 4], 2, &mut |names, values, inputs| {
    ///     assert_eq!(values.len(), 4 * inputs);
    ///     groups.push(names.join(" "));
    /// });
    /// assert_eq!(groups[1..], ["blocks.0.attn.proj.weight", "blocks.0.mlp.fc.weight", "blocks.0.mlp.proj.weight", "tok_emb.weight"]);
    /// # Ok::<(), backslash_model::ModelError>(())
    /// ```
    ///
    /// # Panics
    /// As [`Transformer::logits`].
    pub fn observe_inputs(&self, tokens: &[u16], row: usize, observer: &mut InputObserver<'_>) {
        self.replace_matrices(tokens, row, &mut |names, values, inputs| {
            observer(names, values, inputs);
            Vec::new()
        });
    }

    /// Runs the network forward, and puts other matrices in the place of its own on the way: what each layer sees comes
    /// from layers that have already been replaced.
    ///
    /// `replacer` is called as the observer of [`Transformer::observe_inputs`] is, and returns the values of the
    /// matrices that were named, or nothing to leave them as they are; a layer that runs again keeps what it was given.
    /// The network itself stays as it was. As each layer is replaced once, `tokens` should be all there are.
    ///
    /// ```
    /// use backslash_model::{ModelConfig, Transformer, device, initial_weights};
    ///
    /// let config = ModelConfig { vocabulary_size: 16, width: 8, layers: 1, heads: 2, ..ModelConfig::default() };
    /// let network = Transformer::from_weights(&config, &initial_weights(&config, 1)?, &device())?;
    /// // A first MLP matrix of zeros makes a hidden layer of zeros.
    /// network.replace_matrices(&[1, 2, 3, 4], 2, &mut |names, values, inputs| match names[0] {
    ///     "blocks.0.mlp.fc.weight" => vec![vec![0.0; config.mlp_width() * inputs]],
    ///     "blocks.0.mlp.proj.weight" => {
    ///         assert!(values.iter().all(|value| *value == 0.0));
    ///         Vec::new()
    ///     }
    ///     _ => Vec::new(),
    /// });
    /// # Ok::<(), backslash_model::ModelError>(())
    /// ```
    ///
    /// # Panics
    /// As [`Transformer::logits`]; and if a matrix that is returned has another number of values.
    pub fn replace_matrices(&self, tokens: &[u16], row: usize, replacer: &mut MatrixReplacer<'_>) {
        let mut names = Names::default();
        self.visit(&mut names);
        let mut tap = Tap::open(names.found, replacer);
        let hidden = self.hidden_through(tokens, row, &mut tap);
        tap.show(&[self.head()], &hidden);
    }

    fn hidden_through(&self, tokens: &[u16], row: usize, tap: &mut Tap<'_>) -> Tensor<2> {
        let tokens = Tokens::new(tokens, row, self.config.vocabulary_size);
        self.family.language_model().hidden(&tokens, tap)
    }

    fn head(&self) -> &Param<Tensor<2>> {
        self.family.language_model().head()
    }

    /// Walks through all weights.
    pub(crate) fn visit(&self, visitor: &mut impl ModuleVisitor) {
        match &self.family {
            Family::Decoder(network) => network.visit(visitor),
            Family::Llama(network) => network.visit(visitor),
            Family::Gpt2(network) => network.visit(visitor),
            Family::Bert(network) => network.visit(visitor),
        }
    }
}
