//! What stands in etcd of a store's elections, as bytes that a person can read too.
//!
//! ```text
//! <store>/s/p         1 FENCE CREATION ID SERIAL NODE          the primary, with its lease
//! <store>/s/m         1                                        what the next election goes by, in lines
//!                     term FENCE NODE                          the last primary
//!                     base FENCE CONFIRM NODE                  the primary that confirmed writes last, how many slaves that took
//!                     end SEQ                                  that primary has ended in good order, and this is its last write
//!                     heir FENCE NODE                          a primary since, which has confirmed none; the last is the newest
//!                     member NODE                              a slave that counts for the base
//!                     former CREATION NODE                     a node that has led, the last first
//! <store>/s/r/NODE    1 AFTER HOLDS CREATION ID SERIAL NODE    a process of the store that is there, with its lease
//! ```
//!
//! AFTER is the fence of the primary that is gone, and `-` where none is; HOLDS is `nothing`, `own:FENCE`,
//! `copy:FENCE:APPLIED:whole` (or `:part`) or `other`, and `-` outside of an election.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use crate::distribution::NodeName;
use crate::elect::Life;
use crate::elect::keys::FORMER_MAX;
use crate::etf::Pid;
use crate::replica::{Settled, Upstream};

/// Members that are recorded at most.
pub const MEMBERS_MAX: usize = 256;
/// Primaries since the last confirmed write that are known.
pub const HEIRS_MAX: usize = 32;
/// Bytes of a value that is read at most.
const BYTES_MAX: usize = 256 << 10;
/// The form of a value. One of another form is not understood.
const FORM: &str = "1";

/// A key of a store's elections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Names the primary.
    Leader,
    /// What the next election goes by.
    Record,
    /// Of a process of the store, by its node.
    Report(Arc<str>),
}

impl Key {
    /// Of all keys, behind the store's own prefix.
    pub const PREFIX: &'static str = "s/";

    /// Reads it, without [`PREFIX`](Self::PREFIX); `None`: it is none.
    pub fn read(text: &str) -> Option<Self> {
        match text {
            "p" => Some(Self::Leader),
            "m" => Some(Self::Record),
            _ => read_node(text.strip_prefix("r/")?).map(Self::Report),
        }
    }
}

impl fmt::Display for Key {
    /// Without [`PREFIX`](Self::PREFIX).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("p"),
            Self::Record => f.write_str("m"),
            Self::Report(node) => write!(f, "r/{node}"),
        }
    }
}

/// What a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing: it was started without data, and no primary has brought it up to date.
    Nothing,
    /// What it had as the primary, in this life or, on disk, in one before.
    Own {
        /// The fence with which it led last; 0: it never did.
        fence: u64,
    },
    /// All that a primary had once.
    Copy {
        /// The primary's fence.
        fence: u64,
        /// All of its writes up to this one are there; [`u64::MAX`]: all that it ever had, as this store was it.
        applied: u64,
        /// Nothing of later ones is there in part.
        is_whole: bool,
    },
    /// Something else: a part of what a primary has, or data that no election knows.
    Other,
}

impl Holds {
    /// What a store holds, by its part as a slave.
    ///
    /// A store that was promoted and has followed none since has what it led with, also where that is nothing: never written to, or cleared. That
    /// it was promoted is kept in the store itself, beside the entries: a store whose data is gone, in memory or with its folder, does not know it any
    /// more. (What a power cut takes of its last writes where these are synced late it does not notice, empty or not.) Nothing has come from
    /// a primary to a store that was started without data and follows none.
    pub fn of(upstream: &Upstream) -> Self {
        let durable = upstream.durable();
        if let Some((Settled { term, applied }, is_whole)) = upstream.settled() {
            Self::Copy { fence: term, applied, is_whole }
        } else if upstream.is_owner() {
            Self::Own { fence: durable.term }
        } else if upstream.started_empty() && !upstream.is_slave() {
            Self::Nothing
        } else if durable.is_partial || upstream.minds_writes() {
            Self::Other
        } else {
            Self::Own { fence: 0 }
        }
    }
}

impl fmt::Display for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Own { fence } => write!(f, "own:{fence}"),
            Self::Copy { fence, applied, is_whole } => {
                write!(f, "copy:{fence}:{applied}:{}", if *is_whole { "whole" } else { "part" })
            }
            Self::Other => f.write_str("other"),
        }
    }
}

impl FromStr for Holds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let word = parts.next();
        let mut number = || parts.next()?.parse::<u64>().ok();
        let holds = match word {
            Some("nothing") => Some(Self::Nothing),
            Some("other") => Some(Self::Other),
            Some("own") => number().map(|fence| Self::Own { fence }),
            Some("copy") => match (number(), number()) {
                (Some(fence), Some(applied)) => match parts.next() {
                    Some("whole") => Some(Self::Copy { fence, applied, is_whole: true }),
                    Some("part") => Some(Self::Copy { fence, applied, is_whole: false }),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        holds.filter(|_| parts.next().is_none()).ok_or(())
    }
}

/// What the next election goes by. Written by the primary alone, where its key is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The last fence.
    pub fence: u64,
    /// The node of the primary that has, or had it.
    pub node: Arc<str>,
    /// The last primary that could confirm writes.
    pub base: Base,
    /// Primaries since, the newest last: each had all that the base has confirmed, and has confirmed nothing.
    pub heirs: Vec<Heir>,
    /// Those that have led, the last first.
    pub former: Vec<Life>,
}

/// A primary that was chosen, and has confirmed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heir {
    /// Its fence.
    pub fence: u64,
    /// Its node.
    pub node: Arc<str>,
}

/// A primary that can confirm writes, and the slaves that count for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its fence.
    pub fence: u64,
    /// How many slaves have each confirmed write.
    pub confirm: u32,
    /// Its node.
    pub node: Arc<str>,
    /// The number of its last write, where it has ended in good order: a copy that has come so far is enough alone.
    pub end: Option<u64>,
    /// The nodes of the slaves, in order. None: nothing was confirmed.
    pub members: Vec<Arc<str>>,
}

impl Record {
    /// The value.
    pub fn write(&self) -> Vec<u8> {
        let Self { fence, node, base, heirs, former } = self;
        let mut text = format!("{FORM}\nterm {fence} {node}\n");
        // A string takes everything.
        let _ = writeln!(text, "base {} {} {}", base.fence, base.confirm, base.node);
        base.end.iter().for_each(|end| _ = writeln!(text, "end {end}"));
        heirs.iter().for_each(|heir| _ = writeln!(text, "heir {} {}", heir.fence, heir.node));
        base.members.iter().for_each(|node| _ = writeln!(text, "member {node}"));
        former.iter().take(FORMER_MAX).for_each(|life| {
            _ = writeln!(text, "former {} {}", life.creation, life.node);
        });
        text.into_bytes()
    }

    /// Reads it; `None`: it is none, of another form, or has more than a bound.
    pub fn read(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= BYTES_MAX)?;
        let mut lines = text.lines();
        lines.next().filter(|form| *form == FORM)?;
        let nobody = || Arc::<str>::from("");
        let base = Base { fence: 0, confirm: 0, node: nobody(), end: None, members: Vec::new() };
        let mut record = Self { fence: 0, node: nobody(), base, heirs: Vec::new(), former: Vec::new() };
        for line in lines {
            let (word, rest) = line.split_once(' ')?;
            match word {
                "term" => {
                    let (fence, node) = rest.split_once(' ')?;
                    (record.fence, record.node) = (fence.parse().ok()?, read_node(node)?);
                }
                "base" => {
                    let mut parts = rest.splitn(3, ' ');
                    record.base.fence = parts.next()?.parse().ok()?;
                    record.base.confirm = parts.next()?.parse().ok()?;
                    record.base.node = read_node(parts.next()?)?;
                }
                "heir" => {
                    let (fence, node) = rest.split_once(' ')?;
                    let heir = Heir { fence: fence.parse().ok()?, node: read_node(node)? };
                    record.heirs.push(heir);
                }
                "end" => record.base.end = Some(rest.parse().ok()?),
                "member" => record.base.members.push(read_node(rest)?),
                "former" => {
                    let (creation, node) = rest.split_once(' ')?;
                    record.former.push(Life { node: read_node(node)?, creation: creation.parse().ok()? });
                }
                // Of a form that is not known: what it says may be of matter.
                _ => return None,
            }
        }
        let is_bounded = record.heirs.len() <= HEIRS_MAX && record.base.members.len() <= MEMBERS_MAX;
        let is_whole = record.fence > 0 && !record.node.is_empty() && !record.base.node.is_empty();
        record.former.truncate(FORMER_MAX);
        (is_bounded && is_whole).then_some(record)
    }
}

/// The value that names the primary.
pub fn write_leader(pid: &Pid, fence: u64) -> Vec<u8> {
    format!("{FORM} {fence} {}", Process(pid)).into_bytes()
}

/// Reads it; `None`: it is none, or of a form that is not known here.
pub fn read_leader(value: &[u8]) -> Option<(Pid, u64)> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= BYTES_MAX)?;
    let mut parts = text.splitn(3, ' ');
    parts.next().filter(|form| *form == FORM)?;
    let fence = parts.next()?.parse().ok()?;
    Some((read_process(parts.next()?)?, fence))
}

/// What a process of the store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The process.
    pub pid: Pid,
    /// In an election: the fence of the primary that is gone, and what the store holds. From then on it acknowledges nothing up to
    /// that fence.
    pub sealed: Option<(u64, Holds)>,
}

impl Report {
    /// The value.
    pub fn write(&self) -> Vec<u8> {
        let Self { pid, sealed } = self;
        match sealed {
            Some((after, holds)) => format!("{FORM} {after} {holds} {}", Process(pid)),
            None => format!("{FORM} - - {}", Process(pid)),
        }
        .into_bytes()
    }

    /// Reads it; `None`: it is none, or of a form that is not known here.
    pub fn read(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= BYTES_MAX)?;
        let mut parts = text.splitn(4, ' ');
        parts.next().filter(|form| *form == FORM)?;
        let sealed = match (parts.next()?, parts.next()?) {
            ("-", "-") => None,
            (after, holds) => Some((after.parse().ok()?, holds.parse().ok()?)),
        };
        Some(Self { pid: read_process(parts.next()?)?, sealed })
    }
}

struct Process<'a>(&'a Pid);

impl fmt::Display for Process<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pid { creation, id, serial, node } = self.0;
        write!(f, "{creation} {id} {serial} {node}")
    }
}

fn read_process(text: &str) -> Option<Pid> {
    let mut parts = text.splitn(4, ' ');
    let mut number = || parts.next()?.parse::<u32>().ok();
    let (creation, id, serial) = (number()?, number()?, number()?);
    Some(Pid { node: read_node(parts.next()?)?, id, serial, creation })
}

fn read_node(text: &str) -> Option<Arc<str>> {
    NodeName::new(text).ok().map(|name| name.as_str().into())
}
