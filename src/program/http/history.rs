//! What the node did in the last minutes, second by second, for the plots.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use smol::Timer;

use super::super::{Program, now};
use super::Site;
use crate::kv::figures::{Counts, Served};
use crate::node::latency::quantile;
use crate::program::snapshot::Requests;

/// Moments that are kept: three minutes, about as many as a plot has points.
const MOMENTS_MAX: usize = 180;
/// From one moment to the next: the page asks as often.
const INTERVAL: Duration = Duration::from_secs(1);

/// One second: what was served in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Moment {
    /// Requests of all stores, in each second.
    get: f64,
    put: f64,
    delete: f64,
    replicated: f64,
    /// Times within which half, and 99 of 100, of the answers were queued, in seconds.
    p50: Option<f64>,
    p99: Option<f64>,
}

/// The last [`MOMENTS_MAX`] of them, oldest first.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Moment>>);

impl History {
    pub(super) fn moments(&self) -> Vec<Moment> {
        self.0.lock().iter().cloned().collect()
    }

    fn push(&self, moment: Moment) {
        let mut moments = self.0.lock();
        if moments.len() >= MOMENTS_MAX {
            moments.pop_front();
        }
        moments.push_back(moment);
    }
}

/// What has been counted since the start.
fn counted(program: &Program) -> (Counts, Vec<u64>) {
    let mut counts = Counts::default();
    for life in program.stores.iter().filter_map(|store| store.life.get()) {
        for (sum, count) in counts.iter_mut().zip(life.watch.counts()) {
            *sum += count;
        }
    }
    (counts, program.node.snapshot().answers)
}

/// Looks every second. It ends with the node.
pub(super) async fn sample(site: Arc<Site>) {
    let (mut counts, mut classes) = counted(&site.program);
    let mut at = now();
    loop {
        Timer::after(INTERVAL).await;
        let (counts_now, classes_now) = counted(&site.program);
        let secs = at.elapsed().as_secs_f64();
        at = now();
        site.history.push(moment((&counts, &counts_now), (&classes, &classes_now), secs));
        (counts, classes) = (counts_now, classes_now);
    }
}

fn moment(counts: (&Counts, &Counts), classes: (&[u64], &[u64]), secs: f64) -> Moment {
    let new_counts: Counts = std::array::from_fn(|kind| counts.1[kind].saturating_sub(counts.0[kind]));
    let new_requests = Requests::from(new_counts);
    let rate = |kind| new_requests.of(kind) as f64 / secs;
    let new: Vec<u64> =
        classes.1.iter().zip(classes.0).map(|(now, before)| now.saturating_sub(*before)).collect();
    let within = |part| quantile(&new, part).map(|nanos| nanos / 1e9);
    Moment {
        get: rate(Served::Get),
        put: rate(Served::Put),
        delete: rate(Served::Delete),
        replicated: rate(Served::Replicated),
        p50: within(0.5),
        p99: within(0.99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_what_was_new_in_it() {
        let (mut before, mut now) = ([0; 12], [0; 12]);
        (before[3], now[3], now[9]) = (100, 200, 1);
        let first = [5, 5, 5, 5, 0, 0];
        let second = [25, 5, 6, 9, 70, 70];
        let seen = moment((&first, &second), (&before, &now), 2.0);
        assert_eq!((seen.get, seen.put, seen.delete, seen.replicated), (10.0, 0.0, 0.5, 2.0));
        assert!(
            seen.p50.is_some_and(|secs| secs < 6e-6) && seen.p99.is_some_and(|secs| secs < 6e-6),
            "{seen:?}"
        );
        assert_eq!(moment((&first, &first), (&now, &now), 1.0), Moment::default());
        let moment = serde_json::to_value(Moment::default()).expect("it is written");
        for kind in Served::DRAWN {
            assert!(moment[kind.code()].is_number(), "the page draws it: {kind:?}");
        }
    }

    #[test]
    fn a_history_has_an_end() {
        let history = History::default();
        for get in 0..2 * MOMENTS_MAX {
            history.push(Moment { get: get as f64, ..Moment::default() });
        }
        let moments = history.moments();
        assert_eq!((moments.len(), moments[0].get), (MOMENTS_MAX, MOMENTS_MAX as f64));
    }
}
