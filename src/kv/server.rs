//! The key-value server: one store, its slaves, and the answers to its callers.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};

use ahash::AHashMap;

use super::clock::Clock;
use super::confirm::{ConfirmConfig, Confirmations, Wanted};
use super::dropped::{DroppedPairs, NewFile};
use super::election::Election;
use super::expiry::Expiry;
use super::handed::Handed;
use super::holding::Holding;
use super::order::Committed;
use super::ranked::{Ranked, rank};
use super::reason::{Reason, write_error, write_result};
use super::requests::{Consistency, Lookup, Pages, Shape, write_unknown_option};
use super::upstream::UpstreamEntry;
use super::write::{
    Completion, Stamp, Write, Written, at_once, change_of, committed, replicate, shared_value,
};
use super::{Cast, Follow, Request, SlaveEntry, SlaveWrites, StateShape, state, status};
use crate::etf::{Pid, TermError, TermView, TermWriter, key};
use crate::kv::ElectionFigures;
use crate::kv::figures::{HolderFigures, PrimaryFigures, Served, StoreFigures, StoreWatch};
use crate::log::OnceFlag;
use crate::process::{Caller, Dispatch, Effect, GenServer, Process, SkippedMessage, Turn};
use crate::replica::downstream::Input;
use crate::replica::{Membership, Source, Upstream};
use crate::store::{self, Change, Keeper, Store, StoreError, Value, WriteDone, wait};

thread_local! {
    /// Where keys that did not come in canonical form are rewritten.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer larger than this is given back after use, in bytes.
const SCRATCH_KEEP_BYTES: usize = 64 << 10;

/// A store, served to `GenServer` callers.
pub struct KeyValueServer<S> {
    store: S,
    pub(super) dispatch: Arc<dyn Dispatch>,
    /// Looks after the slaves.
    pub(super) follow: Arc<dyn Follow>,
    /// To be lent to that.
    pub(super) this: Weak<Self>,
    /// The slaves are in there, and the order and the numbers of their writes.
    pub(super) confirmations: Arc<Confirmations>,
    pub(super) upstream: Arc<UpstreamEntry<S>>,
    /// Held while a write of a primary is taken and handed to a store that answers later, and while it changes whose writes are
    /// taken.
    pub(super) turns: Ranked<rank::Turns, ()>,
    pub(super) dropped: Arc<Ranked<rank::Alone, DroppedPairs>>,
    /// The holders of its global names that it has offered itself to.
    pub(super) offered: Arc<Ranked<rank::Alone, AHashMap<Arc<str>, Pid>>>,
    /// Held while what is to be kept of the store is written. It is not where it could not be read.
    pub(super) noting: Ranked<rank::Noting, Result<(), StoreError>>,
    pub(super) holding: Holding,
    pub(super) election: Election,
    pub(super) slave_buffer_bytes_max: usize,
    /// Slaves that were added in this life.
    pub(super) slaves_added: AtomicU64,
    pub(super) confirm: ConfirmConfig,
    /// Of reads that say nothing of it.
    pub(super) consistency: Consistency,
    pub(super) clock: Arc<Clock>,
    pub(super) expiry: Expiry,
    pub(super) pages: Pages,
    pub(super) slave_writes: SlaveWrites,
    pub(super) slave_write_said: OnceFlag,
    /// Whether it was said that a primary's writes are refused.
    pub(super) primary_said: OnceFlag,
    /// Writes that are at its primary.
    pub(super) forwarded: Arc<AtomicUsize>,
    shape: StateShape,
    pub(super) watch: Arc<StoreWatch>,
}

impl<S: Store> KeyValueServer<S> {
    /// Serves `store`; answers that come later go out by `dispatch`, and its slaves are followed by `follow`. It serves once
    /// it is [`shared`](Self::shared).
    pub fn new(
        store: S,
        dispatch: Arc<dyn Dispatch>,
        follow: Arc<dyn Follow>,
        slave_buffer_bytes_max: usize,
    ) -> Self {
        // Seeded by the system: no other life of any store has this number.
        let incarnation = RandomState::new().hash_one(slave_buffer_bytes_max);
        let (kept, noting) = match Self::noted(&store) {
            Ok(kept) => (kept, Ok(())),
            // The number of the last copy could not be read. Numbers go on from a random one, so that entries of an old copy do
            // not count as brought by a new one.
            Err(error) => (Membership { copies: incarnation as u32, ..Membership::default() }, Err(error)),
        };
        let machine = Upstream::new(incarnation, kept, store.is_empty());
        let election = Election::new(&follow);
        let server = Self {
            store,
            confirmations: Arc::new(Confirmations::new(Arc::clone(&dispatch))),
            dispatch,
            clock: Arc::new(Clock::new(&follow)),
            expiry: Expiry::default(),
            pages: Pages::default(),
            follow,
            this: Weak::new(),
            upstream: Arc::new(UpstreamEntry::new(machine)),
            turns: Ranked::default(),
            dropped: Arc::default(),
            offered: Arc::default(),
            noting: Ranked::new(noting),
            holding: Holding::default(),
            election,
            slave_buffer_bytes_max,
            slaves_added: AtomicU64::new(0),
            confirm: ConfirmConfig::default(),
            consistency: Consistency::default(),
            slave_writes: SlaveWrites::default(),
            slave_write_said: OnceFlag::new(),
            primary_said: OnceFlag::new(),
            forwarded: Arc::default(),
            shape: StateShape::default(),
            watch: Arc::default(),
        };
        server.wait_for_writes();
        server
    }

    /// Waits until nothing is under way that was asked of the store before, by a former life of its server perhaps, and counts
    /// from there on.
    pub(super) fn wait_for_writes(&self) {
        if !S::AT_ONCE {
            // What it answers by an error is no write.
            let _failed = wait(|done| {
                let mut done = Some(done);
                let now = self.store.barrier(|| done.take().unwrap_or_else(|| Box::new(|_| {})));
                if let (Some(now), Some(done)) = (now, done) {
                    done(now);
                }
            });
            self.begin_in_order();
        }
    }

    /// The same, to be started.
    pub fn shared(self) -> Arc<Self> {
        self.confirmations.count_in(&self.watch);
        Arc::new_cyclic(|this| Self { this: Weak::clone(this), ..self })
    }

    /// The same, with what it serves counted here.
    pub fn watched_by(self, watch: Arc<StoreWatch>) -> Self {
        Self { watch, ..self }
    }

    /// The same, with its state shown as that of another server of the protocol.
    pub fn shown_as(self, shape: StateShape) -> Self {
        Self { shape, ..self }
    }

    /// The same, with files for what it drops when another store was promoted in its place. Without, such pairs are logged.
    pub fn dropping_into(self, new_file: NewFile) -> Self {
        Self { dropped: Arc::new(Ranked::new(DroppedPairs::into_files(new_file))), ..self }
    }

    /// The same, with what becomes of writes while it follows a kvnode's store.
    pub fn written_as_slave(self, slave_writes: SlaveWrites) -> Self {
        Self { slave_writes, ..self }
    }

    /// The same, with writes that wait for slaves.
    pub fn confirmed_by(self, confirm: ConfirmConfig) -> Self {
        Self { confirm, ..self }
    }

    /// The same, with an incarnation that is chosen instead of a random one: for simulations, whose runs are to be the same
    /// each time. No two lives of stores that ever meet may have the same one.
    pub fn living_as(self, incarnation: u64) -> Self {
        self.upstream.with(|machine| machine.live_as(incarnation));
        self
    }

    /// The store.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// The slaves that it has.
    pub fn slaves(&self) -> Vec<Arc<SlaveEntry>> {
        self.confirmations.slaves()
    }

    fn get(&self, key: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) -> Result<(), TermError> {
        with_canonical(key, |key| {
            let (me, flags, here) = (turn.me, turn.flags, caller.node() == *turn.peer);
            let later = || self.answer_later(caller.to_owned(&me.pid), here.then_some(flags), Shape::Get);
            self.store.get(
                key,
                |value| reply_value(self.clock.shown(value), caller, &self.watch, turn),
                later,
            );
        })
    }

    /// Runs while no write is applied or queued for slaves.
    pub(super) fn in_order_of_writes<R>(&self, run: impl FnOnce() -> R) -> R {
        let _order = self.confirmations.order.hold();
        run()
    }

    /// The number of the last write that has gone on to the slaves.
    pub(super) fn last_seq(&self) -> u64 {
        if S::AT_ONCE { self.store.seq() } else { self.confirmations.order.seq() }
    }

    /// `confirm`: slaves that the caller wants to have it.
    pub(super) fn write(
        &self,
        write: Write<'_>,
        turn: &mut Turn<'_>,
        confirm: usize,
        later: impl FnOnce(&Turn<'_>) -> Completion<S>,
    ) -> Result<Written, TermError> {
        let (stamp, (key, value)) = (write.stamp(), write.check()?);
        with_canonical(key, |key| {
            if !S::AT_ONCE {
                // Slaves get it when it is done: they must not have what the store may yet lose.
                return self.hand_in(write, key, value, turn, confirm > 0, later);
            }
            let slaves = self.confirmations.slaves.read();
            if slaves.is_empty() && confirm == 0 && !self.confirmations.watches.is_on() {
                return Written::Now(self.apply(key, value, stamp, turn, at_once).unwrap_or(Ok(0)));
            }
            let _order = self.confirmations.order.hold();
            let written = self.apply(key, value, stamp, turn, at_once).unwrap_or(Ok(0));
            if let Ok(seq) = written {
                let shared = value.and_then(|value| shared_value(value, turn));
                let change = match change_of(value, stamp) {
                    Change::Put(value) => Change::Put(Value { shared: shared.as_ref(), ..value }),
                    change => change,
                };
                let written = store::Written { seq, changes: &[(key, change)], numbers: &[] };
                let (traits, revision) = (write.traits(), self.store.revision());
                let write = Committed { written, traits, revision, confirmed: confirm > 0, has_ended: false };
                committed(&write, &slaves, |slave| replicate(slave, turn));
                self.tell_watchers(&write, |node, feed| turn.effects.push(Effect::Feed(node, feed)));
            }
            Written::Now(written)
        })
    }

    /// Writes to a store that answers later.
    fn hand_in(
        &self,
        write: Write<'_>,
        key: &[u8],
        value: Option<TermView<'_>>,
        turn: &Turn<'_>,
        confirmed: bool,
        later: impl FnOnce(&Turn<'_>) -> Completion<S>,
    ) -> Written {
        let handed = Handed { store: turn.me.id, traits: write.traits(), needs: write.needs(), confirmed };
        let stamp = write.stamp();
        let apply = |done: &mut dyn FnMut() -> WriteDone| self.apply(key, value, stamp, turn, done);
        self.hand(handed, key, change_of(value, stamp), || later(turn), apply)
    }

    #[inline]
    fn apply(
        &self,
        key: &[u8],
        value: Option<TermView<'_>>,
        stamp: Stamp,
        turn: &Turn<'_>,
        done: impl FnOnce() -> WriteDone,
    ) -> Option<Result<u64, StoreError>> {
        match value {
            Some(value) => {
                let shared = shared_value(value, turn);
                let put = self.store.put(key, Value { shared: shared.as_ref(), ..stamp.of(value) }, done);
                self.ends_at(stamp.deadline, turn);
                put
            }
            None => self.store.delete(key, done),
        }
    }

    #[inline]
    fn call_write(
        &self,
        write: Write<'_>,
        confirm: Option<u32>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        let confirm = confirm.unwrap_or(self.confirm.slaves);
        if confirm > 0 {
            return self.call_confirmed(write, confirm as usize, caller, turn);
        }
        let later = |turn: &Turn<'_>| Completion::Caller(caller.to_owned(&turn.me.pid));
        if let Written::Now(result) = self.write(write, turn, 0, later)? {
            turn.reply(caller, |w| write_result(w, &result, &self.watch));
        }
        Ok(())
    }

    /// A write that is answered once `confirm` slaves have it.
    #[cold]
    fn call_confirmed(
        &self,
        write: Write<'_>,
        confirm: usize,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        if S::IS_SHARED {
            turn.reply(caller, |w| self.watch.refused(Reason::KeptByEtcd, w));
            return Ok(());
        }
        let era = self.confirmations.expect(self.confirm.timeout, turn);
        let traits = write.needs();
        let later = |turn: &Turn<'_>| Completion::Confirmed(caller.to_owned(&turn.me.pid), confirm, era);
        let written = self.write(write, turn, confirm, later);
        match written {
            Ok(Written::Later) => return Ok(()),
            Ok(Written::Now(Ok(seq))) => {
                let wanted = Wanted { seq, slaves: confirm, traits, era };
                self.confirmations.wait(wanted, caller.to_owned(&turn.me.pid));
                return Ok(());
            }
            Ok(Written::Now(Err(error))) => turn.reply(caller, |w| write_error(w, &error, &self.watch)),
            Err(error) => {
                self.confirmations.not_written();
                return Err(error);
            }
        }
        self.confirmations.not_written();
        Ok(())
    }

    /// A write that came as a cast.
    ///
    /// # Errors
    /// The sender's fault: it cannot be kept.
    pub(super) fn cast_write(&self, write: Write<'_>, turn: &mut Turn<'_>) -> Result<(), TermError> {
        if let Written::Now(Err(error)) = self.write(write, turn, 0, |_| Completion::Nobody)? {
            self.watch.count_failed(&error);
            tracing::error!(store = ?turn.me, peer = turn.peer, %error, "replicated write lost");
        }
        Ok(())
    }

    #[cold]
    pub(super) fn unknown_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        self.watch.count_not_done(Reason::BadCall);
        tracing::warn!(store = ?turn.me, ?request, peer = turn.peer, "unknown call ended");
        turn.end_call(caller, |w| {
            w.tuple(2).atom(Reason::BadCall.code()).term(request);
        });
    }
}

impl<S: Store> GenServer for KeyValueServer<S> {
    #[inline]
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let served = match Request::read(request) {
            Some(Request::Get { key }) if S::IS_SHARED && self.consistency == Consistency::Linearizable => {
                self.call_lookup(request, Lookup::Get { key }, None, caller, turn)
            }
            Some(Request::Get { key }) => {
                let served = self.get(key, caller, turn);
                self.count_unless_it_waits(Served::Get, turn);
                served
            }
            Some(Request::Put { key, value, options }) => {
                self.watch.count(Served::Put);
                let copy = self.upstream.copy();
                if self.upstream.gates_writes() && self.write_at_slave(request, caller, turn) {
                    return;
                }
                let stamp = Stamp { copy, revision: 0, deadline: self.clock.deadline(options.ttl) };
                self.call_write(Write::Put { key, value, stamp }, options.confirm, caller, turn)
            }
            Some(Request::Delete { key, confirm }) => {
                self.watch.count(Served::Delete);
                if self.upstream.gates_writes() && self.write_at_slave(request, caller, turn) {
                    return;
                }
                self.call_write(Write::Delete { key }, confirm, caller, turn)
            }
            Some(Request::Lookup { lookup, consistency }) => {
                self.call_lookup(request, lookup, consistency, caller, turn)
            }
            Some(Request::Edit { edit, options }) => self.call_edit(request, edit, options, caller, turn),
            Some(Request::UnknownOption { option }) => {
                turn.reply(caller, |w| write_unknown_option(w, option, &self.watch));
                Ok(())
            }
            Some(Request::AddSlave { slave }) => {
                self.watch.count(Served::Other);
                self.call_add_slave(slave, caller, turn);
                Ok(())
            }
            Some(Request::RemoveSlave { slave }) => {
                self.watch.count(Served::Other);
                self.call_remove_slave(slave, caller, turn);
                Ok(())
            }
            Some(Request::Backup { path }) => {
                self.watch.count(Served::Other);
                self.call_backup(path, caller, turn);
                Ok(())
            }
            Some(Request::Slaves) => {
                self.watch.count(Served::Other);
                turn.reply(caller, |w| status::slaves(w, &self.slaves()));
                Ok(())
            }
            Some(Request::Status) => {
                self.watch.count(Served::Other);
                let (slaves, election, node) =
                    (self.slaves(), self.election(), Arc::clone(&turn.me.pid.node));
                self.upstream.with(|machine| {
                    turn.reply(caller, |w| {
                        let watches = self.confirmations.watches.len();
                        let (store, figures, seq) = (&self.store, &*self.watch, Source::seq(self));
                        let (upstream, slaves) = (machine, &slaves[..]);
                        let (holder, node, election) = (Self::holder(self), &*node, election.as_ref());
                        let of = status::Of {
                            store,
                            figures,
                            watches,
                            holder,
                            node,
                            upstream,
                            seq,
                            slaves,
                            election,
                        };
                        status::write(w, &of);
                    });
                });
                Ok(())
            }
            Some(Request::Promote { reports, is_forced }) => {
                self.watch.count(Served::Other);
                self.call_promote(reports, is_forced, caller, turn);
                Ok(())
            }
            // What slaves say to their primary is nobody's call.
            Some(Request::ReplicaHello { hello }) => {
                self.call_hello(hello, caller, turn);
                Ok(())
            }
            Some(Request::ReplicaAsk { session, seq, revision }) => {
                self.call_ask(session, seq, revision, caller, turn);
                Ok(())
            }
            Some(Request::ReplicaOffer { slave }) => {
                self.call_offer(slave, caller, turn);
                Ok(())
            }
            None => {
                self.unknown_call(request, caller, turn);
                Ok(())
            }
        };
        if let Err(error) = served {
            refuse(&error, caller, &self.watch, turn);
        }
    }

    fn handle_cast(&self, request: TermView<'_>, turn: &mut Turn<'_>) {
        let cast = Cast::read(request);
        if S::IS_SHARED && cast.is_some_and(|cast| cast.is_write()) {
            return self.refuse_primary(Reason::KeptByEtcd, turn);
        }
        // A primary that numbers its writes has introduced itself.
        if matches!(cast, Some(Cast::ReplicatePut { .. } | Cast::ReplicateDelete { .. })) {
            if self.is_elected() {
                return self.refuse_primary(Reason::Elected, turn);
            }
            self.watch.replicated_from(turn.peer);
        }
        let done = match cast {
            Some(Cast::ReplicatePut { key, value }) => {
                let stamp = Stamp { copy: self.upstream.copy(), ..Stamp::default() };
                self.cast_write(Write::Put { key, value, stamp }, turn)
            }
            Some(Cast::ReplicateDelete { key }) => self.cast_write(Write::Delete { key }, turn),
            Some(Cast::FromPrimary(message)) => self.cast_from_primary(message, turn),
            Some(Cast::ReplicaLeft { session }) => return self.slave_left(session),
            Some(Cast::ReplicaSuperseded { session, store }) => {
                return self.superseded(session, store, turn);
            }
            None => {
                self.watch.count_not_done(Reason::BadCall);
                tracing::warn!(store = ?turn.me, ?request, peer = turn.peer, "unknown cast ignored");
                return;
            }
        };
        self.watch.count(Served::Replicated);
        if let Err(error) = done {
            self.watch.count_not_done(Reason::BadArgument);
            tracing::error!(store = ?turn.me, peer = turn.peer, %error, "replicated write refused");
        }
    }

    fn handle_info(&self, message: TermView<'_>, turn: &mut Turn<'_>) {
        // kernel, global.erl, random_notify_name/3 and notify_all_name/3: we have lost a name.
        let lost = message
            .as_tuple::<2>()
            .map(|[kind, name]| (kind, name))
            .or_else(|| message.as_tuple::<3>().map(|[kind, name, _other]| (kind, name)))
            .filter(|(kind, _)| kind.is_atom("global_name_conflict"))
            .and_then(|(_, name)| name.as_atom());
        match lost {
            Some(name) => turn.effects.push(Effect::GlobalNameLost { name: name.to_str().into() }),
            None => {
                // A call whose caller is no pid, which no function of OTP makes. (A `gen_server` would answer to an alias or a name.)
                if message.as_tuple::<3>().is_some_and(|[kind, ..]| kind.is_atom("$gen_call")) {
                    self.watch.count_not_done(Reason::BadCall);
                }
                tracing::debug!(store = ?turn.me, ?message, "message ignored");
            }
        }
    }

    fn handle_skipped(&self, message: SkippedMessage<'_>, turn: &mut Turn<'_>) {
        self.write_skipped(message, turn);
    }

    /// Lets go of the slaves: what waits for them is dropped.
    fn terminate(&self, reason: TermView<'_>) {
        let entries = match self.store.len() {
            1 => "1 entry is".to_owned(),
            entries => format!("{entries} entries are"),
        };
        if self.store.notes().is_some() {
            tracing::info!(?reason, "store ended: its {entries} kept");
        } else if self.store.len() > 0 && reason.is_atom("shutdown") {
            tracing::info!(?reason, "store ended: its {entries} lost");
        } else if self.store.len() > 0 {
            tracing::warn!(?reason, "store ended: its {entries} lost");
        }
        for slave in self.confirmations.slaves.write().drain(..) {
            slave.tell(Input::Removed);
        }
        self.confirmations.watches.end();
    }

    fn state(&self, w: &mut TermWriter<'_>, bytes_max: usize) {
        state::write(w, &self.store, &self.slaves(), self.shape, &self.clock, bytes_max);
    }

    fn waits_for_room(&self) -> bool {
        true
    }

    fn global_name_taken(&self, me: &Process, name: &str, holder: &Pid) {
        // What several processes have is nobody's slave, and an election's slave is found by others.
        if !S::IS_SHARED && !self.is_elected() {
            self.offer(me, name, holder);
        }
    }

    fn module(&self) -> &str {
        match self.shape {
            StateShape::Replicated => "Elixir.KeyValueStoreReplicated",
            StateShape::Plain => "Elixir.KeyValueStore",
        }
    }
}

impl<S: Store> StoreFigures for KeyValueServer<S> {
    fn entries(&self) -> usize {
        self.store.len()
    }

    fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    fn deadlines(&self) -> usize {
        self.store.deadlines()
    }

    fn keeper(&self) -> Keeper {
        self.store.keeper()
    }

    fn holder(&self) -> Option<HolderFigures> {
        Self::holder(self)
    }

    fn slaves(&self) -> Vec<Arc<SlaveEntry>> {
        Self::slaves(self)
    }

    fn watchers(&self) -> usize {
        self.confirmations.watches.len()
    }

    fn primary(&self) -> Option<PrimaryFigures> {
        self.upstream.with(|machine| machine.primary().map(|primary| primary.into()))
    }

    fn election(&self) -> Option<ElectionFigures> {
        Self::election(self)
    }
}

impl<S: Store> fmt::Debug for KeyValueServer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueServer").field("len", &self.store.len()).finish_non_exhaustive()
    }
}

/// Ends a call whose key or value cannot be kept, or given to this caller.
#[cold]
pub(super) fn refuse(
    error: &dyn fmt::Display,
    caller: &Caller<'_>,
    figures: &StoreWatch,
    turn: &mut Turn<'_>,
) {
    figures.count_not_done(Reason::BadArgument);
    turn.end_call(caller, |w| {
        w.tuple(2).atom(Reason::BadArgument.code()).binary(error.to_string().as_bytes());
    });
}

/// Why a call ends whose answer would cost the caller's node its connection to us.
#[cold]
pub(super) fn undecodable(w: &mut TermWriter<'_>, figures: &StoreWatch) {
    figures.count_not_done(Reason::Undecodable);
    w.tuple(2).atom(Reason::Undecodable.code()).binary(b"this OTP version cannot decode the value");
}

#[inline]
fn reply_value(value: Option<Value<'_>>, caller: &Caller<'_>, figures: &StoreWatch, turn: &mut Turn<'_>) {
    match value {
        None => turn.reply(caller, |w| {
            w.atom("nil");
        }),
        Some(value) if !turn.can_decode(value.traits) => turn.end_call(caller, |w| undecodable(w, figures)),
        // It is looked up again: what it is then is what the caller gets.
        Some(value) if !turn.has_room(value.bytes.len()) => turn.wait_for_room(),
        Some(Value { shared: Some(shared), .. }) => turn.reply_shared(caller, shared.clone()),
        Some(value) => turn.reply(caller, |w| {
            w.raw(value.bytes);
        }),
    }
}

/// Calls `with` on the canonical bytes of a key.
#[inline]
pub(super) fn with_canonical<R>(key: TermView<'_>, with: impl FnOnce(&[u8]) -> R) -> Result<R, TermError> {
    SCRATCH.with_borrow_mut(|scratch| {
        let result = key::canonical(key, scratch).map(with);
        if scratch.capacity() > SCRATCH_KEEP_BYTES {
            *scratch = Vec::new();
        }
        result
    })
}
