//! What came of what a slave was to be sent.

use super::Siblings;
use crate::distribution::RemoteProcess;
use crate::replica::{Dialect, KnownSlave, Lineage};

/// What became of a write that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Its key is noted, or it will be found by a scan; there is nothing to send now.
    Kept,
    /// It waits: have it taken.
    Ready,
    /// The bound was passed just now: the driver has something to do.
    Behind,
}

/// A point in what was sent to a slave, to be acknowledged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub(super) session: u64,
    pub(super) up_to: u64,
}

/// Whether the slave is to be asked what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// No: it was asked, or has everything that was sent.
    No,
    /// Yes, after what was taken just now.
    Now(Mark),
    /// When [`poll_timeout`](super::Downstream::poll_timeout) says so: the driver has something to do. Told once.
    Later,
}

/// What [`Downstream::take`](super::Downstream::take) did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where the slave was meanwhile, and how it is spoken to; `None`: not on that node.
    pub at: Option<(RemoteProcess, Dialect)>,
    /// Something waits that the output had no room for.
    pub more: bool,
    /// Whether the slave is to be asked what it has.
    pub acknowledge: Acknowledge,
    /// Something is to be told to people: the driver has something to do.
    pub has_news: bool,
}

/// The keys of a part of the store, as they were read for a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartRead {
    /// These, of so many parts and keys in all.
    Keys {
        /// In their canonical encoding.
        keys: Vec<Box<[u8]>>,
        /// Parts that the store has.
        parts: usize,
        /// Keys that it has.
        total: u64,
        /// Some may be missing: they could not be read.
        is_damaged: bool,
    },
    /// They are being read: to be asked for again.
    Later,
}

/// What a store is, for an answer that is weighed against it: looked up after the answer has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standpoint {
    /// The store's lineage.
    pub lineage: Lineage,
    /// The number of the last write that it has taken.
    pub seq: u64,
    /// What its clock says, in milliseconds.
    pub clock: u64,
    /// It was started without data, and has not been filled by a primary since.
    pub started_empty: bool,
    /// All its slaves.
    pub slaves: Vec<KnownSlave>,
    /// The other slaves.
    pub siblings: Siblings,
}
