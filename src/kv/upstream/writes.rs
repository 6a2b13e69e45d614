//! What a primary that is a kvnode casts to its slave ([`crate::replica::dialect`]).

use std::fmt::Debug;
use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::calls::read_slaves;
use super::in_place::{Export, InPlace};
use super::{left_undone, not_kept, said, taken};
use crate::etf::{Cursor, TermError, TermView};
use crate::kv::Work;
use crate::kv::clock::Clock;
use crate::kv::request::{FromPrimary, OneOfMany, SkippedWrite};
use crate::kv::requests::{KEYS_MAX, Many};
use crate::kv::server::{KeyValueServer, with_canonical};
use crate::kv::write::{Completion, Stamp, Write, Written, at_once, shared_value};
use crate::process::{SkippedMessage, Turn};
use crate::replica::CopyMark;
use crate::replica::dialect::key_by_key;
use crate::replica::planted::{Rule, planted};
use crate::replica::upstream::{Input, Output, Take, Ticket, Upstream};
use crate::store::{Store, StoreError, Value};

impl<S: Store> super::UpstreamEntry<S> {
    /// A write that the store was handed is done.
    pub(in crate::kv) fn stored<T>(&self, ticket: Ticket, result: &Result<T, StoreError>, store: &dyn Debug) {
        let said = stored(&mut self.machine.lock(), ticket, result);
        log_all(said, store);
    }
}

/// Tells a machine what has become of a write. Gives what is to be said of it.
#[inline]
fn stored<T>(machine: &mut Upstream, ticket: Ticket, result: &Result<T, StoreError>) -> Vec<Output> {
    match result {
        Ok(_) => {
            machine.stored(ticket, Ok(()));
            Vec::new()
        }
        Err(error) => {
            machine.stored(ticket, Err(not_kept(error)));
            taken(machine)
        }
    }
}

/// Of a machine that had nothing but that to say.
fn log_all(outputs: Vec<Output>, store: &dyn Debug) {
    for output in outputs {
        match output {
            Output::Log(event) => said::log(&event, Some(store)),
            other => left_undone(&other),
        }
    }
}

/// A store that answers at once has a write under the machine's lock.
fn held_while_written<S: Store, L>(machine: L) -> Option<L> {
    S::AT_ONCE.then_some(machine)
}

impl<S: Store> KeyValueServer<S> {
    /// A cast of a primary.
    ///
    /// # Errors
    /// The primary's fault: a write cannot be kept.
    pub(in crate::kv) fn cast_from_primary(
        &self,
        message: FromPrimary<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        match message {
            FromPrimary::Put { session, seq, revision, deadline, key, value } => {
                let write = self.put_of(key, value, revision, deadline);
                return self.take_in(session, seq, write, turn);
            }
            FromPrimary::Delete { session, seq, key } => {
                return self.take_in(session, seq, Write::Delete { key }, turn);
            }
            FromPrimary::Many { session, seq, changes } => {
                return self.take_in_many(session, seq, changes, turn);
            }
            FromPrimary::Clear { session, seq } => self.take_in_clear(session, seq, turn),
            FromPrimary::Copy { session, seq, mark } => self.copy_mark(session, seq, mark, turn),
            FromPrimary::Slaves { session, slaves } => {
                if let Some(slaves) = read_slaves(slaves) {
                    let outputs = self.upstream.hand(Input::Siblings { session, slaves });
                    self.carry_out(outputs, None, turn);
                }
            }
            FromPrimary::Bye { session } => {
                let outputs = self.hand_alone(Input::Bye { session });
                self.carry_out(outputs, None, turn);
            }
        }
        Ok(())
    }

    fn take_in(
        &self,
        session: u64,
        seq: u64,
        write: Write<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        self.ends_at(write.stamp().deadline, turn);
        // Another primary's greeting waits until this write is with the store. A store that answers at once has it under the
        // machine's own lock, so that this is the only one. One that answers later may have this thread wait for room, and
        // tells on its own thread what became of other writes.
        let _turns = (!S::AT_ONCE).then(|| self.turns.lock());
        let mut machine = self.upstream.machine.lock();
        let (ticket, exporting) = match machine.take(session, seq) {
            Take::Nowhere => return Ok(()),
            Take::Aside => return self.put_aside(&mut machine, write, turn),
            Take::Store(ticket) => (ticket, None),
            Take::Exporting(ticket) => (ticket, Some((machine.copy(), machine.brought_from()))),
        };
        let held = held_while_written::<S, _>(machine);
        let written = match exporting {
            Some(numbers) => self.write_exporting(numbers, write, ticket, turn),
            None => {
                let later = |_: &Turn<'_>| Completion::FromPrimary(Arc::clone(&self.upstream), ticket);
                self.write(write, turn, 0, later)
            }
        };
        let result = match &written {
            Ok(Written::Later) => return Ok(()),
            Ok(Written::Now(result)) => result,
            // What is no write is missed by nobody.
            Err(_) => &Ok(0),
        };
        self.has_stored(held, ticket, result, turn);
        written.map(|_| ())
    }

    /// A write of several keys: all of it is with the store at once, or nothing.
    fn take_in_many(
        &self,
        session: u64,
        seq: u64,
        changes: TermView<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        let mut cursor = changes.cursor();
        let len = cursor.list()?;
        let mut rest = (0..len).map(|_| -> Result<Write<'_>, TermError> {
            let change = cursor.term()?.noticed_in(changes);
            let change = OneOfMany::read(change).ok_or(TermError::Tag(change.tag()))?;
            Ok(match change.put {
                Some((value, revision, deadline)) => self.put_of(change.key, value, revision, deadline),
                None => Write::Delete { key: change.key },
            })
        });
        let turns = (!S::AT_ONCE).then(|| self.turns.lock());
        let mut machine = self.upstream.machine.lock();
        if len > KEYS_MAX || machine.takes_apart() {
            drop((machine, turns));
            // As a primary sends it to servers of the other kind.
            return key_by_key(seq, len)
                .zip(rest)
                .try_for_each(|(seq, write)| self.take_in(session, seq, write?, turn));
        }
        let Take::Store(ticket) = machine.take(session, seq) else { return Ok(()) };
        let held = held_while_written::<S, _>(machine);
        let writes: Result<Vec<Write<'_>>, TermError> = rest.by_ref().collect();
        let many = writes.and_then(|writes| {
            if cursor.list()? > 0 {
                return Err(TermError::Tag(changes.tag()));
            }
            writes.iter().for_each(|write| self.ends_at(write.stamp().deadline, turn));
            Many::replicated(changes, &writes)
        });
        let written = many.map(|many| {
            let (upstream, store) = (&self.upstream, turn.me.id);
            self.write_many(many, turn, || {
                let (upstream, figures) = (Arc::clone(upstream), Arc::clone(&self.watch));
                Box::new(move |result| {
                    if let Err(error) = result {
                        figures.count_failed(error);
                    }
                    upstream.stored(ticket, result, &store);
                })
            })
        });
        let result = match &written {
            Ok(None) => return Ok(()),
            Ok(Some(result)) => result,
            // As above.
            Err(_) => &Ok(None),
        };
        self.has_stored(held, ticket, result, turn);
        written.map(|_| ())
    }

    /// A deletion of all keys.
    fn take_in_clear(&self, session: u64, seq: u64, turn: &mut Turn<'_>) {
        let turns = (!S::AT_ONCE).then(|| self.turns.lock());
        let mut machine = self.upstream.machine.lock();
        let Some(ticket) = machine.take_clear(session, seq) else {
            let outputs = taken(&mut machine);
            drop((machine, turns));
            return self.carry_out(outputs, None, turn);
        };
        let held = held_while_written::<S, _>(machine);
        let (upstream, store) = (&self.upstream, turn.me.id);
        let result = self.clear(turn, || {
            let (upstream, figures) = (Arc::clone(upstream), Arc::clone(&self.watch));
            Box::new(move |result| {
                if let Err(error) = result {
                    figures.count_failed(error);
                }
                upstream.stored(ticket, result, &store);
            })
        });
        if let Some(result) = result {
            self.has_stored(held, ticket, &result, turn);
        }
    }

    /// A put of the primary, with the numbers that it has there.
    fn put_of<'a>(&self, key: TermView<'a>, value: TermView<'a>, revision: u64, deadline: u64) -> Write<'a> {
        let deadline = Clock::deadline_of(deadline, self.upstream.ahead.load(Ordering::Relaxed));
        Write::Put { key, value, stamp: Stamp { copy: self.upstream.copy(), revision, deadline } }
    }

    /// The store is done with a write; `held`: the machine's lock, where that was held meanwhile.
    fn has_stored<T>(
        &self,
        held: Option<impl DerefMut<Target = Upstream>>,
        ticket: Ticket,
        result: &Result<T, StoreError>,
        turn: &Turn<'_>,
    ) {
        if let Err(error) = result {
            self.watch.count_failed(error);
        }
        match held {
            Some(mut machine) => {
                let said = stored(&mut machine, ticket, result);
                drop(machine);
                log_all(said, &turn.me);
            }
            None => self.upstream.stored(ticket, result, &turn.me),
        }
    }

    /// A write of the primary in whose place what was there before the copy is kept elsewhere.
    #[cold]
    fn write_exporting(
        &self,
        (copy, brought_from): (u32, u32),
        write: Write<'_>,
        ticket: Ticket,
        turn: &Turn<'_>,
    ) -> Result<Written, TermError> {
        let (key, value) = write.check()?;
        let value = value.map(|value| write.stamp().of(value).to_owned());
        with_canonical(key, |key| {
            let change = InPlace::exporting(copy, value, Export::of(key, brought_from, &self.dropped));
            self.change_in_place(key, change, ticket, turn.me.id)
        })
    }

    /// A write of a copy that is put aside.
    #[cold]
    fn put_aside(&self, machine: &mut Upstream, write: Write<'_>, turn: &Turn<'_>) -> Result<(), TermError> {
        let (key, value) = write.check()?;
        with_canonical(key, |key| {
            let shared = value.and_then(|value| shared_value(value, turn));
            // Where the whole takes the place of what was there, there is nothing to tell from what the copy has brought.
            let stamp = Stamp { copy: 0, ..write.stamp() };
            let value = value.map(|value| Value { shared: shared.as_ref(), ..stamp.of(value) });
            let mut aside = self.upstream.aside.lock();
            // It answers at once: that is what such a store is for.
            let result = aside.as_ref().and_then(|aside| match value {
                Some(value) => aside.put(key, value, at_once),
                None => aside.delete(key, at_once),
            });
            if let Some(Err(error)) = result {
                self.watch.count_failed(&error);
                machine.put_aside(Err(not_kept(&error)));
                let over = aside.take();
                drop(aside);
                self.let_go(over, turn);
                log_all(taken(machine), &turn.me);
            }
        })
    }

    /// A write was too large to be received. A primary that numbers its writes is told so when it asks, as of a write that
    /// a full store did not keep. A primary that does not number them cannot be told.
    pub(in crate::kv) fn write_skipped(&self, message: SkippedMessage<'_>, turn: &mut Turn<'_>) {
        let size = message.size.to_string();
        match SkippedWrite::read(message.beginning) {
            None => {}
            Some(SkippedWrite::Plain) => {
                tracing::error!(store = ?turn.me, peer = turn.peer, "replicated write lost, and its sender is not told: {size}");
            }
            Some(SkippedWrite::Numbered { session, seq, rest }) => {
                // Nothing is taken between this and the store's having what follows from it.
                let turns = self.turns.lock();
                let skipped = |key: Option<&[u8]>| {
                    let (ticket, copy, export, outputs) = self.upstream.with(|machine| {
                        let ticket = machine.skipped(session, seq, key.is_some(), &size);
                        let export = key.filter(|_| machine.durable().must_export);
                        let export = export.map(|key| Export::of(key, machine.brought_from(), &self.dropped));
                        (ticket, machine.copy(), export, taken(machine))
                    });
                    if let (Some(key), Some(ticket)) = (key, ticket) {
                        let stays = InPlace::stays(copy, export);
                        let stays = self.change_in_place(key, stays, ticket, turn.me.id);
                        if let Written::Now(result) = stays {
                            if let Err(error) = &result {
                                self.watch.count_failed(error);
                            }
                            self.upstream.stored(ticket, &result, &turn.me);
                        }
                    }
                    outputs
                };
                let key = Cursor::new(rest).term();
                let outputs = key.ok().and_then(|key| with_canonical(key, |key| skipped(Some(key))).ok());
                let outputs = outputs.unwrap_or_else(|| skipped(None));
                drop(turns);
                self.carry_out(outputs, None, turn);
            }
        }
    }

    /// Drops what was put aside, which may be much, while others use the store.
    fn let_go(&self, mut over: Option<S>, turn: &Turn<'_>) {
        if over.is_none() {
            return;
        }
        let step = Box::new(move || {
            drop(over.take());
            false
        });
        self.follow.work(Work { store: turn.me.pid.clone(), step });
    }

    fn copy_mark(&self, session: u64, seq: u64, mark: CopyMark, turn: &mut Turn<'_>) {
        let outputs = {
            let _turns = self.turns.lock();
            self.mark(session, seq, mark, turn)
        };
        self.carry_out(outputs, None, turn);
        self.upstream.begin_copy();
    }

    fn mark(&self, session: u64, seq: u64, mark: CopyMark, turn: &Turn<'_>) -> Vec<Output> {
        if !self.upstream.with(|machine| machine.is_in(session)) {
            return Vec::new();
        }
        let can_put_aside = mark == CopyMark::Begin && {
            let with = if planted(Rule::CopyWhole) { None } else { self.store().staging() };
            let can = with.is_some();
            let before = std::mem::replace(&mut *self.upstream.aside.lock(), with);
            self.let_go(before, turn);
            can
        };
        self.upstream.hand(Input::Mark { session, seq, mark, can_put_aside })
    }
}
