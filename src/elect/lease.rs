//! The lease that a process's keys in etcd end with.

use std::time::{Duration, Instant};

use super::MARGIN;

/// Between tries that etcd does not answer, or not in time.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// How its lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// There is none. One is asked for then.
    None { ask_at: Option<Instant> },
    /// One is asked for.
    Asked { question: u64 },
    /// There is one since then, held until then if nothing more is heard.
    Held { id: i64, since: Instant, until: Instant },
}

impl Lease {
    /// To a question.
    pub(super) fn granted(&mut self, asked: u64, lease: Option<(i64, Instant)>, now: Instant) {
        if *self == (Self::Asked { question: asked }) {
            *self = match lease {
                Some((id, until)) => Self::Held { id, since: now, until },
                None => Self::None { ask_at: Some(now + PAUSE) },
            };
        }
    }

    /// It is held until then; `None`: it is lost.
    pub(super) fn told(&mut self, until: Option<Instant>, now: Instant) {
        if let Self::Held { id, since, .. } = *self {
            *self = match until {
                Some(until) => Self::Held { id, since, until },
                None => Self::None { ask_at: Some(now) },
            };
        }
    }

    /// Drops a lease that has ended. Gives whether one is to be asked for now.
    pub(super) fn drop_ended(&mut self, now: Instant) -> bool {
        if let Self::Held { until, .. } = *self
            && until <= now
        {
            *self = Self::None { ask_at: Some(now) };
        }
        matches!(*self, Self::None { ask_at: Some(at) } if at <= now)
    }

    /// Its number, if it lasts.
    pub(super) fn lasting(&self, now: Instant) -> Option<i64> {
        match *self {
            Self::Held { id, until, .. } if until > now + MARGIN => Some(id),
            _ => None,
        }
    }

    /// Since when it is held.
    pub(super) fn since(&self) -> Option<Instant> {
        if let Self::Held { since, .. } = *self { Some(since) } else { None }
    }

    /// When it changes by time alone.
    pub(super) fn due(&self) -> [Option<Instant>; 2] {
        match *self {
            Self::None { ask_at } => [ask_at, None],
            Self::Asked { .. } => [None, None],
            Self::Held { until, .. } => [until.checked_sub(MARGIN), Some(until)],
        }
    }
}
