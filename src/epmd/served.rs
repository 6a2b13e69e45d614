//! The connections that the daemon serves, and which of them makes room for the next.
//!
//! A connection asks until its request is answered; that of a node that was registered stays. Those that ask are bounded,
//! by address and in all, and the oldest of them makes room for the newest, as at the door of a node: a request is
//! answered as soon as it is there, so that the oldest connections are idle ones, which keep no other out, of whichever
//! machine. Connections of registered nodes never make room. (Erlang's epmd has one bound, the files that it may open, and
//! waits out idle connections.)

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use smol::channel::{Receiver, Sender};

/// Connections that are served at one time, nodes among them. Past it the oldest that asks makes room, and where all are
/// nodes, new ones are closed at once. Below the 1024 files that many systems let a program have.
pub const CONNECTIONS_MAX: usize = 1000;
/// Of these, connections from other machines: no more places are theirs, whatever they do. One of this machine makes room
/// for them only where a crowd of it asks, more than [`REMOTE_CONNECTIONS_PER_ADDRESS_MAX`].
pub const REMOTE_CONNECTIONS_MAX: usize = 256;
/// Of these, connections from one address of another machine (a /64 of IPv6). A node asks by one connection for each node
/// that it looks for, which is open for no longer than the way of its answer.
pub const REMOTE_CONNECTIONS_PER_ADDRESS_MAX: usize = 64;

/// Where a connection comes from, as far as one party is likely to have all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// This machine, by whichever of its addresses.
    Here,
    V4(Ipv4Addr),
    /// The first 64 bits: what one customer or machine gets has as many addresses as it likes.
    V6([u16; 4]),
}

impl Source {
    /// Of a connection from `peer` that came in at `own`.
    pub(super) fn new(peer: IpAddr, own: Option<IpAddr>) -> Self {
        match peer.to_canonical() {
            _ if own.is_some_and(|own| is_local(peer, own)) => Self::Here,
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }

    /// Whether it is another machine.
    pub(super) fn is_remote(self) -> bool {
        self != Self::Here
    }
}

/// Whether a peer is on this machine: it comes from the loopback, or from the very address that it connected to.
fn is_local(peer: IpAddr, own: IpAddr) -> bool {
    let (peer, own) = (peer.to_canonical(), own.to_canonical());
    peer.is_loopback() || peer == own
}

/// The connections, counted against the limits.
#[derive(Debug, Default)]
pub(super) struct Served {
    connections: HashMap<u32, Connection>,
    /// The age of the next one.
    next: u64,
    /// A connection had to make room, and it has been crowded since.
    crowded: bool,
}

#[derive(Debug)]
struct Connection {
    source: Source,
    age: u64,
    /// It is a node's, and stays.
    is_node: bool,
    /// Dropped, it closes the connection. Gone where that has happened and its task has not ended yet.
    room: Option<Sender<()>>,
}

impl Connection {
    fn asks(&self) -> bool {
        !self.is_node && self.room.is_some()
    }
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    /// The lowest number that was free, as a system numbers its files.
    pub(super) number: u32,
    /// Closed when the connection is to end.
    pub(super) lost: Receiver<()>,
    /// Where the oldest came from that made room for it, where one did and none had for a while.
    pub(super) crowded: Option<Source>,
}

impl Served {
    /// Finds a place, for which another connection may have to go. `None`: none of them may.
    pub(super) fn enter(&mut self, source: Source) -> Option<Place> {
        let open = self.connections.values().filter(|connection| connection.room.is_some()).count();
        let remote = |connection: &Connection| connection.source.is_remote();
        let is_full = open >= CONNECTIONS_MAX;
        let from = if !source.is_remote() {
            is_full.then(|| self.most_crowded(|_| true))
        } else if self.count(|other| other.source == source) >= REMOTE_CONNECTIONS_PER_ADDRESS_MAX {
            Some(Some(source))
        } else if self.count(remote) >= REMOTE_CONNECTIONS_MAX {
            Some(self.most_crowded(remote))
        } else if is_full {
            let is_crowd = self.count(|other| !remote(other)) > REMOTE_CONNECTIONS_PER_ADDRESS_MAX;
            Some(self.most_crowded(|other| is_crowd || remote(other)))
        } else {
            None
        };
        let mut crowded = None;
        if let Some(from) = from {
            let from = from?;
            self.close_oldest(from);
            if !std::mem::replace(&mut self.crowded, true) {
                crowded = Some(from);
            }
        }
        let number = (0..).find(|number| !self.connections.contains_key(number))?;
        let (room, lost) = smol::channel::bounded(1);
        let age = self.next;
        self.next += 1;
        self.connections.insert(number, Connection { source, age, is_node: false, room: Some(room) });
        Some(Place { number, lost, crowded })
    }

    /// The connection is a node's from now on.
    pub(super) fn registered(&mut self, number: u32) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.is_node = true;
        }
    }

    /// Closes a connection, whose task is to [`leave`](Self::leave) yet.
    pub(super) fn close(&mut self, number: u32) {
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.room = None;
        }
    }

    /// The connection has ended.
    pub(super) fn leave(&mut self, number: u32) {
        self.connections.remove(&number);
        if self.crowded && self.count(|_| true) < REMOTE_CONNECTIONS_PER_ADDRESS_MAX / 2 {
            self.crowded = false;
        }
    }

    fn asking(&self) -> impl Iterator<Item = (&u32, &Connection)> {
        self.connections.iter().filter(|(_, connection)| connection.asks())
    }

    fn count(&self, which: impl Fn(&Connection) -> bool) -> usize {
        self.asking().filter(|(_, connection)| which(connection)).count()
    }

    /// The address, of these, by which most ask; another machine's where it has as many as this one.
    fn most_crowded(&self, which: impl Fn(&Connection) -> bool) -> Option<Source> {
        let mut counts: HashMap<Source, usize> = HashMap::new();
        for (_, connection) in self.asking().filter(|(_, connection)| which(connection)) {
            *counts.entry(connection.source).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(source, count)| (*count, source.is_remote()));
        most.map(|(source, _)| source)
    }

    fn close_oldest(&mut self, from: Source) {
        let of_it = self.asking().filter(|(_, connection)| connection.source == from);
        let oldest = of_it.min_by_key(|(_, connection)| connection.age).map(|(&number, _)| number);
        if let Some(oldest) = oldest {
            self.close(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn from(text: &str) -> Source {
        Source::new(ip(text), Some(ip("10.0.0.1")))
    }

    /// So many of a source, which all find a place.
    fn many(served: &mut Served, source: Source, count: usize) -> Vec<Place> {
        (0..count).map(|_| served.enter(source).unwrap()).collect()
    }

    fn lost(places: &[Place]) -> Vec<usize> {
        places.iter().enumerate().filter(|(_, place)| place.lost.is_closed()).map(|(at, _)| at).collect()
    }

    #[test]
    fn a_peer_is_local_by_its_address() {
        assert!(is_local(ip("127.0.0.1"), ip("127.0.0.1")));
        assert!(is_local(ip("127.8.8.8"), ip("10.0.0.1")));
        assert!(is_local(ip("::1"), ip("::1")));
        assert!(is_local(ip("::ffff:127.0.0.1"), ip("::ffff:127.0.0.1")));
        assert!(is_local(ip("10.0.0.1"), ip("10.0.0.1")));
        assert!(is_local(ip("::ffff:10.0.0.1"), ip("10.0.0.1")));
        assert!(!is_local(ip("10.0.0.2"), ip("10.0.0.1")));
        assert!(!is_local(ip("fe80::2"), ip("fe80::1")));
    }

    #[test]
    fn addresses_that_one_party_has_are_one() {
        assert_eq!(from("127.0.0.1"), from("10.0.0.1"));
        assert_eq!(from("::ffff:10.0.0.9"), from("10.0.0.9"));
        assert_eq!(from("2001:db8::1"), from("2001:db8::2:3:4:5"));
        assert_ne!(from("2001:db8:0:1::1"), from("2001:db8:0:2::1"));
        assert_ne!(from("10.0.0.2"), from("10.0.0.3"));
    }

    #[test]
    fn the_oldest_of_an_address_makes_room_and_no_other() {
        let mut served = Served::default();
        let other = many(&mut served, from("10.0.0.3"), 1);
        let mut crowd = many(&mut served, from("10.0.0.2"), REMOTE_CONNECTIONS_PER_ADDRESS_MAX);
        assert_eq!(lost(&crowd), NONE);
        crowd.extend(many(&mut served, from("10.0.0.2"), 2));
        assert_eq!(lost(&crowd), [0, 1]);
        assert_eq!(lost(&other), NONE);
        let told: Vec<bool> = crowd.iter().map(|place| place.crowded.is_some()).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1, "it is told once");
        // A place is free for another once its connection has left.
        served.leave(crowd[0].number);
        assert_eq!(many(&mut served, from("10.0.0.4"), 1)[0].number, crowd[0].number);
    }

    #[test]
    fn other_machines_have_a_part_in_which_the_most_crowded_address_makes_room() {
        let mut served = Served::default();
        let mut crowds: Vec<Vec<Place>> = Vec::new();
        for host in 0..REMOTE_CONNECTIONS_MAX / REMOTE_CONNECTIONS_PER_ADDRESS_MAX {
            let source = from(&format!("10.0.1.{host}"));
            crowds.push(many(&mut served, source, REMOTE_CONNECTIONS_PER_ADDRESS_MAX));
        }
        let here = many(&mut served, Source::Here, 300);
        let stranger = many(&mut served, from("10.0.2.1"), 1);
        let gone: Vec<usize> = crowds.iter().map(|crowd| lost(crowd).len()).collect();
        assert_eq!(gone.iter().sum::<usize>(), 1, "{gone:?}");
        assert_eq!((lost(&here), lost(&stranger)), (vec![], vec![]));
    }

    #[test]
    fn nodes_stay_and_who_is_of_this_machine_finds_room_beside_any_crowd() {
        let mut served = Served::default();
        let nodes = many(&mut served, Source::Here, 500);
        nodes.iter().for_each(|node| served.registered(node.number));
        let remote = many(&mut served, from("10.0.0.2"), REMOTE_CONNECTIONS_PER_ADDRESS_MAX);
        let idle = many(&mut served, Source::Here, CONNECTIONS_MAX);
        assert_eq!(lost(&nodes), NONE, "nodes make room for nobody");
        assert_eq!(lost(&remote), NONE, "there were more of this machine");
        let room = CONNECTIONS_MAX - nodes.len() - remote.len();
        assert_eq!(lost(&idle), (0..CONNECTIONS_MAX - room).collect::<Vec<_>>());
        // One of another machine takes the place of one of the crowd, whose machine that may be.
        let other = many(&mut served, from("10.0.0.3"), 1);
        assert_eq!((lost(&idle).len(), lost(&remote).len()), (CONNECTIONS_MAX - room + 1, 0));
        // Where few of this machine ask, they stay.
        let few = REMOTE_CONNECTIONS_PER_ADDRESS_MAX;
        idle[..CONNECTIONS_MAX - few].iter().for_each(|place| served.leave(place.number));
        let nodes = many(&mut served, Source::Here, CONNECTIONS_MAX - nodes.len() - remote.len() - few - 1);
        nodes.iter().for_each(|node| served.registered(node.number));
        many(&mut served, from("10.0.0.3"), 1);
        assert_eq!((lost(&remote), lost(&other)), (vec![0], vec![]));
        assert_eq!(lost(&idle[CONNECTIONS_MAX - few..]), NONE);
    }

    #[test]
    fn where_all_are_nodes_nobody_is_let_in() {
        let mut served = Served::default();
        let nodes = many(&mut served, Source::Here, CONNECTIONS_MAX);
        nodes.iter().for_each(|node| served.registered(node.number));
        assert!(served.enter(Source::Here).is_none() && served.enter(from("10.0.0.2")).is_none());
        // One that is told to end.
        served.close(nodes[7].number);
        assert!(nodes[7].lost.is_closed());
        served.leave(nodes[7].number);
        assert_eq!(many(&mut served, Source::Here, 1)[0].number, nodes[7].number);
    }
}
