//! What a [`Downstream`](super::Downstream) has to tell people, as lines of a log.

use std::fmt;

use super::SlaveName;
use crate::replica::Refusal;

/// How much people are to make of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something is lost, or will not be as it was asked for.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Good to know.
    Info,
    /// For the search of a fault.
    Debug,
}

/// Something that has happened to a slave. Its text is `Display`'s; what stands beside that in a line of the log is asked
/// for by [`node`](Self::node), [`reason`](Self::reason), [`dropped`](Self::dropped) and [`keys`](Self::keys).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is the store itself.
    Itself,
    /// It was named by its pid, and has ended.
    PidEnded,
    /// It will never be a slave of this store.
    NeverSlave(Refusal),
    /// It was refused, and is not tried again.
    GivenUp(Missing),
    /// It is not followed, which is asked for again.
    Missing(Missing),
    /// It is followed.
    Found {
        /// Where.
        node: Box<str>,
    },
    /// Another process has its name.
    Moved,
    /// It was removed while it was watched.
    Left,
    /// It ended, or its node is lost.
    Lost {
        /// The reason that its monitor gave, as text.
        reason: String,
    },
    /// It is greeted anew: what it was told of the store has changed, or it is in no session of it.
    Renewed,
    /// It is about to have a slave itself, and is greeted again soon.
    Crossing,
    /// Two of the store's slaves are one process.
    Merged {
        /// This one is a slave no more.
        dropped: SlaveName,
        /// The process is followed by this name.
        kept: SlaveName,
    },
    /// It does not keep up: so many writes wait no more, and are sent as a repair later.
    FellBehind {
        /// How many.
        dropped: u64,
    },
    /// Its store does not keep what it is sent.
    NotKept(Refusal),
    /// It is in no session of this store, and is greeted anew.
    NoSession(Refusal),
    /// Something is left out that its node cannot decode, for the first time since it was sent all.
    Withheld,
    /// It did not keep up, or did not keep what it was sent, and is sent again.
    TakesAgain,
    /// A slave to which a former primary may have written late is copied to again.
    CopiedAgain(SlaveName),
    /// It had keys that the store has not.
    Swept {
        /// How many.
        keys: u64,
        /// The store was cleared when it had everything.
        is_cleared: bool,
    },
    /// Its keys could not be read, for this reason.
    NotSwept(String),
    /// How far a copy is.
    Copying {
        /// Keys sent.
        done: u64,
        /// Keys that there are.
        total: u64,
    },
    /// A copy is done.
    UpToDate,
}

impl Event {
    /// How much people are to make of it.
    pub const fn level(&self) -> Level {
        match self {
            // So it is above a store that was promoted over the next one of its chain.
            Self::NeverSlave(Refusal::Cycle) => Level::Warn,
            Self::Itself | Self::NeverSlave(_) | Self::Missing(Missing::Refused(Refusal::NotEmpty)) => {
                Level::Error
            }
            Self::Found { .. }
            | Self::Left
            | Self::Merged { .. }
            | Self::TakesAgain
            | Self::CopiedAgain(_)
            | Self::Copying { .. }
            | Self::UpToDate
            | Self::Swept { is_cleared: true, .. } => Level::Info,
            Self::Renewed | Self::Crossing => Level::Debug,
            _ => Level::Warn,
        }
    }

    /// The slave that it is about, where that is another one.
    pub const fn slave(&self) -> Option<&SlaveName> {
        match self {
            Self::Merged { dropped: slave, .. } | Self::CopiedAgain(slave) => Some(slave),
            _ => None,
        }
    }

    /// The node that it is about.
    pub fn node(&self) -> Option<&str> {
        if let Self::Found { node } = self { Some(node) } else { None }
    }

    /// Why a process has ended.
    pub fn reason(&self) -> Option<&str> {
        if let Self::Lost { reason } = self { Some(reason) } else { None }
    }

    /// A number of writes.
    pub const fn dropped(&self) -> Option<u64> {
        if let Self::FellBehind { dropped } = self { Some(*dropped) } else { None }
    }

    /// A number of keys.
    pub const fn keys(&self) -> Option<u64> {
        if let Self::Swept { keys, .. } = self { Some(*keys) } else { None }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself => write!(f, "{}: dropped", Refusal::Itself),
            Self::PidEnded => f.write_str("slave dropped: a pid does not come back"),
            Self::NeverSlave(refusal) => write!(f, "slave dropped: {refusal}"),
            Self::GivenUp(missing) => write!(f, "slave dropped: {missing}"),
            Self::Missing(missing @ Missing::Refused(Refusal::NotEmpty)) => {
                write!(f, "slave not taken: {missing}")
            }
            Self::Missing(missing @ Missing::Refused(_)) => {
                write!(f, "slave refuses, asking again: {missing}")
            }
            Self::Missing(missing) => write!(f, "slave not found, looking for it: {missing}"),
            Self::Found { .. } => f.write_str("slave found"),
            Self::Moved => f.write_str("the slave's name has gone to another process: following that"),
            Self::Left => f.write_str("slave no longer followed"),
            Self::Lost { .. } => f.write_str("slave lost; looking for it"),
            Self::Renewed => f.write_str("slave greeted anew"),
            Self::Crossing => f.write_str("slave is about to have a slave itself: greeted again soon"),
            Self::Merged { kept, .. } => write!(f, "slave dropped: it is {kept} already"),
            Self::FellBehind { .. } => f.write_str(
                "slave is behind: it will be sent what it misses when it has taken what it was sent",
            ),
            Self::NotKept(why) => write!(f, "slave does not keep what it is sent: {why}"),
            Self::NoSession(why) => write!(f, "slave to be greeted anew: {why}"),
            Self::Withheld => f.write_str(
                "slave is not sent what its OTP cannot decode, and keeps what it had of it; :status has how many keys (withheld)",
            ),
            Self::TakesAgain => f.write_str("slave takes writes again"),
            Self::CopiedAgain(_) => {
                f.write_str("copied to again: a former primary may have written to it late")
            }
            Self::Swept { is_cleared: true, .. } => {
                f.write_str("slave has keys from before a :clear of its primary: they are deleted there")
            }
            Self::Swept { .. } => {
                f.write_str("slave has keys that its primary has not: they are deleted there")
            }
            Self::NotSwept(why) => write!(f, "slave may keep keys that its primary has not: {why}"),
            Self::Copying { done, total } => write!(f, "copying to slave: {done} of {total}"),
            Self::UpToDate => f.write_str("slave is up to date"),
        }
    }
}

/// Why a slave is not followed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No process has its name.
    Nobody,
    /// It was not reached, or not understood, for this reason.
    Failed(String),
    /// It is there, and does not become a slave of this store.
    Refused(Refusal),
    /// It is there, and a server of another kind, with this module.
    Foreign(String),
}

impl Missing {
    pub(super) const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            Self::Foreign(_) => Some(Refusal::Foreign),
            Self::Nobody | Self::Failed(_) => None,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody has that name"),
            Self::Failed(why) => f.write_str(why),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Foreign(module) => write!(f, "{} (its module: {module})", Refusal::Foreign),
        }
    }
}
