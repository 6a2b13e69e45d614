//! What a store has looked after outside of it: its slaves, and another holder of its name.
//!
//! The store only decides; to find slaves, to watch and to greet them takes connections and waits, which are for others: on a
//! node [`Downstreams`](super::downstream::Downstreams), in a simulation the simulation.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::confirm::Confirmations;
use super::ranked::{Ranked, rank};
use super::{Forward, SlaveEntry};
use crate::etf::Pid;
use crate::process::WakeRequest;
use crate::replica::{Refusal, Source};

/// Looks after the slaves of stores. From any thread; none of it may block.
pub trait Follow: Send + Sync {
    /// A slave was added to a store: it is to be found, watched, greeted and repaired, and found again when it is gone, until
    /// it is dropped or the store has ended.
    fn follow(&self, slave: FollowSlave);

    /// Another process holds a global name of a store.
    fn offer(&self, offer: Offer);

    /// A caller's write is for the primary of its store.
    fn forward(&self, forward: Forward) {
        forward.not_sent();
    }

    /// Something of a store takes long, and is to be done while others use the store.
    fn work(&self, mut work: Work) {
        while work.step() {}
    }

    /// Something is to be done again and again for a store, until it says that it is not, or the store has ended.
    fn wake(&self, store: Pid, request: WakeRequest);

    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// The machine's clock, in milliseconds since 1970.
    fn unix_ms(&self) -> u64;
}

/// Something that is done step by step, while others use its store.
pub struct Work {
    pub(super) store: Pid,
    pub(super) step: Box<dyn FnMut() -> bool + Send>,
}

impl Work {
    /// The store: once it has ended no more steps are to be made.
    pub const fn store(&self) -> &Pid {
        &self.store
    }

    /// Makes a step, of some thousand entries at most; gives whether there is more to do. On a thread that may wait for the disk.
    pub fn step(&mut self) -> bool {
        (self.step)()
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A slave that is to be followed.
#[derive(Debug)]
pub struct FollowSlave {
    /// The slave.
    pub slave: Arc<SlaveEntry>,
    /// The store that it replicates.
    pub store: Pid,
    /// What it is repaired from.
    pub source: SharedSource,
    /// Told once it is found, or is not found at once, or cannot be a slave of this store.
    pub added: Option<SlaveAdded>,
}

/// The store that slaves are repaired from.
#[derive(Clone)]
pub struct SharedSource {
    pub(super) source: Arc<dyn Source + Send + Sync>,
    pub(super) confirmations: Arc<Confirmations>,
}

/// The lock of one store under which it is settled whose process a slave is.
pub(super) type Settling = Ranked<rank::Settling, ()>;

impl SharedSource {
    /// To be held while it is settled whose process a slave of the store is: the process may have been found by several names
    /// at once.
    pub(super) fn settling(&self) -> impl Sized + '_ {
        self.confirmations.settling.lock()
    }

    /// The slaves of the store. Before the lock of any of them.
    pub(super) fn slaves(&self) -> Vec<Arc<SlaveEntry>> {
        self.confirmations.slaves()
    }
}

impl std::ops::Deref for SharedSource {
    type Target = dyn Source + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.source
    }
}

impl fmt::Debug for SharedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSource")
    }
}

/// Called once when it is known whether a slave is one: `None`, or not found at once; or why it cannot be. From any thread;
/// must not block.
pub struct SlaveAdded(pub Box<dyn FnOnce(Option<Refusal>) + Send>);

impl fmt::Debug for SlaveAdded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlaveAdded")
    }
}

/// If another kvnode holds a global name of a store, that kvnode may have been promoted in the store's place while the store
/// was away. The store offers itself as a slave, by `{:replica_offer, store}`; the holder knows whether it was promoted.
pub struct Offer {
    /// The store.
    pub store: Pid,
    /// The name.
    pub name: Arc<str>,
    /// The name's holder.
    pub holder: Pid,
    /// Called where the holder did not take the offer, and may do so later. From any thread; must not block.
    pub failed: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("name", &self.name)
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests;
