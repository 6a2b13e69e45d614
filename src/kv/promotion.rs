//! A slave that becomes the primary, and a former primary that becomes its slave.

use std::sync::Arc;

use super::SlaveFeed;
use super::follower::Primary;
use super::promoted::{Lacks, Promotion};
use super::server::{KeyValueServer, write_error};
use super::slaves::TooManySlaves;
use crate::distribution::{RemoteProcess, ServerRef};
use crate::etf::{Pid, TermView, TermWriter};
use crate::process::{Caller, Effect, GlobalRegistration, Turn};
use crate::replica::planted::{Rule, planted};
use crate::replica::{KnownSlave, Lineage};
use crate::store::Store;

impl<S: Store> KeyValueServer<S> {
    /// `{:promote}`: the slave takes the place of its primary, with the other slaves and the global names.
    pub(super) fn call_promote(&self, reports: bool, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let (former, is_partial, write_error) = {
            let mut follower = self.follower.lock();
            if follower.is_copying() && follower.primary().is_some_and(|primary| primary.is_there) {
                return error(caller, turn, "copying");
            }
            follower.note_kept();
            let (is_partial, write_error) = (follower.is_partial(), follower.write_error());
            let former = follower.promote();
            self.note_rank(&mut follower);
            (former, is_partial, write_error)
        };
        let Ok(former) = former else { return error(caller, turn, "not_a_slave") };
        self.note_is_slave(false);
        self.watch.promoted();
        // Before a write of its own.
        self.forget_position();
        for slave in self.slaves() {
            slave.renew();
        }
        let names = former.iter().flat_map(|former| &former.greeting.names);
        let mut promotion = Promotion {
            term: self.follower.lock().term(),
            former: former.as_ref().map(|former| former.greeting.pid.clone()),
            lacks: Lacks::of(former.as_ref(), is_partial, write_error),
            lag: former.as_ref().map_or(0, Primary::lag),
            slaves: Vec::new(),
            names: names.filter(|name| matches!(name, ServerRef::Global(_))).cloned().collect(),
        };
        promotion.lacks.log(promotion.lag, turn);
        self.note_names(&promotion.names);
        match former {
            Some(former) => promotion.slaves = self.take_place_of(former, promotion.term, turn),
            None => tracing::warn!(
                store = ?turn.me, term = promotion.term,
                "promoted: this store is the primary from here on. It was started again since its former one was lost, and knows \
                 neither its names nor its other slaves: start it with the names, and add them"
            ),
        }
        self.answer_promoted(reports.then_some(promotion), caller, turn);
    }

    /// Takes the former primary's names and slaves, and that primary itself; gives all that are slaves from here on.
    fn take_place_of(&self, former: Primary, term: u64, turn: &mut Turn<'_>) -> Vec<ServerRef> {
        if former.is_there {
            self.leave(&former.greeting.pid, former.greeting.session);
        }
        let primary = former.greeting;
        tracing::warn!(
            store = ?turn.me, former = ?primary.pid, term, seq = former.applied,
            "promoted: this store is the primary from here on"
        );
        let former = KnownSlave {
            name: lasting_name(&primary.names, &primary.pid),
            node: Some(Arc::clone(&primary.pid.node)),
        };
        let taken = primary.slaves.into_iter().chain([former]).filter(|slave| !is_of(&slave.name, turn));
        let taken = taken.filter(|_| !planted(Rule::SlavesTaken));
        let taken: Vec<_> = taken.filter_map(|slave| self.take_slave(slave, turn)).collect();
        for name in &primary.names {
            if let ServerRef::Global(name) = name {
                self.take_name(name, turn);
            }
        }
        let here = &turn.registry.node;
        let names = self.slaves().iter().map(|slave| slave.name().on(here)).collect();
        // Each is told all names and all other slaves when it is greeted, which may be at once.
        for slave in taken {
            self.follow_slave(slave, &turn.me.pid, None);
        }
        names
    }

    /// Answers once all of it is kept, where the store keeps such things: it is promoted then, whatever happens to its node.
    fn answer_promoted(&self, report: Option<Promotion>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let (waiting, dispatch) = (caller.to_owned(&turn.me.pid), Arc::clone(&self.dispatch));
        let report = Arc::new(report);
        let reported = Arc::clone(&report);
        if planted(Rule::PromotionKept) {
            self.note_slaves_quietly();
            return turn.reply(caller, |w| write_promoted(w, report.as_ref().as_ref()));
        }
        // The last of its notes.
        let is_kept = self.note_slaves(move |result| {
            waiting.reply(&*dispatch, |w| match result {
                Ok(()) => write_promoted(w, reported.as_ref().as_ref()),
                Err(error) => write_error(w, &error),
            });
        });
        if !is_kept {
            turn.reply(caller, |w| write_promoted(w, report.as_ref().as_ref()));
        }
    }

    /// `{:replica_offer, pid}`: a store that finds its global name with this one. Where this one was promoted, that is the
    /// former primary, come back.
    pub(super) fn call_offer(&self, slave: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let promoted = self.follower.lock().is_owner();
        let Some(pid) = slave.as_pid().map(Pid::from).filter(|_| promoted) else {
            return error(caller, turn, "not_promoted");
        };
        tracing::warn!(store = ?turn.me, former = ?pid, "a former primary is back, and becomes a slave");
        self.follow_taken(KnownSlave { node: Some(Arc::clone(&pid.node)), name: ServerRef::Pid(pid) }, turn);
        self.note_slaves_quietly();
        turn.reply(caller, |w| _ = w.atom("ok"));
    }

    /// A primary was refused, because a newer term began. If this store owns the newer term, it adopts the refused primary as a
    /// slave when that one (a) followed this term before a restart, or (b) still holds a global name that this store took over.
    /// A primary of which neither is true belongs to another family of stores.
    pub(super) fn take_superseded(
        &self,
        lineage: &Lineage,
        names: &[ServerRef],
        pid: &Pid,
        turn: &mut Turn<'_>,
    ) {
        let (is_owner, rank) = {
            let follower = self.follower.lock();
            (follower.is_owner(), follower.rank())
        };
        let is_child = lineage.is_orphan() && lineage.rank() == (rank.term, rank.promoted);
        let shares_name = || {
            let own = turn.registry.global_names();
            let mut own = own.iter().filter(|(_, holder)| holder.is_sibling(turn.me));
            own.any(|(name, _)| names.contains(&ServerRef::global(name)))
        };
        if !is_owner || !is_child && !shares_name() {
            return;
        }
        let at = RemoteProcess::Pid(pid.clone());
        if self.slaves().iter().any(|slave| slave.is_at(&at, Some(lineage.incarnation()))) {
            return;
        }
        let name = lasting_name(names, pid);
        if self.follow_taken(KnownSlave { name, node: Some(Arc::clone(&pid.node)) }, turn) {
            tracing::warn!(
                store = ?turn.me, refused = ?pid,
                "who was refused had followed this store, or has a global name of it: it becomes a slave"
            );
            self.note_slaves_quietly();
        }
    }

    /// Gives whether it is a slave from here on, and was none before.
    fn follow_taken(&self, slave: KnownSlave, turn: &mut Turn<'_>) -> bool {
        let Some(slave) = self.take_slave(slave, turn) else { return false };
        self.follow_slave(slave, &turn.me.pid, None);
        true
    }

    /// Adds a slave, which is to be followed then; `None`: it is one already.
    fn take_slave(&self, slave: KnownSlave, turn: &Turn<'_>) -> Option<Arc<SlaveFeed>> {
        let KnownSlave { name, node } = slave;
        match self.add_slave(name.clone()) {
            Ok(Some(slave)) => {
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
    fn take_name(&self, name: &[u8], turn: &mut Turn<'_>) {
        let name =
            TermView::parse(name).ok().and_then(TermView::as_atom).map(|name| name.to_str().into_owned());
        let Some(name) = name else { return };
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
}

/// `:ok`, or `{:ok, report}`
fn write_promoted(w: &mut TermWriter<'_>, report: Option<&Promotion>) {
    match report {
        None => _ = w.atom("ok"),
        Some(report) => {
            w.tuple(2).atom("ok");
            report.write(w);
        }
    }
}

fn error(caller: &Caller<'_>, turn: &mut Turn<'_>, reason: &str) {
    turn.reply(caller, |w| _ = w.tuple(2).atom("error").atom(reason));
}

/// The name of a store by which it is found after a restart of its node too, where it has one. Its global names go to the
/// store that is promoted.
fn lasting_name(names: &[ServerRef], pid: &Pid) -> ServerRef {
    let remote = names.iter().find(|name| matches!(name, ServerRef::Remote { .. }));
    remote.cloned().unwrap_or_else(|| ServerRef::Pid(pid.clone()))
}

/// Whether a name is one of this store's own.
fn is_of(name: &ServerRef, turn: &Turn<'_>) -> bool {
    let registry = turn.registry;
    let named = match name {
        ServerRef::Pid(pid) => registry.by_owned_pid(pid),
        ServerRef::Local(name) => registry.by_name(name).map(|(_, process)| process),
        ServerRef::Remote { name, node } if *node == registry.node => {
            registry.by_name(name).map(|(_, process)| process)
        }
        ServerRef::Remote { .. } => None,
        ServerRef::Global(name) => TermView::parse(name)
            .ok()
            .and_then(TermView::as_atom)
            .and_then(|name| registry.by_global_name(&name.to_str())),
    };
    named.is_some_and(|process| process.is_sibling(turn.me))
}
