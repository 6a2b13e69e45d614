//! The clock: the system's, and for the thread that steps a test kit ([`crate::node::test`]) a clock that the test moves on.
//!
//! What reads the time or waits for it asks here, and knows of no test. A thread that has [entered](Stepped::enter) a stepped
//! clock reads that clock until it leaves; no other thread notices.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smol::Timer;

thread_local! {
    /// Whether `STEPPED` has one: most threads never look further.
    static IS_STEPPED: Cell<bool> = const { Cell::new(false) };
    static STEPPED: RefCell<Option<Arc<Stepped>>> = const { RefCell::new(None) };
}

/// The monotonic time.
#[expect(clippy::disallowed_methods, reason = "this is the one place where the monotonic clock is read")]
pub(crate) fn now() -> Instant {
    stepped().map_or_else(Instant::now, |clock| clock.now())
}

/// Whether the calling thread has a clock that a test moves on.
pub(crate) fn is_stepped() -> bool {
    IS_STEPPED.get()
}

fn stepped() -> Option<Arc<Stepped>> {
    if IS_STEPPED.get() { STEPPED.with_borrow(Clone::clone) } else { None }
}

/// A wait until a time, on the clock of the thread that began it.
#[derive(Debug)]
pub(crate) struct Sleep(On);

#[derive(Debug)]
enum On {
    System(Timer),
    Stepped(Wait),
}

impl Sleep {
    /// A wait that is never over.
    pub(crate) fn never() -> Self {
        Self(stepped().map_or_else(|| On::System(Timer::never()), |clock| On::Stepped(clock.wait(None))))
    }

    /// A wait that is over after so long; longer than the clock goes is never.
    pub(crate) fn after(pause: Duration) -> Self {
        Self(match stepped() {
            Some(clock) => {
                let until = clock.now().checked_add(pause);
                On::Stepped(clock.wait(until))
            }
            None => On::System(Timer::after(pause)),
        })
    }

    /// From now on it is over at this time.
    pub(crate) fn set_at(&mut self, at: Instant) {
        match (&mut self.0, stepped()) {
            (On::System(timer), None) => timer.set_at(at),
            (on, Some(clock)) => *on = On::Stepped(clock.wait(Some(at))),
            (on, None) => *on = On::System(Timer::at(at)),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            On::System(timer) => Pin::new(timer).poll(cx).map(drop),
            On::Stepped(wait) => wait.poll(cx),
        }
    }
}

/// A clock that goes on by [`set`](Self::set) alone.
pub(crate) struct Stepped {
    state: Mutex<State>,
}

struct State {
    now: Instant,
    /// What waits, by its time; the number tells waits for the same time apart, and keeps their order.
    waits: BTreeMap<(Instant, u64), Waker>,
    numbered: u64,
}

impl Stepped {
    /// A clock that stands at the present time.
    pub(crate) fn new() -> Arc<Self> {
        let state = State { now: now(), waits: BTreeMap::new(), numbered: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    pub(crate) fn now(&self) -> Instant {
        self.state.lock().now
    }

    /// It is the clock of the calling thread until what this gives is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Entered {
        IS_STEPPED.set(true);
        Entered { before: STEPPED.replace(Some(Arc::clone(self))) }
    }

    /// The first time that something waits for.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.state.lock().waits.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Moves it on, never back, and wakes what has waited for that.
    pub(crate) fn set(&self, to: Instant) {
        let due = {
            let mut state = self.state.lock();
            let now = state.now.max(to);
            state.now = now;
            let later = state.waits.split_off(&(now, u64::MAX));
            std::mem::replace(&mut state.waits, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    fn wait(self: Arc<Self>, until: Option<Instant>) -> Wait {
        Wait { clock: self, until, key: None }
    }
}

impl fmt::Debug for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stepped({} wait)", self.state.lock().waits.len())
    }
}

/// A thread's stay at a stepped clock.
#[must_use = "dropped, the thread has left the clock"]
pub(crate) struct Entered {
    before: Option<Arc<Stepped>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        IS_STEPPED.set(self.before.is_some());
        STEPPED.set(self.before.take());
    }
}

/// A wait at a stepped clock.
#[derive(Debug)]
struct Wait {
    clock: Arc<Stepped>,
    /// `None`: for ever.
    until: Option<Instant>,
    /// In the clock's table.
    key: Option<(Instant, u64)>,
}

impl Wait {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Pending };
        let mut state = self.clock.state.lock();
        if until <= state.now {
            return Poll::Ready(());
        }
        let key = *self.key.get_or_insert_with(|| {
            state.numbered += 1;
            (until, state.numbered)
        });
        state.waits.insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.clock.state.lock().waits.remove(&key);
            // Without the lock: what it holds may hold other waits.
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::within::within;

    const SECOND: Duration = Duration::from_secs(1);

    fn is_over(sleep: &mut Sleep) -> bool {
        Pin::new(sleep).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn waits_are_over_when_the_clock_is_moved_on_and_in_the_order_of_their_times() {
        let clock = Stepped::new();
        let entered = clock.enter();
        let began = now();
        let [mut second, mut first] = [Sleep::after(2 * SECOND), Sleep::after(SECOND)];
        assert!(!is_over(&mut second) && !is_over(&mut first) && !is_over(&mut Sleep::never()));
        assert_eq!(clock.next_due(), Some(began + SECOND));
        clock.set(began + SECOND);
        assert!(is_over(&mut first) && !is_over(&mut second));
        second.set_at(began + 3 * SECOND);
        assert!(!is_over(&mut second));
        assert_eq!(clock.next_due(), Some(began + 3 * SECOND));
        drop(second);
        assert_eq!(clock.next_due(), None);
        drop(entered);
        assert!(!is_stepped());
    }

    #[test]
    fn a_limit_is_over_on_the_clock_of_the_thread_that_set_it() {
        let clock = Stepped::new();
        let entered = clock.enter();
        let mut limited = Box::pin(within(SECOND, std::future::pending::<()>()));
        let mut look = || limited.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(look(), Poll::Pending);
        clock.set(now() + SECOND);
        assert_eq!(look(), Poll::Ready(None));
        drop(entered);
    }
}
