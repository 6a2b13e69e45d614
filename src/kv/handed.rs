//! Writes to a store that answers later: what is done when it has.

use std::sync::Arc;

use super::confirm::{Confirmations, Wanted};
use super::order::Committed;
use super::reason::write_result;
use super::server::KeyValueServer;
use super::write::{Completion, Written, committed_later, ended};
use crate::etf::Traits;
use crate::process::{Dispatch, ProcessId};
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
    /// A caller waits for slaves to have it.
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
                let written = store::Written { seq, changes: &changes, numbers: &[] };
                let Handed { traits, confirmed, .. } = handed;
                let revision = self.store().revision();
                let write = Committed { written, traits, revision, confirmed, has_ended: false };
                committed_later(&self.confirmations, &write, handed.store, &*self.dispatch);
            }
            ended(&self.confirmations, handed.store, &*self.dispatch);
            Written::Now(result)
        })
    }

    fn when_done(&self, handed: Handed, completion: Completion<S>) -> WriteDone {
        let (dispatch, confirmations) = (Arc::clone(&self.dispatch), Arc::clone(&self.confirmations));
        Box::new(move |result| told(&confirmations, &*dispatch, handed, completion, result.map(Some)))
    }
}

/// A write that was handed to a store is done, or was decided to change nothing.
pub(super) fn told<S: Store>(
    confirmations: &Confirmations,
    dispatch: &dyn Dispatch,
    handed: Handed,
    completion: Completion<S>,
    result: Result<Option<store::Written<'_>>, StoreError>,
) {
    let Handed { store, traits, needs, confirmed } = handed;
    let committed = |written: store::Written<'_>| {
        let write = Committed { written, traits, revision: 0, confirmed, has_ended: false };
        committed_later(confirmations, &write, store, dispatch);
        written.seq
    };
    let result = result.map(|written| written.map_or(0, committed));
    ended(confirmations, store, dispatch);
    match (completion, &result) {
        (Completion::Nobody, Ok(_)) => {}
        (Completion::FromPrimary(upstream, ticket), result) => {
            if let Err(error) = result {
                confirmations.figures().count_failed(error);
            }
            upstream.stored(ticket, result, &store);
        }
        (Completion::Nobody, Err(error)) => {
            confirmations.figures().count_failed(error);
            tracing::error!(?store, %error, "replicated write lost")
        }
        (Completion::Caller(caller), result) => {
            caller.reply(dispatch, |w| write_result(w, result, confirmations.figures()));
        }
        (Completion::Confirmed(caller, want, era), Ok(seq)) => {
            confirmations.wait(Wanted { seq: *seq, slaves: want, traits: needs, era }, caller);
        }
        (Completion::Confirmed(caller, ..), result) => {
            confirmations.not_written();
            caller.reply(dispatch, |w| write_result(w, result, confirmations.figures()));
        }
    }
}
