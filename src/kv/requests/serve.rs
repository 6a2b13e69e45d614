//! How these requests are carried out: by a store that answers at once, or later, with slaves and without.

use std::sync::Arc;

use super::clear::Clear;
use super::edit::Prepared;
use super::outcome::Outcome;
use super::single::OfKey;
use super::{Consistency, Edit, Lookup, Many, Unserved, WriteOptions};
use crate::etf::{TermError, TermView, Traits};
use crate::kv::confirm::{Confirmations, Era, Wanted};
use crate::kv::figures::Served;
use crate::kv::order::{Committed, revision_of};
use crate::kv::reason::Reason;
use crate::kv::reason::write_error;
use crate::kv::server::with_canonical;
use crate::kv::write::{committed, committed_later, ended, replicate};
use crate::kv::{KeyValueServer, Work};
use crate::process::{Caller, Dispatch, Effect, OwnedCaller, ProcessId, Turn};
use crate::store::{Change, Store, StoreError, Written};

/// An edit, which a store carries out.
pub(super) trait Changes {
    /// Hands it to a store; `asked` is told where that answers later.
    fn hand_to<S: Store>(
        &mut self,
        store: &S,
        asked: impl FnOnce() -> Asked,
    ) -> Option<Result<Option<u64>, StoreError>>;

    /// Shows what a store that has answered at once has changed.
    fn with_changes<R>(&self, with: impl FnOnce(&[(&[u8], Change<'_>)]) -> R) -> R;

    /// Of the one key that it is of.
    fn traits(&self) -> Traits;

    /// What a slave's node has to decode to have it.
    fn needs(&self) -> Traits;

    /// What its caller is answered where the store has done it.
    fn into_outcome(self) -> Outcome;
}

/// Told what has become of a write, with its number.
pub(in crate::kv) type Told = Box<dyn FnOnce(&Result<Option<u64>, StoreError>) + Send>;

/// What an edit is done for.
enum For {
    Caller {
        caller: OwnedCaller,
        /// The slaves that are to have it before.
        confirm: Option<(usize, Era)>,
    },
    Other(Told),
}

/// What waits for an edit, and what is needed to tell of it.
pub(super) struct Asked {
    done_for: For,
    /// Of the one key that it is of.
    traits: Traits,
    store: ProcessId,
    confirmations: Arc<Confirmations>,
    dispatch: Arc<dyn Dispatch>,
}

impl Asked {
    /// The store is done with it. `needs`: what a slave's node has to decode to have it.
    pub(super) fn done(
        self,
        result: Result<Option<Written<'_>>, StoreError>,
        needs: Traits,
        outcome: Outcome,
    ) {
        let Self { done_for, traits, store, confirmations, dispatch } = self;
        let result = result.map(|written| {
            written.map(|written| {
                let confirmed = matches!(done_for, For::Caller { confirm: Some(_), .. });
                let write = Committed { written, traits, revision: 0, confirmed, has_ended: false };
                committed_later(&confirmations, &write, store, &*dispatch);
                written.seq
            })
        });
        ended(&confirmations, store, &*dispatch);
        let (caller, confirm) = match done_for {
            For::Caller { caller, confirm } => (caller, confirm),
            For::Other(told) => return told(&result),
        };
        match (result, confirm) {
            (Ok(Some(seq)), Some((slaves, era))) => {
                confirmations.wait_to_say(Wanted { seq, slaves, traits: needs, era }, caller, outcome);
            }
            (result, confirm) => {
                if confirm.is_some() {
                    confirmations.not_written();
                }
                match result {
                    Ok(_) => outcome.send(caller, &*dispatch, confirmations.figures()),
                    Err(error) => {
                        caller.reply(&*dispatch, |w| write_error(w, &error, confirmations.figures()));
                    }
                }
            }
        }
    }
}

impl<S: Store> KeyValueServer<S> {
    pub(in crate::kv) fn call_lookup(
        &self,
        request: TermView<'_>,
        lookup: Lookup<'_>,
        consistency: Option<Consistency>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        let served = self.look_up(lookup, consistency, caller, turn);
        self.count_unless_it_waits(lookup.served(), turn);
        self.unless_unserved(served, request, caller, turn)
    }

    pub(in crate::kv) fn call_edit(
        &self,
        request: TermView<'_>,
        edit: Edit<'_>,
        options: WriteOptions,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        let edited = self.edit(request, edit, options, caller, turn);
        self.count_unless_it_waits(edit.served(), turn);
        edited
    }

    /// A call that waits for room is handled again, and counts once.
    pub(in crate::kv) fn count_unless_it_waits(&self, served: Served, turn: &Turn<'_>) {
        if !turn.waits_for_room() {
            self.watch.count(served);
        }
    }

    fn edit(
        &self,
        request: TermView<'_>,
        edit: Edit<'_>,
        options: WriteOptions,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        let copy = self.upstream.copy();
        if self.upstream.gates_writes() && self.write_at_slave(request, caller, turn) {
            return Ok(());
        }
        let confirm = options.confirm.unwrap_or(self.confirm.slaves) as usize;
        if S::IS_SHARED && confirm > 0 {
            turn.reply(caller, |w| self.watch.refused(Reason::KeptByEtcd, w));
            return Ok(());
        }
        let served = match edit.prepare(copy, options.ttl, &self.clock, turn) {
            Ok(Prepared::Single(key, single, stamp)) => with_canonical(key, |key| {
                self.carry_out_edit(OfKey { key, single }, confirm, caller, turn);
                self.ends_at(stamp.deadline, turn);
            })
            .map_err(Unserved::Term),
            Ok(Prepared::Many(many, _)) if many.is_empty() => {
                Outcome::OK.reply(caller, &self.watch, turn);
                Ok(())
            }
            Ok(Prepared::Many(many, stamp)) => {
                self.carry_out_edit(many, confirm, caller, turn);
                self.ends_at(stamp.deadline, turn);
                Ok(())
            }
            Ok(Prepared::Transact(transact, stamp)) => {
                self.carry_out_edit(transact, confirm, caller, turn);
                self.ends_at(stamp.deadline, turn);
                Ok(())
            }
            Ok(Prepared::Clear(mut clear)) => {
                self.carry_out_edit(&mut clear, confirm, caller, turn);
                self.clear_rest(clear, turn);
                Ok(())
            }
            Err(unserved) => Err(unserved),
        };
        self.unless_unserved(served, request, caller, turn)
    }

    fn unless_unserved(
        &self,
        served: Result<(), Unserved>,
        request: TermView<'_>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        match served {
            Ok(()) => {}
            Err(Unserved::Shape) => self.unknown_call(request, caller, turn),
            Err(Unserved::Refused(refusal)) => {
                turn.reply(caller, |w| refusal.write(w, &self.watch));
            }
            Err(Unserved::Term(error)) => return Err(error),
        }
        Ok(())
    }

    fn carry_out_edit(
        &self,
        mut edit: impl Changes,
        confirm: usize,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) {
        let era = (confirm > 0).then(|| self.confirmations.expect(self.confirm.timeout, turn));
        let confirm = era.map(|era| (confirm, era));
        let (traits, me) = (edit.traits(), turn.me);
        let asked = || self.asked(For::Caller { caller: caller.to_owned(&me.pid), confirm }, traits, me.id);
        let Some(result) = self.change(&mut edit, confirm.is_some(), asked, turn) else { return };
        match (&result, confirm) {
            (&Ok(Some(seq)), Some((slaves, era))) => {
                let wanted = Wanted { seq, slaves, traits: edit.needs(), era };
                self.confirmations.wait_to_say(wanted, caller.to_owned(&me.pid), edit.into_outcome());
                return;
            }
            (_, Some(_)) => self.confirmations.not_written(),
            (_, None) => {}
        }
        match result {
            Ok(_) => edit.into_outcome().reply(caller, &self.watch, turn),
            Err(error) => turn.reply(caller, |w| write_error(w, &error, &self.watch)),
        }
    }

    fn asked(&self, done_for: For, traits: Traits, store: ProcessId) -> Asked {
        let (confirmations, dispatch) = (Arc::clone(&self.confirmations), Arc::clone(&self.dispatch));
        Asked { done_for, traits, store, confirmations, dispatch }
    }

    /// A write of several keys for which nobody waits; `told` is made where the store answers later.
    pub(in crate::kv) fn write_many(
        &self,
        mut many: Many<'_>,
        turn: &mut Turn<'_>,
        told: impl FnOnce() -> Told,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let (traits, store) = (many.traits(), turn.me.id);
        self.change(&mut many, false, || self.asked(For::Other(told()), traits, store), turn)
    }

    /// A deletion of all keys for which nobody waits; as [`write_many`](Self::write_many).
    pub(in crate::kv) fn clear(
        &self,
        turn: &mut Turn<'_>,
        told: impl FnOnce() -> Told,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let (mut clear, store) = (Clear::default(), turn.me.id);
        let result = self.change(
            &mut &mut clear,
            false,
            || self.asked(For::Other(told()), Traits::none(), store),
            turn,
        );
        self.clear_rest(clear, turn);
        result
    }

    /// What a store that was cleared leaves to do is done beside all else, but for its first step: mostly that is all.
    fn clear_rest(&self, clear: Clear, turn: &Turn<'_>) {
        if let Some(mut step) = clear.rest
            && step()
        {
            self.follow.work(Work { store: turn.me.pid.clone(), step });
        }
    }

    /// `None`: the store answers later.
    fn change(
        &self,
        edit: &mut impl Changes,
        confirmed: bool,
        asked: impl FnOnce() -> Asked,
        turn: &mut Turn<'_>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        if S::AT_ONCE {
            return Some(self.change_at_once(edit, confirmed, asked, turn));
        }
        self.hand_in_edit(edit, confirmed, asked, turn)
    }

    fn change_at_once(
        &self,
        edit: &mut impl Changes,
        confirmed: bool,
        asked: impl FnOnce() -> Asked,
        turn: &mut Turn<'_>,
    ) -> Result<Option<u64>, StoreError> {
        let slaves = self.confirmations.slaves.read();
        if slaves.is_empty() && !confirmed && !self.confirmations.watches.is_on() {
            return edit.hand_to(self.store(), asked).unwrap_or(Ok(None));
        }
        let _order = self.confirmations.order.hold();
        let result = edit.hand_to(self.store(), asked).unwrap_or(Ok(None));
        if let Ok(Some(seq)) = result {
            edit.with_changes(|changes| {
                let written = Written { seq, changes, numbers: &[] };
                let (traits, revision) = (edit.traits(), revision_of(changes, self.store().revision()));
                let write = Committed { written, traits, revision, confirmed, has_ended: false };
                committed(&write, &slaves, |slave| replicate(slave, turn));
                self.tell_watchers(&write, |node, feed| turn.effects.push(Effect::Feed(node, feed)));
            });
        }
        result
    }

    /// Hands an edit to a store that answers later. Gives what that has answered at once for once.
    fn hand_in_edit(
        &self,
        edit: &mut impl Changes,
        confirmed: bool,
        asked: impl FnOnce() -> Asked,
        turn: &Turn<'_>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        self.confirmations.order.begun();
        let result = edit.hand_to(self.store(), asked)?;
        if let Ok(Some(seq)) = result {
            edit.with_changes(|changes| {
                let written = Written { seq, changes, numbers: &[] };
                let (traits, revision) = (edit.traits(), revision_of(changes, self.store().revision()));
                let write = Committed { written, traits, revision, confirmed, has_ended: false };
                committed_later(&self.confirmations, &write, turn.me.id, &*self.dispatch);
            });
        }
        ended(&self.confirmations, turn.me.id, &*self.dispatch);
        Some(result)
    }
}
