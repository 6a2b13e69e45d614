//! Medians, spreads and quantiles.

/// The median and the range of some measurements; `None` of none.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// Sums up the rounds of one measurement.
pub fn spread(rounds: &[f64]) -> Option<Spread> {
    let mut sorted: Vec<f64> = rounds.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Some(Spread { median, min, max })
}

/// The value below which that part of all values lies; 0 of none. Sorts them.
pub fn quantile(values: &mut [u32], quantile: f64) -> f64 {
    values.sort_unstable();
    let at = (values.len() as f64 * quantile) as usize;
    values.get(at.min(values.len().saturating_sub(1))).map_or(0.0, |value| f64::from(*value))
}
