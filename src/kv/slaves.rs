//! The slaves of a store: added, removed, and known again after a restart.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::figures::StoreWatch;
use super::follow::SharedSource;
use super::notes;
use super::reason::{Reason, write_not_kept};
use super::server::refuse;
use super::{FollowSlave, KeyValueServer, Offer, SlaveAdded, SlaveEntry};
use crate::etf::{Pid, TermView};
use crate::process::{Caller, Dispatch, OwnedCaller, Process, Turn};
use crate::replica::{Downstream, KnownSlave, Refusal, SlaveName, SlaveState, downstream, upstream};
use crate::store::{Store, StoreError};

/// Slaves that one store may have; one more is refused. Each costs a queue, and every write is put into all of them.
pub const SLAVES_MAX: usize = 64;

/// The store has as many slaves as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySlaves;

impl<S: Store> KeyValueServer<S> {
    /// Adds a slave by name; `None` when it is one already. It is followed from [`follow_slave`](Self::follow_slave) on.
    ///
    /// # Errors
    /// The caller's: the store has as many slaves as it may have.
    pub fn add_slave(&self, name: SlaveName) -> Result<Option<Arc<SlaveEntry>>, TooManySlaves> {
        let mut slaves = self.confirmations.slaves.write();
        slaves.retain(|slave| slave.state() != SlaveState::Dropped);
        if slaves.iter().any(|slave| *slave.name() == name) {
            return Ok(None);
        }
        if slaves.len() >= SLAVES_MAX {
            return Err(TooManySlaves);
        }
        let number = self.slaves_added.fetch_add(1, Ordering::Relaxed);
        let machine = Downstream::new(name, number, self.slave_buffer_bytes_max);
        let slave = SlaveEntry::new(machine, Arc::downgrade(&self.confirmations), &self.follow);
        for other in slaves.iter() {
            other.tell(downstream::Input::SiblingsChanged);
        }
        slaves.push(Arc::clone(&slave));
        Ok(Some(slave))
    }

    /// Has a slave that was added followed for the process of this server, until it is removed or that ends.
    pub fn follow_slave(&self, slave: Arc<SlaveEntry>, store: &Pid, added: Option<SlaveAdded>) {
        let Some(source) = self.this.upgrade() else {
            return tracing::error!(?store, slave = %slave.name(), "not followed: the server was not shared (a bug)");
        };
        let source = SharedSource { source, confirmations: Arc::clone(&self.confirmations) };
        slave.begin(store, &source);
        self.follow.follow(FollowSlave { slave, store: store.clone(), source, added });
    }

    /// Another process holds a global name of this store: it may have been promoted in its place. Each is asked once.
    pub(super) fn offer(&self, me: &Process, name: &str, holder: &Pid) {
        let (name, holder): (Arc<str>, _) = (name.into(), holder.clone());
        if self.offered.lock().insert(Arc::clone(&name), holder.clone()).as_ref() == Some(&holder) {
            return;
        }
        let (offered, again) = (Arc::clone(&self.offered), Arc::clone(&name));
        let failed = Box::new(move || _ = offered.lock().remove(&again));
        self.follow.offer(Offer { store: me.pid.clone(), name, holder, failed });
    }

    pub(super) fn call_add_slave(&self, slave: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let Some(name) = SlaveName::read(slave) else {
            return refuse(
                &"a slave is an atom, {:global, name}, {name, node} or a pid",
                caller,
                &self.watch,
                turn,
            );
        };
        if self.refer_to_holder(slave, caller, turn) {
            return;
        }
        if is_own(&name, turn) {
            return turn.reply(caller, |w| self.watch.refused(Refusal::Itself.into(), w));
        }
        self.forget_protecting(&name);
        match self.add_slave(name) {
            Ok(None) => turn.reply(caller, |w| _ = w.atom("ok")),
            Ok(Some(slave)) => {
                tracing::info!(store = ?turn.me, slave = %slave.name(), "slave added");
                // Whether it can be one is for itself to say, where it is a kvnode's; and it is to be one after a restart
                // too, where the store keeps such things.
                let answer =
                    Arc::new(Answer::new(caller.to_owned(&turn.me.pid), &self.dispatch, &self.watch));
                let (noted, followed) = (Arc::clone(&answer), Arc::clone(&answer));
                if !self.note_slaves(move |result| noted.noted(result)) {
                    answer.noted(Ok(()));
                }
                let added = SlaveAdded(Box::new(move |refusal| followed.followed(refusal)));
                self.follow_slave(slave, &turn.me.pid, Some(added));
            }
            Err(TooManySlaves) => {
                turn.reply(caller, |w| self.watch.refused(Reason::TooManySlaves, w));
            }
        }
    }

    /// A slave that the store was started with, and that was never followed, is added by hand: nothing is kept from it then.
    fn forget_protecting(&self, name: &SlaveName) {
        let slaves = self.confirmations.slaves.read();
        if let Some(slave) =
            slaves.iter().find(|slave| slave.name() == name && slave.machine().protects_data())
        {
            slave.tell(downstream::Input::Removed);
        }
    }

    /// Removes a slave: nothing is sent to it from here on. `false`: it was none. What it has, it keeps.
    pub fn remove_slave(&self, name: &SlaveName) -> bool {
        self.remove_slaves(|slave| slave.name() == name).iter().any(|(_, was_one)| *was_one)
    }

    /// Removes all slaves that are to go at once: so those that stay are told once. Gives whether each was still one.
    pub(super) fn remove_slaves(&self, goes: impl Fn(&SlaveEntry) -> bool) -> Vec<(Arc<SlaveEntry>, bool)> {
        let mut slaves = self.confirmations.slaves.write();
        let removed: Vec<_> = slaves.extract_if(.., |slave| goes(slave)).collect();
        if !removed.is_empty() {
            for other in slaves.iter() {
                other.tell(downstream::Input::SiblingsChanged);
            }
        }
        drop(slaves);
        let mut told = Vec::new();
        for slave in removed {
            let was_one = slave.state() != SlaveState::Dropped;
            slave.tell(downstream::Input::Removed);
            told.push((slave, was_one));
        }
        told
    }

    pub(super) fn call_remove_slave(&self, slave: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        if self.refer_to_holder(slave, caller, turn) {
            return;
        }
        let removed = SlaveName::read(slave).is_some_and(|name| self.remove_slave(&name));
        if !removed {
            return turn.reply(caller, |w| self.watch.refused(Reason::NoSlave, w));
        }
        tracing::info!(store = ?turn.me, ?slave, "slave removed");
        let answer = Arc::new(Answer::new(caller.to_owned(&turn.me.pid), &self.dispatch, &self.watch));
        answer.followed(None);
        let noted = Arc::clone(&answer);
        if !self.note_slaves(move |result| noted.noted(result)) {
            answer.noted(Ok(()));
        }
    }

    /// Keeps the names of the slaves, where the store keeps such things: gives whether it does, and answers later then.
    pub(super) fn note_slaves(&self, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) -> bool {
        let known =
            |slave: &Arc<SlaveEntry>| KnownSlave { name: slave.name().clone(), node: slave.last_node() };
        let slaves = || self.slaves().iter().map(known).collect();
        self.keep(|| Some(upstream::Input::SlavesAre(slaves())), done)
    }

    /// As [`note_slaves`](Self::note_slaves), where no caller waits for it.
    pub(super) fn note_slaves_quietly(&self) {
        self.note_slaves(|result| {
            if let Err(error) = result {
                say_not_kept(&error);
            }
        });
    }

    /// The slaves that it had when it was used last, as far as that could be read.
    pub fn slaves_before(&self) -> Vec<KnownSlave> {
        self.upstream.with(|machine| machine.durable().slaves.clone())
    }

    /// The slaves that a store had when it was used last; none where it keeps no such thing.
    ///
    /// # Errors
    /// The store's: what it kept could not be read.
    pub fn kept_slaves(store: &S) -> Result<Vec<KnownSlave>, StoreError> {
        notes::read(store).map(|(membership, _)| membership.slaves)
    }
}

fn say_not_kept(error: &StoreError) {
    tracing::error!(%error, "the names of the slaves are not kept: after a restart they are those of before");
}

/// A caller that is answered when two things are done, or when one of them has failed.
struct Answer {
    dispatch: Arc<dyn Dispatch>,
    figures: Arc<StoreWatch>,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    caller: Option<OwnedCaller>,
    noted: bool,
    followed: bool,
}

impl Answer {
    fn new(caller: OwnedCaller, dispatch: &Arc<dyn Dispatch>, figures: &Arc<StoreWatch>) -> Self {
        let waiting = Waiting { caller: Some(caller), noted: false, followed: false };
        let (dispatch, figures) = (Arc::clone(dispatch), Arc::clone(figures));
        Self { dispatch, figures, waiting: Mutex::new(waiting) }
    }

    /// The names are kept, or could not be.
    fn noted(&self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.complete(|waiting| waiting.noted = true),
            Err(error) => {
                say_not_kept(&error);
                if let Some(caller) = self.waiting.lock().caller.take() {
                    caller.reply(&*self.dispatch, |w| write_not_kept(w, &error, &self.figures));
                }
            }
        }
    }

    /// The slave is one, as far as is known, or cannot be.
    fn followed(&self, refusal: Option<Refusal>) {
        match refusal {
            None => self.complete(|waiting| waiting.followed = true),
            Some(refusal) => {
                if let Some(caller) = self.waiting.lock().caller.take() {
                    caller.reply(&*self.dispatch, |w| self.figures.refused(refusal.into(), w));
                }
            }
        }
    }

    fn complete(&self, note: impl FnOnce(&mut Waiting)) {
        let caller = {
            let mut waiting = self.waiting.lock();
            note(&mut waiting);
            if waiting.noted && waiting.followed { waiting.caller.take() } else { None }
        };
        if let Some(caller) = caller {
            caller.reply(&*self.dispatch, |w| _ = w.atom("ok"));
        }
    }
}

/// Whether a slave's name is one of the store itself, as far as this node can tell.
pub(super) fn is_own(name: &SlaveName, turn: &Turn<'_>) -> bool {
    let registry = turn.registry;
    let named = match name {
        SlaveName::Pid(pid) => registry.by_owned_pid(pid),
        SlaveName::Local(name) => registry.by_name(name).map(|(_, process)| process),
        SlaveName::Remote { name, node } if *node == registry.node => {
            registry.by_name(name).map(|(_, process)| process)
        }
        // Only the cluster knows the holder of a global name.
        SlaveName::Remote { .. } | SlaveName::Global(_) => None,
    };
    named.is_some_and(|process| process.is_sibling(turn.me))
}
