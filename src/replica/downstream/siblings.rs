//! Two names, one process: a store's slaves that turn out to be the same one.
//!
//! It is followed once, by the name that outlives a process. What the dropped one has greeted it with is in force there
//! until the kept one greets it anew, so that one takes the sessions over ([`Output::Part`](super::Output::Part)).

use super::SlaveName;
use crate::etf::Pid;
use crate::replica::planted::{Rule, planted};

/// Another slave of the same store, as far as it matters for whether the two are one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// How it was named.
    pub name: SlaveName,
    /// The process that it is followed at; `None`: it is not followed.
    pub at: Option<Pid>,
    /// The incarnation of the kvnode's store there.
    pub incarnation: Option<u64>,
}

/// The other slaves of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Siblings(pub Vec<Sibling>);

/// Which of two entries of one process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept<'a> {
    /// There is one entry alone.
    Only,
    /// The slave that asks is kept; the other is dropped.
    This(&'a SlaveName),
    /// The other is kept; the slave that asks is dropped.
    Other(&'a SlaveName),
}

impl Sibling {
    /// Whether it is followed at this process, or as the kvnode's store with this incarnation.
    pub fn is_at(&self, at: &Pid, incarnation: Option<u64>) -> bool {
        let Some(followed) = &self.at else { return false };
        followed == at || incarnation.is_some() && self.incarnation == incarnation
    }
}

impl Siblings {
    /// Which entry of a process goes on, where `name` was found to be it.
    pub(super) fn settle(&self, name: &SlaveName, at: &Pid, incarnation: Option<u64>) -> Kept<'_> {
        let is_it = |sibling: &&Sibling| sibling.is_at(at, incarnation) && !planted(Rule::OneProcessOneSlave);
        match self.0.iter().find(is_it) {
            None => Kept::Only,
            Some(other) if is_pid(&other.name) && !is_pid(name) => Kept::This(&other.name),
            Some(other) => Kept::Other(&other.name),
        }
    }
}

/// A pid ends with its process, every other name outlives it.
const fn is_pid(name: &SlaveName) -> bool {
    matches!(name, SlaveName::Pid(_))
}
