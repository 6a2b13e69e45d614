//! How a node ends: a primary leaves its place to a slave that has everything.
//!
//! By the arithmetic of an election alone that is not always possible. Where one of two slaves has just been started without data, the other one
//! has everything, and the next primary waits for two reports all the same: for all that is known, the write that was confirmed last may be with
//! the slave that has lost its data, and with the former primary. The primary knows better. So as it ends it records the number of its last write,
//! [`Base::end`]: a copy of its fence that has come so far is enough alone.
//!
//! That is safe whatever becomes of it: the number is looked at when the store takes no writes any more, confirms none, and never will with
//! this fence. So each write that was ever confirmed has no higher number, and a copy of the fence is a prefix of its writes.

use std::time::{Duration, Instant};

use super::face::Output;
use super::force::NotForced;
use super::keys::{Base, Key, Record};
use super::{Lease, Phase, SteppedDown, Succession};

/// A primary that ends waits so long for its slaves to have everything, and for etcd to have the record.
const HANDOVER: Duration = Duration::from_secs(1);

impl Succession {
    /// The process is about to end.
    pub(super) fn leave(&mut self, now: Instant) {
        self.end_force(NotForced::Leaves);
        match self.phase {
            Phase::Leaving { .. } | Phase::Over => {}
            Phase::Promoting { fence, .. } | Phase::Leading { fence } => {
                self.step_down(SteppedDown::Leaves);
                self.tally.forget();
                self.enter(Phase::Leaving { fence, until: now + HANDOVER });
            }
            Phase::Apart => self.end(),
        }
    }

    /// Goes on with leaving, until its slaves have everything and etcd knows how much that is; not behind `until`.
    pub(super) fn keep_leaving(&mut self, fence: u64, until: Instant, now: Instant) {
        if until <= now {
            return self.end();
        }
        self.not_before.take_if(|at| *at <= now);
        // One that is under way would have the record be another.
        if !self.tally.has_handed_over() || self.under_way.is_some() || self.not_before.is_some() {
            return;
        }
        match self.last_record(fence, now) {
            Some((compare, record)) => {
                self.begin(compare, vec![(Key::Record, record.write(), 0)], Vec::new());
            }
            None => self.end(),
        }
    }

    /// The record with the number of the last write; `None`: it has that, or is not this primary's, or nothing was confirmed.
    fn last_record(&self, fence: u64, now: Instant) -> Option<(Vec<(Key, i64)>, Record)> {
        let known = self.known.as_ref()?;
        let record = known.record.record.as_ref()?;
        let is_due = self.own_fence(now) == Some(fence)
            && record.base.fence == fence
            && record.base.confirm > 0
            && record.base.end.is_none();
        if !is_due {
            return None;
        }
        let leader = known.leader.as_ref().map_or(0, |key| key.mod_revision);
        let compare = vec![(Key::Leader, leader), (Key::Record, known.record.mod_revision)];
        let base = Base { end: Some(self.tally.seq()), ..record.base.clone() };
        Some((compare, Record { base, ..record.clone() }))
    }

    fn end(&mut self) {
        self.lease = Lease::None { ask_at: None };
        self.outputs.push_back(Output::Revoke);
        self.enter(Phase::Over);
        self.outputs.push_back(Output::End);
    }
}
