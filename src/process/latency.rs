//! How long answers take, as far as the node itself can tell: from the read that brought a message until its answer was
//! queued for the same connection.
//!
//! What lies before that (the network, the kernel's buffers) and behind it (the write, the way back) is not in it. Answers of a
//! [`Server`](crate::Server) are all in it, whenever they come; of a [`GenServer`](crate::GenServer)'s those are not that come
//! later than the message was handled, from a disk or from another server. A connection
//! that is not busy has all of its answers measured; of a busy one every 64th read, whose answers then count
//! 64 times: two looks at the clock for each would cost as much as the rest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of a busy connection's reads one in so many is measured.
pub(crate) const SAMPLED: u32 = 64;

/// Upper bounds of the classes, in nanoseconds, each included. What is above the last is in one more class.
pub const BOUNDS_NANOS: [u64; 19] = [
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
];

/// Number of answers in each class of [`BOUNDS_NANOS`], and above.
pub type Classes = [u64; BOUNDS_NANOS.len() + 1];

/// A histogram that many connections write to.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    classes: [AtomicU64; BOUNDS_NANOS.len() + 1],
    sum_nanos: AtomicU64,
}

impl Latency {
    /// An answer took so long; it stands for `weight` of them.
    pub(crate) fn record(&self, took: Duration, weight: u32) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let class = BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
        self.classes[class].fetch_add(u64::from(weight), Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos.saturating_mul(u64::from(weight)), Ordering::Relaxed);
    }

    /// How many there were in each class, and how long all took together, in nanoseconds.
    pub(crate) fn read(&self) -> (Classes, u64) {
        let classes = std::array::from_fn(|class| self.classes[class].load(Ordering::Relaxed));
        (classes, self.sum_nanos.load(Ordering::Relaxed))
    }
}

/// The time within which `part` (0 to 1) of the answers came, in nanoseconds, estimated within its class. `None`: there
/// were none.
pub fn quantile(classes: &[u64], part: f64) -> Option<f64> {
    let total: u64 = classes.iter().sum();
    let wanted = part * total as f64;
    let mut below = 0.0;
    for (class, count) in classes.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        if below + count >= wanted {
            let from = if class == 0 { 0 } else { BOUNDS_NANOS[class - 1] } as f64;
            // Above the last bound nothing more is known than that.
            let Some(to) = BOUNDS_NANOS.get(class) else { return Some(from) };
            return Some(from + (*to as f64 - from) * ((wanted - below) / count).clamp(0.0, 1.0));
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_in_the_class_of_the_least_bound_that_is_not_below_it() {
        let latency = Latency::default();
        for (nanos, weight) in [(0, 1), (500, 1), (501, 1), (1_000, 64), (2_000_000_000, 1)] {
            latency.record(Duration::from_nanos(nanos), weight);
        }
        let (classes, sum) = latency.read();
        assert_eq!((classes[0], classes[1], classes[BOUNDS_NANOS.len()]), (2, 65, 1));
        assert_eq!(sum, 500 + 501 + 64_000 + 2_000_000_000);
    }

    #[test]
    fn quantiles_lie_within_their_class() {
        assert_eq!(quantile(&Classes::default(), 0.5), None);
        let mut classes = Classes::default();
        classes[3] = 98;
        classes[10] = 2;
        let median = quantile(&classes, 0.5).unwrap();
        assert!((2_000.0..5_000.0).contains(&median), "{median}");
        let rare = quantile(&classes, 0.99).unwrap();
        assert!((500_000.0..=1_000_000.0).contains(&rare), "{rare}");
        let mut classes = Classes::default();
        classes[BOUNDS_NANOS.len()] = 1;
        assert_eq!(quantile(&classes, 0.5), Some(1e9));
    }

    #[test]
    fn bounds_go_up() {
        assert!(BOUNDS_NANOS.is_sorted());
    }
}
