//! A store that several processes serve. One process at a time holds the store's names: the holder follows the slaves, and writes what is
//! kept of them. The other processes follow none, and name the holder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::KeyValueServer;
use super::figures::HolderFigures;
use super::ranked::{Ranked, rank};
use super::reason::Reason;
use super::slaves::TooManySlaves;
use crate::etf::{Pid, TermView};
use crate::process::{Caller, Turn};
use crate::replica::{KnownSlave, Membership, SlaveName, upstream};
use crate::store::{Store, StoreError};

/// How the process stands to the others that serve the store.
#[derive(Default)]
pub(super) struct Holding {
    /// Several processes serve the store.
    is_by_turns: bool,
    /// Another holds, or none does. It changes while the lock of notes is held, so that none is written behind a change.
    is_elsewhere: AtomicBool,
    /// The process that holds, as far as is known.
    holder: Ranked<rank::Alone, Option<Pid>>,
    /// Looks for keys that have ended that found no process that holds, one after the other.
    looks_without: AtomicU32,
}

/// After so many looks that found no holder, each a second behind the one before, this process removes keys that have ended as the
/// holder would: longer than any change of holders takes.
const LOOKS_WITHOUT_MAX: u32 = 30;

impl Holding {
    /// Whether the slaves are another process's, and what is kept of them too.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.is_elsewhere.load(Ordering::Acquire)
    }

    /// The node of the process that holds, as far as is known, where another than this one does.
    fn node(&self) -> Option<Arc<str>> {
        self.holder.lock().as_ref().map(|holder| Arc::clone(&holder.node))
    }

    /// A look for keys that have ended: whether this process removes them. The holder does; where there was none for long, all do.
    pub(super) fn look_for_ended(&self) -> bool {
        if !self.is_elsewhere() {
            return true;
        }
        if self.holder.lock().is_some() {
            self.looks_without.store(0, Ordering::Relaxed);
            return false;
        }
        // It wraps around in a hundred years.
        self.looks_without.fetch_add(1, Ordering::Relaxed) >= LOOKS_WITHOUT_MAX
    }
}

impl<S: Store> KeyValueServer<S> {
    /// Marks the store as one that other processes serve too: it follows no slaves and keeps nothing of them until it
    /// [holds](Self::hold) the store.
    pub fn held_by_turns(mut self) -> Self {
        self.holding =
            Holding { is_by_turns: true, is_elsewhere: AtomicBool::new(true), ..Holding::default() };
        self
    }

    /// Reads the slaves that the holder before had, anew: this process may have read them long ago. `done` may be called on the
    /// store's own thread.
    pub fn read_slaves(&self, done: impl FnOnce(Result<Vec<KnownSlave>, StoreError>) + Send + 'static) {
        let Some(notes) = self.store().notes() else { return done(Ok(Vec::new())) };
        let read = move |note: Result<Option<Vec<u8>>, StoreError>| {
            done(note.and_then(|note| {
                match note {
                    None => Ok(Vec::new()),
                    Some(note) => Membership::read(&note)
                        .map(|membership| membership.slaves)
                        .ok_or(StoreError::Io("damaged")),
                }
            }));
        };
        notes.read(Membership::NOTE, Box::new(read));
    }

    /// From now on this process, `me`, holds the store, and follows the slaves: those that it was configured with, and those that
    /// [were read](Self::read_slaves).
    pub fn hold(&self, me: &Pid, configured: &[SlaveName], kept: Vec<KnownSlave>) {
        {
            let _noting = self.noting.lock();
            self.upstream.with(|machine| machine.handle(upstream::Input::SlavesAre(kept.clone())));
            self.holding.is_elsewhere.store(false, Ordering::Release);
        }
        let is_empty = self.store().is_empty();
        let is_new = |name: &SlaveName| kept.iter().all(|kept| kept.name != *name);
        let is_more = configured.iter().any(is_new);
        let configured = configured.iter().map(|name| {
            let node = kept.iter().find(|kept| kept.name == *name).and_then(|kept| kept.node.clone());
            KnownSlave { name: name.clone(), node }
        });
        for KnownSlave { name, node } in configured.chain(kept.iter().cloned()) {
            match self.add_slave(name.clone()) {
                Ok(Some(slave)) => {
                    if let Some(node) = node {
                        slave.expect_at(node);
                    }
                    // The store has lost nothing: whatever its process began with, it has now what etcd has.
                    if is_empty {
                        slave.protect_data();
                    }
                    self.follow_slave(slave, me, None);
                }
                Ok(None) => {}
                Err(TooManySlaves) => {
                    tracing::error!(store = ?me, slave = %name, "too many slaves: not added")
                }
            }
        }
        if is_more {
            // The next holder may have been configured with none.
            self.note_slaves_quietly();
        }
    }

    /// From now on another process holds the store, or none: slaves are told that they are slaves of this process no more.
    pub fn stop_holding(&self, holder: Option<Pid>) {
        {
            let _noting = self.noting.lock();
            self.holding.is_elsewhere.store(true, Ordering::Release);
        }
        self.held_by(holder);
        self.remove_slaves(|_| true);
    }

    /// Notes which process holds the store, for callers that ask this one for what the holder does.
    pub fn held_by(&self, holder: Option<Pid>) {
        *self.holding.holder.lock() = holder;
    }

    /// Which process holds the store, as far as is known; `None` for a store that this process alone serves.
    pub(super) fn holder(&self) -> Option<HolderFigures> {
        match (self.holding.is_by_turns, self.holding.is_elsewhere()) {
            (false, _) => None,
            (true, false) => Some(HolderFigures::This),
            (true, true) => Some(self.holding.node().map_or(HolderFigures::None, HolderFigures::Node)),
        }
    }

    /// Answers a request that is the holder's to carry out, by `{:error, {:held_by, pid}}`, with `nil` where no process holds; gives
    /// whether it is answered.
    pub(super) fn refer_to_holder(
        &self,
        slave: TermView<'_>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> bool {
        let is_elsewhere =
            if self.is_elected() { !self.is_elected_primary() } else { self.holding.is_elsewhere() };
        if !is_elsewhere {
            return false;
        }
        let holder = self.holding.holder.lock().clone();
        tracing::debug!(store = ?turn.me, ?slave, ?holder, "slaves are the holder's");
        self.watch.count_not_done(Reason::HeldBy);
        turn.reply(caller, |w| {
            w.tuple(2).atom("error").tuple(2).atom(Reason::HeldBy.code());
            match &holder {
                Some(holder) => w.pid(holder),
                None => w.atom("nil"),
            };
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_removes_what_has_ended_and_others_where_there_was_none_for_long() {
        assert!(Holding::default().look_for_ended(), "no other process has this store");
        let holding =
            Holding { is_by_turns: true, is_elsewhere: AtomicBool::new(true), ..Holding::default() };
        let looks = |count| (0..count).map(|_| holding.look_for_ended()).collect::<Vec<bool>>();
        assert_eq!(looks(LOOKS_WITHOUT_MAX), vec![false; LOOKS_WITHOUT_MAX as usize]);
        assert_eq!(looks(2), [true; 2]);
        *holding.holder.lock() = Some(Pid { node: "b@h".into(), id: 1, serial: 0, creation: 1 });
        assert_eq!(looks(2), [false; 2]);
        *holding.holder.lock() = None;
        assert_eq!(looks(LOOKS_WITHOUT_MAX), vec![false; LOOKS_WITHOUT_MAX as usize], "counted anew");
        holding.is_elsewhere.store(false, Ordering::Release);
        assert_eq!(looks(1), [true]);
    }
}
