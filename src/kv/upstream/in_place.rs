//! Changes that look at what is there, while a copy comes into the store itself: what carries another number than the copy's was
//! not brought by it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::etf::{TermView, Traits};
use crate::kv::confirm::Confirmations;
use crate::kv::dropped::DroppedPairs;
use crate::kv::handed::{Handed, told};
use crate::kv::order::Committed;
use crate::kv::ranked::{Ranked, rank};
use crate::kv::server::KeyValueServer;
use crate::kv::write::{Completion, Written, committed, committed_later, ended};
use crate::process::{Dispatch, Feed, ProcessId};
use crate::replica::planted::{Rule, planted};
use crate::replica::upstream::Ticket;
use crate::store::{self, Change, Owed, OwnedValue, Pending, ReadDone, Store, StoreError, Update, Value};

/// What is to become of a key.
#[derive(Clone, Copy, Default)]
enum Wanted {
    /// It goes, unless the copy has brought it.
    #[default]
    Rest,
    /// It gets the value, or goes where there is none.
    Written,
    /// It keeps what it has, as if the copy had brought that.
    Stays,
}

/// A change of a key.
#[derive(Default)]
pub(super) struct InPlace {
    wanted: Wanted,
    /// The number of the copy.
    copy: u32,
    /// `None`: it goes.
    value: Option<OwnedValue>,
    export: Option<Export>,
    /// It was shown what is there.
    has_decided: bool,
    /// Counts keys that go as the rest.
    deleted: Option<Arc<Deleted>>,
}

/// What is dropped is kept elsewhere, before it goes: a node that is killed in between has it in both places, and not in none.
pub(super) struct Export {
    key: Box<[u8]>,
    /// What carries this number or a later one is not the store's own.
    brought_from: u32,
    into: Arc<Ranked<rank::Alone, DroppedPairs>>,
}

impl Export {
    /// Of a key.
    pub(super) fn of(key: &[u8], brought_from: u32, into: &Arc<Ranked<rank::Alone, DroppedPairs>>) -> Self {
        Self { key: key.into(), brought_from, into: Arc::clone(into) }
    }

    fn is_of(&self, present: &Value<'_>) -> bool {
        present.copy < self.brought_from
    }
}

impl InPlace {
    /// It goes, unless the copy has brought it.
    pub(super) fn rest(copy: u32, export: Option<Export>, deleted: &Arc<Deleted>) -> Self {
        Self { copy, export, deleted: Some(Arc::clone(deleted)), ..Self::default() }
    }

    /// The primary has written it, and what was there before the copy is kept elsewhere.
    pub(super) fn exporting(copy: u32, value: Option<OwnedValue>, export: Export) -> Self {
        Self { wanted: Wanted::Written, copy, value, export: Some(export), ..Self::default() }
    }

    /// It keeps what it has. Where that is the store's own, it is kept elsewhere too: from here on it counts as brought.
    pub(super) fn stays(copy: u32, export: Option<Export>) -> Self {
        Self { wanted: Wanted::Stays, copy, export, ..Self::default() }
    }

    fn change(&self) -> Change<'_> {
        match &self.value {
            Some(value) => Change::Put(Value { copy: self.copy, ..value.value() }),
            None => Change::Delete,
        }
    }

    /// It is carried out, or was not. What is there after a failure is kept elsewhere too: what the primary sends in its place later
    /// may be part of no copy.
    fn done<T, S: Store>(&self, result: &Result<Option<T>, StoreError>, server: Option<&KeyValueServer<S>>) {
        if matches!(result, Ok(Some(_)))
            && let Some(deleted) = &self.deleted
        {
            deleted.keys.fetch_add(1, Ordering::Relaxed);
        }
        let Some(export) = &self.export else { return };
        if !self.has_decided
            && result.is_err()
            && let Some(server) = server
        {
            server.keep_present(export, self.value.as_ref().map(|value| &*value.bytes));
        }
        export.into.lock().came();
    }
}

impl Update for InPlace {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        self.has_decided = true;
        let foreign = present.filter(|present| present.copy != self.copy || planted(Rule::RestAsItIs));
        let is_same = |was: &Value<'_>| self.value.as_ref().is_some_and(|value| *value.bytes == *was.bytes);
        if let Some(export) = &self.export
            && let Some(was) = foreign.filter(|was| export.is_of(was) && !is_same(was))
            && !planted(Rule::DroppedKept)
        {
            export.into.lock().keep(&export.key, was.bytes);
        }
        match (self.wanted, foreign) {
            (Wanted::Rest | Wanted::Stays, None) => Change::Keep,
            (Wanted::Stays, Some(was)) => {
                self.value = Some(was.to_owned());
                self.change()
            }
            (Wanted::Rest, Some(_)) | (Wanted::Written, _) => self.change(),
        }
    }
}

/// How many keys were deleted as the primary has them not: said once all are.
pub(super) struct Deleted {
    store: ProcessId,
    keys: AtomicU64,
}

impl Deleted {
    pub(super) fn of(store: ProcessId) -> Arc<Self> {
        Arc::new(Self { store, keys: AtomicU64::new(0) })
    }
}

impl Drop for Deleted {
    fn drop(&mut self) {
        let keys = *self.keys.get_mut();
        if keys > 0 {
            tracing::warn!(store = ?self.store, keys, "keys that the primary has not are deleted");
        }
    }
}

/// A change that a store carries out later.
struct Later<S> {
    server: Weak<KeyValueServer<S>>,
    change: InPlace,
    handed: Handed,
    completion: Completion<S>,
    confirmations: Arc<Confirmations>,
    dispatch: Arc<dyn Dispatch>,
}

impl<S: Store> Update for Later<S> {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        self.change.decide(present)
    }
}

impl<S: Store> Pending for Later<S> {
    fn done(self: Box<Self>, result: Result<Option<store::Written<'_>>, StoreError>) {
        let this = *self;
        this.change.done(&result, this.server.upgrade().as_deref());
        told(&this.confirmations, &*this.dispatch, this.handed, this.completion, result);
    }
}

impl<S: Store> KeyValueServer<S> {
    /// Has a key changed. What becomes of that is told with the ticket, but for what is done at once.
    pub(super) fn change_in_place(
        &self,
        key: &[u8],
        mut change: InPlace,
        ticket: Ticket,
        store: ProcessId,
    ) -> Written {
        let traits = TermView::parse(key).map_or(Traits::none(), TermView::traits);
        let handed = Handed { store, traits, needs: Traits::none(), confirmed: false };
        if let Some(export) = &change.export {
            export.into.lock().expect();
        }
        let later = |change: &mut InPlace| -> Box<dyn Pending> {
            Box::new(Later {
                server: Weak::clone(&self.this),
                change: std::mem::take(change),
                handed,
                completion: Completion::FromPrimary(Arc::clone(&self.upstream), ticket),
                confirmations: Arc::clone(&self.confirmations),
                dispatch: Arc::clone(&self.dispatch),
            })
        };
        let result = if S::AT_ONCE {
            let slaves = self.confirmations.slaves.read();
            let _order = self.confirmations.order.hold();
            let result = self.store().update(key, &mut change, later);
            if let Some(Ok(Some(seq))) = result {
                let changes = [(key, change.change())];
                let written = store::Written { seq, changes: &changes, numbers: &[] };
                let revision = self.store().revision();
                let write = Committed { written, traits, revision, confirmed: false, has_ended: false };
                committed(&write, &slaves, |slave| {
                    if let Some(node) = slave.node() {
                        self.dispatch.feed(&node, &(Arc::clone(slave) as Arc<dyn Feed>));
                    }
                });
                self.tell_watchers(&write, |node, feed| self.dispatch.feed(&node, &feed));
            }
            result
        } else {
            self.confirmations.order.begun();
            let result = self.store().update(key, &mut change, later);
            if let Some(now) = &result {
                // It has answered at once for once.
                if let Ok(Some(seq)) = now {
                    let changes = [(key, change.change())];
                    let written = store::Written { seq: *seq, changes: &changes, numbers: &[] };
                    let write =
                        Committed { written, traits, revision: 0, confirmed: false, has_ended: false };
                    committed_later(&self.confirmations, &write, store, &*self.dispatch);
                }
                ended(&self.confirmations, store, &*self.dispatch);
            }
            result
        };
        result.map_or(Written::Later, |result| {
            change.done(&result, Some(self));
            Written::Now(result.map(|seq| seq.unwrap_or(0)))
        })
    }

    /// Keeps elsewhere what is there under a key, where it is not the same as what was to come in its place.
    fn keep_present(&self, export: &Export, with: Option<&[u8]>) {
        if planted(Rule::DroppedKept) {
            return;
        }
        self.dropped.lock().expect();
        let dropped = Arc::clone(&self.dropped);
        let (key, brought_from) = (export.key.clone(), export.brought_from);
        let with: Option<Box<[u8]>> = with.map(Into::into);
        let came = Owed::new(move |found: Result<Option<Box<[u8]>>, StoreError>| {
            let mut dropped = dropped.lock();
            match found {
                Ok(Some(present)) if Some(&*present) != with.as_deref() => dropped.keep(&key, &present),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "an entry that the new primary may not have is dropped, and cannot be read");
                }
            }
            dropped.came();
        });
        let own = move |found: Option<Value<'_>>| {
            found.filter(|found| found.copy < brought_from).map(|found| found.bytes.into())
        };
        // One of the two is used, and the compiler cannot know which.
        let mut came = Some(came);
        let now = self.store().get(&export.key, own, || -> ReadDone {
            let came = came.take();
            Box::new(move |found| _ = came.map(|came| came.tell(found.map(own))))
        });
        if let (Some(found), Some(came)) = (now, came) {
            came.tell(Ok(found));
        }
    }
}
