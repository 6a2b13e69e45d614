//! The slaves of a store: added, removed, and known again after a restart.

use std::sync::Arc;

use parking_lot::Mutex;

use super::follow::SharedSource;
use super::follower::{Follower, Rank, TermRole};
use super::notes;
use super::server::{refuse, write_error};
use super::{FollowSlave, KeyValueServer, Offer, SlaveAdded, SlaveFeed};
use crate::etf::tag::NIL_EXT;
use crate::etf::{Pid, TermView, TermWriter, encode};
use crate::process::{Caller, Dispatch, OwnedCaller, Process, Turn};
use crate::replica::{KnownSlave, Refusal, SlaveName, SlaveState};
use crate::store::{Store, StoreError};

/// Slaves that one store may have; one more is refused. Each costs a queue, and every write is put into all of them.
pub const SLAVES_MAX: usize = 64;

/// The name under which a store keeps its slaves: a list of [`KnownSlave`]s, or of what `add_slave` was given, as it was
/// before nodes were kept with the names.
const SLAVES_NOTE: &str = "slaves";

/// The name under which a store keeps whether it is a kvnode's slave, with all that its primary had.
const IS_SLAVE_NOTE: &str = "is_slave";

/// The name under which a store keeps the term that it is in.
const RANK_NOTE: &str = "rank";

const TERM_ROLES: [TermRole; 3] = [TermRole::Promoted, TermRole::Follows, TermRole::None];

const fn code_of(role: TermRole) -> &'static str {
    match role {
        TermRole::Promoted => "own",
        TermRole::Follows => "below",
        TermRole::None => "free",
    }
}

/// The name under which a store keeps the global names that it took over when it was promoted: a list as that of its slaves.
const NAMES_NOTE: &str = "names";

/// `{term, promoted, role, must_export_dropped, is_partial}`
fn write_rank(w: &mut TermWriter<'_>, rank: Rank) {
    let bool = |value| if value { "true" } else { "false" };
    w.tuple(5).unsigned(rank.term).unsigned(rank.promoted).atom(code_of(rank.role));
    w.atom(bool(rank.must_export_dropped)).atom(bool(rank.is_partial));
}

fn read_names(note: &[u8]) -> Option<Vec<SlaveName>> {
    read_list(note, SlaveName::read)
}

fn read_slaves(note: &[u8]) -> Option<Vec<KnownSlave>> {
    read_list(note, |slave| {
        KnownSlave::read(slave).or_else(|| SlaveName::read(slave).map(|name| KnownSlave { name, node: None }))
    })
}

fn read_list<T>(note: &[u8], read: impl Fn(TermView<'_>) -> Option<T>) -> Option<Vec<T>> {
    let term = TermView::parse(note).ok()?;
    let mut cursor = term.cursor();
    if term.tag() == NIL_EXT {
        return Some(Vec::new());
    }
    let len = cursor.list().ok()?;
    (0..len).map(|_| read(cursor.term().ok()?)).collect()
}

fn read_rank(rank: TermView<'_>) -> Option<Rank> {
    let [term, promoted, role, must_export_dropped, is_partial] = rank.as_tuple::<5>()?;
    Some(Rank {
        term: term.as_unsigned()?,
        promoted: promoted.as_unsigned()?,
        role: TERM_ROLES.into_iter().find(|known| role.is_atom(code_of(*known)))?,
        must_export_dropped: must_export_dropped.is_atom("true"),
        is_partial: is_partial.is_atom("true"),
    })
}

/// The store has as many slaves as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySlaves;

impl<S: Store> KeyValueServer<S> {
    /// Adds a slave by name; `None` when it is one already. It is followed from [`follow_slave`](Self::follow_slave) on.
    ///
    /// # Errors
    /// The caller's: the store has as many slaves as it may have.
    pub fn add_slave(&self, name: SlaveName) -> Result<Option<Arc<SlaveFeed>>, TooManySlaves> {
        let mut slaves = self.confirmations.slaves.write();
        slaves.retain(|slave| slave.state() != SlaveState::Dropped);
        if slaves.iter().any(|slave| *slave.name() == name) {
            return Ok(None);
        }
        if slaves.len() >= SLAVES_MAX {
            return Err(TooManySlaves);
        }
        let feed = SlaveFeed::new(name, self.slave_buffer_bytes_max, &self.confirmations, &self.follow);
        let slave = Arc::new(feed);
        for other in slaves.iter() {
            other.siblings_changed();
        }
        slaves.push(Arc::clone(&slave));
        Ok(Some(slave))
    }

    /// Has a slave that was added followed for the process of this server, until it is removed or that ends.
    pub fn follow_slave(&self, feed: Arc<SlaveFeed>, store: &Pid, added: Option<SlaveAdded>) {
        let Some(source) = self.this.upgrade() else {
            return tracing::error!(?store, slave = %feed.name(), "not followed: the server was not shared (a bug)");
        };
        let source = SharedSource { source, settling: Arc::clone(&self.confirmations.settling) };
        feed.begin(store, &source);
        self.follow.follow(FollowSlave { feed, store: store.clone(), source, added });
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
            return refuse(&"a slave is an atom, {:global, name}, {name, node} or a pid", caller, turn);
        };
        if is_own(&name, turn) {
            return turn.reply(caller, |w| _ = w.tuple(2).atom("error").atom(Refusal::Itself.code()));
        }
        self.forget_protecting(&name);
        match self.add_slave(name) {
            Ok(None) => turn.reply(caller, |w| _ = w.atom("ok")),
            Ok(Some(slave)) => {
                tracing::info!(store = ?turn.me, slave = %slave.name(), "slave added");
                // Whether it can be one is for itself to say, where it is a kvnode's; and it is to be one after a restart
                // too, where the store keeps such things.
                let answer = Arc::new(Answer::new(caller.to_owned(&turn.me.pid), &self.dispatch));
                let (noted, followed) = (Arc::clone(&answer), Arc::clone(&answer));
                if !self.note_slaves(move |result| noted.noted(result)) {
                    answer.noted(Ok(()));
                }
                let added = SlaveAdded(Box::new(move |refusal| followed.followed(refusal)));
                self.follow_slave(slave, &turn.me.pid, Some(added));
            }
            Err(TooManySlaves) => {
                turn.reply(caller, |w| _ = w.tuple(2).atom("error").atom("too_many_slaves"));
            }
        }
    }

    /// A slave that the store was started with, and that was never followed, is added by hand: nothing is kept from it then.
    fn forget_protecting(&self, name: &SlaveName) {
        let slaves = self.confirmations.slaves.read();
        if let Some(slave) = slaves.iter().find(|slave| slave.name() == name && slave.protects_data()) {
            slave.drop_out();
        }
    }

    /// Removes a slave: nothing is sent to it from here on. `false`: it was none. What it has, it keeps.
    pub fn remove_slave(&self, name: &SlaveName) -> bool {
        let mut slaves = self.confirmations.slaves.write();
        let Some(at) = slaves.iter().position(|slave| slave.name() == name) else { return false };
        let slave = slaves.remove(at);
        let was_one = slave.state() != SlaveState::Dropped;
        for other in slaves.iter() {
            other.siblings_changed();
        }
        drop(slaves);
        slave.drop_out();
        was_one
    }

    pub(super) fn call_remove_slave(&self, slave: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let removed = SlaveName::read(slave).is_some_and(|name| self.remove_slave(&name));
        if !removed {
            return turn.reply(caller, |w| _ = w.tuple(2).atom("error").atom("no_slave"));
        }
        tracing::info!(store = ?turn.me, ?slave, "slave removed");
        let answer = Arc::new(Answer::new(caller.to_owned(&turn.me.pid), &self.dispatch));
        answer.followed(None);
        let noted = Arc::clone(&answer);
        if !self.note_slaves(move |result| noted.noted(result)) {
            answer.noted(Ok(()));
        }
    }

    /// Keeps the names of the slaves, where the store keeps such things: gives whether it does, and answers later then.
    pub(super) fn note_slaves(&self, done: impl FnOnce(Result<(), StoreError>) + Send + 'static) -> bool {
        // The last that is kept is of the last that was added.
        let _noting = self.noting.lock();
        let note = encode(|w| {
            let slaves = self.slaves();
            w.list(slaves.len());
            for slave in slaves {
                KnownSlave { name: slave.name().clone(), node: slave.node() }.write(w);
            }
            w.nil();
        });
        notes::write(self.store(), SLAVES_NOTE, &note, done)
    }

    /// As [`note_slaves`](Self::note_slaves), where nobody waits for it.
    pub(super) fn note_slaves_quietly(&self) {
        self.note_slaves(|result| {
            if let Err(error) = result {
                tracing::error!(%error, "the names of the slaves are not kept");
            }
        });
    }

    /// Keeps whether it is a kvnode's slave with all that its primary had, where the store keeps such things.
    pub(super) fn note_is_slave(&self, is_slave: bool) {
        let note = [u8::from(is_slave)];
        notes::write(self.store(), IS_SLAVE_NOTE, &note, |result| {
            if let Err(error) = result {
                tracing::error!(%error, "it is not kept whether the store is a slave");
            }
        });
    }

    /// Keeps the term, whose promotion began it, and how this store stands to that, where the store keeps such things: so that
    /// a promotion outlives its nodes.
    pub(super) fn note_rank(&self, follower: &mut Follower<S>) {
        // The caller holds the follower's lock: so the last note is of the last change.
        let before = follower.noted();
        let Some(rank) = follower.rank_to_note() else { return };
        let promotion = |rank: Rank| (rank.term, rank.promoted, rank.role);
        let is_promotion = promotion(rank) != promotion(before);
        let note = encode(|w| write_rank(w, rank));
        notes::write(self.store(), RANK_NOTE, &note, move |result| match result {
            Err(error) if is_promotion => {
                tracing::error!(%error, "the promotion is not kept: it is forgotten when the store is started again");
            }
            // A store that takes nothing has said so.
            Err(error) => tracing::debug!(%error, ?rank, "how far a copy has come is not kept"),
            Ok(()) => {}
        });
    }

    /// The promotion that it knew of when it was used last.
    pub(super) fn kept_rank(store: &S) -> Rank {
        let note = notes::read(store, RANK_NOTE).unwrap_or_else(|error| {
            tracing::error!(%error, "it cannot be read which promotion was the last");
            None
        });
        let read = || read_rank(TermView::parse(note.as_deref()?).ok()?);
        // As it was kept before it was known whose promotion it was.
        let read_before = || {
            let [term, promoted] = TermView::parse(note.as_deref()?).ok()?.as_tuple::<2>()?;
            let role = if Self::was_slave(store) { TermRole::Follows } else { TermRole::None };
            let (term, promoted) = (term.as_unsigned()?, promoted.as_unsigned()?);
            Some(Rank { term, promoted, role, ..Rank::default() })
        };
        read().or_else(read_before).unwrap_or_default()
    }

    /// Whether it was a kvnode's slave when it was used last.
    pub(super) fn was_slave(store: &S) -> bool {
        let note = notes::read(store, IS_SLAVE_NOTE).unwrap_or_else(|error| {
            tracing::error!(%error, "it cannot be read whether the store was a slave");
            None
        });
        note.is_some_and(|note| note == [1])
    }

    /// The slaves that a store had when it was used last; none where it keeps no such thing.
    ///
    /// # Errors
    /// The store's: what it kept could not be read.
    pub fn kept_slaves(store: &S) -> Result<Vec<KnownSlave>, StoreError> {
        let Some(note) = notes::read(store, SLAVES_NOTE)? else { return Ok(Vec::new()) };
        read_slaves(&note).ok_or(StoreError::Io("damaged"))
    }

    /// Keeps the global names that it has taken over, in the place of those before, where the store keeps such things.
    pub(super) fn note_names(&self, names: &[SlaveName]) {
        let note = encode(|w| {
            w.list(names.len());
            names.iter().for_each(|name| name.write(w));
            w.nil();
        });
        notes::write(self.store(), NAMES_NOTE, &note, |result| {
            if let Err(error) = result {
                tracing::error!(%error, "the global names that were taken over are not kept");
            }
        });
    }

    /// The global names that it took over when it was promoted, where no other was promoted since: the program
    /// that starts the store again gives it these beside its own.
    pub fn names_taken_over(&self) -> Vec<String> {
        if !self.follower.lock().is_owner() {
            return Vec::new();
        }
        let note = notes::read(self.store(), NAMES_NOTE).unwrap_or_else(|error| {
            tracing::error!(%error, "it cannot be read which global names were taken over");
            None
        });
        let names = note.and_then(|note| read_names(&note)).unwrap_or_default();
        names
            .into_iter()
            .filter_map(|name| {
                let SlaveName::Global(name) = name else { return None };
                Some(TermView::parse(&name).ok()?.as_atom()?.to_str().into_owned())
            })
            .collect()
    }
}

/// A caller that is answered when two things are done, or when one of them has failed.
struct Answer {
    dispatch: Arc<dyn Dispatch>,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    caller: Option<OwnedCaller>,
    noted: bool,
    followed: bool,
}

impl Answer {
    fn new(caller: OwnedCaller, dispatch: &Arc<dyn Dispatch>) -> Self {
        let waiting = Waiting { caller: Some(caller), noted: false, followed: false };
        Self { dispatch: Arc::clone(dispatch), waiting: Mutex::new(waiting) }
    }

    /// The names are kept, or could not be.
    fn noted(&self, result: Result<(), StoreError>) {
        match result {
            Ok(()) => self.complete(|waiting| waiting.noted = true),
            Err(error) => {
                if let Some(caller) = self.waiting.lock().caller.take() {
                    caller.reply(&*self.dispatch, |w| write_error(w, &error));
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
                    caller.reply(&*self.dispatch, |w| _ = w.tuple(2).atom("error").atom(refusal.code()));
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
fn is_own(name: &SlaveName, turn: &Turn<'_>) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_read_as_it_was_kept() {
        for role in TERM_ROLES {
            for (must_export_dropped, is_partial) in [(false, true), (true, false)] {
                let rank = Rank { term: 3, promoted: u64::MAX, role, must_export_dropped, is_partial };
                let note = encode(|w| write_rank(w, rank));
                assert_eq!(read_rank(TermView::parse(&note).expect("our own term")), Some(rank));
            }
        }
        let before = encode(|w| _ = w.tuple(2).unsigned(1).unsigned(2));
        assert_eq!(read_rank(TermView::parse(&before).expect("our own term")), None);
    }
}
