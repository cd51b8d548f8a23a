//! Points over several models.

use super::{Method, Point};
use crate::Mean;

/// What points say about methods.
pub struct Summary<'a>(&'a [Point]);

impl<'a> Summary<'a> {
    /// Of all points of a journal.
    pub fn new(points: &'a [Point]) -> Self {
        Self(points)
    }

    /// The points of a method at a target, one per model, in the order of the journal.
    pub fn points(&self, method: Method, target: Option<f64>) -> Vec<&'a Point> {
        let name = method.name();
        let found = self.0.iter();
        found.filter(|point| point.method == name && point.target == target).collect()
    }

    /// Loss above the float model's, over models.
    pub fn increase(&self, method: Method, target: Option<f64>) -> Option<Mean> {
        let points = self.points(method, target);
        Mean::of(&points.iter().map(|point| point.increase()).collect::<Vec<_>>())
    }

    /// Figures of two methods in the same model, paired: `figure(of one, of other)` for all models that have both.
    pub fn paired(
        &self,
        one: (Method, Option<f64>),
        other: (Method, Option<f64>),
        figure: impl Fn(&Point, &Point) -> f64,
    ) -> Option<Mean> {
        let others = self.points(other.0, other.1);
        let pairs = self.points(one.0, one.1).into_iter().filter_map(|point| {
            let other = others.iter().find(|other| other.run == point.run)?;
            Some(figure(point, other))
        });
        Mean::of(&pairs.collect::<Vec<_>>())
    }

    /// How much more one method loses than another at a target, in nats per token.
    pub fn difference(&self, one: Method, other: Method, target: Option<f64>) -> Option<Mean> {
        self.paired((one, target), (other, target), |one, other| one.nats - other.nats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(run: &str, method: Method, target: f64, nats: f64) -> Point {
        Point {
            run: run.to_owned(),
            method: method.name(),
            target: Some(target),
            nats,
            float_nats: 3.0,
            ..Point::default()
        }
    }

    #[test]
    fn models_are_paired() {
        let (one, other) = (Method::SdClip, Method::PaperScaled);
        // Models differ by far more than methods.
        let points = [
            point("a", one, 2.0, 3.10),
            point("b", one, 2.0, 3.50),
            point("c", one, 2.0, 3.90),
            point("b", other, 2.0, 3.53),
            point("a", other, 2.0, 3.12),
            point("c", other, 2.0, 3.925),
            point("d", other, 2.0, 9.0),
            point("a", other, 3.0, 9.0),
        ];
        let summary = Summary::new(&points);
        let difference = summary.difference(one, other, Some(2.0)).unwrap();
        assert!((difference.mean + 0.025).abs() < 1e-9 && difference.count == 3);
        assert!(difference.is_certain());
        let increase = summary.increase(one, Some(2.0)).unwrap();
        assert!((increase.mean - 0.5).abs() < 1e-9 && (increase.deviation - 0.4).abs() < 1e-9);
        assert_eq!(summary.increase(one, Some(4.0)), None);
    }
}
