//! Figures over seeds as a table shows them.

use backslash_eval::Mean;

/// A mean and, of several figures, their deviation.
pub fn with_deviation(figure: Mean) -> String {
    match figure.count {
        1 => format!("{:.4}", figure.mean),
        _ => format!("{:.4} ± {:.4}", figure.mean, figure.deviation),
    }
}

/// What the mean of differences lies in, which says that there is none where zero is in it.
pub fn interval(difference: Mean, text: impl Fn(f64, f64) -> String) -> String {
    match difference.interval() {
        None => "–".to_owned(),
        Some(_) if !difference.is_certain() => "no difference".to_owned(),
        Some((least, greatest)) => text(least, greatest),
    }
}
