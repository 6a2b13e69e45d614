//! The phases of a [`Downstream`](super::Downstream), each with what is known in it.

use std::time::{Duration, Instant};

use super::{Event, Missing};
use crate::etf::{OwnedTerm, Pid};
use crate::replica::{Lineage, Standing};

/// How far a copy is, is said once in this time.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) enum Phase {
    /// It is looked for at `until`; from `least` on as soon as a node has come up.
    Seeking { until: Instant, least: Instant },
    /// It is asked which process has its name.
    Locating { question: u64 },
    /// That process is to be watched.
    Watching { question: u64, at: Pid },
    /// It is there, and to be greeted at this time.
    Found { watch: Watch, greet_at: Instant },
    /// It is asked how it is spoken to, and whether it becomes a slave.
    Greeting { watch: Watch, stage: Stage },
    /// It is a slave.
    Streaming { watch: Watch, stream: Stream },
    /// It will never be one (again).
    Dropped,
}

/// A process that is watched.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) at: Pid,
    /// The question that it is watched for.
    pub(super) number: u64,
    pub(super) since: Instant,
    pub(super) look: Look,
}

/// When it is looked whether its name has gone to another process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    /// Its name is its pid.
    Never,
    At(Instant),
    Asked {
        question: u64,
    },
}

/// How far a greeting is. The lineage is what the store was when it began.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its node is asked whether it is a kvnode.
    Dialect { question: u64, lineage: Lineage },
    /// It is greeted with a session.
    Answer { question: u64, lineage: Lineage, session: u64 },
    /// It is asked whether it is a server of the protocol.
    Kind { question: u64 },
}

/// What goes on beside the writes.
#[derive(Debug)]
pub(super) struct Stream {
    /// Its keys are being read; nothing is repaired meanwhile.
    pub(super) sweeping: Option<u64>,
    /// A repair was under way then, and goes on as soon as there is room.
    pub(super) repaired: Option<Instant>,
    /// It was announced to its connection then.
    pub(super) fed: Option<Instant>,
    pub(super) progress: Progress,
}

/// What was said of a copy.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) copying: bool,
    pub(super) said: Option<Instant>,
}

/// How a phase has ended for which it was looked for again, or not.
pub(super) enum End {
    /// It was removed, or is another of the store's slaves.
    Dropped,
    /// It is to be greeted anew.
    Renewed,
    /// Its name has gone to another process.
    Moved,
    /// The process has ended for this reason.
    Gone(OwnedTerm),
    Missing(Missing),
}

impl Phase {
    pub(super) const fn watch(&self) -> Option<&Watch> {
        match self {
            Self::Found { watch, .. } | Self::Greeting { watch, .. } | Self::Streaming { watch, .. } => {
                Some(watch)
            }
            _ => None,
        }
    }

    pub(super) const fn watch_mut(&mut self) -> Option<&mut Watch> {
        match self {
            Self::Found { watch, .. } | Self::Greeting { watch, .. } | Self::Streaming { watch, .. } => {
                Some(watch)
            }
            _ => None,
        }
    }
}

impl Stream {
    pub(super) fn new() -> Self {
        Self { sweeping: None, repaired: None, fed: None, progress: Progress::default() }
    }
}

impl Progress {
    /// What is to be said of a copy now: how far it is, once in a while, and when it is done.
    pub(super) fn note(&mut self, standing: Standing, now: Instant) -> Option<Event> {
        match standing {
            Standing::Copying { done, total } => {
                self.copying = true;
                if self.said.is_some_and(|said| now < said + PROGRESS_PAUSE) {
                    return None;
                }
                self.said = Some(now);
                Some(Event::Copying { done, total })
            }
            Standing::Full { .. } => {
                self.copying = true;
                None
            }
            Standing::InStep { .. } if self.copying => {
                *self = Self::default();
                Some(Event::UpToDate)
            }
            _ => None,
        }
    }
}
