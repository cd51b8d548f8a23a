//! What a code costs under a static table.

/// Largest magnitude with an entry of its own.
const MAX_MAGNITUDE: i32 = 1023;
/// Occurrences that every code of the table is given beforehand.
const PRIOR: f64 = 0.25;

/// Code lengths in bits, −log₂ of the share of each code among those counted.
///
/// Codes beyond the largest that was seen cost as much as one within that was not seen, and two bits more for
/// every doubling of the distance, as in an exponential Golomb code.
pub(super) struct RateTable {
    bits: Vec<f64>,
    largest: i32,
    unseen: f64,
}

impl RateTable {
    pub(super) fn of(codes: impl Iterator<Item = i32>) -> Self {
        let mut counts = vec![PRIOR; 2 * MAX_MAGNITUDE as usize + 1];
        let (mut largest, mut total) = (0, 0.0);
        for code in codes {
            let code = code.clamp(-MAX_MAGNITUDE, MAX_MAGNITUDE);
            largest = largest.max(code.abs());
            counts[(code + MAX_MAGNITUDE) as usize] += 1.0;
            total += 1.0;
        }
        let seen = (MAX_MAGNITUDE - largest) as usize..=(MAX_MAGNITUDE + largest) as usize;
        // One more share of the prior for everything beyond.
        total += PRIOR * (seen.clone().count() + 1) as f64;
        let bits: Vec<f64> = counts[seen].iter().map(|count| (total / count).log2()).collect();
        Self { bits, largest, unseen: (total / PRIOR).log2() }
    }

    /// Bits that `code` costs.
    pub(super) fn bits(&self, code: i32) -> f64 {
        let inside = code.clamp(-self.largest, self.largest);
        let bits = self.bits[(inside + self.largest) as usize];
        let beyond = code.unsigned_abs() - inside.unsigned_abs();
        if beyond == 0 { bits } else { self.unseen + 2.0 * f64::from(beyond).log2() }
    }
}

/// Of the nearest code to `target`, its neighbours and zero, that of least
/// (target − r(code))² + price(code), r being `value`; and that cost.
pub(super) fn cheapest_code(
    target: f64,
    value: impl Fn(i32) -> f64,
    price: impl Fn(i32) -> f64,
) -> (i32, f64) {
    let nearest = target.round_ties_even() as i32;
    let cost = |code: i32| (target - value(code)).powi(2) + price(code);
    let mut best = (nearest, cost(nearest));
    for code in [nearest - 1, nearest + 1, 0] {
        let cost = cost(code);
        if cost < best.1 {
            best = (code, cost);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_shares() {
        let codes = [0, 0, 0, 0, 1, 1, -2, 0];
        let table = RateTable::of(codes.into_iter());
        let share = |count: f64| -((count + 0.25) / (8.0 + 0.25 * 6.0)).log2();
        for (code, count) in [(0, 5.0), (1, 2.0), (-2, 1.0), (-1, 0.0), (2, 0.0)] {
            assert!((table.bits(code) - share(count)).abs() < 1e-12, "{code}");
        }
        let probability: f64 = (-2..=2).map(|code| (-table.bits(code)).exp2()).sum();
        assert!(probability < 1.0 && probability > 0.95);
        assert!(table.bits(1 << 20) > table.bits(3) && table.bits(3) >= table.bits(2));
        assert!(table.bits(i32::MIN + 1).is_finite());
    }

    #[test]
    fn the_price_decides_between_neighbours() {
        let table = RateTable::of([0, 0, 0, 0, 0, 0, 0, 1, -1].into_iter());
        let chosen = |target, price: f64| {
            cheapest_code(target, f64::from, |code| price * table.bits(code)).0
        };
        assert_eq!([chosen(0.6, 0.0), chosen(0.6, 0.1155), chosen(0.9, 0.1155)], [1, 0, 1]);
        assert_eq!([chosen(-2.5, 0.0), chosen(-1.6, 0.1155), chosen(-1.6, 9.0)], [-2, -1, 0]);
    }
}
