//! What an election has to tell people, as lines of a log.

use std::fmt;
use std::sync::Arc;

use super::keys::{Holds, Key};
use crate::etf::Pid;
use crate::replica::downstream::Level;

/// What people are told, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The primary with this fence is gone, and the store takes part in the choice of the next.
    RoundBegan {
        /// The fence.
        after: u64,
    },
    /// The choice waits for more reports.
    Waits {
        /// So many have reported that count.
        counted: usize,
        /// So many are to.
        needed: usize,
        /// Nodes that have not, or do not count.
        missing: Vec<Missing>,
    },
    /// It leads, chosen without enough reports: confirmed writes may be lost.
    MayHaveLost {
        /// So many had reported that count.
        counted: usize,
        /// So many were needed.
        needed: usize,
    },
    /// All nodes of the store hold nothing: it begins anew.
    BeginsAnew,
    /// It leads.
    Leads {
        /// Its fence.
        fence: u64,
    },
    /// It leads no more.
    SteppedDown {
        /// Its fence.
        fence: u64,
        /// Why.
        why: SteppedDown,
    },
    /// These slaves count from now on.
    Counted(Vec<Arc<str>>),
    /// A key in etcd is not understood: nothing is chosen.
    Unreadable(Key),
    /// Nothing is known in etcd of an earlier primary, and this store is not one to begin: it has what it was sent by another.
    NoRecord,
    /// The nodes of the store are not told the same of how many slaves confirm a write.
    ConfirmDiffers {
        /// So many until now.
        was: u32,
        /// So many from now on.
        is: u32,
    },
    /// This process is of another node that lives and has this one's name.
    Namesake(Pid),
}

/// A node whose data may be of matter, and that an election lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The node.
    pub node: Arc<str>,
    /// It has led since writes were confirmed last, or confirmed them: it is enough alone. Else it is a slave that counts.
    pub has_led: bool,
    /// What it has reported; `None`: nothing.
    pub holds: Option<Holds>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, has_led, holds } = self;
        let was = if *has_led { "a former primary, " } else { "" };
        let is = match holds {
            None => "has not reported",
            Some(Holds::Nothing) => "has lost its data",
            Some(_) => "has not all that the last primary had",
        };
        write!(f, "{node} ({was}{is})")
    }
}

/// Why a primary leads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteppedDown {
    /// Its lease may end: etcd does not answer.
    Lease,
    /// Its key is gone, or another's.
    Key,
    /// A higher fence was seen.
    Fence,
    /// Its store could not be promoted.
    Unfit,
    /// It ends.
    Leaves,
}

impl fmt::Display for SteppedDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lease => "etcd does not renew its lease",
            Self::Key => "its key in etcd is gone or another's",
            Self::Fence => "another store leads with a higher fence",
            Self::Unfit => "its store could not be promoted",
            Self::Leaves => "it ends",
        })
    }
}

impl Event {
    /// How much people are to make of it.
    pub const fn level(&self) -> Level {
        match self {
            Self::MayHaveLost { .. } | Self::Unreadable(_) | Self::Namesake(_) => Level::Error,
            Self::NoRecord
            | Self::ConfirmDiffers { .. }
            | Self::Waits { .. }
            | Self::BeginsAnew
            | Self::RoundBegan { .. }
            | Self::SteppedDown { .. } => Level::Warn,
            Self::Leads { .. } | Self::Counted(_) => Level::Info,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundBegan { after } => {
                write!(f, "the primary with fence {after} is gone: the next one is chosen")
            }
            Self::Waits { counted, needed, missing } => {
                write!(
                    f,
                    "no primary can be chosen: a confirmed write may be with any of the slaves, and {counted} of {needed} have \
                     reported what they have"
                )?;
                for (at, missing) in missing.iter().enumerate() {
                    let before = if at == 0 { "; missing: " } else { ", " };
                    write!(f, "{before}{missing}")?;
                }
                Ok(())
            }
            Self::MayHaveLost { counted, needed } => write!(
                f,
                "it is the primary after {counted} of {needed} reports: confirmed writes may be lost"
            ),
            Self::BeginsAnew => f.write_str("all nodes of the store hold nothing: it begins anew"),
            Self::Leads { fence } => write!(f, "it is the primary, with fence {fence}"),
            Self::SteppedDown { fence, why } => {
                write!(f, "it is the primary no more, with fence {fence}: {why}")
            }
            Self::Counted(nodes) if nodes.is_empty() => f.write_str("no slave counts for confirmed writes"),
            Self::Counted(nodes) => write!(f, "slaves that count for confirmed writes: {}", nodes.join(", ")),
            Self::NoRecord => f.write_str(
                "no primary can be chosen: etcd knows of none before, and this store has what another's primary sent it. It waits \
                 for that one; where that is gone, have the node that is to be the primary promoted by force (kvnode promote --force)",
            ),
            Self::ConfirmDiffers { was, is } => write!(
                f,
                "writes are confirmed by {is} slaves from now on, and by {was} until now: --confirm is to be the same at all nodes"
            ),
            Self::Namesake(pid) => write!(
                f,
                "another node with the name {} lives, with the creation {}: end one of them, as each stands in the other's way",
                pid.node, pid.creation
            ),
            Self::Unreadable(key) => write!(
                f,
                "etcd's key {}{key} is not understood (of another version?): no primary is chosen",
                Key::PREFIX
            ),
        }
    }
}
