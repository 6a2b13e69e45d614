//! Ticks: how a connection stays alive while neither side has anything to say.
//!
//! Driven by calls at a fixed interval, so that the hot path sets two booleans and reads no clock. Erlang's rule
//! (kernel, `net_ticktime`): something is sent at least every quarter of the tick time, and a peer that was
//! silent for the whole of it is down. A tick is also answered by a tick, since the peer's own tick time may be
//! far shorter than ours; at most once an interval, so that two such nodes do not keep each other awake.

use std::time::Duration;

/// What to do at an interval's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TickAction {
    /// Nothing.
    Idle,
    /// Send a tick.
    SendTick,
    /// The peer was silent for the whole tick time: end the connection.
    Down,
}

/// The liveness of one connection.
#[derive(Debug)]
pub struct Ticker {
    intervals_per_quarter: u32,
    intervals_silent_max: u32,
    silent_in: u32,
    silent_out: u32,
    answered: bool,
}

impl Ticker {
    /// For a tick time in seconds; gives the interval at which [`interval`](Self::interval) is to be called.
    pub fn new(net_ticktime_secs: u32) -> (Self, Duration) {
        let quarter_ms = u64::from(net_ticktime_secs.max(1)) * 250;
        let interval_ms = quarter_ms.min(1_000);
        // A quarter of 2^32 seconds is less than 2^32 intervals of a second.
        let intervals_per_quarter = (quarter_ms / interval_ms).max(1) as u32;
        let ticker = Self {
            intervals_per_quarter,
            intervals_silent_max: intervals_per_quarter.saturating_mul(4),
            silent_in: 0,
            silent_out: 0,
            answered: false,
        };
        (ticker, Duration::from_millis(interval_ms))
    }

    /// Something was received.
    #[inline]
    pub const fn received(&mut self) {
        self.silent_in = 0;
    }

    /// The peer has taken something that had waited for it, which tells as much as if it had sent something.
    #[inline]
    pub const fn progressed(&mut self) {
        self.silent_in = 0;
    }

    /// Something was sent.
    #[inline]
    pub const fn sent(&mut self) {
        self.silent_out = 0;
    }

    /// A tick was received: whether to answer it.
    pub const fn tick_received(&mut self) -> bool {
        let answer = !self.answered && self.silent_out > 0;
        self.answered = true;
        answer
    }

    /// An interval has passed.
    pub const fn interval(&mut self) -> TickAction {
        self.answered = false;
        self.silent_in = self.silent_in.saturating_add(1);
        self.silent_out = self.silent_out.saturating_add(1);
        if self.silent_in > self.intervals_silent_max {
            return TickAction::Down;
        }
        if self.silent_out >= self.intervals_per_quarter { TickAction::SendTick } else { TickAction::Idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_sent_every_quarter_and_silence_for_the_whole_time_is_the_end() {
        let (mut ticker, interval) = Ticker::new(60);
        assert_eq!(interval, Duration::from_secs(1));
        let (mut ticks, mut seconds) = (0, 0);
        loop {
            seconds += 1;
            match ticker.interval() {
                TickAction::Idle => {}
                TickAction::SendTick => {
                    ticks += 1;
                    ticker.sent();
                }
                TickAction::Down => break,
            }
        }
        assert_eq!((seconds, ticks), (61, 4));
    }

    #[test]
    fn a_peer_that_ticks_is_answered_but_at_most_once_an_interval() {
        let (mut ticker, _) = Ticker::new(60);
        ticker.interval();
        assert!(ticker.tick_received());
        ticker.sent();
        assert!(!ticker.tick_received());
        ticker.interval();
        assert!(ticker.tick_received());
    }

    #[test]
    fn a_busy_connection_sends_no_ticks() {
        let (mut ticker, _) = Ticker::new(4);
        for _ in 0..100 {
            ticker.sent();
            ticker.received();
            assert_ne!(ticker.interval(), TickAction::Down);
        }
    }
}
