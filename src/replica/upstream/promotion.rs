//! What a promotion has done: for the caller that had it done, and for people.

use std::fmt;

use super::Following;
use crate::distribution::ServerRef;
use crate::etf::{Pid, TermWriter};
use crate::replica::Refusal;

/// What a promotion has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// The term that it began.
    pub term: u64,
    /// The primary in whose place the store is; `None`: it is not known since a restart.
    pub former: Option<Pid>,
    /// What is known not to be in the store.
    pub lacks: Lacks,
    /// Writes that the former primary has taken and the store has not, as far as is known.
    pub lag: u64,
    /// All slaves from here on, by the names that they have on other nodes: known once they are added.
    pub slaves: Vec<ServerRef>,
    /// The global names that the store takes over, as soon as each is free.
    pub names: Vec<ServerRef>,
}

impl Promotion {
    /// Writes `%{term: n, former: pid, missing: m, lag: n, slaves: [s], names: [n]}`. `former` may be `nil`; `missing` is what
    /// [`Lacks::code`] gives.
    pub fn write(&self, w: &mut TermWriter<'_>) {
        w.map(6).atom("term").unsigned(self.term).atom("former");
        match &self.former {
            Some(former) => w.pid(former),
            None => w.atom("nil"),
        };
        w.atom("missing").atom(self.lacks.code());
        w.atom("lag").unsigned(self.lag);
        for (key, servers) in [("slaves", &self.slaves), ("names", &self.names)] {
            w.atom(key).list(servers.len());
            servers.iter().for_each(|server| server.write(w));
            w.nil();
        }
    }
}

/// What is known not to be in a store that is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacks {
    /// Nothing.
    Nothing,
    /// Some of what its former primary had sent: it was not kept, for this reason.
    NotKept(Refusal),
    /// A copy or a repair had not come to its end.
    Part,
    /// A repair had not begun: the store has what it had when its former primary began to bring it up to date.
    Behind,
    /// The last writes that the former primary has taken.
    Writes,
    /// Nothing is known: the store was started again since its former primary was lost.
    Unknown,
}

impl Lacks {
    /// Of a store that follows this primary, or followed it last.
    pub(super) fn of(former: Option<&Following>, is_partial: bool) -> Self {
        match (former.and_then(Following::write_error), former) {
            (Some(why), _) => Self::NotKept(why),
            (None, _) if is_partial => Self::Part,
            (None, None) => Self::Unknown,
            (None, Some(former)) if !former.is_caught_up() => Self::Behind,
            (None, Some(former)) if former.lag() > 0 => Self::Writes,
            (None, Some(_)) => Self::Nothing,
        }
    }

    /// The word for it, for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Nothing => "nil",
            Self::NotKept(_) => "not_kept",
            Self::Part => "part",
            Self::Behind => "behind",
            Self::Writes => "writes",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Lacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("promoted with all that its former primary had"),
            Self::Unknown => f.write_str("promoted: what it lacks is not known"),
            Self::NotKept(why) => write!(
                f,
                "promoted without all that its former primary had sent: some of that was not kept, as {}",
                match why {
                    Refusal::NoSpace => "there was no room for it",
                    Refusal::TooLarge => "it was larger than this node takes (--frame-bytes-max)",
                    _ => "the disk did not take it",
                }
            ),
            Self::Part => f.write_str(
                "promoted in the middle of a copy or a repair: keys of the former primary may be missing, and others old",
            ),
            Self::Behind => f.write_str(
                "promoted before its former primary had brought it up to date: it has what it had when that began",
            ),
            Self::Writes => f.write_str("promoted without so many writes that its former primary has taken"),
        }
    }
}
