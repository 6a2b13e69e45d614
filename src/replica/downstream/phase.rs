//! The phases of a [`Downstream`](super::Downstream), each with what is known in it.

use std::time::{Duration, Instant};

use super::stream::{Repair, Stream};
use super::{Event, Missing};
use crate::etf::{OwnedTerm, Pid};
use crate::replica::{Lineage, Standing};

/// How far a copy is, is said once in this time.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

pub(super) enum Phase {
    /// It was added, and nobody looks for it yet.
    Added,
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
    /// It is a slave, and each write goes into its log. What it lacks beside that is repaired, until nothing is.
    Streaming { watch: Watch, stream: Stream, repair: Option<Repair> },
    /// It did not keep up: it is sent what it lacks once it has acknowledged what it was sent.
    Behind { watch: Watch, stream: Stream },
    /// It did not keep what it was sent: until then, deletions alone go into its log, as these make room.
    Held { watch: Watch, stream: Stream, until: Instant },
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

/// How far a greeting is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its node is asked whether it is a kvnode.
    Dialect { question: u64 },
    /// It is greeted with a session, by the store as it was then.
    Answer { question: u64, lineage: Lineage, session: u64 },
    /// It is asked whether it is a server of the protocol.
    Kind { question: u64 },
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
            Self::Found { watch, .. }
            | Self::Greeting { watch, .. }
            | Self::Streaming { watch, .. }
            | Self::Behind { watch, .. }
            | Self::Held { watch, .. } => Some(watch),
            Self::Added
            | Self::Seeking { .. }
            | Self::Locating { .. }
            | Self::Watching { .. }
            | Self::Dropped => None,
        }
    }

    pub(super) const fn watch_mut(&mut self) -> Option<&mut Watch> {
        match self {
            Self::Found { watch, .. }
            | Self::Greeting { watch, .. }
            | Self::Streaming { watch, .. }
            | Self::Behind { watch, .. }
            | Self::Held { watch, .. } => Some(watch),
            Self::Added
            | Self::Seeking { .. }
            | Self::Locating { .. }
            | Self::Watching { .. }
            | Self::Dropped => None,
        }
    }

    /// Of a slave that is followed.
    pub(super) const fn stream(&self) -> Option<(&Watch, &Stream)> {
        match self {
            Self::Streaming { watch, stream, .. }
            | Self::Behind { watch, stream }
            | Self::Held { watch, stream, .. } => Some((watch, stream)),
            _ => None,
        }
    }

    pub(super) const fn stream_mut(&mut self) -> Option<(&mut Watch, &mut Stream)> {
        match self {
            Self::Streaming { watch, stream, .. }
            | Self::Behind { watch, stream }
            | Self::Held { watch, stream, .. } => Some((watch, stream)),
            _ => None,
        }
    }

    /// The same, to be put into another phase.
    pub(super) fn into_stream(self) -> Option<(Watch, Stream)> {
        match self {
            Self::Streaming { watch, stream, .. }
            | Self::Behind { watch, stream }
            | Self::Held { watch, stream, .. } => Some((watch, stream)),
            _ => None,
        }
    }

    /// The process is watched, or is to be.
    pub(super) const fn is_out(&self) -> bool {
        matches!(self, Self::Watching { .. }) || self.watch().is_some()
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
