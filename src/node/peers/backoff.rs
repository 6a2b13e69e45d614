//! Pauses between tries: doubled each time up to a bound, with jitter, so that nodes do not try in step.

use std::time::Duration;

use smol::Timer;

use crate::config::Limits;
use crate::within::within;

/// The pauses of one series of tries.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// As the limits say.
    pub const fn new(limits: &Limits) -> Self {
        Self { first: limits.backoff_first, max: limits.backoff_max, next: limits.backoff_first }
    }

    /// A try has succeeded: the next series begins anew.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause: between half and the whole of what is due.
    pub fn next_pause(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.max);
        let share = f64::from(crate::node::random_u32()) / f64::from(u32::MAX);
        due.mul_f64(0.5 + share / 2.0)
    }

    /// Waits for the next pause.
    pub async fn pause(&mut self) {
        Timer::after(self.next_pause()).await;
    }

    /// Waits for the next pause, or until `sooner` comes: then the series begins anew. Never less than a first pause, so
    /// that what comes all the time makes nobody try all the time.
    pub async fn pause_or(&mut self, sooner: impl Future<Output = ()>) {
        let pause = self.next_pause();
        let least = pause.min(self.first);
        Timer::after(least).await;
        if within(pause - least, sooner).await.is_some() {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_begin_anew() {
        let limits = Limits {
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_millis(350),
            ..Limits::default()
        };
        let mut backoff = Backoff::new(&limits);
        for due_ms in [100, 200, 350, 350] {
            let pause = backoff.next_pause();
            assert!(pause >= Duration::from_millis(due_ms / 2) && pause <= Duration::from_millis(due_ms));
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(100));
    }

    #[test]
    fn a_pause_ends_early_when_something_comes_and_never_before_a_first_one() {
        let limits = Limits {
            backoff_first: Duration::from_millis(20),
            backoff_max: Duration::from_secs(3_600),
            ..Limits::default()
        };
        let mut backoff = Backoff::new(&limits);
        for _ in 0..18 {
            backoff.next_pause();
        }
        let begun = crate::node::now();
        smol::block_on(backoff.pause_or(std::future::ready(())));
        assert!(begun.elapsed() >= Duration::from_millis(20), "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(600), "it has waited for more than what came");
        assert!(backoff.next_pause() <= Duration::from_millis(20), "the series has begun anew");
        smol::block_on(backoff.pause_or(std::future::pending()));
    }
}
