//! Writes that are answered once slaves have them.
//!
//! A slave has a write when it has acknowledged it and everything before it ([`Downstream::confirmed`](crate::replica::Downstream::confirmed)). One acknowledgement
//! confirms all writes before it, so many callers share one question to each slave.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::SlaveEntry;
use super::election::Counting;
use super::figures::StoreWatch;
use super::follow::Settling;
use super::order::Order;
use super::ranked::{Ranked, RankedReads, rank};
use super::reason::Reason;
use super::requests::Outcome;
use super::source::Reads;
use super::watch::Watches;
use crate::etf::Traits;
use crate::process::{Dispatch, Effect, OwnedCaller, Turn, WakeRequest};
use crate::replica::SlaveName;

/// The time-out is counted in so many ticks: an answer is late by one tick at most.
const TICKS: u32 = 20;

/// How many callers may wait. One more is answered at once, with how many slaves have its write.
const WAITING_MAX: usize = 1 << 16;

/// Bytes of the answers of these, where they have some: beyond it a caller is told the same, but for one answer that is larger.
const OUTCOMES_BYTES_MAX: usize = 64 << 20;

/// When a write is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfirmConfig {
    /// So many slaves have it then, unless the caller says otherwise. 0, the default: at once.
    pub slaves: u32,
    /// The answer to a write that too few slaves have after this time is that. Less than what callers wait for themselves:
    /// 5 s is `GenServer.call/2`'s. The default is 4 s.
    pub timeout: Duration,
}

impl Default for ConfirmConfig {
    /// At once, or within 4 s where a caller wants a write confirmed.
    fn default() -> Self {
        Self { slaves: 0, timeout: Duration::from_secs(4) }
    }
}

impl ConfirmConfig {
    /// The same, with so many slaves.
    #[must_use]
    pub const fn with_slaves(self, slaves: u32) -> Self {
        Self { slaves, ..self }
    }

    /// The same, with so much time.
    #[must_use]
    pub const fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

/// A write that a caller wants confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The write's number.
    pub seq: u64,
    /// How many slaves are to have it.
    pub slaves: usize,
    /// What a slave's node must decode to be sent the write.
    pub traits: Traits,
    /// As [`Confirmations::expect`] gave it.
    pub era: Era,
}

/// The time between two [`Confirmations::give_up`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Era(u64);

struct Waiting {
    wanted: Wanted,
    caller: OwnedCaller,
    /// What the caller is answered then.
    outcome: Outcome,
    ticks_left: u32,
}

#[derive(Default)]
struct Queue {
    /// About in the order of numbers; in no order if the store answers later.
    waiting: VecDeque<Waiting>,
    /// Of the answers of these.
    outcome_bytes: usize,
    /// Writes that the store has not answered yet: their callers wait after that.
    expected: usize,
    era: Era,
    /// A wake-up is set: it ticks until no caller waits.
    ticking: bool,
}

impl Queue {
    /// These wait still.
    fn keep(&mut self, waiting: VecDeque<Waiting>) {
        self.outcome_bytes = waiting.iter().map(|waiting| waiting.outcome.bytes()).sum();
        self.waiting = waiting;
    }
}

/// The slaves of a store, and the callers that wait for slaves to have a write.
pub(super) struct Confirmations {
    pub(super) slaves: RankedReads<rank::Slaves, Vec<Arc<SlaveEntry>>>,
    pub(super) order: Order,
    /// Processes that are told of each write.
    pub(super) watches: Arc<Watches>,
    /// Reads for the slaves' repairs.
    pub(super) reads: Reads,
    /// Held while a slave's machine handles an answer from its process.
    pub(super) settling: Settling,
    /// Which acknowledgements count, where an election decides that; unset: all.
    pub(super) counting: OnceLock<Counting>,
    queue: Ranked<rank::Waiting, Queue>,
    dispatch: Arc<dyn Dispatch>,
    figures: OnceLock<Arc<StoreWatch>>,
    /// Called when another process has written a key with a deadline.
    pub(super) ends_elsewhere: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Confirmations {
    pub(super) fn new(dispatch: Arc<dyn Dispatch>) -> Self {
        Self {
            slaves: RankedReads::default(),
            order: Order::default(),
            watches: Arc::default(),
            reads: Reads::default(),
            settling: Settling::default(),
            counting: OnceLock::new(),
            queue: Ranked::default(),
            dispatch,
            figures: OnceLock::new(),
            ends_elsewhere: OnceLock::new(),
        }
    }

    /// Requests that are not done are counted here from now on; only the first of these counts.
    pub(super) fn count_in(&self, figures: &Arc<StoreWatch>) {
        _ = self.figures.set(Arc::clone(figures));
    }

    /// Where requests that are not done are counted; `None`: that is not known yet.
    pub(super) fn counted_in(&self) -> Option<&StoreWatch> {
        self.figures.get().map(|figures| &**figures)
    }

    /// The same; where that is not known, from now on figures that nobody sees.
    pub(super) fn figures(&self) -> &StoreWatch {
        self.figures.get_or_init(Arc::default)
    }

    /// The slaves that are not dropped.
    pub(super) fn slaves(&self) -> Vec<Arc<SlaveEntry>> {
        let slaves = self.slaves.read();
        slaves.iter().filter(|slave| !slave.machine().is_over()).cloned().collect()
    }

    /// How many slaves have a write.
    fn have(&self, wanted: Wanted) -> usize {
        let counted = self.counting.get().map(Counting::slaves);
        // The thread may hold the list already, for a write.
        self.slaves
            .read_recursive()
            .iter()
            .filter(|slave| counts(counted.as_deref(), slave))
            .filter(|slave| slave.machine().has(wanted.seq, wanted.traits))
            .count()
    }

    /// A write whose caller will [`wait`](Self::wait) is under way.
    pub(super) fn expect(self: &Arc<Self>, timeout: Duration, turn: &mut Turn<'_>) -> Era {
        let era = {
            let mut queue = self.queue.lock();
            queue.expected += 1;
            if std::mem::replace(&mut queue.ticking, true) {
                return queue.era;
            }
            queue.era
        };
        let this = Arc::clone(self);
        turn.effects.push(Effect::Wake(Box::new(WakeRequest {
            every: timeout / TICKS,
            wake: Box::new(move || this.tick()),
        })));
        era
    }

    /// The store did not take the write: its caller has been told.
    pub(super) fn not_written(&self) {
        self.queue.lock().expected -= 1;
    }

    /// The store has taken the write: the caller is answered `:ok` once enough slaves have it, and with an error after the
    /// time-out.
    pub(super) fn wait(&self, wanted: Wanted, caller: OwnedCaller) {
        self.wait_to_say(wanted, caller, Outcome::OK);
    }

    /// The same with another answer than `:ok`.
    pub(super) fn wait_to_say(&self, wanted: Wanted, caller: OwnedCaller, outcome: Outcome) {
        let waiting = Waiting { wanted, caller, outcome, ticks_left: TICKS + 1 };
        let rejected = {
            let mut queue = self.queue.lock();
            queue.expected -= 1;
            let bytes = waiting.outcome.bytes();
            let fits = queue.outcome_bytes == 0 || queue.outcome_bytes + bytes <= OUTCOMES_BYTES_MAX;
            if queue.waiting.len() < WAITING_MAX && fits && waiting.wanted.era == queue.era {
                queue.outcome_bytes += bytes;
                queue.waiting.push_back(waiting);
                None
            } else {
                Some(waiting)
            }
        };
        if let Some(waiting) = rejected {
            self.unconfirmed(waiting);
        }
        // The slaves may have acknowledged it meanwhile.
        self.acknowledged();
    }

    fn unconfirmed(&self, Waiting { wanted, caller, .. }: Waiting) {
        let have = self.have(wanted);
        self.figures().count_not_done(Reason::Unconfirmed);
        caller.reply(&*self.dispatch, |w| {
            w.tuple(2).atom("error").tuple(3).atom(Reason::Unconfirmed.code());
            w.unsigned(have as u64).unsigned(wanted.slaves as u64);
        });
    }

    /// A primary copies over the store, and drops its own writes: later acknowledgements of its slaves say nothing of those. All
    /// callers that wait for such a write, or are going to, are told how many slaves had it.
    pub(super) fn give_up(&self) {
        let waiting = {
            let mut queue = self.queue.lock();
            queue.era.0 += 1;
            queue.outcome_bytes = 0;
            std::mem::take(&mut queue.waiting)
        };
        for waiting in waiting {
            self.unconfirmed(waiting);
        }
    }

    /// A slave has acknowledged something.
    pub(super) fn acknowledged(&self) {
        let counting = self.counting.get();
        // Whoever is the primary by now may not have the write: it is answered as one that is not confirmed in time.
        if counting.is_some_and(|counting| !counting.lasts()) {
            return;
        }
        let done = {
            let mut queue = self.queue.lock();
            if queue.waiting.is_empty() {
                return;
            }
            // Read behind the lock, which a shorter list passes too: no slave that is taken from it confirms anything later.
            let counted = counting.map(Counting::slaves);
            let mut confirmed: Vec<(u64, Traits)> = {
                let slaves = self.slaves.read_recursive();
                let slaves = slaves.iter().filter(|slave| counts(counted.as_deref(), slave));
                slaves.map(|slave| slave.machine().acknowledges()).collect()
            };
            confirmed.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
            let is_done = |Waiting { wanted, .. }: &Waiting| {
                let least = wanted.slaves.saturating_sub(1);
                let mut able = confirmed.iter().filter(|(_, cannot)| !cannot.intersects(wanted.traits));
                able.nth(least).is_some_and(|&(has, _)| has >= wanted.seq)
            };
            let (done, waiting) =
                std::mem::take(&mut queue.waiting).into_iter().partition::<VecDeque<_>, _>(is_done);
            queue.keep(waiting);
            done
        };
        for waiting in done {
            waiting.outcome.send(waiting.caller, &*self.dispatch, self.figures());
        }
    }

    /// A part of the time-out has passed. Gives whether a caller still waits.
    fn tick(&self) -> bool {
        self.acknowledged();
        let (late, more) = {
            let mut queue = self.queue.lock();
            for waiting in &mut queue.waiting {
                waiting.ticks_left -= 1;
            }
            let (late, waiting) = std::mem::take(&mut queue.waiting)
                .into_iter()
                .partition::<VecDeque<_>, _>(|waiting| waiting.ticks_left == 0);
            queue.keep(waiting);
            queue.ticking = queue.expected > 0 || !queue.waiting.is_empty();
            (late, queue.ticking)
        };
        for waiting in late {
            self.unconfirmed(waiting);
        }
        more
    }
}

/// Whether a slave's acknowledgements count.
fn counts(counted: Option<&[SlaveName]>, slave: &SlaveEntry) -> bool {
    counted.is_none_or(|counted| counted.contains(slave.name()))
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::distribution::Outbound;
    use crate::etf::{Cursor, Pid, Reference, encode};
    use crate::kv::follow::tests::unfollowed;
    use crate::process::effect::EndedCall;
    use crate::process::{Caller, NoRoom, ProcessId};

    /// Counts what is sent.
    #[derive(Default)]
    struct Sent(Mutex<usize>);

    impl Dispatch for Sent {
        fn send(&self, _node: &str, _frames: &mut Outbound) -> Result<(), NoRoom> {
            *self.0.lock() += 1;
            Ok(())
        }

        fn end_call(&self, _call: EndedCall) {}

        fn exit(&self, _process: ProcessId, _reason: &[u8]) {}
    }

    /// What is sent, and callers whose writes are expected.
    fn expecting(expected: usize) -> (Arc<Sent>, Confirmations, impl Fn() -> OwnedCaller) {
        let sent = Arc::new(Sent::default());
        let confirmations = Confirmations::new(Arc::clone(&sent) as Arc<_>);
        confirmations.queue.lock().expected = expected;
        let pid = Pid { node: "a@h".into(), id: 1, serial: 0, creation: 1 };
        let tag = Reference { node: "a@h".into(), creation: 1, words: vec![1, 2, 3] };
        let caller = encode(|w| _ = w.tuple(2).pid(&pid).reference(&tag));
        let caller = move || Caller::parse(&mut Cursor::new(&caller)).expect("a caller").to_owned(&pid);
        (sent, confirmations, caller)
    }

    const WANTED: Wanted = Wanted { seq: 5, slaves: 1, traits: Traits::none(), era: Era(0) };

    #[test]
    fn what_the_store_drops_as_a_slave_is_confirmed_by_nobody() {
        let (sent, confirmations, caller) = expecting(2);
        confirmations.wait(WANTED, caller());
        assert_eq!(*sent.0.lock(), 0);
        confirmations.give_up();
        assert_eq!((*sent.0.lock(), confirmations.queue.lock().waiting.len()), (1, 0));
        // The store was at it still.
        confirmations.wait(WANTED, caller());
        assert_eq!((*sent.0.lock(), confirmations.queue.lock().waiting.len()), (2, 0));
    }

    #[test]
    fn in_an_election_those_that_count_confirm_alone_and_only_while_the_store_is_the_primary() {
        let (sent, confirmations, caller) = expecting(4);
        // Whoever was never found has the write with the number 0.
        let wanted = Wanted { seq: 0, ..WANTED };
        let [one, other] = ["a@h", "b@h"].map(|node| SlaveName::remote("kv", node));
        confirmations.slaves.write().push(unfollowed(one.clone()));
        _ = confirmations.counting.set(Counting::of_tests());
        let counting = confirmations.counting.get().expect("it was set");
        let waits = |wait: bool| {
            if wait {
                confirmations.wait(wanted, caller());
            } else {
                confirmations.acknowledged();
            }
            (confirmations.queue.lock().waiting.len(), *sent.0.lock())
        };
        assert_eq!(waits(true), (1, 0), "none counts, and it is not the primary");
        counting.count_only([one.clone()]);
        assert_eq!(waits(false), (1, 0), "it is not the primary");
        counting.lead_for(Duration::from_secs(60));
        assert_eq!(waits(false), (0, 1));
        counting.count_only([other]);
        assert_eq!(waits(true), (1, 1), "another counts");
        assert_eq!(confirmations.have(wanted), 0);
        counting.count_only([one]);
        assert_eq!((waits(false), confirmations.have(wanted)), ((0, 2), 1));
        counting.lead_for(Duration::ZERO);
        assert_eq!(waits(true), (1, 2), "its lease is over");
    }

    #[test]
    fn the_answers_of_those_that_wait_are_bounded_but_for_one() {
        let (sent, confirmations, caller) = expecting(5);
        let wait = |bytes: usize| {
            confirmations.wait_to_say(WANTED, caller(), Outcome::Term(vec![106; bytes]));
            let queue = confirmations.queue.lock();
            (queue.waiting.len(), queue.outcome_bytes, *sent.0.lock())
        };
        assert_eq!(wait(OUTCOMES_BYTES_MAX + 1), (1, OUTCOMES_BYTES_MAX + 1, 0), "the first may be larger");
        assert_eq!(wait(1), (1, OUTCOMES_BYTES_MAX + 1, 1), "told at once");
        confirmations.give_up();
        assert_eq!(confirmations.queue.lock().outcome_bytes, 0);
        let wanted = Wanted { era: Era(1), ..WANTED };
        for bytes in [7, 8] {
            confirmations.wait_to_say(wanted, caller(), Outcome::Term(vec![106; bytes]));
        }
        assert_eq!(confirmations.queue.lock().outcome_bytes, 15);
        confirmations.tick();
        assert_eq!(confirmations.queue.lock().outcome_bytes, 15, "they wait still");
        (0..TICKS).for_each(|_| _ = confirmations.tick());
        let queue = confirmations.queue.lock();
        assert_eq!((queue.waiting.len(), queue.outcome_bytes), (0, 0));
    }
}
