//! Where stores are kept.

use std::path::PathBuf;

use super::{Done, OpenError, Store};

/// What opens stores by their names, and keeps them: memory, a folder on disk, another machine.
///
/// An engine of one's own is this and its [`Store`] (`tests/support/deferred.rs` is one): all that starts stores takes any.
pub trait Engine: Send + Sync + 'static {
    /// Its stores.
    type Store: Store;

    /// The store that has one of `names`, or a new one with them. A name is any text; an engine whose stores outlive it keeps
    /// all, and tells the store again by them the next time.
    ///
    /// # Errors
    /// The names belong to more than one store, or what the engine keeps it in refuses.
    fn open(&self, names: &[String]) -> Result<Self::Store, OpenError>;

    /// The same store for a server that is started again after its end: with what it held where that outlives a server.
    fn open_again(&self, store: &Self::Store) -> Self::Store;

    /// Calls `done` when all that was asked of its stores before is answered; `Ok` where it is kept.
    fn settle(&self, done: Done);

    /// Carries out what waits, and lets go of everything; what is written afterwards fails.
    fn close(&self);

    /// The folder where files about its stores go, for people.
    fn folder(&self) -> Option<PathBuf> {
        None
    }
}
