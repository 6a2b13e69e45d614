//! The end of a copy: it takes the place of what the store had, and what that drops is told, or kept elsewhere.

use std::sync::{Arc, Weak};

use super::in_place::{Deleted, Export, InPlace};
use super::{Me, left_undone, not_kept, said};
use crate::kv::Work;
use crate::kv::server::KeyValueServer;
use crate::kv::watch::announce;
use crate::kv::write::Written;
use crate::process::{ProcessId, Turn};
use crate::replica::planted::{Rule, planted};
use crate::replica::upstream::{Input, Output};
use crate::replica::{Upstream, downstream};
use crate::store::{Batch, Done, Scan, Shows, Store, StoreError, scan};

/// Keys that are looked at while the primary's writes wait.
const KEYS_AT_ONCE: usize = 1024;

/// The end of a copy that has come into the store itself: all keys are looked at, step by step, and what the copy has not brought
/// is deleted. Where the store answers later, so do the steps go on then.
struct DeletedRest<S> {
    server: Weak<KeyValueServer<S>>,
    me: Me,
    copy: u32,
    /// What is deleted is kept elsewhere.
    export: bool,
    deleted: Arc<Deleted>,
    stage: Stage,
}

/// What comes next.
enum Stage {
    /// What was asked of the store before is to be done: it would be shown as being under way.
    Begins,
    /// A batch is asked for.
    Asks(Box<dyn Scan>),
    /// The keys of a batch that the copy has not brought, as it seems, and what follows; `None`: nothing.
    Deletes(std::vec::IntoIter<Box<[u8]>>, Option<Box<dyn Scan>>),
    /// All that was to be deleted is with the store.
    Ends,
    /// The store cannot be looked through.
    Fails(StoreError),
}

impl<S: Store> DeletedRest<S> {
    /// Has it done in steps.
    fn begin(self, server: &KeyValueServer<S>) {
        let (store, mut rest) = (self.me.pid.clone(), Some(self));
        let step = Box::new(move || {
            rest = rest.take().and_then(Self::step);
            rest.is_some()
        });
        server.follow.work(Work { store, step });
    }

    /// The store has answered later.
    fn go_on(self) {
        if let Some(server) = self.server.upgrade() {
            self.begin(&server);
        }
    }

    /// `None`: it goes on later, or not at all.
    fn step(mut self) -> Option<Self> {
        let server = self.server.upgrade()?;
        match std::mem::replace(&mut self.stage, Stage::Ends) {
            Stage::Begins => {
                let mut rest = Some(self);
                let now = server.store().barrier(|| -> Done {
                    let rest = rest.take();
                    Box::new(move |result| {
                        if let Some(rest) = rest {
                            rest.behind_others(&result).go_on();
                        }
                    })
                });
                now.and_then(|result| Some(rest?.behind_others(&result)))
            }
            Stage::Asks(scan) => {
                let later = |scan, rest: Self, batch| rest.came(scan, batch).go_on();
                let (scan, rest, batch) = scan::next(scan, self, later)?;
                Some(rest.came(scan, batch))
            }
            Stage::Deletes(mut keys, scan) => {
                let goes_on = server.delete_foreign(&self, keys.by_ref().take(KEYS_AT_ONCE));
                self.stage = match keys.as_slice().is_empty() {
                    // Another copy has begun, or this one is not whole.
                    _ if !goes_on => Stage::Ends,
                    true => after(scan),
                    false => Stage::Deletes(keys, scan),
                };
                Some(self)
            }
            Stage::Ends => {
                {
                    // What was taken before is with the store, and the record is kept behind it.
                    let _turns = server.turns.lock();
                    server.copy_is_over(Input::CopyIsIn { copy: self.copy }, &self.me);
                }
                self.end(&server);
                None
            }
            Stage::Fails(error) => {
                tracing::error!(store = ?self.me.id, %error, "what the primary has not cannot be looked for: the copy is not whole");
                let error = not_kept(&error);
                server.copy_is_over(Input::CopyFailed { copy: self.copy, error }, &self.me);
                self.end(&server);
                None
            }
        }
    }

    fn behind_others(mut self, result: &Result<(), StoreError>) -> Self {
        self.stage = match (result, self.server.upgrade()) {
            (Err(error), _) => Stage::Fails(error.clone()),
            (Ok(()), Some(server)) => Stage::Asks(server.store().scan(None, Shows::Copies)),
            (Ok(()), None) => Stage::Ends,
        };
        self
    }

    fn came(mut self, scan: Box<dyn Scan>, batch: Result<Batch, StoreError>) -> Self {
        self.stage = match batch {
            Err(error) => Stage::Fails(error),
            Ok(batch) => {
                let foreign = batch.copies().filter(|(_, copy)| *copy != Some(self.copy));
                let keys: Vec<Box<[u8]>> = foreign.map(|(key, _)| key.into()).collect();
                let scan = (!batch.is_last).then_some(scan);
                if keys.is_empty() { after(scan) } else { Stage::Deletes(keys.into_iter(), scan) }
            }
        };
        self
    }

    /// Nothing more is deleted.
    fn end(&self, server: &KeyValueServer<S>) {
        // Where another copy has begun, what that drops goes with it.
        let has_next = |machine: &mut Upstream| machine.is_slave() && machine.durable().must_export;
        if self.export && !server.upstream.with(has_next) {
            server.dropped.lock().end();
        }
    }
}

/// What a copy has taken the place of, which is looked through, step by step, for what the copy does not have.
struct Replaced<S> {
    server: Weak<KeyValueServer<S>>,
    store: ProcessId,
    /// Of the entries that were there before: with it they go.
    scan: Box<dyn Scan>,
    /// What the copy does not have is kept elsewhere, with what is otherwise there.
    export: bool,
    /// Keys that the copy does not have.
    missing: u64,
}

impl<S: Store> Replaced<S> {
    /// Gives whether there is more to look at.
    fn step(&mut self) -> bool {
        let Some(server) = self.server.upgrade() else { return false };
        // Such a store answers at once.
        let Some(Ok(batch)) = scan::at_once(&mut *self.scan) else { return self.end(&server) };
        for (key, value) in batch.iter() {
            let Some(value) = value else { continue };
            let now =
                server.store().get(key, |now| now.map(|now| now.bytes == value.bytes), || Box::new(|_| {}));
            self.missing += u64::from(now == Some(None));
            if self.export && now != Some(Some(true)) && !planted(Rule::DroppedKept) {
                server.dropped.lock().keep(key, value.bytes);
            }
        }
        !batch.is_last || self.end(&server)
    }

    fn end(&self, server: &KeyValueServer<S>) -> bool {
        if self.export {
            server.dropped.lock().end();
        }
        if self.missing > 0 {
            tracing::warn!(store = ?self.store, keys = self.missing, "what the primary has not is dropped");
        }
        false
    }
}

/// What comes behind a batch.
fn after(scan: Option<Box<dyn Scan>>) -> Stage {
    scan.map_or(Stage::Ends, Stage::Asks)
}

impl<S: Store> KeyValueServer<S> {
    /// What was put aside takes the place of the store's entries.
    pub(super) fn swap_in(&self, copy: u32, export: bool, turn: &Turn<'_>) {
        let turns = self.turns.lock();
        let is_it = self.upstream.with(|machine| machine.is_ending(copy));
        let with = is_it.then(|| self.upstream.aside.lock().take()).flatten();
        let mut watched = Vec::new();
        let before = with.and_then(|with| {
            let slaves = self.slaves();
            // Readers see all of it at once, and its own slaves get it whole too.
            self.in_order_of_writes(|| {
                let before = self.store().replace(with);
                for slave in &slaves {
                    slave.tell(downstream::Input::CopyAll);
                }
                watched = self.cut_watches();
                before
            })
        });
        self.copy_is_over(Input::CopyIsIn { copy }, &Me::of(turn));
        drop(turns);
        announce(&self.confirmations.watches, watched, &*self.dispatch);
        if let Some(before) = before {
            self.look_through(&before, export, turn);
        }
    }

    /// Has said how much of what the store held is not in the copy that has taken its place. `export`: that is kept elsewhere. What
    /// a write changes before its key is looked at may be kept too: rather too much than too little.
    fn look_through(&self, before: &S, export: bool, turn: &Turn<'_>) {
        let (server, store) = (Weak::clone(&self.this), turn.me.id);
        let scan = before.scan(None, Shows::Pairs);
        let mut replaced = Replaced { server, store, scan, export, missing: 0 };
        let step = Box::new(move || replaced.step());
        self.follow.work(Work { store: turn.me.pid.clone(), step });
    }

    pub(super) fn copy_is_over(&self, input: Input, me: &Me) {
        for output in self.upstream.hand(input) {
            match output {
                Output::Persist { changed, then: None } => self.persist(changed, me),
                Output::ConfirmPutOff(asked) => self.confirm_put_off(asked, me.id),
                Output::ReplyPutOff(answer) => self.upstream.answer_asker(&answer, &*self.dispatch),
                Output::Log(event) => said::log(&event, Some(&me.id)),
                other => left_undone(&other),
            }
        }
    }

    /// Has deleted what the copy has not brought, step by step.
    pub(super) fn delete_rest(&self, copy: u32, export: bool, turn: &Turn<'_>) {
        let (server, me) = (Weak::clone(&self.this), Me::of(turn));
        let deleted = Deleted::of(me.id);
        DeletedRest { server, me, copy, export, deleted, stage: Stage::Begins }.begin(self);
    }

    /// Deletes those of the keys that the copy has not brought at that moment. Gives whether the copy goes on.
    fn delete_foreign(&self, rest: &DeletedRest<S>, keys: impl Iterator<Item = Box<[u8]>>) -> bool {
        // Between what is asked of the machine and the store's having the deletion nobody else becomes the primary, and no other copy
        // begins: what is written then is not to be deleted.
        let _turns = self.turns.lock();
        for key in keys {
            let taken = self.upstream.with(|machine| {
                let ticket = machine.take_rest(rest.copy)?;
                let export = || Export::of(&key, machine.brought_from(), &self.dropped);
                Some((ticket, rest.export.then(export)))
            });
            let Some((ticket, export)) = taken else { return false };
            let change = InPlace::rest(rest.copy, export, &rest.deleted);
            // If a key stays, this store differs from the primary: the primary is told, and copies again.
            if let Written::Now(result) = self.change_in_place(&key, change, ticket, rest.me.id) {
                self.upstream.stored(ticket, &result, &rest.me.id);
            }
        }
        true
    }
}
