//! Calls to a store as a slave, and what they change in its surroundings: its slaves and its names.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{left_undone, not_kept, said};
use crate::distribution::{Outbound, RemoteProcess, ServerRef};
use crate::etf::{Pid, TermView};
use crate::kv::SlaveEntry;
use crate::kv::reason::Reason;
use crate::kv::request::Hello;
use crate::kv::server::{KeyValueServer, refuse};
use crate::kv::slaves::{TooManySlaves, is_own};
use crate::process::{Caller, Effect, GlobalRegistration, OwnedCaller, ProcessId, Turn};
use crate::replica::planted::{Rule, planted};
use crate::replica::upstream::{Around, Asked, Greeting, Input, Output};
use crate::replica::{Dialect, KnownSlave, Refusal, SlaveState, downstream};
use crate::store::revision::LEAP;
use crate::store::{Done, Store};

/// Names that a primary may send of itself, and of its slaves.
const NAMES_MAX: usize = 256;

impl<S: Store> KeyValueServer<S> {
    /// `{:replica_hello, …}`: a primary wants this store as its slave.
    pub(in crate::kv) fn call_hello(&self, hello: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let Some((greeting, clock)) = read_greeting(hello, caller) else {
            return refuse(&"no greeting of a primary", caller, &self.watch, turn);
        };
        if self.is_elected() && !self.election.is_sealed() {
            // It asks again, and by then it may be known who is the primary.
            return turn.reply(caller, |w| _ = w.tuple(2).atom("error").atom(Refusal::Superseded.code()));
        }
        let (session, term) = (greeting.session, greeting.lineage.term);
        let (at, slaves) = (greeting.pid.clone(), self.slaves());
        let incarnation = Some(greeting.lineage.incarnation());
        let own = turn.registry.global_names();
        let mut own = own.iter().filter(|(_, holder)| holder.is_sibling(turn.me));
        let around = Around {
            has_slaves: !slaves.is_empty(),
            is_greeted_by_slave: slaves.iter().any(|slave| slave.is_at(&at, incarnation)),
            is_empty: self.store().is_empty(),
            is_shared: S::IS_SHARED,
            shares_name: own.any(|(name, _)| greeting.names.contains(&ServerRef::global(name))),
        };
        let outputs = self.hand_alone(Input::Hello(greeting, around));
        if self.upstream.with(|machine| machine.is_in(session)) {
            // Before the answer, and so before any write of this session.
            let ahead = self.clock.now().cast_signed().saturating_sub(clock.cast_signed());
            self.upstream.ahead.store(ahead, Ordering::Relaxed);
            self.keep_numbers_apart(0);
            self.follows_elected(term);
        }
        self.carry_out(outputs, Some(caller), turn);
    }

    /// `{:replica_ask, …}`
    pub(in crate::kv) fn call_ask(
        &self,
        session: u64,
        seq: u64,
        revision: u64,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) {
        if self.upstream.with(|machine| machine.is_in(session)) {
            // Before the answer, with which this is kept. In the order, in which a write is told of with what the store has counted to.
            self.keep_numbers_apart(revision);
            self.in_order_of_writes(|| self.store().raise_revision(revision));
        }
        let asker = || Some(caller.to_owned(&turn.me.pid));
        let outputs = self.upstream.hand_for(Input::Ask { session, seq }, asker);
        self.carry_out(outputs, Some(caller), turn);
    }

    /// `{:promote}`: the slave takes the place of its primary, with the other slaves and the global names.
    pub(in crate::kv) fn call_promote(
        &self,
        reports: bool,
        is_forced: bool,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) {
        if S::IS_SHARED {
            return turn.reply(caller, |w| self.watch.refused(Reason::KeptByEtcd, w));
        }
        let promotion = match self.promotion(is_forced, caller, turn) {
            Some(Some(term)) => Input::Lead { term },
            Some(None) => Input::Promote { reports },
            None => return,
        };
        let is_chosen = matches!(promotion, Input::Lead { .. });
        if is_chosen || self.upstream.with(|machine| machine.unpromotable()).is_none() {
            // Before callers may write to the primary that this store becomes: the former one may have given numbers to writes that did not
            // come here. It is kept with the promotion.
            self.in_order_of_writes(|| {
                self.store().raise_revision(self.store().revision().saturating_add(LEAP));
            });
        }
        let outputs = self.hand_alone(promotion);
        self.keep_numbers_apart(0);
        // What has ended was its primary's to delete.
        self.expiry.hurry();
        self.carry_out(outputs, Some(caller), turn);
    }

    /// A write of a primary to a store that follows none. Nobody waits for an answer.
    #[cold]
    pub(in crate::kv) fn refuse_primary(&self, why: Reason, turn: &Turn<'_>) {
        self.watch.count_not_done(why);
        if self.primary_said.first() {
            let why = match why {
                Reason::Elected => {
                    "an election decides whose writes it takes, and this primary is none of its stores"
                }
                _ => "the store is kept by etcd, and follows no primary",
            };
            tracing::warn!(store = ?turn.me, peer = turn.peer, "replicated writes are refused: {why}");
        }
    }

    /// `{:replica_offer, pid}`: a store that finds its global name with this one.
    pub(in crate::kv) fn call_offer(&self, slave: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let Some(pid) = slave.as_pid().map(Pid::from) else {
            return turn.reply(caller, |w| _ = w.tuple(2).atom("error").atom("not_promoted"));
        };
        let outputs = self.upstream.hand(Input::Offer(pid));
        self.carry_out(outputs, Some(caller), turn);
    }

    /// Hands an input in that changes whose writes are taken: not between a write's being taken and its being with the store.
    pub(in crate::kv) fn hand_alone(&self, input: Input) -> Vec<Output> {
        let _turns = self.turns.lock();
        self.upstream.hand(input)
    }

    /// Has everything kept that came before, and answers then.
    pub(super) fn confirm(&self, asked: Asked, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        if planted(Rule::AnswerBehindWrites) {
            let outputs = self.upstream.hand(Input::Kept { asked, result: Ok(()) });
            return self.carry_out(outputs, Some(caller), turn);
        }
        let (me, store) = (&turn.me.pid, turn.me.id);
        let done = || self.when_kept(asked, caller.to_owned(me), store);
        if self.store().notes().is_some() {
            self.keep(|| None, done());
        } else if let Some(result) = self.store().barrier(done) {
            let result = result.map_err(|error| not_kept(&error));
            let outputs = self.upstream.hand(Input::Kept { asked, result });
            self.carry_out(outputs, Some(caller), turn);
        }
    }

    /// The same of a question that was put off.
    pub(super) fn confirm_put_off(&self, asked: Asked, store: ProcessId) {
        let Some(caller) = self.upstream.asker.lock().take() else { return };
        let done = self.when_kept(asked, caller, store);
        if self.store().notes().is_some() {
            self.keep(|| None, done);
            return;
        }
        let mut done = Some(done);
        let at_once = self.store().barrier(|| done.take().unwrap_or_else(|| Box::new(|_| {})));
        if let (Some(result), Some(done)) = (at_once, done) {
            done(result);
        }
    }

    fn when_kept(&self, asked: Asked, caller: OwnedCaller, store: ProcessId) -> Done {
        let (upstream, dispatch) = (Arc::clone(&self.upstream), Arc::clone(&self.dispatch));
        Box::new(move |result| {
            let result = result.map_err(|error| not_kept(&error));
            let mut caller = Some(caller);
            for output in upstream.hand(Input::Kept { asked, result }) {
                match output {
                    Output::Log(event) => said::log(&event, Some(&store)),
                    Output::Reply(answer) => {
                        if let Some(caller) = caller.take() {
                            caller.reply(&*dispatch, |w| answer.write(w));
                        }
                    }
                    other => left_undone(&other),
                }
            }
        })
    }

    /// Watches a primary by the connection that its greeting came by. A monitor that went out later might go over the next
    /// connection: the store would take itself for followed in a session that its primary has given up with the first.
    pub(super) fn watch_primary(&self, primary: Pid, turn: &mut Turn<'_>) {
        let (upstream, dispatch) = (Arc::clone(&self.upstream), Arc::clone(&self.dispatch));
        let process = RemoteProcess::Pid(primary.clone());
        turn.monitor(&process, move |reason| upstream.lose(primary, reason, &*dispatch));
    }

    /// Tells a primary that is there that this store follows it no more.
    pub(super) fn leave(&self, primary: &Pid, session: u64) {
        let mut frames = Outbound::default();
        frames.send(primary, |w| {
            w.tuple(2).atom("$gen_cast").tuple(2).atom("replica_left").unsigned(session);
        });
        if self.dispatch.send(&primary.node, &mut frames).is_err() {
            // It notices by the next answer that this store refuses.
            tracing::warn!(primary = ?primary, "not told that this store follows it no more: too much waits for its node");
        }
    }

    /// Tells the primary of this store that it supersedes `superseded`, a former primary that has greeted this store.
    pub(super) fn hand_up(&self, primary: &Pid, session: u64, superseded: &KnownSlave) {
        let mut frames = Outbound::default();
        frames.send(primary, |w| {
            w.tuple(2).atom("$gen_cast").tuple(3).atom("replica_superseded").unsigned(session);
            superseded.write(w);
        });
        // The store greets again and again: so it is told with a later greeting.
        _ = self.dispatch.send(&primary.node, &mut frames);
    }

    /// `{:replica_superseded, session, store}`: a slave has refused a store which this one, or its own primary, supersedes.
    pub(in crate::kv) fn superseded(&self, session: u64, store: TermView<'_>, turn: &mut Turn<'_>) {
        let of_session =
            |slave: &Arc<SlaveEntry>| slave.machine().dialect() == Some(Dialect::Kvnode { session });
        let Some(store) = KnownSlave::read(store) else { return };
        if self.slaves().iter().any(of_session) {
            let outputs = self.upstream.hand(Input::Superseded(store));
            self.carry_out(outputs, None, turn);
        }
    }

    /// `{:replica_left, session}`: a slave follows another primary now, or is one. It is greeted anew, and says why it refuses.
    pub(in crate::kv) fn slave_left(&self, session: u64) {
        let is_it = |slave: &&Arc<SlaveEntry>| slave.machine().dialect() == Some(Dialect::Kvnode { session });
        if let Some(slave) = self.slaves().iter().find(is_it) {
            tracing::warn!(slave = %slave.name(), "the slave follows another primary now, or is one");
            slave.tell(downstream::Input::Renew);
        }
    }

    /// Leaves those slaves to the primary that are its own, or are it.
    pub(super) fn leave_slaves(&self, names: &[ServerRef], at: Pid, turn: &Turn<'_>) {
        let (here, at) = (&turn.registry.node, RemoteProcess::Pid(at));
        let removed = self.remove_slaves(|slave| {
            let is_primary = matches!(slave.state(), SlaveState::Following(followed) if followed == at);
            is_primary || names.contains(&slave.name().on(here))
        });
        for (slave, _) in removed {
            tracing::warn!(store = ?turn.me, slave = %slave.name(), "slave left to the new primary");
        }
        self.note_slaves_quietly();
    }

    /// Adds a slave that comes with a promotion, which is to be followed then; `None`: it is one already, or the store itself.
    pub(super) fn take_slave(&self, slave: KnownSlave, turn: &Turn<'_>) -> Option<Arc<SlaveEntry>> {
        let KnownSlave { name, node } = slave;
        if is_own(&name, turn) || is_held(&name, turn) {
            return None;
        }
        match self.add_slave(name.clone()) {
            Ok(Some(slave)) => {
                // No person has added this slave: if this store was started without data, it may have lost what the slave
                // holds.
                slave.protect_data();
                if let Some(node) = node {
                    slave.expect_at(node);
                }
                tracing::info!(store = ?turn.me, slave = %name, "slave taken over");
                Some(slave)
            }
            Ok(None) => None,
            Err(TooManySlaves) => {
                tracing::error!(store = ?turn.me, slave = %name, "too many slaves: not taken over");
                None
            }
        }
    }

    /// Has a global name registered for this store, now and whenever it is free.
    pub(super) fn take_name(&self, name: &ServerRef, turn: &mut Turn<'_>) {
        let Some(name) = atom_of(name) else { return };
        let registry = turn.registry;
        let Some(me) = registry.by_id(turn.me.id) else { return };
        // A pid has one name in `global`.
        let claimed = registry.spawn_sibling(&me).and_then(|holder| {
            registry.claim_global(&name, &holder)?;
            Ok(holder)
        });
        match claimed {
            Ok(process) => {
                let name: Arc<str> = name.into();
                let taken = Arc::clone(&name);
                let done = move |rival: Option<Pid>| match rival {
                    None => tracing::info!(name = %taken, "the former primary's global name is taken over"),
                    Some(rival) => {
                        tracing::warn!(name = %taken, "still held by {rival:?}: taken over when it is free");
                    }
                };
                let registration = GlobalRegistration { name, process, done: Box::new(done) };
                turn.effects.push(Effect::RegisterGlobal(Box::new(registration)));
            }
            Err(error) => tracing::error!(store = ?turn.me, name, %error, "global name not taken over"),
        }
    }

    /// Gives up the global names that the primary says are its own: clients that write to them are to reach the primary.
    pub(super) fn give_up_names(&self, names: &[ServerRef], turn: &mut Turn<'_>) {
        for (name, holder) in turn.registry.global_names() {
            if holder.is_sibling(turn.me) && names.contains(&ServerRef::global(&name)) {
                self.offered.lock().remove(&name);
                turn.effects.push(Effect::ReleaseGlobal { name });
            }
        }
    }

    /// The global names that it took over when it was promoted, where no other was promoted since: the program
    /// that starts the store again gives it these beside its own.
    pub fn names_taken_over(&self) -> Vec<String> {
        self.upstream.with(|machine| match machine.is_owner() {
            true => machine.durable().names_taken.iter().filter_map(atom_of).collect(),
            false => Vec::new(),
        })
    }
}

/// The atom that a global name is.
fn atom_of(name: &ServerRef) -> Option<String> {
    let ServerRef::Global(name) = name else { return None };
    Some(TermView::parse(name).ok()?.as_atom()?.to_str().into_owned())
}

/// Whether a global name is one of this store's own.
fn is_held(name: &ServerRef, turn: &Turn<'_>) -> bool {
    let held = atom_of(name).and_then(|name| turn.registry.by_global_name(&name));
    held.is_some_and(|process| process.is_sibling(turn.me))
}

/// A greeting, and what the primary's clock says.
fn read_greeting(hello: TermView<'_>, caller: &Caller<'_>) -> Option<(Greeting, u64)> {
    let hello = Hello::read(hello)?;
    let greeting = Greeting {
        session: hello.session,
        lineage: hello.lineage,
        seq: hello.seq,
        started_empty: hello.started_empty,
        names: read_names(hello.names)?,
        slaves: read_slaves(hello.slaves)?,
        pid: caller.pid().into(),
    };
    Some((greeting, hello.clock))
}

fn read_names(names: TermView<'_>) -> Option<Vec<ServerRef>> {
    read_list(names, ServerRef::read)
}

pub(super) fn read_slaves(slaves: TermView<'_>) -> Option<Vec<KnownSlave>> {
    read_list(slaves, KnownSlave::read)
}

fn read_list<T>(list: TermView<'_>, read: impl Fn(TermView<'_>) -> Option<T>) -> Option<Vec<T>> {
    let mut cursor = list.cursor();
    let len = cursor.list().ok()?;
    if len > NAMES_MAX {
        return None;
    }
    (0..len).map(|_| read(cursor.term().ok()?)).collect()
}
