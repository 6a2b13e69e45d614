//! What a store begins with.

use super::server::{KeyValueServer, with_canonical};
use super::write::{Stamp, Write, at_once, change_of};
use crate::etf::tag::FUN_EXT;
use crate::etf::{TermError, TermView, Traits, key};
use crate::store::{Change, Store, StoreError};

/// Why a map could not be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It is no map, or has something in it that cannot be kept: the sender's fault.
    #[error("{0}")]
    Term(TermError),
    /// The store did not take it.
    #[error("{0}")]
    Store(StoreError),
}

impl From<TermError> for LoadError {
    fn from(error: TermError) -> Self {
        Self::Term(error)
    }
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl<S: Store> KeyValueServer<S> {
    /// Takes in the pairs of a map, before any caller knows the store.
    ///
    /// # Errors
    /// The map's fault: it is none, or has something in it that cannot be a key or a value.
    pub fn load(&self, pairs: TermView<'_>) -> Result<(), LoadError> {
        if pairs.traits().contains(Traits::OLD_FUN) {
            return Err(TermError::Tag(FUN_EXT).into());
        }
        let mut cursor = pairs.cursor();
        let len = cursor.map()?;
        key::check_maps(pairs)?;
        for _ in 0..len {
            let (key, value) = (cursor.term()?, cursor.term()?);
            let write = Write::Put { key, value, stamp: Stamp::default() };
            let (key, value) = write.check()?;
            let Change::Put(value) = change_of(value, Stamp::default()) else { continue };
            let put = with_canonical(key, |key| self.store().put(key, value, at_once))?;
            put.unwrap_or(Ok(0))?;
        }
        self.wait_for_writes();
        self.upstream.with(|machine| machine.filled());
        Ok(())
    }
}
