//! The time that keys end by.
//!
//! A store's clock counts milliseconds since 1970. It is set by the machine's own once, when the store is started, and goes on by
//! the monotonic clock from there: whatever the machine's clock is set to meanwhile, no key ends earlier or later for it. A store
//! that is started again goes by what the machine's clock says then.
//!
//! A slave has a clock of its own. The primary's greeting says what the primary's clock reads, and a slave turns each deadline that
//! it is sent into a deadline of its own clock: machines whose clocks differ agree on how long a key has, but for the time that
//! the greeting took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Follow;
use super::requests::Ttl;
use crate::store::Value;

/// No deadline is behind this one.
const DEADLINE_MAX: u64 = 1 << 62;

/// A store's clock.
pub(super) struct Clock {
    follow: Arc<dyn Follow>,
    from: Instant,
    /// In milliseconds since 1970, then.
    unix_ms: u64,
}

impl Clock {
    pub(super) fn new(follow: &Arc<dyn Follow>) -> Self {
        let (from, unix_ms) = (follow.now(), follow.unix_ms());
        Self { follow: Arc::clone(follow), from, unix_ms }
    }

    /// The time, in whole milliseconds that have passed.
    pub(super) fn now(&self) -> u64 {
        self.since(|since| since.as_millis())
    }

    /// The time, in milliseconds, rounded up: a deadline that is counted from here is not earlier than the key's whole time.
    fn next(&self) -> u64 {
        self.since(|since| since.as_nanos().div_ceil(1_000_000))
    }

    fn since(&self, millis: impl FnOnce(Duration) -> u128) -> u64 {
        let since = self.follow.now().saturating_duration_since(self.from);
        self.unix_ms.saturating_add(u64::try_from(millis(since)).unwrap_or(DEADLINE_MAX))
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
