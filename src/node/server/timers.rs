//! The timers of one server.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ahash::AHashMap;

use crate::clock::Sleep;
use crate::node::now;
use crate::process::WakeRequest;

/// Longer than this is for ever: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The shortest time between two messages of an interval.
const PERIOD_MIN: Duration = Duration::from_millis(1);

/// A timer that was started, to be cancelled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerRef {
    /// When it is due; of an interval, when it was due first.
    due: Instant,
    /// Tells those that are due at the same time apart, and keeps their order.
    number: u64,
}

/// What a timer brings.
struct Pending<M> {
    message: M,
    repeat: Option<Repeat<M>>,
}

/// How an interval goes on. (A function and no closure: what holds timers stays as `Sync` as their messages are.)
struct Repeat<M> {
    period: Duration,
    copy: fn(&M) -> M,
}

/// A message that is due.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::node) struct Due<M> {
    pub message: M,
    /// It comes again: it could leave no time for anything else.
    pub repeats: bool,
}

/// What is to come, by its time.
pub(in crate::node) struct Timers<M> {
    pending: BTreeMap<TimerRef, Pending<M>>,
    /// When each interval, by its number, is due next.
    intervals: AHashMap<u64, Instant>,
    started: u64,
    sleep: Sleep,
    /// What `sleep` is set to.
    armed: Option<Instant>,
}

impl<M> Default for Timers<M> {
    fn default() -> Self {
        Self {
            pending: BTreeMap::new(),
            intervals: AHashMap::default(),
            started: 0,
            sleep: Sleep::never(),
            armed: None,
        }
    }
}

impl<M> Timers<M> {
    pub(in crate::node) fn start(&mut self, delay: Duration, message: M) -> TimerRef {
        self.add(delay, Pending { message, repeat: None })
    }

    /// The first message comes after one period.
    pub(in crate::node) fn start_interval(&mut self, period: Duration, message: M) -> TimerRef
    where
        M: Clone,
    {
        let period = period.clamp(PERIOD_MIN, FOREVER);
        let repeat = Repeat { period, copy: M::clone };
        let timer = self.add(period, Pending { message, repeat: Some(repeat) });
        self.intervals.insert(timer.number, timer.due);
        timer
    }

    fn add(&mut self, delay: Duration, pending: Pending<M>) -> TimerRef {
        self.started += 1;
        let timer = TimerRef { due: now() + delay.min(FOREVER), number: self.started };
        self.pending.insert(timer, pending);
        timer
    }

    /// Whether it had not fired, or is an interval that goes on.
    pub(in crate::node) fn cancel(&mut self, timer: TimerRef) -> bool {
        let due = self.intervals.remove(&timer.number).unwrap_or(timer.due);
        self.pending.remove(&TimerRef { due, ..timer }).is_some()
    }

    /// The next message that is due; woken when one is.
    pub(in crate::node) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due<M>> {
        loop {
            let Some(first) = self.pending.first_entry() else { return Poll::Pending };
            let due = first.key().due;
            let now = now();
            if due <= now {
                let (timer, pending) = first.remove_entry();
                return Poll::Ready(self.fire(timer, pending, now));
            }
            if self.armed != Some(due) {
                self.sleep.set_at(due);
                self.armed = Some(due);
            }
            if Pin::new(&mut self.sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed = None;
        }
    }

    fn fire(&mut self, timer: TimerRef, pending: Pending<M>, now: Instant) -> Due<M> {
        let Pending { message, repeat } = pending;
        let Some(repeat) = repeat else { return Due { message, repeats: false } };
        let copy = (repeat.copy)(&message);
        // Those that are missed while the server does something else do not come in a burst afterwards.
        let due = (timer.due + repeat.period).max(now);
        self.intervals.insert(timer.number, due);
        self.pending.insert(TimerRef { due, ..timer }, Pending { message: copy, repeat: Some(repeat) });
        Due { message, repeats: true }
    }
}

impl<M> fmt::Debug for Timers<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

/// Does again and again what a process of ours asked for.
pub(in crate::node) async fn wake(mut request: WakeRequest) {
    loop {
        Sleep::after(request.every).await;
        if !(request.wake)() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn timers_fire_in_the_order_of_their_times_and_not_once_cancelled() {
        let mut timers = Timers::default();
        let ms = Duration::from_millis;
        timers.start(ms(30), "second");
        let cancelled = timers.start(ms(5), "cancelled");
        timers.start(ms(10), "first");
        timers.start(Duration::MAX, "never");
        assert!(timers.cancel(cancelled));
        assert!(!timers.cancel(cancelled));
        let began = now();
        assert_eq!(next(&mut timers), once("first"));
        assert_eq!(next(&mut timers), once("second"));
        assert!(began.elapsed() >= ms(20), "{:?}", began.elapsed());
        assert_eq!(timers.pending.len(), 1);
    }

    #[test]
    fn an_interval_comes_again_and_again_among_others_until_it_is_cancelled() {
        let mut timers = Timers::default();
        let ms = Duration::from_millis;
        let began = now();
        let interval = timers.start_interval(ms(20), "tick");
        timers.start(ms(50), "between");
        assert_eq!(next(&mut timers), tick());
        assert_eq!(next(&mut timers), tick());
        assert!(began.elapsed() >= ms(40), "{:?}", began.elapsed());
        assert_eq!(next(&mut timers), once("between"));
        assert_eq!(next(&mut timers), tick());
        assert!(began.elapsed() >= ms(60), "{:?}", began.elapsed());
        assert!(timers.cancel(interval));
        assert!(!timers.cancel(interval));
        assert!(timers.pending.is_empty() && timers.intervals.is_empty());
    }

    #[test]
    fn what_an_interval_has_missed_does_not_come_in_a_burst() {
        let mut timers = Timers::<&str>::default();
        let ms = Duration::from_millis;
        let interval = timers.start_interval(ms(10), "tick");
        let due = |timers: &Timers<&str>| timers.intervals[&interval.number];
        let first = due(&timers);
        let fire = |timers: &mut Timers<&str>, at| {
            let (timer, pending) = timers.pending.pop_first().expect("the interval goes on");
            assert_eq!(timers.fire(timer, pending, at), tick());
        };
        // In time, the times keep the distance of the period, whatever handling has taken.
        fire(&mut timers, first + ms(3));
        assert_eq!(due(&timers), first + ms(10));
        // Ten are missed: one comes at once, and the next a period later.
        fire(&mut timers, first + ms(113));
        assert_eq!(due(&timers), first + ms(113));
        fire(&mut timers, first + ms(113));
        assert_eq!(due(&timers), first + ms(123));
    }

    #[test]
    fn an_interval_without_length_has_one() {
        let mut timers = Timers::default();
        let interval = timers.start_interval(Duration::ZERO, "tick");
        let first = timers.intervals[&interval.number];
        assert_eq!(next(&mut timers), tick());
        assert!(timers.intervals[&interval.number] >= first + PERIOD_MIN);
        // Longer than for ever is no overflow.
        timers.start_interval(Duration::MAX, "never");
        assert_eq!(next(&mut timers), tick());
    }

    fn next(timers: &mut Timers<&'static str>) -> Due<&'static str> {
        smol::block_on(poll_fn(|cx| timers.poll_due(cx)))
    }

    const fn once(message: &'static str) -> Due<&'static str> {
        Due { message, repeats: false }
    }

    const fn tick() -> Due<&'static str> {
        Due { message: "tick", repeats: true }
    }
}
