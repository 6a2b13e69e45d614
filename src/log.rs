//! What keeps a line out of the log that would only say again what was said. (How many lines the log takes of one kind in all
//! is [`program`](crate::program)'s; this is about what has happened.)
//!
//! Both are values without a clock: what depends on time is given the time.

use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;

/// Says a thing once for each key, or once in each period.
#[derive(Clone, Debug)]
pub(crate) struct Once<K> {
    said: AHashMap<K, Said>,
    keys_max: usize,
    when_full: WhenFull<K>,
    /// `None`: what was said stays said until it is [forgotten](Self::forget).
    period: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    /// `None`: it was said without a time.
    at: Option<Instant>,
    /// How often it was not said since.
    more: u64,
}

/// What becomes of a key that there is no room for.
#[derive(Clone, Copy, Debug)]
enum WhenFull<K> {
    /// It is not said.
    Quiet,
    /// All others are forgotten.
    Forget,
    /// It has the memory of this key, which has room besides.
    Share(fn(&K) -> K),
}

impl<K: Eq + Hash> Once<K> {
    /// Of so many keys at most: what comes beyond them is not said, so that a peer that chooses keys fills neither memory nor log.
    pub(crate) fn new(keys_max: usize) -> Self {
        Self { said: AHashMap::new(), keys_max, when_full: WhenFull::Quiet, period: None }
    }

    /// What is another than the last is said.
    pub(crate) fn when_changed() -> Self {
        Self { when_full: WhenFull::Forget, ..Self::new(1) }
    }

    /// Again in each period, when it is still so.
    pub(crate) fn every(self, period: Duration) -> Self {
        Self { period: Some(period), ..self }
    }

    /// Keys beyond the bound are taken together: `shared` gives the key of such a one.
    pub(crate) fn sharing(self, shared: fn(&K) -> K) -> Self {
        Self { when_full: WhenFull::Share(shared), ..self }
    }

    /// Whether it is to be said now, which it then is.
    pub(crate) fn first(&mut self, key: K) -> bool {
        self.say(key, None).is_some()
    }

    /// The same at a time, for what is said in each period. Gives how often it was not said since the last time.
    pub(crate) fn due(&mut self, key: K, at: Instant) -> Option<u64> {
        self.say(key, Some(at))
    }

    /// All is well again: the next time is news. Gives whether it was said.
    pub(crate) fn forget<Q>(&mut self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.said.remove(key).is_some()
    }

    /// The same of all keys.
    pub(crate) fn forget_all(&mut self) {
        self.said.clear();
    }

    fn say(&mut self, key: K, at: Option<Instant>) -> Option<u64> {
        let period = self.period;
        let is_old = |said: &Said| match (period, said.at, at) {
            (Some(period), Some(said), Some(at)) => at.saturating_duration_since(said) >= period,
            _ => false,
        };
        let key = if self.said.len() < self.keys_max || self.said.contains_key(&key) {
            key
        } else {
            self.said.retain(|_, said| !is_old(said));
            match self.when_full {
                _ if self.said.len() < self.keys_max => key,
                WhenFull::Quiet => return None,
                WhenFull::Forget => {
                    self.said.clear();
                    key
                }
                WhenFull::Share(shared) => shared(&key),
            }
        };
        match self.said.get_mut(&key) {
            Some(said) if !is_old(said) => {
                said.more += 1;
                None
            }
            said => {
                let more = said.map_or(0, |said| said.more);
                self.said.insert(key, Said { at, more: 0 });
                Some(more)
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.said.len()
    }

    /// As if so much time had passed.
    #[cfg(test)]
    pub(crate) fn age(&mut self, by: Duration) {
        for said in self.said.values_mut() {
            said.at = said.at.and_then(|at| at.checked_sub(by));
        }
    }
}

/// The same of one thing alone, without a lock: threads that say it at the same time say it once.
#[derive(Debug)]
pub(crate) struct OnceFlag(AtomicBool);

impl Default for OnceFlag {
    fn default() -> Self {
        Self::new()
    }
}

impl OnceFlag {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether it is to be said now, which it then is.
    pub(crate) fn first(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[expect(clippy::disallowed_methods, reason = "a time to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_thing_is_said_once_for_each_key_until_it_is_forgotten() {
        let mut once = Once::new(10);
        assert!(once.first("a") && !once.first("a") && once.first("b"));
        assert!(once.forget("a") && !once.forget("a"));
        assert!(once.first("a") && !once.first("b"));
        once.forget_all();
        assert!(once.first("b"));
    }

    #[test]
    fn with_a_period_it_is_said_again_with_how_often_it_was_not() {
        let (start, mut once) = (start(), Once::new(10).every(MINUTE));
        assert_eq!(once.due("a", start), Some(0));
        assert_eq!(once.due("a", start + MINUTE / 2), None);
        assert_eq!(once.due("b", start + MINUTE / 2), Some(0));
        assert_eq!(once.due("a", start + MINUTE), Some(1));
        assert_eq!(once.due("a", start + MINUTE), None);
        assert_eq!(once.due("a", start + 2 * MINUTE), Some(1));
        once.age(MINUTE);
        assert_eq!(once.due("a", start + 2 * MINUTE), Some(0));
    }

    #[test]
    fn keys_beyond_the_bound_are_not_said_and_not_kept() {
        let mut once = Once::new(2);
        assert!(once.first(1) && once.first(2) && !once.first(3) && !once.first(1));
        assert_eq!(once.len(), 2);
        let (start, mut once) = (start(), Once::new(1).every(MINUTE));
        assert_eq!((once.due(1, start), once.due(2, start)), (Some(0), None));
        assert_eq!(once.due(2, start + MINUTE), Some(0), "what is old makes room");
        assert_eq!(once.len(), 1);
    }

    #[test]
    fn keys_beyond_the_bound_may_share_one_memory() {
        let (start, mut once) = (start(), Once::new(2).every(MINUTE).sharing(|_| 0));
        assert_eq!((once.due(1, start), once.due(2, start)), (Some(0), Some(0)));
        assert_eq!((once.due(3, start), once.due(4, start)), (Some(0), None), "as one");
        assert_eq!(once.len(), 3);
        assert_eq!(once.due(1, start), None);
    }

    #[test]
    fn what_changes_is_said_at_each_change() {
        let mut once = Once::when_changed();
        assert!(once.first("a") && !once.first("a") && once.first("b") && once.first("a"));
        assert_eq!(once.len(), 1);
    }

    #[test]
    fn a_flag_is_said_once() {
        static FLAG: OnceFlag = OnceFlag::new();
        assert!(FLAG.first() && !FLAG.first());
    }
}
