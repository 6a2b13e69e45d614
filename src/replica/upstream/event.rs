//! What an [`Upstream`](super::Upstream) has to tell people, as lines of a log.

use std::fmt;

use super::Lacks;
use crate::etf::{OwnedTerm, Pid};
use crate::replica::downstream::Level;
use crate::replica::{Refusal, SlaveName};

/// Something that has happened to a store as a slave. Its text is `Display`'s; what stands beside that in a line of the log is
/// asked for by [`process`](Self::process) and [`figures`](Self::figures).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is a slave.
    Follows {
        /// Its primary.
        primary: Pid,
        /// The session.
        session: u64,
    },
    /// A greeting is to come again soon.
    PutOff(Pid),
    /// A primary was refused.
    Refused(Pid, Refusal),
    /// Another store was promoted in this one's place.
    Demoted(Pid),
    /// A primary has ended, or its node is lost.
    Lost(Pid, OwnedTerm),
    /// Its primary has removed it.
    Removed,
    /// Something that the primary sent is not kept, for this reason.
    NotKept(String),
    /// A copy of the primary does not fit beside what is here.
    CopyNotKept(String),
    /// A caller has written to it while it had no primary, as it has not been found again since it was started.
    WrittenTo,
    /// All is well again.
    KeptAgain,
    /// It is the primary from here on.
    Promoted {
        /// The primary before; `None`: it was started again since.
        former: Option<Pid>,
        /// The term that begins.
        term: u64,
        /// The last write of the former primary that is here.
        seq: u64,
        /// An election chose it.
        is_elected: bool,
    },
    /// What is known not to be in a store that is promoted, and so many writes of its primary.
    Lacks(Lacks, Option<u64>),
    /// A former primary is back.
    Returned(Pid),
    /// A primary that was refused belongs to this store.
    Adopted(SlaveName),
}

impl Event {
    /// How much people are to make of it.
    pub const fn level(&self) -> Level {
        match self {
            Self::Demoted(_)
            | Self::NotKept(_)
            | Self::CopyNotKept(_)
            | Self::Lacks(Lacks::NotKept(_) | Lacks::Part, _) => Level::Error,
            Self::Refused(..)
            | Self::Lost(..)
            | Self::Promoted { .. }
            | Self::Lacks(..)
            | Self::Returned(_)
            | Self::Adopted(_)
            | Self::WrittenTo => Level::Warn,
            Self::Follows { .. } | Self::Removed | Self::KeptAgain => Level::Info,
            Self::PutOff(_) => Level::Debug,
        }
    }

    /// The other store that it is about.
    pub const fn process(&self) -> Option<&Pid> {
        match self {
            Self::Follows { primary: other, .. }
            | Self::PutOff(other)
            | Self::Refused(other, _)
            | Self::Demoted(other)
            | Self::Lost(other, _)
            | Self::Returned(other) => Some(other),
            Self::Promoted { former, .. } => former.as_ref(),
            _ => None,
        }
    }

    /// Its numbers, each with its name.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let figures = match self {
            Self::Follows { session, .. } => [Some(("session", *session)), None],
            Self::Promoted { term, seq, former, .. } => {
                [Some(("term", *term)), former.is_some().then_some(("seq", *seq))]
            }
            Self::Lacks(_, lag) => [lag.map(|lag| ("lag", lag)), None],
            _ => [None, None],
        };
        figures.into_iter().flatten()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Follows { .. } => f.write_str("following a primary"),
            Self::PutOff(_) => write!(f, "primary put off: {}", Refusal::Crossing),
            Self::Refused(_, refusal) => write!(f, "primary refused: {refusal}"),
            Self::Demoted(_) => f.write_str(
                "another store was promoted to be the primary: this one is its slave from here on, and drops what was written here \
                 alone, if anything was",
            ),
            Self::Lost(_, reason) => write!(f, "primary lost: {:?}", reason.view()),
            Self::Removed => f.write_str("no longer a slave: its primary has removed it"),
            Self::WrittenTo => f.write_str(
                "a caller writes here, where a slave was started again and its primary has not found it yet: that copies over it \
                 later, and what this drops is kept in a file. To have this store be the primary, promote it (kvnode promote)",
            ),
            Self::NotKept(why) => write!(
                f,
                "what the primary sends is not kept: it is told, and sends it again after a while: {why}"
            ),
            Self::CopyNotKept(why) => write!(
                f,
                "a copy of the primary does not fit beside what is here: what is here stays: {why}"
            ),
            Self::KeptAgain => f.write_str("what the primary sends is kept again, and nothing of it is missing"),
            Self::Promoted { former, is_elected, .. } if former.is_some() || *is_elected => {
                f.write_str("promoted: this store is the primary from here on")
            }
            Self::Promoted { .. } => f.write_str(
                "promoted: this store is the primary from here on. It was started again since its former one was lost, and knows \
                 neither its names nor its other slaves: start it with the names, and add them",
            ),
            Self::Lacks(lacks, _) => lacks.fmt(f),
            Self::Returned(_) => f.write_str("a former primary is back, and becomes a slave"),
            Self::Adopted(name) => write!(
                f,
                "{name} leads in an older term, and is of this store's family or has a global name of it: it becomes a slave"
            ),
        }
    }
}
