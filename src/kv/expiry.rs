//! Keys that have ended, removed: a primary looks for them, and deletes them as a caller would, in the order of its writes.
//!
//! Readers do not see them any more by then ([`Clock::shown`]). A slave waits for its primary's deletions. Of several processes that serve
//! one store the one that holds it deletes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Work;
use super::clock::Clock;
use super::confirm::Confirmations;
use super::figures::StoreWatch;
use super::order::Committed;
use super::ranked::{Ranked, rank};
use super::server::KeyValueServer;
use super::write::{committed, committed_later, ended};
use crate::etf::{Pid, TermView, Traits};
use crate::process::{Dispatch, Feed, ProcessId, Turn, WakeRequest};
use crate::store::{self, Change, Due, DueDone, Pending, Store, StoreError, Update, Value};

/// It is looked for keys that have ended so often, while there are any with a deadline.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// After a failure so many times are left out.
const PAUSE: u32 = 50;
/// Where another process of the store removes them: this one looks once a second whether it is to.
const PAUSE_OF_OTHERS: u32 = 9;
/// Keys that a store is asked for at once.
const KEYS_MAX: usize = 512;
/// Keys that are deleted in one step, where nothing else is said.
const KEYS_A_STEP: usize = 64;

/// How far it is.
#[derive(Default)]
enum State {
    /// No key has a deadline, and nothing looks for one.
    #[default]
    Idle,
    /// The next look is due once so many have been left out.
    Waiting(u32),
    /// Keys are looked for, or deleted.
    AtWork,
}

/// What a store's keys that end need.
pub(super) struct Expiry {
    state: Ranked<rank::Alone, State>,
    /// It is not idle: a look without the lock.
    is_awake: AtomicBool,
    keys_a_step: usize,
}

impl Default for Expiry {
    fn default() -> Self {
        Self::by_steps_of(KEYS_A_STEP)
    }
}

impl Expiry {
    fn by_steps_of(keys_a_step: usize) -> Self {
        Self { state: Ranked::default(), is_awake: AtomicBool::new(false), keys_a_step }
    }

    /// Gives whether it was idle until now.
    fn wake(&self) -> bool {
        let mut state = self.state.lock();
        let was_idle = matches!(*state, State::Idle);
        if was_idle {
            *state = State::Waiting(0);
            self.is_awake.store(true, Ordering::SeqCst);
        }
        was_idle
    }

    fn sleep(&self) {
        *self.state.lock() = State::Idle;
        self.is_awake.store(false, Ordering::SeqCst);
    }

    fn pause(&self, looks: u32) {
        *self.state.lock() = State::Waiting(looks);
    }

    /// Nothing is left out any more.
    pub(super) fn hurry(&self) {
        let mut state = self.state.lock();
        if let State::Waiting(left) = &mut *state {
            *left = 0;
        }
    }

    /// A time to look has come: gives whether to look again, and whether to look now.
    fn tick(&self) -> (bool, bool) {
        let mut state = self.state.lock();
        match &mut *state {
            State::Idle => (false, false),
            State::AtWork => (true, false),
            State::Waiting(0) => {
                *state = State::AtWork;
                (true, true)
            }
            State::Waiting(left) => {
                *left -= 1;
                (true, false)
            }
        }
    }
}

/// A key goes, if it has ended.
struct IfEnded(Arc<Clock>);

impl Update for IfEnded {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        let has_ended = present.is_some_and(|value| self.0.is_past(value.deadline));
        if has_ended { Change::Delete } else { Change::Keep }
    }

    fn is_expiry(&self) -> bool {
        true
    }
}

/// The same for a store that carries it out later.
struct Later {
    update: IfEnded,
    traits: Traits,
    store: ProcessId,
    has_failed: Arc<AtomicBool>,
    confirmations: Arc<Confirmations>,
    dispatch: Arc<dyn Dispatch>,
    figures: Arc<StoreWatch>,
}

impl Update for Later {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        self.update.decide(present)
    }

    fn is_expiry(&self) -> bool {
        true
    }
}

impl Pending for Later {
    fn done(self: Box<Self>, result: Result<Option<store::Written<'_>>, StoreError>) {
        let Self { traits, store, has_failed, confirmations, dispatch, figures, .. } = *self;
        match result {
            Ok(Some(written)) => {
                figures.count_expired();
                let write = Committed { written, traits, revision: 0, confirmed: false, has_ended: true };
                committed_later(&confirmations, &write, store, &*dispatch);
            }
            Ok(None) => {}
            Err(error) => not_deleted(&has_failed, store, &error),
        }
        ended(&confirmations, store, &*dispatch);
    }
}

fn not_deleted(has_failed: &AtomicBool, store: ProcessId, error: &StoreError) {
    if !has_failed.swap(true, Ordering::Relaxed) {
        tracing::error!(?store, %error, "keys that have ended are not removed, and tried again soon: nobody sees them meanwhile");
    }
}

impl<S: Store> KeyValueServer<S> {
    /// The same, with so many keys that have ended deleted in one step of its [work](super::Follow::work): for simulations, which look
    /// at the store between two writes.
    pub fn removing_by(mut self, keys_a_step: usize) -> Self {
        self.expiry = Expiry::by_steps_of(keys_a_step);
        self
    }

    /// Its process serves it from here on: keys that have ended are removed.
    pub fn serve_as(&self, process: &Pid) {
        let (this, own) = (self.this.clone(), process.clone());
        let wake = move || {
            if let Some(server) = this.upgrade()
                && !server.expiry.is_awake.load(Ordering::SeqCst)
            {
                server.begin_to_look(&own);
            }
        };
        // A server has one process.
        _ = self.confirmations.ends_elsewhere.set(Box::new(wake));
        if self.store().next_due().is_some() {
            self.begin_to_look(process);
        }
    }

    /// A key was written with this deadline, or the write was handed to a store that answers later.
    #[inline]
    pub(super) fn ends_at(&self, deadline: u64, turn: &Turn<'_>) {
        if deadline != 0 && !self.expiry.is_awake.load(Ordering::SeqCst) {
            self.begin_to_look(&turn.me.pid);
        }
    }

    #[cold]
    fn begin_to_look(&self, me: &Pid) {
        if !self.expiry.wake() {
            return;
        }
        let (this, own) = (self.this.clone(), me.clone());
        let tick = move || {
            let Some(server) = this.upgrade() else { return false };
            let (again, now) = server.expiry.tick();
            if now {
                server.work_on(&own, |server, own| server.look(own));
            }
            again
        };
        self.follow.wake(me.clone(), WakeRequest { every: LOOK_EVERY, wake: Box::new(tick) });
    }

    /// Does something on a thread that may wait.
    fn work_on(&self, me: &Pid, work: impl FnOnce(&Self, &Pid) + Send + 'static) {
        let (this, own, mut work) = (self.this.clone(), me.clone(), Some(work));
        let step = move || {
            if let (Some(server), Some(work)) = (this.upgrade(), work.take()) {
                work(&server, &own);
            }
            false
        };
        self.follow.work(Work { store: me.clone(), step: Box::new(step) });
    }

    fn look(&self, me: &Pid) {
        let is_slave = self.upstream.minds_writes();
        match self.store().next_due() {
            // What is being written may have one, and a copy that is put aside.
            None if is_slave || self.confirmations.order.is_busy() => self.expiry.pause(0),
            None => {
                self.expiry.sleep();
                // A key may have been written since the store was asked.
                if self.store().next_due().is_some() || self.confirmations.order.is_busy() {
                    self.begin_to_look(me);
                }
            }
            Some(due) if due > self.clock.now() => self.expiry.pause(0),
            Some(_) if !self.holding.look_for_ended() => self.expiry.pause(PAUSE_OF_OTHERS),
            Some(_) => self.ask_for_ended(me),
        }
    }

    fn ask_for_ended(&self, me: &Pid) {
        let later = || -> DueDone {
            let (this, me) = (self.this.clone(), me.clone());
            Box::new(move |due| {
                if let Some(server) = this.upgrade() {
                    server.delete_ended(due, &me);
                }
            })
        };
        if let Some(due) = self.store().due(self.clock.now(), KEYS_MAX, later) {
            self.delete_ended(Ok(due), me);
        }
    }

    fn delete_ended(&self, due: Result<Due, StoreError>, me: &Pid) {
        let due = match due {
            Ok(due) if due.keys.is_empty() && !due.is_more => return self.expiry.pause(0),
            // Its primary deletes them, and may be gone. What a store in memory lists of those that are gone is to go too; what it
            // has shown it does not show again at once.
            Ok(due) if self.upstream.minds_writes() => {
                return match S::AT_ONCE && due.is_more {
                    true => self.work_on(me, |server, own| server.ask_for_ended(own)),
                    false => self.expiry.pause(PAUSE),
                };
            }
            Ok(due) => due,
            Err(error) => {
                tracing::error!(store = ?me, %error, "it cannot be read which keys have ended: asked again soon");
                return self.expiry.pause(PAUSE);
            }
        };
        let (this, own) = (self.this.clone(), me.clone());
        let has_failed = Arc::<AtomicBool>::default();
        let (mut keys, is_more) = (due.keys.into_iter(), due.is_more);
        let step = move || {
            let Some(server) = this.upgrade() else { return false };
            if server.upstream.minds_writes() {
                // It has become a slave meanwhile.
                server.expiry.pause(0);
                return false;
            }
            for key in keys.by_ref().take(server.expiry.keys_a_step) {
                server.delete_if_ended(&key, ProcessId::of(&own), &has_failed);
            }
            if keys.len() > 0 {
                return true;
            }
            server.go_on_behind(is_more, &own, &has_failed);
            false
        };
        self.follow.work(Work { store: me.clone(), step: Box::new(step) });
    }

    /// Goes on once all that was asked for is done.
    fn go_on_behind(&self, is_more: bool, me: &Pid, has_failed: &Arc<AtomicBool>) {
        let (this, own, failed) = (self.this.clone(), me.clone(), Arc::clone(has_failed));
        let go_on = move |result: Result<(), StoreError>| {
            let Some(server) = this.upgrade() else { return };
            if result.is_err() || failed.load(Ordering::Relaxed) {
                server.expiry.pause(PAUSE);
            } else if is_more {
                // Not on the store's own thread.
                server.work_on(&own, |server, own| server.look(own));
            } else {
                server.expiry.pause(0);
            }
        };
        let mut go_on = Some(go_on);
        let later = || -> store::Done {
            let go_on = go_on.take();
            Box::new(move |result| _ = go_on.map(|go_on| go_on(result)))
        };
        if let Some(result) = self.store().barrier(later)
            && let Some(go_on) = go_on
        {
            go_on(result);
        }
    }

    fn delete_if_ended(&self, key: &[u8], store: ProcessId, has_failed: &Arc<AtomicBool>) {
        let traits = TermView::parse(key).map_or(Traits::none(), TermView::traits);
        let mut update = IfEnded(Arc::clone(&self.clock));
        let later = |update: &mut IfEnded| -> Box<dyn Pending> {
            Box::new(Later {
                update: IfEnded(Arc::clone(&update.0)),
                traits,
                store,
                has_failed: Arc::clone(has_failed),
                confirmations: Arc::clone(&self.confirmations),
                dispatch: Arc::clone(&self.dispatch),
                figures: Arc::clone(&self.watch),
            })
        };
        let changes = [(key, Change::Delete)];
        let write = |seq| {
            let written = store::Written { seq, changes: &changes, numbers: &[] };
            let revision = if S::AT_ONCE { self.store().revision() } else { 0 };
            Committed { written, traits, revision, confirmed: false, has_ended: true }
        };
        if S::AT_ONCE {
            let slaves = self.confirmations.slaves.read();
            let _order = self.confirmations.order.hold();
            match self.store().update(key, &mut update, later) {
                Some(Ok(Some(seq))) => {
                    self.watch.count_expired();
                    let write = write(seq);
                    committed(&write, &slaves, |slave| {
                        if let Some(node) = slave.node() {
                            self.dispatch.feed(&node, &(Arc::clone(slave) as Arc<dyn Feed>));
                        }
                    });
                    self.tell_watchers(&write, |node, feed| self.dispatch.feed(&node, &feed));
                }
                Some(Ok(None)) | None => {}
                Some(Err(error)) => not_deleted(has_failed, store, &error),
            }
            return;
        }
        self.confirmations.order.begun();
        let Some(now) = self.store().update(key, &mut update, later) else { return };
        // It has answered at once for once.
        match now {
            Ok(Some(seq)) => {
                self.watch.count_expired();
                committed_later(&self.confirmations, &write(seq), store, &*self.dispatch);
            }
            Ok(None) => {}
            Err(error) => not_deleted(has_failed, store, &error),
        }
        ended(&self.confirmations, store, &*self.dispatch);
    }
}
