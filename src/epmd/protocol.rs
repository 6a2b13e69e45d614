//! The daemon's rules without its sockets: bytes of a request in, bytes of the answer and what follows out.
//!
//! erl_dist_protocol, "EPMD Protocol". Where the document leaves something open the behaviour is the one that the epmd of
//! OTP 25 was seen to have, byte for byte; where it is more strict here, that is said.

use std::collections::VecDeque;

/// Longest request, in bytes without its length: ALIVE2_REQ with the longest name and extra field, and some slack.
pub const REQUEST_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 64;
/// Longest name and longest extra field, in bytes: an atom of 255 characters of 4 bytes.
const NAME_BYTES_MAX: usize = 4 * NAME_CHARACTERS_MAX;
/// Longest name in characters.
const NAME_CHARACTERS_MAX: usize = 255;
/// Names of past nodes that are remembered, so that a node that comes back gets another creation.
const UNUSED_MAX: usize = 1000;
/// From this version of the distribution protocol on a creation has 32 bits.
const VERSION_OF_WIDE_CREATIONS: u16 = 6;
/// The first creation that an epmd of old, which counts from 1 to 3, can never have given.
const CREATION_WIDE_FIRST: u32 = 4;
/// What stands for a creation in the answer to a registration that is refused.
const CREATION_OF_REFUSED: u32 = 99;

const ALIVE2_REQ: u8 = 120;
const ALIVE2_RESP: u8 = 121;
const ALIVE2_X_RESP: u8 = 118;
const PORT_PLEASE2_REQ: u8 = 122;
const PORT2_RESP: u8 = 119;
const NAMES_REQ: u8 = 110;
const DUMP_REQ: u8 = 100;
const KILL_REQ: u8 = 107;
const STOP_REQ: u8 = 115;

/// The connection that a request comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The connection, numbered by the shell; DUMP_REQ shows it as `fd`.
    pub connection: u32,
    /// Whether it comes from this machine. Only such may register, dump, kill and stop.
    pub local: bool,
}

/// What an epmd does with a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The bytes to send, possibly none.
    pub answer: Vec<u8>,
    /// What follows when they are sent.
    pub next: Next,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The connection is closed.
    Close,
    /// The connection is kept: a node lives as long as it does.
    Keep,
    /// The connection is closed, and that of another node too.
    CloseAlso(u32),
    /// The daemon ends.
    End,
}

/// The nodes that an epmd knows.
#[derive(Debug)]
pub struct Registry {
    port: u16,
    relaxed: bool,
    /// Newest last; listings start there.
    nodes: Vec<Node>,
    /// Oldest first.
    unused: VecDeque<Node>,
    creation_next: u32,
}

#[derive(Clone, Debug)]
struct Node {
    connection: u32,
    name: String,
    port: u16,
    node_type: u8,
    protocol: u8,
    highest_version: u16,
    lowest_version: u16,
    extra: Vec<u8>,
    /// 1 to 3, as nodes before version 6 take it.
    creation_small: u16,
}

impl Registry {
    /// Starts without nodes.
    ///
    /// `port` is where the daemon listens: it is part of some answers. `relaxed`: whether it may be killed while nodes
    /// are registered, and nodes stopped. `seed` is any random number; creations start there.
    pub fn new(port: u16, relaxed: bool, seed: u32) -> Self {
        Self {
            port,
            relaxed,
            nodes: Vec::new(),
            unused: VecDeque::new(),
            creation_next: seed.max(CREATION_WIDE_FIRST),
        }
    }

    /// Does what a request (without its length) asks. One that is malformed, unknown or not allowed gets no answer but the
    /// end of its connection.
    pub fn answer(&mut self, asker: Asker, request: &[u8]) -> Outcome {
        self.dispatch(asker, request).unwrap_or(Outcome { answer: Vec::new(), next: Next::Close })
    }

    /// Forgets the node of a connection that has ended, if it has one.
    pub fn closed(&mut self, connection: u32) {
        if let Some(position) = self.nodes.iter().position(|node| node.connection == connection) {
            self.retire(position);
        }
    }

    fn dispatch(&mut self, asker: Asker, request: &[u8]) -> Option<Outcome> {
        let (&tag, rest) = request.split_first()?;
        match tag {
            ALIVE2_REQ if asker.local => self.register(asker.connection, rest),
            PORT_PLEASE2_REQ => Some(close(self.look_up(rest)?)),
            // What follows the tag of these is not looked at.
            NAMES_REQ => Some(close(self.names())),
            DUMP_REQ if asker.local => Some(close(self.dump())),
            KILL_REQ if asker.local && (self.relaxed || self.nodes.is_empty()) => {
                Some(Outcome { answer: b"OK".to_vec(), next: Next::End })
            }
            KILL_REQ if asker.local => Some(close(b"NO".to_vec())),
            STOP_REQ if asker.local && self.relaxed => self.stop(rest),
            _ => None,
        }
    }

    fn register(&mut self, connection: u32, request: &[u8]) -> Option<Outcome> {
        let mut fields = Fields(request);
        let port = fields.u16()?;
        let [node_type, protocol] = fields.array()?;
        let (highest_version, lowest_version) = (fields.u16()?, fields.u16()?);
        let name = fields.sized()?;
        let extra = fields.sized()?.to_vec();
        if name.is_empty() || name.contains(&0) {
            return None;
        }
        let wide = highest_version >= VERSION_OF_WIDE_CREATIONS;
        let free = valid_name(name).filter(|name| self.find(name).is_none());
        let Some(name) = free.filter(|_| extra.len() <= NAME_BYTES_MAX).map(str::to_owned) else {
            // Erlang's keeps this connection for as long as the refused node likes; nothing more can come of it.
            return Some(close(alive2_resp(wide, 1, CREATION_OF_REFUSED)));
        };
        let before = self.unused.iter().position(|node| node.name == name);
        let creation_small = match before.and_then(|position| self.unused.remove(position)) {
            Some(past) => past.creation_small % 3 + 1,
            None => u16::try_from(self.creation_next % 3).unwrap_or(0) + 1,
        };
        let creation = self.creation_next;
        self.creation_next = creation.wrapping_add(1).max(CREATION_WIDE_FIRST);
        self.nodes.push(Node {
            connection,
            name,
            port,
            node_type,
            protocol,
            highest_version,
            lowest_version,
            extra,
            creation_small,
        });
        let creation = if wide { creation } else { u32::from(creation_small) };
        Some(Outcome { answer: alive2_resp(wide, 0, creation), next: Next::Keep })
    }

    fn look_up(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = valid_name(name.strip_suffix(&[0]).unwrap_or(name))?;
        let Some(node) = self.find(name).map(|position| &self.nodes[position]) else {
            return Some(vec![PORT2_RESP, 1]);
        };
        let mut answer = vec![PORT2_RESP, 0];
        answer.extend(node.port.to_be_bytes());
        answer.extend([node.node_type, node.protocol]);
        answer.extend(node.highest_version.to_be_bytes());
        answer.extend(node.lowest_version.to_be_bytes());
        for field in [node.name.as_bytes(), &node.extra] {
            // Both were checked to be no longer than NAME_BYTES_MAX.
            answer.extend(u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes());
            answer.extend(field);
        }
        Some(answer)
    }

    fn names(&self) -> Vec<u8> {
        let mut answer = u32::from(self.port).to_be_bytes().to_vec();
        for node in self.nodes.iter().rev() {
            answer.extend(format!("name {} at port {}\n", node.name, node.port).bytes());
        }
        answer
    }

    fn dump(&self) -> Vec<u8> {
        let mut answer = u32::from(self.port).to_be_bytes().to_vec();
        // Each line ends with a zero byte behind its line end. The document's text of these lines is another.
        for Node { name, port, connection, .. } in self.nodes.iter().rev() {
            answer.extend(format!("active name     <{name}> at port {port}, fd = {connection}\n\0").bytes());
        }
        for Node { name, port, connection, .. } in &self.unused {
            answer.extend(format!("old/unused name <{name}>, port = {port}, fd = {connection} \n\0").bytes());
        }
        answer
    }

    fn stop(&mut self, name: &[u8]) -> Option<Outcome> {
        let name = valid_name(name.strip_suffix(&[0]).unwrap_or(name))?;
        // Erlang's answers NOEXISTSTOPPED to a name that is not there; the document says NOEXIST.
        let Some(position) = self.find(name) else {
            return Some(close(b"NOEXIST".to_vec()));
        };
        let connection = self.retire(position);
        Some(Outcome { answer: b"STOPPED".to_vec(), next: Next::CloseAlso(connection) })
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    fn retire(&mut self, position: usize) -> u32 {
        let node = self.nodes.remove(position);
        let connection = node.connection;
        self.unused.push_back(node);
        if self.unused.len() > UNUSED_MAX {
            self.unused.pop_front();
        }
        connection
    }
}

fn close(answer: Vec<u8>) -> Outcome {
    Outcome { answer, next: Next::Close }
}

fn alive2_resp(wide: bool, result: u8, creation: u32) -> Vec<u8> {
    let mut answer = vec![if wide { ALIVE2_X_RESP } else { ALIVE2_RESP }, result];
    // Only the low half is sent to an old node, whose creations are 1 to 3 (and 99).
    answer.extend(&creation.to_be_bytes()[if wide { 0 } else { 2 }..]);
    answer
}

/// A name that can be an atom. Control characters are not taken, unlike by Erlang's: a line end in a name would forge
/// lines of the listings.
fn valid_name(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    let characters = name.chars().count();
    let fits = (1..=NAME_CHARACTERS_MAX).contains(&characters);
    (fits && !name.chars().any(char::is_control)).then_some(name)
}

/// The fields of a request, in order; all big-endian.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (&field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.u16()?);
        let (field, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 4369;

    fn registry() -> Registry {
        Registry::new(PORT, false, 1000)
    }

    fn local(connection: u32) -> Asker {
        Asker { connection, local: true }
    }

    fn remote(connection: u32) -> Asker {
        Asker { connection, local: false }
    }

    fn alive2(name: &[u8], port: u16, highest_version: u16, extra: &[u8]) -> Vec<u8> {
        let mut request = vec![ALIVE2_REQ];
        request.extend(port.to_be_bytes());
        request.extend([77, 0]);
        request.extend(highest_version.to_be_bytes());
        request.extend(5u16.to_be_bytes());
        for field in [name, extra] {
            request.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
            request.extend(field);
        }
        request
    }

    fn say(registry: &mut Registry, asker: Asker, request: &[u8]) -> (Vec<u8>, Next) {
        let outcome = registry.answer(asker, request);
        (outcome.answer, outcome.next)
    }

    const NOTHING: (Vec<u8>, Next) = (Vec::new(), Next::Close);

    #[test]
    fn a_new_node_gets_a_wide_creation_and_an_old_one_a_small_one() {
        let mut epmd = registry();
        assert_eq!(
            say(&mut epmd, local(5), &alive2(b"a", 1, 6, b"")),
            (b"v\0\0\0\x03\xe8".to_vec(), Next::Keep)
        );
        let (answer, next) = say(&mut epmd, local(6), &alive2(b"b", 2, 5, b""));
        assert_eq!((&answer[..3], next), (&b"y\0\0"[..], Next::Keep));
        assert!((1..=3).contains(&answer[3]) && answer.len() == 4);
    }

    #[test]
    fn a_node_that_comes_back_gets_another_creation() {
        let mut epmd = registry();
        let mut seen = Vec::new();
        for connection in 0..4 {
            let (answer, _) = say(&mut epmd, local(connection), &alive2(b"a", 1, 5, b""));
            seen.push(answer[3]);
            epmd.closed(connection);
        }
        assert!(
            seen[0] != seen[1] && seen[1] != seen[2] && seen[2] != seen[0] && seen[3] == seen[0],
            "{seen:?}"
        );
        let wide = |epmd: &mut Registry| {
            let (answer, _) = say(epmd, local(9), &alive2(b"w", 1, 6, b""));
            epmd.closed(9);
            answer
        };
        assert_ne!(wide(&mut epmd), wide(&mut epmd));
    }

    #[test]
    fn wide_creations_pass_over_those_of_old() {
        let mut epmd = Registry::new(PORT, false, u32::MAX);
        assert_eq!(say(&mut epmd, local(1), &alive2(b"a", 1, 6, b"")).0, b"v\0\xff\xff\xff\xff");
        assert_eq!(say(&mut epmd, local(2), &alive2(b"b", 1, 6, b"")).0, b"v\0\0\0\0\x04");
        let mut epmd = Registry::new(PORT, false, 0);
        assert_eq!(say(&mut epmd, local(1), &alive2(b"a", 1, 6, b"")).0, b"v\0\0\0\0\x04");
    }

    #[test]
    fn a_taken_name_is_refused_until_its_node_has_gone() {
        let mut epmd = registry();
        say(&mut epmd, local(1), &alive2(b"a", 1, 6, b""));
        assert_eq!(
            say(&mut epmd, local(2), &alive2(b"a", 2, 6, b"")),
            (b"v\x01\0\0\0\x63".to_vec(), Next::Close)
        );
        assert_eq!(
            say(&mut epmd, local(2), &alive2(b"a", 2, 5, b"")),
            (b"y\x01\0\x63".to_vec(), Next::Close)
        );
        epmd.closed(2);
        assert_eq!(
            say(&mut epmd, remote(3), b"za").0[..4],
            *b"w\0\0\x01",
            "the refused one was never registered"
        );
        epmd.closed(1);
        assert_eq!(say(&mut epmd, remote(3), b"za").0, b"w\x01");
        assert_eq!(say(&mut epmd, local(2), &alive2(b"a", 2, 6, b"")).1, Next::Keep);
    }

    #[test]
    fn a_node_is_looked_up_with_all_that_it_registered() {
        let mut epmd = registry();
        say(&mut epmd, local(1), &alive2(b"beta", 4001, 6, b"xyz"));
        let answer = b"w\0\x0f\xa1M\0\0\x06\0\x05\0\x04beta\0\x03xyz".to_vec();
        assert_eq!(say(&mut epmd, remote(2), b"zbeta"), (answer.clone(), Next::Close));
        assert_eq!(say(&mut epmd, remote(2), b"zbeta\0"), (answer, Next::Close));
        assert_eq!(say(&mut epmd, remote(2), b"zbet"), (b"w\x01".to_vec(), Next::Close));
        for bad in [&b"z"[..], b"z\0", b"zbe\0ta", b"z\xff", b"z\n"] {
            assert_eq!(say(&mut epmd, remote(2), bad), NOTHING, "{bad:?}");
        }
    }

    #[test]
    fn listings_have_the_newest_node_first() {
        let mut epmd = registry();
        for (connection, name) in [(5, b"alpha"), (6, b"betas"), (7, b"gamma")] {
            say(&mut epmd, local(connection), &alive2(name, 4000, 6, b""));
        }
        epmd.closed(6);
        assert_eq!(
            say(&mut epmd, remote(8), b"n"),
            (b"\0\0\x11\x11name gamma at port 4000\nname alpha at port 4000\n".to_vec(), Next::Close)
        );
        let dump = "\0\0\x11\x11active name     <gamma> at port 4000, fd = 7\n\0active name     <alpha> at port 4000, \
                    fd = 5\n\0old/unused name <betas>, port = 4000, fd = 6 \n\0";
        assert_eq!(say(&mut epmd, local(8), b"d"), (dump.as_bytes().to_vec(), Next::Close));
        assert_eq!(say(&mut epmd, remote(8), b"d"), NOTHING);
    }

    #[test]
    fn only_this_machine_may_register_kill_and_stop() {
        let mut epmd = Registry::new(PORT, true, 1);
        assert_eq!(say(&mut epmd, remote(1), &alive2(b"a", 1, 6, b"")), NOTHING);
        assert_eq!(say(&mut epmd, remote(1), b"k"), NOTHING);
        say(&mut epmd, local(1), &alive2(b"a", 1, 6, b""));
        assert_eq!(say(&mut epmd, remote(2), b"sa"), NOTHING);
    }

    #[test]
    fn a_daemon_with_nodes_is_not_killed_unless_it_was_allowed() {
        let mut epmd = registry();
        say(&mut epmd, local(1), &alive2(b"a", 1, 6, b""));
        assert_eq!(say(&mut epmd, local(2), b"k"), (b"NO".to_vec(), Next::Close));
        assert_eq!(say(&mut epmd, local(2), b"sa"), NOTHING);
        epmd.closed(1);
        assert_eq!(say(&mut epmd, local(2), b"k"), (b"OK".to_vec(), Next::End));

        let mut relaxed = Registry::new(PORT, true, 1);
        say(&mut relaxed, local(1), &alive2(b"a", 1, 6, b""));
        assert_eq!(say(&mut relaxed, local(2), b"sb"), (b"NOEXIST".to_vec(), Next::Close));
        assert_eq!(say(&mut relaxed, local(2), b"s"), NOTHING);
        assert_eq!(say(&mut relaxed, local(2), b"sa"), (b"STOPPED".to_vec(), Next::CloseAlso(1)));
        assert_eq!(say(&mut relaxed, local(2), b"za").0, b"w\x01");
        say(&mut relaxed, local(3), &alive2(b"a", 1, 6, b""));
        assert_eq!(say(&mut relaxed, local(2), b"k").1, Next::End);
    }

    #[test]
    fn names_are_no_longer_than_atoms_and_in_utf8() {
        let mut epmd = registry();
        let next = |epmd: &mut Registry, name: &[u8]| say(epmd, local(1), &alive2(name, 1, 6, b"")).1;
        assert_eq!(next(&mut epmd, &[b'q'; 255]), Next::Keep);
        assert_eq!(next(&mut epmd, "𝒳".repeat(255).as_bytes()), Next::Keep);
        assert_eq!(next(&mut epmd, &[b'q'; 256]), Next::Close);
        assert_eq!(next(&mut epmd, b"\xff"), Next::Close);
        assert_eq!(next(&mut epmd, b"a\nname b"), Next::Close);
        assert_eq!(say(&mut epmd, local(1), &alive2(b"", 1, 6, b"")), NOTHING);
        assert_eq!(say(&mut epmd, local(1), &alive2(b"a\0b", 1, 6, b"")), NOTHING);
        assert_eq!(say(&mut epmd, local(2), &alive2(b"e", 1, 6, &[1; 1020])).1, Next::Keep);
        assert_eq!(say(&mut epmd, local(3), &alive2(b"f", 1, 6, &[1; 1021])).1, Next::Close);
    }

    #[test]
    fn every_cut_and_every_other_tag_of_a_request_is_survived() {
        let whole = alive2(b"name", 1, 6, b"extra");
        for end in 0..whole.len() {
            assert_eq!(say(&mut registry(), local(1), &whole[..end]), NOTHING, "{end}");
        }
        for tag in (0..=u8::MAX).filter(|tag| !b"xzndk".contains(tag)) {
            let mut request = whole.clone();
            request[0] = tag;
            assert_eq!(say(&mut registry(), local(1), &request), NOTHING, "{tag}");
        }
    }

    #[test]
    fn what_is_remembered_of_past_nodes_is_bounded() {
        let mut epmd = registry();
        for number in 0..UNUSED_MAX + 10 {
            say(&mut epmd, local(1), &alive2(format!("n{number}").as_bytes(), 1, 6, b""));
            epmd.closed(1);
        }
        assert_eq!(epmd.unused.len(), UNUSED_MAX);
        assert_eq!(epmd.unused[0].name, "n10");
    }
}
