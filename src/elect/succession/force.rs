//! A person has a node be the primary, whatever is known of the others: for a bounded time, so that a wish never outlives the person that has it.

use std::fmt;
use std::time::{Duration, Instant};

use super::face::{Output, Transacted, Transaction};
use super::keys::Key;
use super::{Phase, SteppedDown, Succession};

/// A node tries for so long to be the primary by force: a caller that waits for 5 s, as `GenServer.call/2` does, is told what has come of it.
pub(super) const FORCED_FOR: Duration = Duration::from_secs(4);

/// What a person wants.
#[derive(Debug)]
pub(super) struct Forced {
    /// It is tried until then.
    pub(super) until: Instant,
    /// What the last try has come to.
    tried: NotForced,
}

/// Why a store is not the primary by force: the last thing that it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotForced {
    /// etcd does not say how the election stands, or gives the node no lease.
    Etcd,
    /// etcd has not said whether the node has the key, or the store is being promoted: it may be the primary yet.
    Unknown,
    /// etcd refuses what has to be written.
    Refused,
    /// A key in etcd is not understood.
    Unreadable,
    /// The store could not be promoted.
    Unfit,
    /// Its node ends.
    Leaves,
    /// Its store does not say what it holds, or another node takes the key each time.
    Late,
}

impl NotForced {
    /// Its word, for machines.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
            Self::Unfit => "unfit",
            Self::Leaves => "leaves",
            Self::Late => "late",
        }
    }
}

impl From<SteppedDown> for NotForced {
    /// Of a store that was about to lead.
    fn from(why: SteppedDown) -> Self {
        match why {
            SteppedDown::Lease => Self::Etcd,
            SteppedDown::Key | SteppedDown::Fence => Self::Late,
            SteppedDown::Unfit => Self::Unfit,
            SteppedDown::Leaves => Self::Leaves,
        }
    }
}

impl fmt::Display for NotForced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd does not answer",
            Self::Unknown => {
                "etcd has not said whether it is, or its promotion takes long: it may be the primary yet"
            }
            Self::Refused => "etcd refuses what has to be written",
            Self::Unreadable => "what etcd has of the election is not understood",
            Self::Unfit => "its store could not be promoted",
            Self::Leaves => "its node ends",
            Self::Late => "its store does not say what it holds, or another node was faster",
        })
    }
}

impl Succession {
    /// A person wants the store to be the primary.
    pub(super) fn force(&mut self, now: Instant) {
        match self.phase {
            Phase::Leaving { .. } | Phase::Over => {
                self.outputs.push_back(Output::NotForced(NotForced::Leaves))
            }
            Phase::Apart | Phase::Promoting { .. } | Phase::Leading { .. } => {
                self.forced = Some(Forced { until: now + FORCED_FOR, tried: NotForced::Late });
            }
        }
    }

    /// Whether it takes the key whatever others have.
    pub(super) fn is_forced(&self) -> bool {
        self.phase == Phase::Apart && self.forced.is_some()
    }

    /// Ends what a person wants where its time is over, or where it is so.
    pub(super) fn keep_forced(&mut self, now: Instant) {
        if self.leads().is_some() {
            self.forced = None;
        }
        if let Some(forced) = self.forced.as_ref().filter(|forced| forced.until <= now) {
            let why = self.not_forced_by(forced.tried, now);
            self.end_force(why);
        }
    }

    /// It is not to be the primary by force any more.
    pub(super) fn end_force(&mut self, why: NotForced) {
        if self.forced.take().is_some() {
            self.outputs.push_back(Output::NotForced(why));
        }
    }

    /// A transaction is answered.
    pub(super) fn tried(&mut self, transaction: &Transaction, answer: Transacted) {
        if let Some(forced) = self.forced.as_mut().filter(|_| takes_key(transaction)) {
            forced.tried = match answer {
                // Another one may take it yet.
                Transacted::Done { .. } | Transacted::Lost => NotForced::Late,
                Transacted::Failed => NotForced::Unknown,
                Transacted::Refused => NotForced::Refused,
            };
        }
    }

    /// What it waits for.
    fn not_forced_by(&self, tried: NotForced, now: Instant) -> NotForced {
        let takes_key = self.under_way.as_ref().is_some_and(takes_key);
        let Some(known) = &self.known else { return NotForced::Etcd };
        let is_unreadable = known.leader.as_ref().is_some_and(|key| key.leader.is_none());
        if takes_key || self.phase != Phase::Apart {
            NotForced::Unknown
        } else if self.lease.lasting(now).is_none() || self.under_way.is_some() {
            NotForced::Etcd
        } else if is_unreadable || known.record.is_unreadable() {
            NotForced::Unreadable
        } else if self.unfit_until.is_some() {
            NotForced::Unfit
        } else {
            tried
        }
    }
}

fn takes_key(transaction: &Transaction) -> bool {
    transaction.puts.iter().any(|(key, ..)| *key == Key::Leader)
}
