//! Who stands at the door: connections that have not proved the cookie, by the address that they come from.
//!
//! Whoever has no cookie costs nothing that grows: the oldest of the half-open connections makes room for the newest,
//! so that idle ones keep nobody out; after a wrong digest the next ones of its address wait for their turn; and what
//! one address does again and again is one line of the log in each interval. Nothing is kept of a name.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::mem::{Discriminant, discriminant};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::Mutex;
use smol::Timer;
use smol::channel::{Receiver, Sender};

use super::now;
use super::tls::TlsFault;
use crate::config::Limits;
use crate::dist::handshake::Fault;

/// Addresses that something is remembered of: past it the others share one memory.
const SOURCES_MAX: usize = 4096;
/// A digest whose turn is further away is not looked at.
const TURN_MAX: Duration = Duration::from_secs(5);

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
pub(super) struct Door {
    state: Mutex<State>,
    half_open_max: usize,
    half_open_per_source_max: usize,
    digest_pause: Duration,
    log_interval: Duration,
}

#[derive(Default)]
struct State {
    /// By age: numbers are given in order.
    half_open: BTreeMap<u64, HalfOpen>,
    next: u64,
    /// How many of them each source has.
    counts: AHashMap<Source, usize>,
    /// When the next digest of a source may be looked at.
    turns: AHashMap<Source, Instant>,
    said: AHashMap<(Source, Kind), Said>,
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
    /// TLS was not agreed on.
    Tls(Discriminant<TlsFault>),
    /// One made room for another.
    Crowded,
}

struct Said {
    at: Instant,
    /// What was not said since.
    more: u64,
}

impl Door {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            half_open_max: limits.handshakes_max.max(1),
            half_open_per_source_max: limits.handshakes_per_address_max.max(1),
            digest_pause: Duration::from_secs(1) / limits.digests_per_sec_max.max(1),
            log_interval: limits.handshake_log_interval,
        })
    }

    /// Lets a connection in, until it has proved the cookie or its pass is dropped. Another may have to go.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Pass {
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
        let (at, interval) = (now(), self.log_interval);
        let old = |said: &Said| at.duration_since(said.at) >= interval;
        let mut state = self.state.lock();
        let source = make_room(&mut state.said, (source, kind), (Source::Others, kind), old);
        match state.said.get_mut(&source) {
            Some(said) if !old(said) => {
                said.more += 1;
                None
            }
            said => {
                let more = said.map_or(0, |said| said.more);
                state.said.insert(source, Said { at, more: 0 });
                Some(more)
            }
        }
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

/// The key under which something is remembered: what is old is forgotten where the table is full, and a key that finds
/// no room shares one with the others.
fn make_room<K: Copy + Eq + Hash, V>(
    table: &mut AHashMap<K, V>,
    key: K,
    others: K,
    old: impl Fn(&V) -> bool,
) -> K {
    if table.len() < SOURCES_MAX || table.contains_key(&key) {
        return key;
    }
    table.retain(|_, value| !old(value));
    if table.len() < SOURCES_MAX { key } else { others }
}

/// A connection that is being set up.
pub(super) struct Pass {
    door: Arc<Door>,
    number: u64,
    source: Source,
    lost: Receiver<()>,
}

impl Pass {
    /// Waits until the connection has to make room for another.
    pub(super) async fn lost(&self) {
        // Nothing is ever sent: only the closing of the channel ends the wait.
        while self.lost.recv().await.is_ok() {}
    }

    /// Waits until a digest may be looked at; `false`: too many others wait already.
    pub(super) async fn turn(&self) -> bool {
        let (at, turn) = {
            let at = now();
            let mut state = self.door.state.lock();
            let known = if state.turns.contains_key(&self.source) { self.source } else { Source::Others };
            // Where no digest was wrong there is nothing to wait for.
            let Some(turn) = state.turns.get_mut(&known) else { return true };
            let mine = (*turn).max(at);
            if mine.duration_since(at) > TURN_MAX {
                return false;
            }
            *turn = mine + self.door.digest_pause;
            (at, mine)
        };
        Timer::after(turn.duration_since(at)).await;
        true
    }

    /// That a digest was wrong.
    pub(super) fn wrong_digest(&self) {
        let at = now();
        let next = at + self.door.digest_pause;
        let mut state = self.door.state.lock();
        let source = make_room(&mut state.turns, self.source, Source::Others, |&turn| turn < at);
        let turn = state.turns.entry(source).or_insert(next);
        *turn = (*turn).max(next);
    }

    /// Whether it may be logged that TLS was not agreed on; with the number of like failures that were not.
    pub(super) fn may_log_tls(&self, fault: &TlsFault) -> Option<u64> {
        self.door.say(self.source, Kind::Tls(discriminant(fault)))
    }

    /// Whether the end of the handshake may be logged; with the number of like ends that were not.
    pub(super) fn may_log(&self, fault: &Fault) -> Option<u64> {
        self.door.say(self.source, Kind::Fault(discriminant(fault)))
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
    fn after_a_wrong_digest_each_next_one_waits_for_its_turn() {
        let door = door(100, 100);
        let passes = [(); 4].map(|()| door.enter(ip("10.0.0.1")));
        smol::block_on(async {
            let start = now();
            assert!(passes[0].turn().await && passes[1].turn().await, "nothing was wrong yet");
            passes[0].wrong_digest();
            passes[1].wrong_digest();
            assert!(passes[2].turn().await && passes[3].turn().await);
            let took = start.elapsed();
            assert!(took >= door.digest_pause * 2, "{took:?}");
            assert!(door.enter(ip("10.0.0.2")).turn().await, "another address does not wait");
            assert!(start.elapsed() - took < door.digest_pause);
        });
        *door.state.lock().turns.values_mut().next().unwrap() += TURN_MAX * 2;
        assert!(!smol::block_on(passes[2].turn()), "too many wait");
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
        for said in door.state.lock().said.values_mut() {
            said.at -= door.log_interval;
        }
        assert_eq!(one.may_log(&Fault::WrongCookie), Some(2), "and then says how many there were");
    }

    #[test]
    fn what_is_remembered_of_addresses_is_bounded() {
        let door = door(10, 10);
        for number in 0..2 * SOURCES_MAX as u32 {
            let pass = door.enter(Ipv4Addr::from_bits(number).into());
            pass.wrong_digest();
            pass.may_log(&Fault::WrongCookie);
        }
        let state = door.state.lock();
        assert!(state.turns.len() <= SOURCES_MAX + 1 && state.said.len() <= SOURCES_MAX + 1);
        assert!(state.half_open.is_empty());
    }
}
