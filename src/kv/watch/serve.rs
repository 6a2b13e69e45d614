//! Watches as a store serves them: what begins and ends them, and the pages of what is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Around, Begins, Happened, IDLE_LOOKS_MAX, Page, Refused, Told, WantedPage, Wants, announce};
use crate::distribution::RemoteProcess;
use crate::etf::{Pid, Reference};
use crate::kv::Work;
use crate::kv::server::KeyValueServer;
use crate::process::{Effect, Feed, Turn, WakeRequest};
use crate::store::revision::{LEAP, REVISION_RAISED_MAX};
use crate::store::{self, Order, Shows, Store, StoreError, Value, Visit};

/// Entries of a page at most, and bytes, but for one entry.
const PAGE_ENTRIES: usize = 512;
const PAGE_BYTES: usize = 128 << 10;

/// More writes than may be under way to a store that answers later.
const UNDER_WAY_MAX: u64 = 1 << 20;

/// How often the store looks whether it has a watcher.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// A store in memory gives numbers to less writes in a millisecond than this.
const NUMBERS_A_MILLI: u64 = 1 << 12;

impl<S: Store> KeyValueServer<S> {
    /// A process on the node that the message came from watches. Gives the watch's reference, and the number that it begins behind.
    pub(in crate::kv) fn begin_watch(
        &self,
        pid: Pid,
        wants: Wants,
        begins: Begins,
        turn: &mut Turn<'_>,
    ) -> Result<(Reference, u64), Refused> {
        let watches = &self.confirmations.watches;
        let reference = turn.registry.new_reference();
        let seq = {
            let mut state = loop {
                self.turn_watches_on(&turn.me.pid);
                let state = watches.state.lock();
                // The last look may have been at this moment.
                if watches.is_on() {
                    break state;
                }
            };
            state.idle_looks = 0;
            if std::mem::take(&mut state.is_behind) {
                let counted = self.store().revision();
                state.registry.log().raise(counted);
            }
            if S::IS_SHARED {
                state.registry.log().count_to(self.store().revision());
            }
            state.registry.add(pid.clone(), reference.clone(), wants, begins)?
        };
        let (those, node, words) = (Arc::downgrade(watches), Arc::clone(&pid.node), reference.words.clone());
        turn.waiters.expect(&reference, &pid.node, move |_| {
            if let Some(watches) = those.upgrade() {
                watches.end_watch(&node, &words, None);
            }
        });
        let node = Arc::clone(&pid.node);
        turn.out.monitor(&turn.me.pid, &RemoteProcess::Pid(pid), &reference);
        turn.effects.push(Effect::Feed(node, Arc::clone(watches) as Arc<dyn Feed>));
        Ok((reference, seq))
    }

    /// A process ends a watch of its own: gives whether there was one.
    pub(in crate::kv) fn end_watch(&self, pid: &Pid, reference: &Reference, turn: &mut Turn<'_>) -> bool {
        let watches = &self.confirmations.watches;
        let Some((pid, own)) = watches.end_watch(&pid.node, &reference.words, Some(pid)) else {
            return false;
        };
        turn.waiters.cancel(&own);
        turn.out.demonitor(&turn.me.pid, &RemoteProcess::Pid(pid), &own);
        true
    }

    fn turn_watches_on(&self, me: &Pid) {
        let watches = &self.confirmations.watches;
        if watches.is_on() {
            return;
        }
        {
            // No write of a store that answers at once is under way, and each that comes sees that it is watched.
            let _slaves = self.confirmations.slaves.write();
            if watches.is_on() {
                return;
            }
            if self.store().notes().is_none() {
                let millis = self.follow.unix_ms();
                self.store()
                    .raise_revision(millis.saturating_mul(NUMBERS_A_MILLI).min(REVISION_RAISED_MAX / 2));
            }
            let read = {
                let (this, me) = (self.this.clone(), me.clone());
                Arc::new(move || {
                    if let Some(server) = this.upgrade() {
                        server.read_pages(&me);
                    }
                })
            };
            let mut state = watches.state.lock();
            state.around = Some(Around { store: me.clone(), read, figures: Arc::clone(&self.watch) });
            if S::AT_ONCE || self.store().notes().is_none() {
                let counted = self.store().revision();
                state.registry.log().begin_at(counted);
            }
            drop(state);
            watches.is_on.store(true, Ordering::Relaxed);
        }
        self.keep_numbers_apart(0);
        let this = self.this.clone();
        let tick = move || this.upgrade().is_some_and(|server| server.are_watches_on());
        self.follow.wake(me.clone(), WakeRequest { every: LOOK_EVERY, wake: Box::new(tick) });
    }

    /// A time to look has come: gives whether to look again.
    fn are_watches_on(&self) -> bool {
        let watches = &self.confirmations.watches;
        // Nobody writes meanwhile that has seen that it is watched.
        let _slaves = self.confirmations.slaves.write();
        let mut state = watches.state.lock();
        state.idle_looks = if state.registry.len() > 0 { 0 } else { state.idle_looks + 1 };
        let stays = state.idle_looks < IDLE_LOOKS_MAX;
        if !stays {
            let log = state.registry.log();
            log.begin_at(log.last());
            watches.is_on.store(false, Ordering::Relaxed);
        }
        stays
    }

    /// A store that is a slave, and is watched, gives numbers that no other store gives; another store has counted to this.
    pub(in crate::kv) fn keep_numbers_apart(&self, other: u64) {
        let watches = &self.confirmations.watches;
        if !watches.is_on() {
            return;
        }
        let is_slave = self.upstream.minds_writes();
        // By chance, as no two lives of stores have one incarnation.
        let distance = LEAP / 2 + self.upstream.with(|machine| machine.incarnation()) % (LEAP / 2);
        self.in_order_of_writes(|| {
            let counted = self.store().revision();
            let mut state = watches.state.lock();
            let was_apart = std::mem::replace(&mut state.is_apart, is_slave);
            if !is_slave || was_apart && other <= counted {
                return;
            }
            let apart = counted.max(other).saturating_add(distance).min(REVISION_RAISED_MAX / 2);
            // Writes that are under way have counted before this, and are told behind it.
            let under_way = if self.confirmations.order.is_busy() { UNDER_WAY_MAX } else { 0 };
            self.store().raise_revision(apart + under_way);
            state.registry.log().raise(apart);
        });
    }

    /// A copy has taken the place of all, in the order of writes: no watcher can be told what has changed.
    pub(in crate::kv) fn cut_watches(&self) -> Vec<Arc<str>> {
        let watches = &self.confirmations.watches;
        // Also where nobody watches now: nobody is to go on from the number of before.
        self.store().raise_revision(self.store().revision().saturating_add(1));
        if watches.is_on() { watches.cut() } else { Vec::new() }
    }

    fn read_pages(&self, me: &Pid) {
        let (this, own) = (self.this.clone(), me.clone());
        let step = move || this.upgrade().is_some_and(|server| server.read_wanted_page(&own));
        self.follow.work(Work { store: me.clone(), step: Box::new(step) });
    }

    /// Reads the next page that a watcher is to be shown; gives whether to go on with the next one at once.
    fn read_wanted_page(&self, me: &Pid) -> bool {
        let watches = &self.confirmations.watches;
        let Some(wanted) = watches.next_page() else { return false };
        let over = Over(self, &wanted);
        let read = self.read_page(&wanted.wants, wanted.after.as_deref());
        drop(over);
        // The writes of other processes are not known here before they are told of.
        if S::AT_ONCE || !S::IS_SHARED && !self.confirmations.order.is_busy() {
            self.page_came(&wanted, read);
            return true;
        }
        // What was seen of writes that are under way is to have its events first.
        let (this, own, mut page) = (self.this.clone(), me.clone(), Some((wanted, read)));
        let now = self.store().barrier(|| {
            let page = page.take();
            Box::new(move |_| {
                if let (Some(server), Some((wanted, read))) = (this.upgrade(), page) {
                    server.page_came(&wanted, read);
                    server.read_pages(&own);
                }
            })
        });
        if let (Some(_), Some((wanted, read))) = (&now, page) {
            self.page_came(&wanted, read);
        }
        now.is_some()
    }

    /// A page was read, and what was under way then is done.
    fn page_came(&self, wanted: &WantedPage, read: Result<Page, StoreError>) {
        let watches = &self.confirmations.watches;
        // What was seen of the write of another thread is in the backlog behind this.
        drop(self.confirmations.order.hold());
        if watches.page_came(wanted, read) {
            announce(watches, vec![Arc::clone(&wanted.node)], &*self.dispatch);
        }
    }

    fn read_page(&self, wants: &Wants, after: Option<&[u8]>) -> Result<Page, StoreError> {
        let (mut entries, mut bytes) = (VecDeque::new(), 0);
        let page = self.store().page(Order::Any, after, Shows::Pairs, &mut |key, value| {
            let Some(value) = value else { return Visit::Next };
            if self.clock.is_past(value.deadline) || !wants.matches(key) {
                return Visit::Next;
            }
            let value = if wants.values { value } else { Value { bytes: &[], shared: None, ..value } };
            let told = Told::new(value.revision, key, Happened::Put(value));
            if !entries.is_empty() && bytes + told.bytes() > PAGE_BYTES {
                return Visit::Back;
            }
            bytes += told.bytes();
            entries.push_back(told);
            if entries.len() >= PAGE_ENTRIES { Visit::Enough } else { Visit::Next }
        })?;
        let behind = match page {
            store::Page::Behind(place) => Some(place.into()),
            // A copy has taken the place of the store whose place it was: all watchers are told that they are overrun.
            store::Page::Last | store::Page::Foreign | store::Page::Unordered => None,
        };
        Ok(Page { entries, behind })
    }
}

/// Where a reader ends early, by a fault of ours, the watcher is told, and what waits is left to another reader.
struct Over<'a, S>(&'a KeyValueServer<S>, &'a WantedPage);

impl<S> Drop for Over<'_, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let watches = &self.0.confirmations.watches;
            watches.state.lock().registry.ends_reading();
            watches.page_came(self.1, Err(StoreError::Io("eio")));
        }
    }
}
