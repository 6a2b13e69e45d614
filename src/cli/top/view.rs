//! What the screen shows: the last look at the node, and what changed from look to look.

use std::collections::VecDeque;

use crate::node::latency::quantile;
use crate::node::{PeerSnapshot, ServerSnapshot};
use crate::program::Snapshot;
use crate::program::snapshot::StoreSnapshot;

/// Looks that are remembered for the plots: the widest terminal has fewer columns.
const LOOKS_MAX: usize = 600;

/// The last look, and those before in numbers.
pub(super) struct View {
    pub(super) now: Snapshot,
    before: Option<Snapshot>,
    /// Requests in each second, newest last.
    pub(super) rates: VecDeque<u64>,
    /// Time within which 99 of 100 answers were queued, in nanoseconds; 0 where there was none.
    pub(super) slowest: VecDeque<u64>,
    /// Within which half of them were, in the last look.
    pub(super) median_nanos: Option<f64>,
    /// Why the last question was not answered.
    pub(super) problem: Option<String>,
}

impl View {
    /// The first look.
    pub(super) const fn new(now: Snapshot) -> Self {
        Self {
            now,
            before: None,
            rates: VecDeque::new(),
            slowest: VecDeque::new(),
            median_nanos: None,
            problem: None,
        }
    }

    /// Another look.
    pub(super) fn look(&mut self, now: Snapshot) {
        self.problem = None;
        let before = std::mem::replace(&mut self.now, now);
        // It was started again: what it counted before is no measure.
        let same = before.started_unix_secs == self.now.started_unix_secs
            && before.uptime_secs < self.now.uptime_secs;
        self.before = same.then_some(before);
        let Some(before) = &self.before else { return };
        let served = |snapshot: &Snapshot| -> u64 {
            snapshot.stores.iter().map(|store| store.requests.served()).sum()
        };
        let rate = served(&self.now).saturating_sub(served(before)) as f64 / self.secs();
        let answers = self.now.answers.iter().zip(&before.answers);
        let new: Vec<u64> = answers.map(|(now, before)| now.saturating_sub(*before)).collect();
        self.median_nanos = quantile(&new, 0.5);
        remember(&mut self.rates, rate.round() as u64);
        remember(&mut self.slowest, quantile(&new, 0.99).unwrap_or_default() as u64);
    }

    /// A look that was not answered.
    pub(super) fn fail(&mut self, why: &str) {
        self.problem = Some(why.to_owned());
        remember(&mut self.rates, 0);
        remember(&mut self.slowest, 0);
    }

    /// From the look before to this one.
    fn secs(&self) -> f64 {
        let before = self.before.as_ref().map_or(self.now.uptime_secs, |before| before.uptime_secs);
        (self.now.uptime_secs - before).max(0.001)
    }

    /// What a counter of a store has counted in a second.
    pub(super) fn store_rate(&self, number: usize, counter: impl Fn(&StoreSnapshot) -> u64) -> f64 {
        let now = self.now.stores.get(number).map_or(0, &counter);
        let before = self.before.as_ref().and_then(|before| before.stores.get(number)).map_or(now, counter);
        now.saturating_sub(before) as f64 / self.secs()
    }

    fn server_before(&self, server: &ServerSnapshot) -> Option<&ServerSnapshot> {
        self.before.as_ref()?.servers.iter().find(|other| other.name == server.name)
    }

    /// The same of a server.
    pub(super) fn server_rate(&self, server: &ServerSnapshot, counter: fn(&ServerSnapshot) -> u64) -> f64 {
        let now = counter(server);
        now.saturating_sub(self.server_before(server).map_or(now, counter)) as f64 / self.secs()
    }

    /// The time within which `part` of a server's new answers came, in nanoseconds.
    pub(super) fn server_quantile(&self, server: &ServerSnapshot, part: f64) -> Option<f64> {
        let before = self.server_before(server)?;
        let answers = server.answers.iter().zip(&before.answers);
        let new: Vec<u64> = answers.map(|(now, before)| now.saturating_sub(*before)).collect();
        quantile(&new, part)
    }

    /// The same of a peer.
    pub(super) fn peer_rate(&self, peer: &PeerSnapshot, counter: fn(&PeerSnapshot) -> u64) -> f64 {
        let before = self.before.as_ref().and_then(|before| {
            before.peers.iter().find(|other| other.name == peer.name && other.up_secs <= peer.up_secs)
        });
        let now = counter(peer);
        now.saturating_sub(before.map_or(now, counter)) as f64 / self.secs()
    }
}

fn remember(looks: &mut VecDeque<u64>, look: u64) {
    if looks.len() >= LOOKS_MAX {
        looks.pop_front();
    }
    looks.push_back(look);
}
