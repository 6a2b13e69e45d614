//! The timers of one server.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use smol::Timer;

use crate::node::now;
use crate::process::WakeRequest;

/// Longer than this is for ever: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A timer that was started, to be cancelled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerRef {
    due: Instant,
    /// Tells those that are due at the same time apart, and keeps their order.
    number: u64,
}

/// What is to come, by its time.
pub(in crate::node) struct Timers<M> {
    pending: BTreeMap<TimerRef, M>,
    started: u64,
    sleep: Timer,
    /// What `sleep` is set to.
    armed: Option<Instant>,
}

impl<M> Default for Timers<M> {
    fn default() -> Self {
        Self { pending: BTreeMap::new(), started: 0, sleep: Timer::never(), armed: None }
    }
}

impl<M> Timers<M> {
    pub(in crate::node) fn start(&mut self, delay: Duration, message: M) -> TimerRef {
        self.started += 1;
        let timer = TimerRef { due: now() + delay.min(FOREVER), number: self.started };
        self.pending.insert(timer, message);
        timer
    }

    /// Whether it had not fired.
    pub(in crate::node) fn cancel(&mut self, timer: TimerRef) -> bool {
        self.pending.remove(&timer).is_some()
    }

    /// The next message that is due; woken when one is.
    pub(in crate::node) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<M> {
        loop {
            let Some(first) = self.pending.first_entry() else { return Poll::Pending };
            let due = first.key().due;
            if due <= now() {
                return Poll::Ready(first.remove());
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
}

/// Does again and again what a process of ours asked for.
pub(in crate::node) async fn wake(mut request: WakeRequest) {
    loop {
        Timer::after(request.every).await;
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
        assert_eq!(smol::block_on(poll_fn(|cx| timers.poll_due(cx))), "first");
        assert_eq!(smol::block_on(poll_fn(|cx| timers.poll_due(cx))), "second");
        assert!(began.elapsed() >= ms(20), "{:?}", began.elapsed());
        assert_eq!(timers.pending.len(), 1);
    }
}
