//! Writes to a store that answers later: what is done when it has.

use std::sync::Arc;

use super::confirm::Wanted;
use super::order::Committed;
use super::server::{KeyValueServer, write_result};
use super::write::{Completion, Written, committed, committed_later, ended};
use crate::etf::{TermView, Traits};
use crate::process::{Feed, ProcessId};
use crate::store::{self, Change, Store, StoreError, WriteDone};

/// A write that is handed to a store.
#[derive(Clone, Copy)]
pub(super) struct Handed {
    /// The store's process.
    pub store: ProcessId,
    /// Of the key and the value.
    pub traits: Traits,
    /// What a slave's node has to decode to have it.
    pub needs: Traits,
    /// Somebody waits for slaves to have it.
    pub confirmed: bool,
}

impl<S: Store> KeyValueServer<S> {
    /// Hands a write to the store by `apply`.
    pub(super) fn hand(
        &self,
        handed: Handed,
        key: &[u8],
        change: Change<'_>,
        later: impl FnOnce() -> Completion<S>,
        apply: impl FnOnce(&mut dyn FnMut() -> WriteDone) -> Option<Result<u64, StoreError>>,
    ) -> Written {
        self.confirmations.order.begun();
        let mut later = Some(later);
        let mut done = || -> WriteDone {
            let completion = later.take().map_or(Completion::Nobody, |later| later());
            self.when_done(handed, completion)
        };
        let result = apply(&mut done);
        result.map_or(Written::Later, |result| {
            // It has answered at once for once.
            if let Ok(seq) = result {
                let changes = [(key, change)];
                let written = store::Written { seq, changes: &changes };
                let write = Committed { written, traits: handed.traits, confirmed: handed.confirmed };
                committed_later(&self.confirmations, &write, handed.store, &*self.dispatch);
            }
            ended(&self.confirmations, handed.store, &*self.dispatch);
            Written::Now(result)
        })
    }

    fn when_done(&self, handed: Handed, completion: Completion<S>) -> WriteDone {
        let (dispatch, confirmations) = (Arc::clone(&self.dispatch), Arc::clone(&self.confirmations));
        let Handed { store, traits, needs, confirmed } = handed;
        Box::new(move |result| {
            let result = result.map(|written| {
                committed_later(&confirmations, &Committed { written, traits, confirmed }, store, &*dispatch);
                written.seq
            });
            ended(&confirmations, store, &*dispatch);
            match (completion, &result) {
                (Completion::Nobody, Ok(_)) => {}
                (Completion::FromPrimary(upstream, ticket), result) => {
                    upstream.stored(ticket, result, &store);
                }
                (Completion::Nobody, Err(error)) => {
                    tracing::error!(?store, %error, "replicated write lost")
                }
                (Completion::Caller(caller), result) => caller.reply(&*dispatch, |w| write_result(w, result)),
                (Completion::Confirmed(caller, want), Ok(seq)) => {
                    confirmations.wait(Wanted { seq: *seq, slaves: want, traits: needs }, caller);
                }
                (Completion::Confirmed(caller, _), result) => {
                    confirmations.not_written();
                    caller.reply(&*dispatch, |w| write_result(w, result));
                }
            }
        })
    }

    /// Deletes a key while nobody asks for it, of whatever kind the store is.
    pub(super) fn delete_apart(
        &self,
        key: &[u8],
        store: ProcessId,
        later: impl FnOnce() -> Completion<S>,
    ) -> Written {
        let traits = TermView::parse(key).map_or(Traits::none(), TermView::traits);
        let handed = Handed { store, traits, needs: Traits::none(), confirmed: false };
        if !S::AT_ONCE {
            return self.hand(handed, key, Change::Delete, later, |done| self.store().delete(key, done));
        }
        let slaves = self.confirmations.slaves.read();
        let _order = self.confirmations.order.hold();
        let deleted = self.store().delete(key, super::write::at_once).unwrap_or(Ok(0));
        if let Ok(seq) = deleted {
            let changes = [(key, Change::Delete)];
            let written = store::Written { seq, changes: &changes };
            let write = Committed { written, traits, confirmed: false };
            committed(&write, &slaves, &store, |slave| {
                if let Some(node) = slave.node() {
                    self.dispatch.feed(&node, &(Arc::clone(slave) as Arc<dyn Feed>));
                }
            });
        }
        Written::Now(deleted)
    }
}
