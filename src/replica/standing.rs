//! Where a slave is, and how it stands to its primary.

use super::lineage::Refusal;
use crate::distribution::RemoteProcess;

/// Where a slave is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlaveState {
    /// Not known.
    Seeking,
    /// Known, and watched.
    Following(RemoteProcess),
    /// It will never be there (again): nothing is kept for it.
    Dropped,
}

/// How a slave stands to its primary, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has never been found.
    Seeking,
    /// It is there, and does not become a slave of this store.
    Refused(Refusal),
    /// It is not there. `missed`: keys that it will be sent; `None`: all of them.
    Gone {
        /// How many keys were written or deleted since.
        missed: Option<u64>,
    },
    /// It is being brought up to date.
    Copying {
        /// Keys sent so far.
        done: u64,
        /// Keys that there are to send, as far as is known.
        total: u64,
    },
    /// It did not keep up: what it misses is sent when it has taken what it was sent.
    Behind {
        /// As in [`Gone`](Self::Gone).
        missed: Option<u64>,
    },
    /// Its store does not take what it is sent, for this reason. Deletions go on, and it is tried again.
    Full {
        /// Why.
        why: Refusal,
        /// As in [`Gone`](Self::Gone).
        missed: Option<u64>,
    },
    /// It has everything, but for so many writes that are on their way.
    InStep {
        /// Writes that it has not acknowledged.
        lag: u64,
    },
    /// It will never be there (again).
    Dropped,
}
