//! Connections at the door: those that have not proved the cookie, by the address that they come from.
//!
//! A peer without the cookie costs nothing that grows: the oldest of the half-open connections makes room for the newest,
//! so that idle ones keep no peer out; a wrong digest takes one of the few turns that its address has in a second, and a
//! right one takes none; and what one address does again and again is one line of the log in each interval. Nothing is
//! kept of a name.
//!
//! # Guessing
//!
//! A peer that guesses learns that a guess was right by being let in. So what must be bounded is how many wrong digests of
//! an address are *looked at*, told or not: a peer that guesses need not wait for the refusal, and can hang up.
//!
//! ```text
//! now           TURNS_AHEAD              WAIT_MAX beyond
//!  |--+--+--+--+--+--|- - - - - - - - - - - - -|
//!   wrong ones that     digests that are not      any more are refused
//!   wait to be told     looked at yet
//! ```
//!
//! Each digest takes the next free turn of its address, and gives it back unless it is wrong. A wrong one is told so (the
//! connection is closed) when its turn is over: a peer that waits for the answers, such as a node with a wrong cookie that
//! tries for ever, has few turns taken at any time, and every right digest beside it is looked at and let in at once. Only
//! where the turns of the next seconds are all taken by wrong ones, a digest waits until it is looked at, in the order of
//! coming; a peer that hangs up meanwhile gives its place back. Then right ones of that address wait too, or are refused: to let them
//! in at once would be to tell guesses apart at any rate.

use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::Mutex;
use smol::Timer;
use smol::channel::{Receiver, Sender};

use crate::config::Limits;
use crate::distribution::handshake::{Fault, Unwelcome};
use crate::log::Once;
use crate::node::link::tls::TlsFault;
use crate::node::now;

/// Addresses that something is remembered of: past it the others share one memory.
const SOURCES_MAX: usize = 4096;
/// How far ahead the turns may be taken of digests that are looked at: that many are looked at at once where none came for
/// a while.
const TURNS_AHEAD: Duration = Duration::from_secs(5);
/// How long a digest may wait until it is looked at: less than a BEAM waits for the answer (7 s).
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Where a connection comes from, as far as one party is likely to have all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    /// The first 64 bits: what one customer or machine gets has as many addresses as it likes.
    V6([u16; 4]),
    /// Too many are remembered to tell them apart.
    Others,
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            // All of 127/8, and ::1, are this machine.
            address if address.is_loopback() => Self::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = Ipv6Addr::segments(&address);
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// The half-open connections of a node, and what is remembered of where they come from.
pub(in crate::node) struct Door {
    state: Mutex<State>,
    half_open_max: usize,
    half_open_per_source_max: usize,
    /// The length of a turn.
    digest_pause: Duration,
}

struct State {
    /// By age: numbers are given in order.
    half_open: BTreeMap<u64, HalfOpen>,
    next: u64,
    /// How many of them each source has.
    counts: AHashMap<Source, usize>,
    /// The end of the last turn that is taken, by source. What is past is the same as nothing.
    turns: AHashMap<Source, Instant>,
    said: Once<(Source, Kind)>,
}

struct HalfOpen {
    source: Source,
    /// Closed when the connection is to end.
    room: Sender<()>,
}

/// What a line of the log is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A handshake ended.
    Fault(Discriminant<Fault>),
    /// A node was not let in.
    Refused(Unwelcome),
    /// TLS was spoken where there is none.
    Hello,
    /// TLS was not agreed on.
    Tls(Discriminant<TlsFault>),
    /// One made room for another.
    Crowded,
}

impl Door {
    pub(in crate::node) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                half_open: BTreeMap::new(),
                next: 0,
                counts: AHashMap::new(),
                turns: AHashMap::new(),
                said: Once::new(SOURCES_MAX)
                    .every(limits.handshake_log_interval)
                    .sharing(|(_, kind)| (Source::Others, *kind)),
            }),
            half_open_max: limits.handshakes_max.max(1),
            half_open_per_source_max: limits.handshakes_per_address_max.max(1),
            digest_pause: Duration::from_secs(1) / limits.digests_per_sec_max.max(1),
        })
    }

    /// Lets a connection in, until it has proved the cookie or its pass is dropped. Another may have to go.
    pub(in crate::node) fn enter(self: &Arc<Self>, from: IpAddr) -> Pass {
        let source = Source::from(from);
        let (room, lost) = smol::channel::bounded(1);
        let mut state = self.state.lock();
        let crowded =
            if state.counts.get(&source).is_some_and(|&count| count >= self.half_open_per_source_max) {
                Some(source)
            } else if state.half_open.len() >= self.half_open_max {
                state.counts.iter().max_by_key(|(_, count)| **count).map(|(source, _)| *source)
            } else {
                None
            };
        if let Some(crowded) = crowded {
            state.close_oldest(crowded);
        }
        let number = state.next;
        state.next += 1;
        state.half_open.insert(number, HalfOpen { source, room });
        *state.counts.entry(source).or_default() += 1;
        drop(state);
        if let Some(crowded) = crowded
            && let Some(more) = self.say(crowded, Kind::Crowded)
        {
            tracing::warn!(source = ?crowded, more, "too many connections are being set up: the oldest make room");
        }
        Pass { door: Arc::clone(self), number, source, lost }
    }

    /// Whether a line may be logged now; with the number of those that were not since the last.
    fn say(&self, source: Source, kind: Kind) -> Option<u64> {
        self.state.lock().said.due((source, kind), now())
    }
}

impl State {
    fn close_oldest(&mut self, of: Source) {
        let oldest = self.half_open.iter().find(|(_, half_open)| half_open.source == of);
        if let Some((&number, _)) = oldest {
            self.remove(number);
        }
    }

    /// The connection ends, if it did not yet.
    fn remove(&mut self, number: u64) {
        let Some(HalfOpen { source, room }) = self.half_open.remove(&number) else { return };
        room.close();
        if let Some(count) = self.counts.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&source);
            }
        }
    }
}

/// The source under which a turn is remembered: turns that are over are forgotten where the table is full, and a source that
/// finds no room shares turns with the others.
fn make_room(turns: &mut AHashMap<Source, Instant>, source: Source, at: Instant) -> Source {
    if turns.len() < SOURCES_MAX || turns.contains_key(&source) {
        return source;
    }
    turns.retain(|_, taken| *taken > at);
    if turns.len() < SOURCES_MAX { source } else { Source::Others }
}

/// A connection that is being set up.
pub(in crate::node) struct Pass {
    door: Arc<Door>,
    number: u64,
    source: Source,
    lost: Receiver<()>,
}

impl Pass {
    /// Waits until the connection has to make room for another.
    pub(in crate::node) async fn lost(&self) {
        // Nothing is ever sent: only the closing of the channel ends the wait.
        while self.lost.recv().await.is_ok() {}
    }

    /// Waits until a digest may be looked at, as a rule not at all; `None`: too many others wait already.
    pub(in crate::node) async fn attempt(&self) -> Option<Attempt<'_>> {
        let (attempt, wait) = self.take_turn(now())?;
        if !wait.is_zero() {
            Timer::after(wait).await;
        }
        Some(attempt)
    }

    /// Takes the next free turn; with how long it is until the digest may be looked at.
    fn take_turn(&self, at: Instant) -> Option<(Attempt<'_>, Duration)> {
        let door = &*self.door;
        let mut state = door.state.lock();
        let source = make_room(&mut state.turns, self.source, at);
        let taken = state.turns.get(&source).map_or(at, |taken| (*taken).max(at));
        let ahead = taken.duration_since(at);
        if ahead >= TURNS_AHEAD + WAIT_MAX {
            return None;
        }
        let over = taken + door.digest_pause;
        state.turns.insert(source, over);
        Some((Attempt { door, source, over, wrong: false }, ahead.saturating_sub(TURNS_AHEAD)))
    }

    /// Whether it may be logged that TLS was not agreed on; with the number of like failures that were not.
    pub(in crate::node) fn may_log_tls(&self, fault: &TlsFault) -> Option<u64> {
        self.door.say(self.source, Kind::Tls(discriminant(fault)))
    }

    /// Whether it may be logged that TLS was spoken where there is none; with the number of those that were not.
    pub(in crate::node) fn may_log_hello(&self) -> Option<u64> {
        self.door.say(self.source, Kind::Hello)
    }

    /// Whether the end of the handshake may be logged; with the number of like ends that were not.
    pub(in crate::node) fn may_log(&self, fault: &Fault) -> Option<u64> {
        let kind = match fault {
            Fault::Refused(why) => Kind::Refused(*why),
            fault => Kind::Fault(discriminant(fault)),
        };
        self.door.say(self.source, kind)
    }
}

/// A digest that may be looked at, and the turn that it has taken, which is given back unless it was wrong.
#[must_use]
pub(in crate::node) struct Attempt<'a> {
    door: &'a Door,
    /// Whose turn it is: the pass's, or that of the others.
    source: Source,
    over: Instant,
    wrong: bool,
}

impl Attempt<'_> {
    /// That the digest was wrong: waits until its turn is over. The turn is taken, however long this is waited for.
    pub(in crate::node) fn wrong(mut self) -> impl Future<Output = ()> {
        // At once, and not when it is first waited for.
        self.wrong = true;
        async move {
            let attempt = self;
            Timer::at(attempt.over).await;
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut state = self.door.state.lock();
        let Some(taken) = state.turns.get_mut(&self.source) else { return };
        if !self.wrong {
            *taken -= self.door.digest_pause;
        }
        if *taken <= now() {
            state.turns.remove(&self.source);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.door.state.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(per_source: usize, all: usize) -> Arc<Door> {
        Door::new(&Limits {
            handshakes_max: all,
            handshakes_per_address_max: per_source,
            ..Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_oldest_of_an_address_makes_room_and_no_other() {
        let door = door(2, 100);
        let other = door.enter(ip("10.0.0.2"));
        let [first, second, third] = [(); 3].map(|()| door.enter(ip("10.0.0.1")));
        assert!(first.lost.is_closed());
        assert!(!second.lost.is_closed() && !third.lost.is_closed() && !other.lost.is_closed());
        drop(third);
        let fourth = door.enter(ip("10.0.0.1"));
        assert!(!second.lost.is_closed() && !fourth.lost.is_closed(), "there was room");
        drop((first, second, fourth, other));
        let state = door.state.lock();
        assert!(state.half_open.is_empty() && state.counts.is_empty());
    }

    #[test]
    fn where_all_are_too_many_the_address_with_the_most_makes_room() {
        let door = door(10, 4);
        let few = door.enter(ip("10.0.0.1"));
        let many = [(); 3].map(|()| door.enter(ip("2001:db8::1")));
        let more = door.enter(ip("10.0.0.3"));
        assert!(many[0].lost.is_closed());
        assert!(!few.lost.is_closed() && !more.lost.is_closed() && !many[1].lost.is_closed());
    }

    #[test]
    fn addresses_that_one_party_has_are_one() {
        let same = |a, b| Source::from(ip(a)) == Source::from(ip(b));
        assert!(
            same("127.0.0.1", "127.9.9.9") && same("::1", "127.0.0.1") && same("::ffff:10.0.0.1", "10.0.0.1")
        );
        assert!(same("2001:db8::1", "2001:db8::2:3:4:5") && !same("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }

    #[test]
    fn right_digests_wait_for_nothing_and_take_nothing() {
        let door = door(100, 100);
        let (pass, at) = (door.enter(ip("10.0.0.1")), now());
        for _ in 0..1_000 {
            let (_right, wait) = pass.take_turn(at).unwrap();
            assert!(wait.is_zero());
        }
        assert!(door.state.lock().turns.is_empty(), "nothing is remembered");
        let mut wrong = pass.take_turn(at).unwrap().0;
        wrong.wrong = true;
        for _ in 0..1_000 {
            let (_right, wait) =
                door.enter(ip("10.0.0.1")).take_turn(at).map(|(_, wait)| ((), wait)).unwrap();
            assert!(wait.is_zero(), "a wrong one beside them costs them nothing");
        }
    }

    /// How long a digest of this address that comes at `at` waits until it is looked at, and found to be wrong.
    fn wrong_at(door: &Arc<Door>, from: &str, at: Instant) -> Option<Duration> {
        let pass = door.enter(ip(from));
        let (mut attempt, wait) = pass.take_turn(at)?;
        attempt.wrong = true;
        Some(wait)
    }

    #[test]
    fn no_more_wrong_digests_are_looked_at_than_there_are_turns() {
        let door = door(100, 100);
        // Ahead of the clock, so that nothing is over while this runs.
        let start = now() + Duration::from_secs(3600);
        let mut looks = Vec::new();
        // A peer that hangs up at once and comes again, each millisecond for a minute.
        for millis in 0..60_000 {
            let at = start + Duration::from_millis(millis);
            looks.extend(wrong_at(&door, "10.0.0.1", at).map(|wait| at + wait));
        }
        let at_once = 50;
        for second in 0..70 {
            let until = start + Duration::from_secs(second);
            let looked = looks.iter().filter(|at| **at <= until).count() as u64;
            assert!(looked <= at_once + 1 + 10 * second, "{looked} in {second} s");
        }
        assert!(looks.len() >= 600, "and each turn is used: {}", looks.len());
        let at = start + Duration::from_secs(60);
        assert_eq!(wrong_at(&door, "10.0.0.1", at), None, "too many wait");
        assert_eq!(wrong_at(&door, "10.0.0.2", at), Some(Duration::ZERO), "another address does not");
        let later = at + TURNS_AHEAD + WAIT_MAX + door.digest_pause;
        assert_eq!(wrong_at(&door, "10.0.0.1", later), Some(Duration::ZERO), "all is forgotten");
    }

    #[test]
    fn a_wrong_digest_is_told_so_when_its_turn_is_over_and_then_forgotten() {
        let door = door(100, 100);
        let passes = [(); 4].map(|()| door.enter(ip("10.0.0.1")));
        smol::block_on(async {
            let start = now();
            let told = smol::LocalExecutor::new();
            let tasks = passes.each_ref().map(|pass| {
                told.spawn(async {
                    pass.attempt().await.unwrap().wrong().await;
                    start.elapsed()
                })
            });
            let took = told
                .run(async {
                    let mut took = Vec::new();
                    for task in tasks {
                        took.push(task.await);
                    }
                    took
                })
                .await;
            for (number, took) in (1..).zip(&took) {
                assert!(*took >= door.digest_pause * number, "{took:?}");
            }
        });
        assert!(door.state.lock().turns.is_empty());
    }

    #[test]
    fn who_hangs_up_before_the_look_gives_its_turn_back() {
        let door = door(1000, 1000);
        let at = now() + Duration::from_secs(3600);
        while wrong_at(&door, "10.0.0.1", at) == Some(Duration::ZERO) {}
        let pass = door.enter(ip("10.0.0.1"));
        let (waits, first) = pass.take_turn(at).unwrap();
        drop(waits);
        let (_waits, second) = pass.take_turn(at).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn an_address_is_in_the_log_once_for_each_kind_and_interval() {
        let door = door(100, 100);
        let (one, other) = (door.enter(ip("10.0.0.1")), door.enter(ip("10.0.0.2")));
        assert_eq!(one.may_log(&Fault::WrongCookie), Some(0));
        assert_eq!(one.may_log(&Fault::WrongCookie), None);
        assert_eq!(one.may_log(&Fault::TimedOut), Some(0));
        assert_eq!(other.may_log(&Fault::WrongCookie), Some(0));
        assert_eq!(one.may_log(&Fault::WrongCookie), None);
        door.state.lock().said.age(Limits::default().handshake_log_interval);
        assert_eq!(one.may_log(&Fault::WrongCookie), Some(2), "and then says how many there were");
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded() {
        let door = door(10, 10);
        for number in 0..2 * SOURCES_MAX as u32 {
            let pass = door.enter(Ipv4Addr::from_bits(number).into());
            if let Some((mut attempt, _)) = pass.take_turn(now()) {
                attempt.wrong = true;
            }
            pass.may_log(&Fault::WrongCookie);
        }
        let state = door.state.lock();
        assert!(state.turns.len() <= SOURCES_MAX + 1 && state.said.len() <= SOURCES_MAX + 1);
        assert!(state.half_open.is_empty());
    }
}
