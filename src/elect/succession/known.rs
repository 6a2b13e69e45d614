//! The keys of a store's elections, as one of its nodes knows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::face::{Change, Entry, Leader};
use super::keys::{Key, Record, Report, read_leader};
use crate::etf::Pid;

/// Nodes whose reports are known, at most: each costs some 300 bytes.
const REPORTS_MAX: usize = 1_024;

/// What is known of the keys. Each key has the revision that it is known at, as the answers to this node's own transactions and the watch
/// come in any order.
#[derive(Debug)]
pub(super) struct Known {
    leader_at: i64,
    pub(super) leader: Option<LeaderKey>,
    record_at: i64,
    pub(super) record: RecordKey,
    pub(super) reports: BTreeMap<Arc<str>, ReportKey>,
    me: Arc<str>,
    /// The revision that this node's own report is known at.
    own_at: i64,
}

/// The primary's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaderKey {
    pub(super) mod_revision: i64,
    pub(super) lease: i64,
    /// `None`: it is not understood.
    pub(super) leader: Option<Leader>,
}

/// The record's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordKey {
    /// 0: it is not there.
    pub(super) mod_revision: i64,
    /// `None`: it is not there, or not understood.
    pub(super) record: Option<Record>,
}

impl RecordKey {
    pub(super) const fn is_unreadable(&self) -> bool {
        self.mod_revision > 0 && self.record.is_none()
    }
}

/// A report's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReportKey {
    pub(super) mod_revision: i64,
    pub(super) lease: i64,
    pub(super) report: Report,
}

impl Known {
    /// As the keys were read. `before`: what was known until now.
    pub(super) fn new(me: &Pid, revision: i64, entries: Vec<Entry>, before: Option<Self>) -> Self {
        let (me, none) = (Arc::clone(&me.node), RecordKey::default());
        let mut known = Self {
            leader_at: 0,
            leader: None,
            record_at: 0,
            record: none,
            reports: BTreeMap::new(),
            me: Arc::clone(&me),
            own_at: 0,
        };
        entries.into_iter().for_each(|entry| known.put(entry.mod_revision, entry));
        (known.leader_at, known.record_at, known.own_at) = (revision, revision, revision);
        if let Some(mut before) = before {
            // This node's own transactions may have been answered since.
            if before.leader_at > revision {
                (known.leader_at, known.leader) = (before.leader_at, before.leader);
            }
            if before.record_at > revision {
                (known.record_at, known.record) = (before.record_at, before.record);
            }
            if before.own_at > revision {
                known.own_at = before.own_at;
                known.reports.remove(&me);
                known.reports.extend(before.reports.remove_entry(&me));
            }
        }
        known
    }

    /// The watch tells.
    pub(super) fn changed(&mut self, change: Change) {
        match change {
            Change::Put(entry) => self.put(entry.mod_revision, entry),
            Change::Gone { key, revision } => self.gone(&key, revision),
        }
    }

    /// A key was written in this revision.
    pub(super) fn put(&mut self, revision: i64, entry: Entry) {
        let Entry { key, value, lease, .. } = entry;
        match key {
            Key::Leader if revision >= self.leader_at => {
                let leader = read_leader(&value).map(|(pid, fence)| Leader { pid, fence });
                self.leader_at = revision;
                self.leader = Some(LeaderKey { mod_revision: revision, lease, leader });
            }
            Key::Record if revision >= self.record_at => {
                self.record_at = revision;
                self.record = RecordKey { mod_revision: revision, record: Record::read(&value) };
            }
            Key::Report(node) if self.take_news(&node, revision) => {
                let is_bounded = self.reports.len() < REPORTS_MAX || self.reports.contains_key(&node);
                match Report::read(&value).filter(|report| report.pid.node == node && is_bounded) {
                    Some(report) => {
                        _ = self.reports.insert(node, ReportKey { mod_revision: revision, lease, report })
                    }
                    None => _ = self.reports.remove(&node),
                }
            }
            Key::Leader | Key::Record | Key::Report(_) => {}
        }
    }

    /// A key is gone since this revision.
    pub(super) fn gone(&mut self, key: &Key, revision: i64) {
        match key {
            Key::Leader if revision >= self.leader_at => (self.leader_at, self.leader) = (revision, None),
            Key::Record if revision >= self.record_at => {
                (self.record_at, self.record) = (revision, RecordKey::default());
            }
            Key::Report(node) if self.take_news(node, revision) => _ = self.reports.remove(node),
            Key::Leader | Key::Record | Key::Report(_) => {}
        }
    }

    /// Takes note of the revision of this node's own report. Gives whether it is newer than what is known.
    fn take_news(&mut self, node: &Arc<str>, revision: i64) -> bool {
        if *node != self.me {
            return true;
        }
        let is_news = revision >= self.own_at;
        self.own_at = self.own_at.max(revision);
        is_news
    }

    /// The process that has the primary's key, as far as that is understood.
    pub(super) fn leader(&self) -> Option<&Leader> {
        self.leader.as_ref()?.leader.as_ref()
    }

    /// The last fence that was.
    pub(super) fn fence(&self) -> u64 {
        let recorded = self.record.record.as_ref().map_or(0, |record| record.fence);
        self.leader().map_or(recorded, |leader| leader.fence.max(recorded))
    }
}
