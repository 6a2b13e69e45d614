//! Watches: processes that are told of each change of a store, in the order of its writes.
//!
//! ```text
//!     a write, under the order ---> Log, one for all watchers <--- each Watcher reads on from its place
//!                                     |                                  |
//!                                     '- the oldest go past a bound      '- when the connection to its node has room
//! ```
//!
//! - [`log`]: the backlog. An event is encoded once, and each watcher has a place in it. So nothing is queued for a watcher: what
//!   a slow one costs is the backlog's bound, which all share, and a watcher whose next event has gone is told `:overrun`.
//! - [`watcher`]: a watcher as a pure machine: what it is told next.
//! - [`registry`]: all watchers, by node, and their bounds; as pure.
//! - [`serve`]: what a store does for watches: it begins and ends them, and reads pages of what is there.
//! - here: the lock around these, and what feeds connections from them.
//!
//! The design had a queue for each watcher. One backlog does the same with one bound instead of a hundred thousand, and a watcher
//! that begins behind an earlier number is one that has its place there.
//!
//! # Numbers
//!
//! The number of an event is what the store's revisions have counted to with the write ([`revision`](crate::store::revision)): of a
//! put of one key at a primary it is the value's revision, and a deletion counts too. A write of several keys counts each of them, so that
//! each event has a number of its own, the first of them the revision of all, and a watcher that is cut off in the middle of such a write is
//! told the rest. The count is
//! kept on disk with the write, is raised over all of a former primary's at a promotion, and never goes back. So a watcher that says
//! which number it has seen last misses nothing:
//!
//! - a number in the backlog: all that has happened since is there;
//! - the last number of the store, also after a restart: nothing has happened since;
//! - of a store that [several processes](Store::IS_SHARED) serve, whose changes have the same numbers in all of them: any number behind which
//!   all is kept, as far as the store has counted;
//! - any other: `:too_old`. It may be of a life or a store that gave other numbers to other writes, and so no store may take the
//!   number of another for its own. A slave counts close to its primary, so one that is watched first goes on some
//!   billions of writes behind its count, by a distance of its own (`State::is_apart`). A store in memory that is watched first
//!   counts on from the machine's clock: a life before it has counted less.
//!
//! # What is there, first
//!
//! A watcher is registered behind the last event, and then shown the store page by page. What was written since has its
//! event in the backlog, and so is left out of the pages: an entry whose key is in the backlog behind the watcher's place. A page
//! waits until each write that it has seen is there, and the backlog has an index of its keys meanwhile. Its revision does not
//! tell whether an entry is new: a slave's are its primary's, and a primary may become a slave while it shows its entries. A key that is deleted
//! before its page is read is not shown, and its deletion follows.
//!
//! # All keys at once
//!
//! A `:clear` is one event, which stands for the deletion of every key and has none: whatever a watcher's pattern is it is told. What was
//! shown of what was there before goes with it, since the event follows.
//!
//! # Slaves, copies
//!
//! A slave tells its watchers what its primary sends, in that order; a deletion of a key that has ended comes as `:delete`, since a slave
//! is told of it so. A copy that comes into the store itself, as on disk, is told key by key. One that takes the place of all, as in
//! memory, is not known key by key: all watchers are told `:overrun`. So it is where writes of a server's former life are
//! done late, and where a store that other processes write to was cut off for so long that not each of their writes is known. A store that is promoted or demoted goes on for its watchers as it was.

pub(super) mod log;
mod registry;
mod serve;
mod watcher;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use log::{Happened, Told};
pub(super) use registry::PATTERNS_BYTES_MAX;
pub use registry::WATCHERS_MAX;
pub(super) use registry::{Begins, Refused};
use registry::{Fed, Output, Registry, WantedPage};
pub(super) use watcher::{Page, Wants};

use super::figures::StoreWatch;
use super::order::Committed;
use super::ranked::{Ranked, rank};
use super::server::KeyValueServer;
use crate::distribution::RemoteProcess;
use crate::etf::{Pid, Reference, SharedBytes, TermWriter, Traits};
use crate::process::{Dispatch, Feed, Feeding, More};
use crate::store::revision::REVISION_RAISED_MAX;
use crate::store::{Change, Store, StoreError};

/// Looks for a watcher, after the last one has left, until the backlog is let go: five minutes.
const IDLE_LOOKS_MAX: u32 = 10;

/// What the watchers of a store need of it.
#[derive(Clone)]
struct Around {
    /// The store's process.
    store: Pid,
    /// Has pages read.
    read: Arc<dyn Fn() + Send + Sync>,
    figures: Arc<StoreWatch>,
}

#[derive(Default)]
struct State {
    registry: Registry,
    around: Option<Around>,
    idle_looks: u32,
    /// The store is a slave, and its numbers are none of another store.
    is_apart: bool,
    /// What the store has counted to is not known: it is more than the last number.
    is_behind: bool,
}

/// The watchers of a store.
#[derive(Default)]
pub(super) struct Watches {
    /// The backlog is kept. Set while no write is under way of a store that answers at once.
    is_on: AtomicBool,
    state: Ranked<rank::Watches, State>,
}

impl Watches {
    /// Whether each write is to be told here.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// A store that answers later is served from here on, and has counted to this. `is_shared`: see [`Store::IS_SHARED`].
    pub(super) fn begin_behind(&self, revision: u64, is_shared: bool) {
        let mut state = self.state.lock();
        let log = state.registry.log();
        log.begin_at(revision);
        if is_shared {
            log.count_to(revision);
        }
    }

    /// A write is done: gives the last number that it has, and the nodes whose connections are to be asked to take it. Under the
    /// order of writes. Of a store that answers later each is told, and of another one while it is [on](Self::is_on).
    pub(super) fn commit(&self, write: &Committed<'_>) -> (u64, Vec<Arc<str>>) {
        let mut state = self.state.lock();
        if !write.written.numbers.is_empty() {
            return self.commit_numbered(&mut state.registry, write);
        }
        let changes = write.written.changes.iter().filter(|(_, change)| !matches!(change, Change::Keep));
        let revisions = changes.clone().map(|(_, change)| match change {
            Change::Put(value) => value.revision.min(REVISION_RAISED_MAX),
            Change::Keep | Change::Delete => 0,
        });
        let least = revisions.fold(write.revision, u64::max);
        let registry = &mut state.registry;
        if !self.is_on() {
            let log = registry.log();
            let first = (log.last() + 1).max(least);
            log.pass(first + (changes.count() as u64).saturating_sub(1));
            return (log.last(), Vec::new());
        }
        if write.is_clear() {
            registry.happened(least, &[], Happened::Clear);
        }
        for (key, change) in changes {
            registry.happened(least, key, happened(write, change));
        }
        (registry.log().last(), registry.announce())
    }

    /// The same of a store whose changes bring their numbers. A change whose number the backlog has passed is told already, or is in what
    /// watchers are shown.
    fn commit_numbered(&self, registry: &mut Registry, write: &Committed<'_>) -> (u64, Vec<Arc<str>>) {
        let clear = write.is_clear().then_some((&[][..], Happened::Clear));
        let changes = write.written.changes.iter().map(|(key, change)| (*key, happened(write, change)));
        for ((key, happened), number) in clear.into_iter().chain(changes).zip(write.written.numbers) {
            if *number <= registry.log().last() {
                continue;
            }
            if self.is_on() {
                registry.happened(*number, key, happened);
            } else {
                registry.log().pass(*number);
            }
        }
        (registry.log().last(), if self.is_on() { registry.announce() } else { Vec::new() })
    }

    /// Not each change up to this number is told: no watcher can be told what has changed. Of a store whose changes bring their
    /// numbers. Gives the nodes as [`commit`](Self::commit).
    pub(super) fn miss_up_to(&self, number: u64) -> Vec<Arc<str>> {
        let mut state = self.state.lock();
        let log = state.registry.log();
        log.cut();
        log.begin_at(number);
        state.registry.announce()
    }

    /// Not every change is known, and what the store has counted to neither. Gives the nodes as [`commit`](Self::commit).
    pub(super) fn cut(&self) -> Vec<Arc<str>> {
        let mut state = self.state.lock();
        state.is_behind = true;
        state.registry.cut();
        state.registry.announce()
    }

    /// The process of these has ended.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.registry.clear();
        state.around = None;
    }

    /// Watchers that there are.
    pub(super) fn len(&self) -> usize {
        self.state.lock().registry.len()
    }

    fn end_watch(&self, node: &str, reference: &[u32], by: Option<&Pid>) -> Option<(Pid, Reference)> {
        let (ended, read) = {
            let mut state = self.state.lock();
            let ended = state.registry.remove(node, reference, by);
            // Others may have waited for the room of its pages.
            let begins = state.registry.begins_to_read();
            (ended, state.around.as_ref().filter(|_| begins).map(|around| Arc::clone(&around.read)))
        };
        if let Some(read) = read {
            read();
        }
        ended
    }

    fn next_page(&self) -> Option<WantedPage> {
        let mut state = self.state.lock();
        let next = state.registry.next_page();
        if next.is_none() {
            state.registry.ends_reading();
        }
        next
    }

    fn page_came(&self, wanted: &WantedPage, came: Result<Page, StoreError>) -> bool {
        self.state.lock().registry.page_came(wanted, came)
    }
}

impl Feed for Watches {
    fn feed(&self, out: &mut Feeding<'_>) -> More {
        let node = Arc::clone(out.node());
        let (fed, counts, figures, read) = {
            let mut state = self.state.lock();
            let Some(Around { store, read, figures }) = state.around.clone() else { return More::No };
            let registry = &mut state.registry;
            let fed = registry.feed(&node, &mut ToNode { out, store: &store });
            (fed, registry.take_counts(), figures, registry.begins_to_read().then_some(read))
        };
        let (events, overruns) = counts;
        figures.watched(events, overruns);
        if let Some(read) = read {
            read();
        }
        if fed == Fed::Part { More::WhenRoom } else { More::No }
    }
}

/// The output to a node.
struct ToNode<'o, 'a> {
    out: &'o mut Feeding<'a>,
    store: &'o Pid,
}

impl Output for ToNode<'_, '_> {
    fn has_room(&self) -> bool {
        self.out.has_room()
    }

    fn can_decode(&self, traits: Traits) -> bool {
        traits == Traits::none() || self.out.flags().can_decode(traits)
    }

    fn send(&mut self, to: &Pid, write: &mut dyn FnMut(&mut TermWriter<'_>) -> Option<SharedBytes>) {
        self.out.send_ending(to, write);
    }

    fn demonitor(&mut self, of: &Pid, reference: &Reference) {
        self.out.demonitor(self.store, &RemoteProcess::Pid(of.clone()), reference);
    }
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").field("is_on", &self.is_on()).finish_non_exhaustive()
    }
}

/// What has become of a key.
const fn happened<'a>(write: &Committed<'_>, change: &Change<'a>) -> Happened<'a> {
    match change {
        Change::Put(value) => Happened::Put(*value),
        Change::Delete | Change::Keep if write.has_ended => Happened::Expire,
        Change::Delete | Change::Keep => Happened::Delete,
    }
}

/// Has connections take what there is for their watchers.
pub(super) fn announce(watches: &Arc<Watches>, nodes: Vec<Arc<str>>, dispatch: &dyn Dispatch) {
    for node in nodes {
        dispatch.feed(&node, &(Arc::clone(watches) as Arc<dyn Feed>));
    }
}

impl<S: Store> KeyValueServer<S> {
    /// A write of a store that answers at once is done, under the order of writes: `feed` is told what is to be announced.
    #[inline]
    pub(super) fn tell_watchers(&self, write: &Committed<'_>, feed: impl FnMut(Arc<str>, Arc<dyn Feed>)) {
        if self.confirmations.watches.is_on() {
            self.tell_those(write, feed);
        }
    }

    fn tell_those(&self, write: &Committed<'_>, mut feed: impl FnMut(Arc<str>, Arc<dyn Feed>)) {
        let watches = &self.confirmations.watches;
        let (last, nodes) = watches.commit(write);
        // Of a store that counts less than it should.
        if last > self.store().revision() {
            self.store().raise_revision(last);
        }
        for node in nodes {
            feed(node, Arc::clone(watches) as Arc<dyn Feed>);
        }
    }
}
