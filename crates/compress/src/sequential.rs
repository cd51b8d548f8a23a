//! Layers that know what the layers before them have become.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use backslash_model::{ModelConfig, NamedTensor, NamedWeights, Transformer, device};
use backslash_quant::{Covariance, Drift, Weights};
use rayon::prelude::*;

use crate::{CalibrationBatch, CalibrationText, CompressError, Recipe};

/// Share of the covariance of inputs that there are now in a metric, beside that of the float model's. At 1.1 bits per
/// weight more of either has lost more, and at 1.6 neither the one nor the other makes a difference.
const NOW: f64 = 0.25;
/// Share of the correction for moved inputs that is made. All of it makes a layer put out less, as far as errors in its
/// inputs are noise, and layers shrink together.
const CORRECTION: f64 = 0.25;

/// What a recipe is to quantise, and by which metrics, behind layers that have been quantised.
#[derive(Clone, Debug)]
pub struct Sequential {
    /// The weights, those of layers behind others corrected for what these have become.
    pub weights: NamedWeights,
    /// The metrics of the matrices: covariances of the inputs that there are now.
    pub metrics: BTreeMap<String, Covariance>,
}

/// Inputs of a layer of the float model.
type Shown = (Vec<f32>, usize);

impl Recipe<'_> {
    /// Quantises the network from its first layer to its last at ln κ, each layer after those before it. In its metric a
    /// quarter is the covariance of the inputs x̂ that it then has; and it is made from weights a quarter of the way from
    /// W to the W′ that turn x̂ into what W makes of the float model's x ([`Drift`]). `weights` must be those of the
    /// recipe. An embedding that is also the head comes first, with the metric it has.
    ///
    /// All of the text goes through the float network and the quantised one at once. `progress` is called with the
    /// matrices done and the matrices to do.
    ///
    /// # Errors
    /// Those of [`Recipe::artifact`] and of [`Drift`], and if the weights do not fit the configuration.
    pub fn sequential(
        &self,
        (config, weights): (&ModelConfig, &NamedWeights),
        text: &CalibrationText,
        log_kappa: f64,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Sequential, CompressError> {
        let float = Transformer::from_weights(config, weights, &device())?;
        let first = text.batches().next().expect("rows of some text");
        let text = text.whole();
        let all = text.batches().next().expect("rows of some text");
        let mut walk = Walk {
            recipe: self.clone(),
            float: weights,
            found: Sequential { weights: weights.clone(), metrics: self.metrics.clone() },
            done: BTreeSet::new(),
            log_kappa,
        };
        let untied = |names: &[&str]| -> Vec<String> {
            names.iter().filter(|name| !config.ties(name)).map(|name| (*name).to_owned()).collect()
        };
        let mut to_come = BTreeSet::new();
        first.observe_inputs(&float, &mut |names, _, _| to_come.extend(untied(names)));
        let prefix = walk.before(&to_come)?;
        let prefix = Transformer::from_weights(config, &prefix, &device())?;
        let mut outcome = Ok(());
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(0);
            scope.spawn(move || show_all(&float, all, &sender));
            all.replace_matrices(&prefix, &mut |names, values, _| {
                let step = || walk.layer(config, names, values, &receiver);
                match outcome.is_ok().then(step).unwrap_or(Ok(Vec::new())) {
                    Ok(replaced) => {
                        // An expert may have inputs on other text alone.
                        to_come.extend(untied(names));
                        progress(walk.done.len(), to_come.len());
                        replaced
                    }
                    Err(error) => {
                        outcome = Err(error);
                        Vec::new()
                    }
                }
            });
        });
        outcome.map(|()| walk.found)
    }
}

/// Sends the inputs of all layers, until nobody wants them any more.
fn show_all(network: &Transformer, all: CalibrationBatch<'_>, sender: &SyncSender<Shown>) {
    all.observe_inputs(network, &mut |_, values, width| {
        // Nobody receives after an error, which the other side reports.
        let _ = sender.send((values.to_vec(), width));
    });
}

/// A network that is being quantised, layer by layer.
struct Walk<'a> {
    /// The recipe, its metrics those of the inputs that there are now.
    recipe: Recipe<'a>,
    float: &'a NamedWeights,
    found: Sequential,
    done: BTreeSet<String>,
    log_kappa: f64,
}

impl Walk<'_> {
    /// The network before its first layer: everything is quantised but the matrices that are still to come.
    fn before(&self, to_come: &BTreeSet<String>) -> Result<NamedWeights, CompressError> {
        let decoded = self.recipe.weights.par_iter().map(|tensor| {
            let data = if to_come.contains(tensor.name) {
                tensor.data.to_vec()
            } else {
                self.decoded(tensor)?
            };
            let (name, shape) = (tensor.name.to_owned(), tensor.shape.to_vec());
            Ok(NamedTensor { name, shape, data })
        });
        Ok(NamedWeights::new(decoded.collect::<Result<_, CompressError>>()?))
    }

    /// What the matrices of a layer become, now that its inputs are known.
    fn layer(
        &mut self,
        config: &ModelConfig,
        names: &[&str],
        now: &[f32],
        receiver: &Receiver<Shown>,
    ) -> Result<Vec<Vec<f32>>, CompressError> {
        let (before, width) = receiver.recv().expect("both networks have the same layers");
        if config.ties(names[0]) || self.done.contains(names[0]) {
            return Ok(Vec::new());
        }
        let mut drift = Drift::new(width)?;
        drift.accumulate(&before, now)?;
        drop(before);
        for name in names {
            let (float, now) = (self.recipe.metrics.get(*name), drift.covariance());
            let metric = match float {
                Some(float) if now.has_moments() => float.blended(now, NOW)?,
                Some(float) => float.clone(),
                None => now.clone(),
            };
            self.recipe.metrics.insert((*name).to_owned(), metric.clone());
            self.found.metrics.insert((*name).to_owned(), metric);
        }
        let matrices = names.par_iter().map(|name| self.matrix(config, name, &drift));
        let (mut replaced, mut corrected) = (Vec::new(), Vec::new());
        for matrix in matrices.collect::<Result<Vec<_>, CompressError>>()? {
            corrected.push(matrix.0);
            replaced.push(matrix.1);
        }
        for (name, data) in names.iter().zip(corrected) {
            let at = self.found.weights.position(name).expect("a weight of the network");
            self.found.weights.tensors_mut()[at].data = data;
            self.done.insert((*name).to_owned());
        }
        Ok(replaced)
    }

    /// The corrected weights of a matrix, and what is decoded of them.
    fn matrix(
        &self,
        config: &ModelConfig,
        name: &str,
        drift: &Drift,
    ) -> Result<(Vec<f32>, Vec<f32>), CompressError> {
        let NamedTensor { name, shape, data } =
            self.float.get(name).expect("a weight of the network");
        let float = Weights { name, shape, data };
        let ridge = self.recipe.options.ridge;
        let full = match config.has_inputs_first(name) {
            true => drift.corrected_inputs_first(&float, ridge)?,
            false => drift.corrected(&float, ridge)?,
        };
        let pairs = data.iter().zip(&full);
        let corrected: Vec<f32> =
            pairs.map(|(w, full)| w + CORRECTION as f32 * (full - w)).collect();
        let weights = Weights { data: &corrected, ..float };
        let decoded = self.decoded(&weights)?;
        Ok((corrected, decoded))
    }

    /// What a tensor is read back as.
    fn decoded(&self, tensor: &Weights<'_>) -> Result<Vec<f32>, CompressError> {
        Ok(self.recipe.tensor(tensor, self.log_kappa)?.to_f32(tensor.name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::covariances;
    use crate::{Allocation, Calibration};
    use backslash_codec::Artifact;
    use backslash_data::Example;
    use backslash_model::{Architecture, SpecialTokens, initial_weights};
    use backslash_quant::Rung;
    use rand::{RngExt, SeedableRng};

    fn model(architecture: Architecture) -> (ModelConfig, NamedWeights, CalibrationText) {
        let is_classifier = architecture == Architecture::Bert;
        let labels: &[&str] = if is_classifier { &["a", "b"] } else { &[] };
        let config = ModelConfig {
            architecture,
            labels: labels.iter().map(ToString::to_string).collect(),
            special_tokens: is_classifier.then_some(SpecialTokens { start: 0, end: 1, mask: 2 }),
            vocabulary_size: 40,
            width: 32,
            layers: 2,
            heads: 2,
            kv_heads: 2,
            context: 16,
            embedding_std: 0.5,
            ..ModelConfig::default()
        };
        let mut random = rand_pcg::Pcg64::seed_from_u64(4);
        let weights = drawn(&config, &mut random);
        let tokens: Vec<u16> = (0..1601).map(|_| random.random_range(0..40)).collect();
        let text = if is_classifier {
            // Texts of 1 to 16 tokens, so that there is padding.
            let lengths = (0..tokens.len() - 16).step_by(8).enumerate();
            let examples = lengths.map(|(index, at)| Example {
                tokens: tokens[at..=at + index % 16].to_vec(),
                class: index as u16 % 2,
            });
            CalibrationText::of_examples(&config, &examples.collect::<Vec<_>>(), usize::MAX)
        } else {
            CalibrationText::new(&config, &tokens, tokens.len())
        };
        (config, weights, text.unwrap())
    }

    /// Weights none of which is zero.
    fn drawn(config: &ModelConfig, random: &mut rand_pcg::Pcg64) -> NamedWeights {
        let mut weights = initial_weights(config, 3).unwrap();
        for tensor in weights.tensors_mut() {
            tensor.data.iter_mut().for_each(|w| *w += 0.2 * (random.random::<f32>() - 0.5));
        }
        weights
    }

    fn views(weights: &NamedWeights) -> Vec<Weights<'_>> {
        let tensors = weights.tensors().iter();
        tensors.map(|NamedTensor { name, shape, data }| Weights { name, shape, data }).collect()
    }

    fn recipe_of(weights: &NamedWeights, calibration: Calibration, rung: Rung) -> Recipe<'_> {
        let (views, metadata) = (views(weights), BTreeMap::new());
        Recipe::calibrated(views, metadata, calibration, rung, Allocation::Rows).unwrap()
    }

    fn decoded(artifact: &Artifact) -> NamedWeights {
        let tensors = artifact.tensors.iter().map(|(name, tensor)| {
            let data = tensor.to_f32(name).unwrap();
            NamedTensor { name: name.clone(), shape: tensor.shape().to_vec(), data }
        });
        NamedWeights::new(tensors.collect())
    }

    /// The inputs that the walk has seen are those of the model that its recipe makes in the end.
    #[test]
    fn metrics_are_those_of_the_quantised_model() {
        use Architecture::{Bert, Decoder, Golf, Gpt2};
        for architecture in [Decoder, Golf, Gpt2, Bert] {
            let (config, weights, text) = model(architecture);
            let calibration = Calibration::of(&config, &weights, &text, 1, |_, _| ()).unwrap();
            let float = calibration.covariances.clone();
            let recipe = recipe_of(&weights, calibration, Rung::Watersic);
            let log_kappa = recipe.guess(2.5);
            let mut last = (0, 1);
            let found = recipe.sequential((&config, &weights), &text, log_kappa, |done, total| {
                last = (done, total);
            });
            let found = found.unwrap();
            assert_eq!(last.0, last.1);
            let made = Recipe {
                weights: views(&found.weights),
                metrics: found.metrics.clone(),
                ..recipe.clone()
            };
            let decoded = decoded(&made.artifact(log_kappa).unwrap());
            let now = covariances(&config, &decoded, &text, |_| ()).unwrap();
            for (name, now) in now.iter().filter(|(name, _)| !config.ties(name)) {
                let expected = float[name].blended(now, NOW).unwrap();
                let scale = expected.diagonal().iter().copied().fold(0.0, f64::max);
                for i in 0..now.width() {
                    for j in 0..=i {
                        let off = found.metrics[name].moment(i, j) - expected.moment(i, j);
                        assert!(off.abs() < 1e-4 * scale, "{architecture:?} {name} {i} {j}: {off}");
                    }
                }
            }
            let tied = |name: &str| config.ties(name);
            for tensor in weights.tensors() {
                let same = found.weights.get(&tensor.name).unwrap().data == tensor.data;
                let moves = now.contains_key(&tensor.name) && !tied(&tensor.name);
                assert_eq!(same, !moves, "{}", tensor.name);
            }
        }
    }

    #[test]
    fn experts_that_the_first_text_lacks_are_counted_too() {
        let (config, _, _) = model(Architecture::Decoder);
        let config = ModelConfig { experts: 60, ..config };
        let tokens: Vec<u16> =
            (0..1601_u32).map(|i| (i * i % if i < 1200 { 8 } else { 40 }) as u16).collect();
        let text = CalibrationText::new(&config, &tokens, tokens.len()).unwrap();
        let weights = drawn(&config, &mut rand_pcg::Pcg64::seed_from_u64(5));
        let network = Transformer::from_weights(&config, &weights, &device()).unwrap();
        let mut first = BTreeSet::new();
        text.batches().next().unwrap().observe_inputs(&network, &mut |names, _, _| {
            let names = names.iter().filter(|name| !config.ties(name));
            first.extend(names.map(|name| (*name).to_owned()));
        });
        let calibration = Calibration::of(&config, &weights, &text, 1, |_, _| ()).unwrap();
        let recipe = recipe_of(&weights, calibration, Rung::Gptq);
        let mut reports = Vec::new();
        let tell = |done, total| reports.push((done, total));
        let log_kappa = recipe.guess(3.0);
        recipe.sequential((&config, &weights), &text, log_kappa, tell).unwrap();
        assert!(reports.iter().all(|(done, total)| done <= total));
        let (done, total) = reports[reports.len() - 1];
        assert!(done == total && first.len() < done, "{} {done} {total}", first.len());
    }

    #[test]
    fn a_matrix_that_is_shown_nothing_but_zeros_is_quantised_too() {
        let (config, mut weights, text) = model(Architecture::Decoder);
        let dead = weights.position("blocks.0.mlp.fc.weight").unwrap();
        weights.tensors_mut()[dead].data.fill(0.0);
        let calibration = Calibration::of(&config, &weights, &text, 1, |_, _| ()).unwrap();
        assert!(!calibration.covariances.contains_key("blocks.0.mlp.proj.weight"));
        let recipe = recipe_of(&weights, calibration, Rung::Watersic);
        let log_kappa = recipe.guess(2.5);
        recipe.artifact(log_kappa).unwrap();
        recipe.sequential((&config, &weights), &text, log_kappa, |_, _| ()).unwrap();
    }

    #[test]
    fn errors_on_the_way_are_returned() {
        let (config, weights, text) = model(Architecture::Decoder);
        let calibration = Calibration::of(&config, &weights, &text, 1, |_, _| ()).unwrap();
        let mut recipe = recipe_of(&weights, calibration, Rung::Gptq);
        recipe.rules.remove("blocks.1.mlp.fc.weight");
        let log_kappa = recipe.guess(3.0);
        let whole = (&config, &weights);
        let error = recipe.sequential(whole, &text, log_kappa, |_, _| ()).unwrap_err();
        assert!(error.to_string().contains("blocks.1.mlp.fc.weight"), "{error}");
    }
}
