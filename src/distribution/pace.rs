//! How fast a link is, and how large messages are cut for it.
//!
//! A frame that has begun to leave goes before everything else, ticks included, and to a BEAM a frame that is half here
//! is silence. So a message that would take long leaves in fragments. One frame is what costs least where it does
//! not: a BEAM copies fragments together, at half the rate on loopback ([`flags`](super::flags) has the figures).
//!
//! The rate is measured where the socket is full, and from there on: what fits into an empty buffer says nothing.

use std::time::{Duration, Instant};

use super::Cut;

/// A message that takes longer leaves in fragments.
const WHOLE_MAX: Duration = Duration::from_millis(200);
/// The same on this machine, where only the reader is slow: a BEAM that decrypts TLS would be slower still with fragments,
/// which it copies together (`scripts/bench tls`: 57 MB/s for values of 1 MiB, and 106 as one frame).
const WHOLE_MAX_NEAR: Duration = Duration::from_secs(2);
/// What a fragment takes about.
const FRAGMENT: Duration = Duration::from_millis(20);
/// Bounds on what a fragment has, in bytes. BEAMs cut into 64 KiB.
const FRAGMENT_BYTES: std::ops::RangeInclusive<usize> = 16 << 10..=1 << 20;
/// Bytes of a fragment as long as nothing is known.
const FRAGMENT_BYTES_FIRST: usize = 64 << 10;
/// A rate is taken over so much time, or more.
const SAMPLE: Duration = Duration::from_millis(20);

/// The pace of one connection. Driven by the caller that writes to its socket.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    is_near: bool,
    /// Bytes in a second, once known.
    rate: Option<u64>,
    sample: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// Nothing is known of a link yet but whether the peer is on this machine: then it is taken to be fast.
    pub const fn new(is_near: bool) -> Self {
        Self { is_near, rate: None, sample: None }
    }

    /// The socket has taken bytes, at a time when it had been full ([`full`](Self::full)); gives whether that changes
    /// anything.
    pub fn took(&mut self, bytes: usize, now: Instant) -> bool {
        let Some(sample) = &mut self.sample else { return false };
        sample.bytes += bytes as u64;
        let taken = now.saturating_duration_since(sample.since);
        if taken < SAMPLE {
            return false;
        }
        let measured =
            u64::try_from(u128::from(sample.bytes) * 1_000_000 / taken.as_micros()).unwrap_or(u64::MAX);
        self.rate = Some(match self.rate {
            None => measured.max(1),
            Some(rate) => (rate / 4 * 3 + measured / 4).max(1),
        });
        *sample = Sample { since: now, bytes: 0 };
        true
    }

    /// The socket takes no more for now.
    pub fn full(&mut self, now: Instant) {
        self.sample.get_or_insert(Sample { since: now, bytes: 0 });
    }

    /// Nothing waits any more: what follows is not held up by the link.
    pub const fn idle(&mut self) {
        self.sample = None;
    }

    /// Whether the socket is watched, so that [`took`](Self::took) wants to know.
    pub const fn is_measuring(&self) -> bool {
        self.sample.is_some()
    }

    /// How large messages are cut now.
    pub fn cut(&self) -> Cut {
        let within = |rate: u64, time: Duration| {
            usize::try_from(u128::from(rate) * time.as_millis() / 1000).unwrap_or(usize::MAX)
        };
        match self.rate {
            Some(rate) => Cut {
                whole_bytes_max: within(rate, if self.is_near { WHOLE_MAX_NEAR } else { WHOLE_MAX }),
                fragment_bytes: within(rate, FRAGMENT).clamp(*FRAGMENT_BYTES.start(), *FRAGMENT_BYTES.end()),
            },
            None => Cut {
                whole_bytes_max: if self.is_near { usize::MAX } else { FRAGMENT_BYTES_FIRST },
                fragment_bytes: FRAGMENT_BYTES_FIRST,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_slow_link_has_small_fragments_and_a_fast_one_whole_messages() {
        for (rate, whole, fragment) in [
            (600_000, 120_000, 16 << 10),
            (10_000_000, 2_000_000, 200_000),
            (500_000_000, 100_000_000, 1 << 20),
        ] {
            let mut pace = Pace::new(false);
            assert_eq!(pace.cut(), Cut { whole_bytes_max: 64 << 10, fragment_bytes: 64 << 10 });
            let mut now = start();
            assert!(!pace.took(1 << 30, now), "what fits into an empty buffer says nothing");
            pace.full(now);
            for _ in 0..10 {
                now += Duration::from_millis(30);
                assert!(pace.took(rate / 100 * 3, now));
            }
            assert_eq!(pace.cut(), Cut { whole_bytes_max: whole, fragment_bytes: fragment });
        }
    }

    #[test]
    fn pauses_without_anything_to_write_do_not_count() {
        let mut pace = Pace::new(true);
        let mut now = start();
        pace.full(now);
        now += Duration::from_millis(100);
        assert!(pace.took(10_000_000, now));
        let cut = pace.cut();
        pace.idle();
        now += Duration::from_secs(100);
        assert!(!pace.took(100, now) && !pace.is_measuring());
        assert_eq!(pace.cut(), cut);
    }
}
