//! Which slaves' acknowledgements count at a primary, and what is to be recorded of that.
//!
//! What counts is at each moment a part of what any record that may stand in etcd says: a slave that is added counts once the record has
//! it, and one that is dropped counts no more before the record is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::face::Slave;
use super::keys::{Base, MEMBERS_MAX, Record};
use super::planted::{Rule, planted};

/// A slave that is not in step for so long is dropped from the record, where enough others are.
const DROP_AFTER: Duration = Duration::from_secs(10);

/// The slaves of a primary.
#[derive(Debug)]
pub(super) struct Tally {
    fence: u64,
    confirm: usize,
    node: Arc<str>,
    seq: u64,
    slaves: Vec<Slave>,
    /// Members that are not in step, and since when.
    out_since: BTreeMap<Arc<str>, Instant>,
    dropping: Option<Dropping>,
    /// What was told last to count.
    told: Vec<Arc<str>>,
}

/// Members are to be dropped.
#[derive(Debug)]
struct Dropping {
    nodes: Vec<Arc<str>>,
    /// The number of the last write that they may have counted for; `None`: they do not count since just now.
    seq: Option<u64>,
    /// It was tried: whether the record has it is not known until the record is seen to be another.
    was_tried: bool,
}

impl Tally {
    pub(super) fn new(fence: u64, confirm: u32, node: Arc<str>) -> Self {
        Self {
            fence,
            confirm: usize::try_from(confirm).unwrap_or(usize::MAX),
            node,
            seq: 0,
            slaves: Vec::new(),
            out_since: BTreeMap::new(),
            dropping: None,
            told: Vec::new(),
        }
    }

    /// The slaves stand like this.
    pub(super) fn told_of(&mut self, seq: u64, slaves: Vec<Slave>) {
        (self.seq, self.slaves) = (seq, slaves);
        if let Some(dropping) = &mut self.dropping {
            dropping.seq.get_or_insert(seq);
        }
    }

    /// How the slaves stand is told anew.
    pub(super) fn forget(&mut self) {
        self.seq = u64::MAX;
        self.slaves.clear();
    }

    /// The number of the store's last write, as far as it is told.
    pub(super) const fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether all slaves that are in step have everything.
    pub(super) fn has_handed_over(&self) -> bool {
        let mut in_step = self.slaves.iter().filter(|slave| slave.is_in_step);
        self.seq < u64::MAX && in_step.all(|slave| slave.confirmed >= self.seq)
    }

    fn is_in_step(&self, node: &str) -> bool {
        self.slaves.iter().any(|slave| slave.is_in_step && *slave.node == *node)
    }

    /// The members of the record, where it is this primary's.
    fn members<'a>(&self, record: &'a Record) -> Option<&'a [Arc<str>]> {
        (record.base.fence == self.fence).then_some(&record.base.members)
    }

    /// Those that count, where that has changed.
    pub(super) fn counting(&mut self, record: &Record) -> Option<Vec<Arc<str>>> {
        let mut counting: Vec<_> = self.members(record).unwrap_or_default().to_vec();
        if let Some(dropping) = &self.dropping {
            counting.retain(|node| !dropping.nodes.contains(node));
        }
        if planted(Rule::RecordedCounts) {
            let all = self.slaves.iter().filter(|slave| slave.is_in_step);
            counting = all.map(|slave| Arc::clone(&slave.node)).collect();
        }
        (counting != self.told).then(|| {
            self.told.clone_from(&counting);
            counting
        })
    }

    /// Whether a node's acknowledgements count.
    pub(super) fn counts(&self, node: &str) -> bool {
        self.told.iter().any(|told| **told == *node)
    }

    /// When more is to be done by time alone.
    pub(super) fn due(&self) -> Option<Instant> {
        self.out_since.values().min().map(|since| *since + DROP_AFTER)
    }

    /// The record is seen to be another, or is still the same.
    pub(super) fn recorded(&mut self, record: &Record) {
        let members = self.members(record).unwrap_or_default();
        self.dropping.take_if(|dropping| !dropping.nodes.iter().any(|node| members.contains(node)));
    }

    /// What is to be recorded in the place of this.
    pub(super) fn wanted(&mut self, record: &Record, now: Instant) -> Option<Record> {
        let in_step = self.slaves.iter().filter(|slave| slave.is_in_step);
        let mut in_step: Vec<_> = in_step.map(|slave| Arc::clone(&slave.node)).collect();
        in_step.sort_unstable();
        in_step.dedup();
        in_step.truncate(MEMBERS_MAX);
        let Some(members) = self.members(record) else {
            // Everything that was confirmed before is with each of these; from here on they are what counts.
            return (in_step.len() >= self.confirm.max(1)).then(|| self.record(record, in_step));
        };
        let members = members.to_vec();
        for node in &members {
            if self.is_in_step(node) {
                self.out_since.remove(node);
            } else {
                self.out_since.entry(Arc::clone(node)).or_insert(now);
            }
        }
        self.out_since.retain(|node, _| members.contains(node));
        if let Some(new) = self.drop_some(record, &members, now) {
            return Some(new);
        }
        let mut more = members.clone();
        more.extend(in_step.into_iter().filter(|node| !members.contains(node)));
        more.truncate(MEMBERS_MAX);
        // Also where some are to be dropped, which may take as long as the others lack something: a slave more makes the next election more
        // demanding, and counts itself once it is recorded.
        let is_more = more.len() > members.len();
        is_more.then(|| {
            more.sort_unstable();
            self.record(record, more)
        })
    }

    fn drop_some(&mut self, record: &Record, members: &[Arc<str>], now: Instant) -> Option<Record> {
        let is_back = |dropping: &mut Dropping| {
            !dropping.was_tried
                && dropping
                    .nodes
                    .iter()
                    .any(|node| self.slaves.iter().any(|slave| slave.is_in_step && slave.node == *node))
        };
        self.dropping.take_if(is_back);
        if self.dropping.is_none() {
            let is_out = |node: &&Arc<str>| {
                self.out_since.get(*node).is_some_and(|since| now.duration_since(*since) >= DROP_AFTER)
            };
            let nodes: Vec<_> = members.iter().filter(is_out).cloned().collect();
            let others = members.iter().filter(|node| !nodes.contains(node));
            let able = others.filter(|node| self.is_in_step(node)).count();
            if nodes.is_empty() || able < self.confirm.max(1) {
                return None;
            }
            self.dropping = Some(Dropping { nodes, seq: None, was_tried: false });
        }
        let others = |dropping: &Dropping| -> Vec<Arc<str>> {
            members.iter().filter(|node| !dropping.nodes.contains(node)).cloned().collect()
        };
        let dropping = self.dropping.as_mut()?;
        let others = others(dropping);
        // Each write that these may have confirmed is with enough of the others.
        let has = |node: &Arc<str>, seq: u64| {
            self.slaves.iter().any(|slave| slave.node == *node && slave.confirmed >= seq)
        };
        let seq = if planted(Rule::DroppedIsNotNeeded) { Some(0) } else { dropping.seq };
        let is_safe =
            seq.is_some_and(|seq| others.iter().filter(|node| has(node, seq)).count() >= self.confirm);
        if !is_safe {
            return None;
        }
        dropping.was_tried = true;
        Some(self.record(record, others))
    }

    fn record(&self, record: &Record, members: Vec<Arc<str>>) -> Record {
        let confirm = u32::try_from(self.confirm).unwrap_or(u32::MAX);
        let node = Arc::clone(&self.node);
        let base = Base { fence: self.fence, confirm, node, end: None, members };
        Record { base, heirs: Vec::new(), ..record.clone() }
    }
}
