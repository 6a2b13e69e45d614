//! What came of what a slave was asked to do.

use crate::distribution::RemoteProcess;
use crate::replica::Dialect;

/// What became of a write that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Its key is noted, or it will be found by a scan; there is nothing to send now.
    Kept,
    /// It waits: have it taken.
    Ready,
    /// The bound was passed just now: so many writes were given up for a later repair.
    Behind(u64),
}

/// A point in what was sent to a slave, to be acknowledged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub(in crate::replica) session: u64,
    pub(in crate::replica) up_to: u64,
}

/// Whether the slave is to be asked what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// No: it was asked, or has everything that was sent.
    No,
    /// Yes, after what was taken just now.
    Now(Mark),
    /// When [`Slave::acknowledge_due`](super::Slave::acknowledge_due) says so. Told once.
    Later,
}

/// What [`Slave::take`](super::Slave::take) did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where the slave was meanwhile, and how it is spoken to; `None`: not on that node.
    pub at: Option<(RemoteProcess, Dialect)>,
    /// Something waits that the output had no room for.
    pub more: bool,
    /// Whether the slave is to be asked what it has.
    pub acknowledge: Acknowledge,
    /// Something was left out that its node cannot decode, for the first time since it was sent all.
    pub withheld: bool,
}

/// What a kvnode's store says of itself when it is greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its own incarnation.
    pub incarnation: u64,
    /// That of the primary whose writes it has had.
    pub had: Option<u64>,
    /// The last of these.
    pub applied: u64,
    /// It was a primary with slaves until now: what it has sent to them may come late.
    pub stepped_down: bool,
}
