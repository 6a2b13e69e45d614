//! How long a lease is surely held: a value without a clock.
//!
//! etcd counts a lease's time from the moment that the request reaches its leader, which is not before it was sent: so, counted
//! from there by our own clock, the lease is held at least as long. Clocks run at different rates: a hundredth of the time is
//! taken off, which is a hundred times what quartz may be off by.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// The lease is held.
    Held {
        /// As long as this, if nothing more is heard.
        until: Instant,
        /// When it is to be renewed.
        renew_at: Instant,
    },
    /// The lease is not held any more, or may not be.
    Lost,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// etcd has renewed it for so long.
    Renewed {
        /// When that was asked for.
        asked: Instant,
        /// 0: there is no such lease.
        ttl: Duration,
    },
    /// It could not be renewed now.
    Failed,
}

/// After a renewal that failed for another reason than time.
const PAUSE: Duration = Duration::from_millis(200);

impl Term {
    /// A lease that etcd gave.
    pub(super) fn granted(asked: Instant, ttl: Duration) -> Self {
        Self::Held { until: asked + (ttl - ttl / 100), renew_at: asked + ttl / 3 }
    }

    /// Something has happened. What is lost stays lost, whatever comes late.
    pub(super) fn handle(self, input: Input, now: Instant) -> Self {
        match (self, input) {
            (Self::Lost, _) => Self::Lost,
            (Self::Held { until, .. }, _) if until <= now => Self::Lost,
            (Self::Held { .. }, Input::Renewed { ttl: Duration::ZERO, .. }) => Self::Lost,
            (Self::Held { until, .. }, Input::Renewed { asked, ttl }) => {
                match Self::granted(asked, ttl) {
                    // The server may give less than before; what it gave before it holds.
                    Self::Held { until: renewed, renew_at } => {
                        Self::Held { until: renewed.max(until), renew_at }
                    }
                    Self::Lost => Self::Lost,
                }
            }
            (Self::Held { until, .. }, Input::Failed) => {
                Self::Held { until, renew_at: (now + PAUSE).min(until) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "a time to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    fn until(term: Term) -> Instant {
        match term {
            Term::Held { until, .. } => until,
            Term::Lost => panic!("it is lost"),
        }
    }

    #[test]
    fn a_lease_is_held_from_when_it_was_asked_for_and_not_from_the_answer() {
        let asked = start();
        let term = Term::granted(asked, 10 * SECOND);
        assert_eq!(term, Term::Held { until: asked + 99 * SECOND / 10, renew_at: asked + 10 * SECOND / 3 });
        let again = asked + 3 * SECOND;
        let term = term.handle(Input::Renewed { asked: again, ttl: 10 * SECOND }, again + 2 * SECOND);
        assert_eq!(until(term), again + 99 * SECOND / 10);
    }

    #[test]
    fn a_lease_that_is_not_renewed_in_time_is_lost_whatever_comes_late() {
        let asked = start();
        let term = Term::granted(asked, 10 * SECOND);
        let late = asked + 10 * SECOND;
        assert_eq!(
            term.handle(Input::Failed, asked + 4 * SECOND),
            Term::Held { until: until(term), renew_at: asked + 4 * SECOND + PAUSE }
        );
        let lost = term.handle(Input::Renewed { asked: asked + SECOND, ttl: 10 * SECOND }, late);
        assert_eq!(lost, Term::Lost);
        assert_eq!(lost.handle(Input::Renewed { asked: late, ttl: 10 * SECOND }, late), Term::Lost);
        let gone = Input::Renewed { asked: asked + SECOND, ttl: Duration::ZERO };
        assert_eq!(term.handle(gone, asked + SECOND), Term::Lost);
        assert_eq!(term.handle(Input::Failed, until(term)), Term::Lost);
    }
}
