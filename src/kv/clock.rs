//! The time that keys end by.
//!
//! A store's clock counts milliseconds since 1970. It is set by the machine's own once, when the store is started, and goes on by
//! the monotonic clock from there: whatever the machine's clock is set to meanwhile, no key ends earlier or later for it. A store
//! that is started again goes by what the machine's clock says then.
//!
//! A store that several processes serve has one deadline for all of them, and each machine's own clock says when that has come: its clock follows the
//! machine's. Where that is set back the store's clock does not go back, so that no key that has ended is there again: it goes on
//! half as fast until the machine's has caught up.
//!
//! A slave has a clock of its own. The primary's greeting says what the primary's clock reads, and a slave turns each deadline that
//! it is sent into a deadline of its own clock: machines whose clocks differ agree on how long a key has, but for the time that
//! the greeting took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Follow;
use super::requests::Ttl;
use crate::store::Value;

/// No deadline is behind this one.
const DEADLINE_MAX: u64 = 1 << 62;

/// A store's clock.
pub(super) struct Clock {
    follow: Arc<dyn Follow>,
    goes: Goes,
}

/// How a clock goes on.
enum Goes {
    /// By the monotonic clock, from here.
    Alone(Moment),
    /// As the machine's.
    WithMachine(WithMachine),
}

/// A moment by two clocks.
#[derive(Clone, Copy)]
struct Moment {
    instant: Instant,
    /// In milliseconds since 1970.
    unix_ms: u64,
}

impl Moment {
    fn after(self, since: u128) -> u64 {
        self.unix_ms.saturating_add(u64::try_from(since).unwrap_or(DEADLINE_MAX))
    }
}

/// See [`Goes::WithMachine`].
#[derive(Default)]
struct WithMachine {
    /// The latest time that it has told.
    last: AtomicU64,
    /// When it was seen that the machine's clock is behind that.
    ahead_since: Mutex<Option<Moment>>,
    /// A look at that without the lock.
    is_ahead: AtomicBool,
}

impl WithMachine {
    fn now(&self, follow: &dyn Follow) -> u64 {
        let unix_ms = follow.unix_ms();
        let last = self.last.fetch_max(unix_ms, Ordering::AcqRel);
        if last <= unix_ms {
            if self.is_ahead.load(Ordering::Acquire) {
                *self.ahead_since.lock() = None;
                self.is_ahead.store(false, Ordering::Release);
            }
            return unix_ms;
        }
        let since = &mut *self.ahead_since.lock();
        self.is_ahead.store(true, Ordering::Release);
        let now = follow.now();
        let from = *since.get_or_insert(Moment { instant: now, unix_ms: last });
        let told = from.after(now.saturating_duration_since(from.instant).as_millis() / 2);
        self.last.fetch_max(told, Ordering::AcqRel).max(told)
    }
}

impl Clock {
    /// One that goes on by itself.
    pub(super) fn new(follow: &Arc<dyn Follow>) -> Self {
        let from = Moment { instant: follow.now(), unix_ms: follow.unix_ms() };
        Self { follow: Arc::clone(follow), goes: Goes::Alone(from) }
    }

    /// One that goes with the machine's.
    pub(super) fn of_machine(follow: &Arc<dyn Follow>) -> Self {
        Self { follow: Arc::clone(follow), goes: Goes::WithMachine(WithMachine::default()) }
    }

    /// The time, in whole milliseconds that have passed.
    pub(super) fn now(&self) -> u64 {
        match &self.goes {
            Goes::Alone(from) => from.after(self.since(*from).as_millis()),
            Goes::WithMachine(clock) => clock.now(&*self.follow),
        }
    }

    /// The time, in milliseconds, rounded up: a deadline that is counted from here is not earlier than the key's whole time.
    fn next(&self) -> u64 {
        match &self.goes {
            Goes::Alone(from) => from.after(self.since(*from).as_nanos().div_ceil(1_000_000)),
            // The machine's has no parts of milliseconds.
            Goes::WithMachine(clock) => clock.now(&*self.follow).saturating_add(1),
        }
    }

    fn since(&self, from: Moment) -> Duration {
        self.follow.now().saturating_duration_since(from.instant)
    }

    /// The deadline of what has so long from now on; 0: none.
    pub(super) fn deadline(&self, ttl: Ttl) -> u64 {
        match ttl {
            Ttl::Unsaid | Ttl::Infinity => 0,
            Ttl::Millis(millis) => self.next().saturating_add(millis).min(DEADLINE_MAX),
        }
    }

    /// How long something with a deadline has from now on.
    pub(super) fn left(&self, deadline: u64) -> u64 {
        deadline.saturating_sub(self.next())
    }

    /// The deadline by a slave's clock of a key that has `deadline` by its primary's clock; the slave's clock is `ahead` of that by so
    /// many milliseconds.
    pub(super) fn deadline_of(deadline: u64, ahead: i64) -> u64 {
        if deadline == 0 { 0 } else { deadline.saturating_add_signed(ahead).clamp(1, DEADLINE_MAX) }
    }

    /// Whether a deadline has passed.
    #[inline]
    pub(super) fn is_past(&self, deadline: u64) -> bool {
        deadline != 0 && self.has_come(deadline)
    }

    #[cold]
    fn has_come(&self, deadline: u64) -> bool {
        deadline <= self.now()
    }

    /// What a reader finds: nothing where it has ended.
    #[inline]
    pub(super) fn shown<'a>(&self, value: Option<Value<'a>>) -> Option<Value<'a>> {
        value.filter(|value| !self.is_past(value.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::super::follow::tests::now;
    use super::super::follow::{FollowSlave, Offer};
    use super::*;
    use crate::etf::Pid;
    use crate::process::WakeRequest;

    /// Clocks that a test sets.
    struct Clocks {
        from: Instant,
        monotonic_ms: AtomicU64,
        unix_ms: AtomicU64,
    }

    impl Clocks {
        fn start() -> Arc<Self> {
            let (monotonic_ms, unix_ms) = (AtomicU64::new(0), AtomicU64::new(1_000_000));
            Arc::new(Self { from: now(), monotonic_ms, unix_ms })
        }

        /// Time passes.
        fn pass(&self, millis: u64) {
            self.monotonic_ms.fetch_add(millis, Ordering::Relaxed);
            self.unix_ms.fetch_add(millis, Ordering::Relaxed);
        }

        /// Somebody sets the machine's clock.
        fn set(&self, unix_ms: u64) {
            self.unix_ms.store(unix_ms, Ordering::Relaxed);
        }
    }

    impl Follow for Clocks {
        fn follow(&self, _slave: FollowSlave) {}

        fn offer(&self, _offer: Offer) {}

        fn wake(&self, _store: Pid, _request: WakeRequest) {}

        fn now(&self) -> Instant {
            self.from + Duration::from_millis(self.monotonic_ms.load(Ordering::Relaxed))
        }

        fn unix_ms(&self) -> u64 {
            self.unix_ms.load(Ordering::Relaxed)
        }
    }

    fn followed(clocks: &Arc<Clocks>) -> Arc<dyn Follow> {
        Arc::clone(clocks) as Arc<dyn Follow>
    }

    #[test]
    fn a_store_of_one_process_does_not_mind_what_the_machines_clock_is_set_to() {
        let clocks = Clocks::start();
        let clock = Clock::new(&followed(&clocks));
        for set in [5_000_000, 3, 1_000_000] {
            let before = clock.now();
            clocks.set(set);
            clocks.pass(10);
            assert_eq!(clock.now(), before + 10);
        }
    }

    #[test]
    fn processes_of_one_store_agree_when_a_key_ends_once_their_machines_clocks_do() {
        let (one, other) = (Clocks::start(), Clocks::start());
        // One machine's clock is an hour ahead when its store is started, and the other one is right.
        one.set(1_000_000 + 3_600_000);
        let (first, second) = (Clock::of_machine(&followed(&one)), Clock::of_machine(&followed(&other)));
        other.set(one.unix_ms());
        let deadline = first.deadline(Ttl::Millis(500));
        assert_eq!(second.left(deadline), 500);
        for clocks in [&one, &other] {
            clocks.pass(499);
        }
        assert!(!first.is_past(deadline) && !second.is_past(deadline));
        for clocks in [&one, &other] {
            clocks.pass(2);
        }
        assert!(first.is_past(deadline) && second.is_past(deadline));
    }

    #[test]
    fn a_clock_that_goes_with_the_machines_goes_half_as_fast_while_it_is_ahead_and_never_back() {
        let clocks = Clocks::start();
        let clock = Clock::of_machine(&followed(&clocks));
        let begun = clock.now();
        assert_eq!(begun, 1_000_000);
        clocks.set(begun - 1000);
        assert_eq!(clock.now(), begun);
        clocks.pass(600);
        assert_eq!(clock.now(), begun + 300);
        clocks.pass(400);
        assert_eq!((clock.now(), clocks.unix_ms()), (begun + 500, begun));
        // The machine's clock has passed what was told last.
        clocks.pass(1010);
        assert_eq!((clock.now(), clocks.unix_ms()), (begun + 1010, begun + 1010));
        // Once more: it begins anew there.
        clocks.set(begun);
        assert_eq!(clock.now(), begun + 1010);
        clocks.pass(10);
        assert_eq!(clock.now(), begun + 1015);
        clocks.set(begun + 5000);
        assert_eq!(clock.now(), begun + 5000);
    }
}
