//! Loss and bytes over sparsity.

use backslash_codec::{Limits, decode, encode};
use backslash_model::ModelConfig;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Pruned, Pruner, Scope};
use crate::{EvalError, Quality, TestSet, decoded_weights};

/// A pruned model whose file was decoded and evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PrunePoint {
    /// Share of the weights of the matrices that was pruned, 0 to 1.
    pub sparsity: f64,
    /// Share of them that is zero in the file: rounding makes zeros too.
    pub zeros: f64,
    /// Bytes of the file, of weights alone.
    pub bytes: u64,
    /// These, in bits, per weight of the model.
    pub bits_per_weight: f64,
    /// What the pruned weights reach before they are coded.
    #[serde(
        flatten,
        serialize_with = "Reached::pruned",
        deserialize_with = "Reached::read_pruned"
    )]
    pub pruned: Reached,
    /// What that reaches which the file decodes to.
    #[serde(flatten)]
    pub decoded: Reached,
}

/// The quality of a model on which a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Reached {
    /// Bits per byte of text, of a network that predicts the next token: less is better.
    #[serde(rename = "bits_per_byte", deserialize_with = "number_or_none")]
    BitsPerByte(f64),
    /// Share of the examples whose class a classifier finds: more is better.
    #[serde(rename = "accuracy", deserialize_with = "number_or_none")]
    Accuracy(f64),
}

impl Reached {
    /// What a network was found to reach.
    ///
    /// # Errors
    /// [`EvalError::NoBitsPerByte`] if it has neither bits per byte nor accuracy.
    pub fn of(quality: &Quality) -> Result<Self, EvalError> {
        Self::recorded(quality.bits_per_byte(), quality.accuracy()).ok_or(EvalError::NoBitsPerByte)
    }

    /// That of two figures which is there, as records of all kinds of networks have them.
    pub fn recorded(bits_per_byte: Option<f64>, accuracy: Option<f64>) -> Option<Self> {
        bits_per_byte.map(Self::BitsPerByte).or(accuracy.map(Self::Accuracy))
    }

    /// The figure.
    pub fn figure(self) -> f64 {
        match self {
            Self::BitsPerByte(figure) | Self::Accuracy(figure) => figure,
        }
    }

    /// The figure of a network that predicts the next token.
    pub fn bits_per_byte(self) -> Option<f64> {
        match self {
            Self::BitsPerByte(figure) => Some(figure),
            Self::Accuracy(_) => None,
        }
    }

    /// The figure of a classifier.
    pub fn accuracy(self) -> Option<f64> {
        match self {
            Self::BitsPerByte(_) => None,
            Self::Accuracy(figure) => Some(figure),
        }
    }

    /// What the figure is.
    pub fn name(self) -> &'static str {
        match self {
            Self::BitsPerByte(_) => "bits per byte",
            Self::Accuracy(_) => "accuracy",
        }
    }

    /// The figure at which the share `loss` of the quality is gone.
    fn limit(self, loss: f64) -> f64 {
        match self {
            Self::BitsPerByte(figure) => (1.0 + loss) * figure,
            Self::Accuracy(figure) => (1.0 - loss) * figure,
        }
    }

    /// Whether that much is gone, or all.
    fn is_lost(self, limit: f64) -> bool {
        match self {
            Self::BitsPerByte(figure) => figure.is_nan() || figure >= limit,
            Self::Accuracy(figure) => figure.is_nan() || figure <= limit,
        }
    }

    /// By the name of a figure before coding.
    fn read_pruned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        enum Named {
            #[serde(rename = "bits_per_byte_pruned", deserialize_with = "number_or_none")]
            BitsPerByte(f64),
            #[serde(rename = "accuracy_pruned", deserialize_with = "number_or_none")]
            Accuracy(f64),
        }
        Ok(match Named::deserialize(deserializer)? {
            Named::BitsPerByte(figure) => Self::BitsPerByte(figure),
            Named::Accuracy(figure) => Self::Accuracy(figure),
        })
    }

    /// With the name of a figure before coding.
    fn pruned<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = match self {
            Self::BitsPerByte(_) => "bits_per_byte_pruned",
            Self::Accuracy(_) => "accuracy_pruned",
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &self.figure())?;
        map.end()
    }
}

/// JSON has no word for what is no number, and writes null.
fn number_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// The points of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PruneCurve {
    /// Name of the model.
    #[serde(rename = "model")]
    pub name: String,
    /// By sparsity, the first without pruning.
    pub points: Vec<PrunePoint>,
}

impl PruneCurve {
    /// Whether the model is a classifier.
    pub fn is_of_classes(&self) -> bool {
        self.points.iter().any(|point| point.decoded.accuracy().is_some())
    }

    /// Prunes a model to each sparsity (0 to 1, rising from 0), makes its file, decodes it and evaluates it; `progress` is
    /// given every point.
    ///
    /// # Errors
    /// If weights cannot be coded, or the network has neither bits per byte nor accuracy.
    pub fn measure(
        name: &str,
        (config, pruner): (&ModelConfig, &Pruner),
        test: TestSet<'_>,
        (sparsities, scope): (&[f64], Scope),
        progress: &mut dyn FnMut(&PrunePoint),
    ) -> Result<Self, EvalError> {
        let mut points: Vec<PrunePoint> = Vec::new();
        let mut last = None;
        for &sparsity in sparsities {
            let pruned = pruner.at(sparsity, scope)?;
            let point = match (points.last(), &last) {
                // The zeros that rounding has made are pruned first, which changes nothing.
                (Some(&point), Some(last)) if *last == pruned => PrunePoint { sparsity, ..point },
                _ => measured(config, sparsity, &pruned, test)?,
            };
            progress(&point);
            points.push(point);
            last = Some(pruned);
        }
        Ok(Self { name: name.to_owned(), points })
    }

    /// The least sparsity at which the file needs `1 + loss` times the bits per byte of the first point, or finds `1 − loss`
    /// times the classes, on straight lines between the points; `None` where it never does.
    ///
    /// ```
    /// use backslash_eval::prune::{PruneCurve, PrunePoint, Reached};
    ///
    /// let point = |sparsity: f64, reached: Reached| PrunePoint {
    ///     sparsity,
    ///     zeros: sparsity,
    ///     bytes: 1000,
    ///     bits_per_weight: 2.0,
    ///     pruned: reached,
    ///     decoded: reached,
    /// };
    /// let curve = |kind: fn(f64) -> Reached, figures: [f64; 3]| {
    ///     let points = [0.0, 0.5, 0.75].into_iter().zip(figures);
    ///     let points = points.map(|(sparsity, figure)| point(sparsity, kind(figure))).collect();
    ///     PruneCurve { name: "plain".into(), points }
    /// };
    /// let bits = curve(Reached::BitsPerByte, [2.0, 2.1, 2.3]);
    /// assert!((bits.sparsity_at_loss(0.1).unwrap() - 0.625).abs() < 1e-12);
    /// assert_eq!(bits.sparsity_at_loss(0.2), None);
    /// let accuracy = curve(Reached::Accuracy, [0.8, 0.76, 0.68]);
    /// assert!((accuracy.sparsity_at_loss(0.1).unwrap() - 0.625).abs() < 1e-12);
    /// ```
    pub fn sparsity_at_loss(&self, loss: f64) -> Option<f64> {
        let limit = self.points.first()?.decoded.limit(loss);
        // What is not finite is lost too.
        let at = self.points.iter().position(|point| point.decoded.is_lost(limit))?;
        let after = self.points[at];
        let Some(before) = at.checked_sub(1).map(|before| self.points[before]) else {
            return Some(after.sparsity);
        };
        let (from, to) = (before.decoded.figure(), after.decoded.figure());
        if !to.is_finite() {
            return Some(before.sparsity);
        }
        let share = (limit - from) / (to - from);
        Some(before.sparsity + share * (after.sparsity - before.sparsity))
    }
}

fn measured(
    config: &ModelConfig,
    sparsity: f64,
    pruned: &Pruned,
    test: TestSet<'_>,
) -> Result<PrunePoint, EvalError> {
    let Pruned { artifact, weights, zeros } = pruned;
    let file = encode(artifact)?;
    let decoded = decoded_weights(&decode(&file, &Limits::default())?)?;
    let of_file = Reached::of(&test.quality(config, &decoded)?)?;
    let of_weights = match *weights == decoded {
        true => of_file,
        false => Reached::of(&test.quality(config, weights)?)?,
    };
    let bytes = file.len() as u64;
    Ok(PrunePoint {
        sparsity,
        zeros: *zeros,
        bytes,
        bits_per_weight: 8.0 * bytes as f64 / weights.parameters().max(1) as f64,
        pruned: of_weights,
        decoded: of_file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl PruneCurve {
        /// One of sparsities and bits per byte.
        pub(crate) fn of_figures(name: &str, figures: &[(f64, f64)]) -> Self {
            let point = |&(sparsity, bits_per_byte): &(f64, f64)| PrunePoint {
                sparsity,
                zeros: sparsity,
                bytes: 1000,
                bits_per_weight: 2.0,
                pruned: Reached::BitsPerByte(bits_per_byte),
                decoded: Reached::BitsPerByte(bits_per_byte),
            };
            Self { name: name.to_owned(), points: figures.iter().map(point).collect() }
        }
    }

    #[test]
    fn curves_are_read_as_they_were_written() {
        let mut curve = PruneCurve::of_figures("a", &[(0.0, 2.25), (0.5, f64::NAN)]);
        let back: PruneCurve =
            serde_json::from_str(&serde_json::to_string(&curve).unwrap()).unwrap();
        assert_eq!(back.points[0], curve.points[0]);
        let last = back.points[1];
        assert!(last.pruned.figure().is_nan() && last.decoded.bits_per_byte().unwrap().is_nan());
        assert_eq!(last.sparsity, 0.5);
        for point in &mut curve.points {
            (point.pruned, point.decoded) = (Reached::Accuracy(0.75), Reached::Accuracy(0.5));
        }
        let text = serde_json::to_string(&curve).unwrap();
        assert_eq!(serde_json::from_str::<PruneCurve>(&text).unwrap(), curve);
    }

    #[test]
    fn a_curve_that_ends_in_no_number_is_lost_where_the_last_number_was() {
        let lost =
            |figures: &[(f64, f64)]| PruneCurve::of_figures("", figures).sparsity_at_loss(0.1);
        assert_eq!(lost(&[(0.0, 2.0), (0.4, 2.1), (0.5, f64::NAN)]), Some(0.4));
        assert_eq!(lost(&[(0.0, f64::NAN), (0.4, 2.1)]), Some(0.0));
        assert_eq!(lost(&[(0.0, 2.0), (0.4, 1.9)]), None);
        assert_eq!(lost(&[]), None);
    }

    #[test]
    fn figures_stand_under_their_names() {
        let point = PruneCurve::of_figures("", &[(0.5, 2.0)]).points[0];
        let json = serde_json::to_value(point).unwrap();
        assert_eq!(
            (&json["bits_per_byte"], &json["bits_per_byte_pruned"]),
            (&2.0.into(), &2.0.into())
        );
        let reached = Reached::Accuracy(0.5);
        let json = serde_json::to_value(PrunePoint { decoded: reached, pruned: reached, ..point });
        let json = json.unwrap();
        assert_eq!((&json["accuracy"], &json["accuracy_pruned"]), (&0.5.into(), &0.5.into()));
        assert!(json.get("bits_per_byte").is_none());
    }
}
