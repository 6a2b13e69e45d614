//! Another node that lives and has this one's name, which is a fault of the set-up.

use std::collections::VecDeque;

use crate::etf::Pid;

/// So many of a process's last leases are remembered. A lease that was lost before these has ended, and its keys are gone.
const LEASES_MAX: usize = 16;

/// What tells the keys of such a node from those of an earlier life of this one, and from this process's own. (Their pids do not: two that began in the
/// same second at two epmds may have the same.)
#[derive(Debug, Default)]
pub(super) struct Namesake {
    /// The revision of etcd that the keys were first read at: what was written before is an earlier life's.
    first_at: i64,
    /// The last leases of this process: a key with one of these leases is its own.
    leases: VecDeque<i64>,
    /// The namesake that people were told of last.
    told: Option<Pid>,
}

impl Namesake {
    /// The keys were read for the first time, or for the first time since etcd was wiped.
    pub(super) const fn first_read(&mut self, revision: i64) {
        self.first_at = revision;
    }

    /// This process has a lease.
    pub(super) fn leased(&mut self, lease: i64) {
        self.leases.push_back(lease);
        if self.leases.len() > LEASES_MAX {
            self.leases.pop_front();
        }
    }

    /// Whether a key that bears this node's name was written by a namesake, with this lease and in this revision.
    pub(super) fn has_written(&self, lease: i64, mod_revision: i64) -> bool {
        mod_revision > self.first_at && !self.leases.contains(&lease)
    }

    /// A namesake was found, or none. Gives the namesake where people are to be told of it.
    pub(super) fn found(&mut self, pid: Option<&Pid>) -> Option<Pid> {
        let news = pid.filter(|pid| self.told.as_ref() != Some(pid)).cloned();
        self.told = news.clone().or(self.told.take());
        news
    }
}
