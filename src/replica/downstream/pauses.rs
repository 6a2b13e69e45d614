//! Pauses between two searches: doubled each time up to a bound, with jitter, so that primaries do not search in step.

use std::time::Duration;

/// The pauses of one series of searches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Pauses {
    pub(super) const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, next: first }
    }

    /// The series begins anew.
    pub(super) const fn reset(&mut self) {
        self.next = self.first;
    }

    /// The shortest pause that there is: what comes all the time makes nobody search all the time.
    pub(super) const fn first(&self) -> Duration {
        self.first
    }

    /// The next pause: between half and the whole of what is due. `chance` gives a number below its argument.
    pub(super) fn next(&mut self, chance: &mut (dyn FnMut(u32) -> u32 + Send)) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.max);
        let half = due / 2;
        let millis = u32::try_from(half.as_millis()).unwrap_or(u32::MAX);
        half + Duration::from_millis(chance(millis.saturating_add(1)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_begin_anew() {
        let millis = Duration::from_millis;
        let mut pauses = Pauses::new(millis(100), millis(350));
        for due in [100, 200, 350, 350] {
            let mut longest = pauses;
            assert_eq!(longest.next(&mut |below| below - 1), millis(due));
            assert_eq!(pauses.next(&mut |_| 0), millis(due / 2));
        }
        pauses.reset();
        assert_eq!(pauses.next(&mut |_| 0), millis(50));
    }
}
