//! The distribution handshake, version 6, as a pure state machine on both sides.
//!
//! Bytes of a socket go into [`Packets`]; each packet goes into the [`Client`] or the [`Server`], which is consumed and
//! says what is to be sent and what follows (erl_dist_protocol, "Distribution Handshake"; `dist_util.erl`). There is no
//! socket, clock or randomness here: challenges are arguments, and the shell keeps the time of each step.
//!
//! ```text
//!   Client                                            Server
//!   Client::new ---- send_name ('N'; 'n' is read) --> Phase::Name
//!                                                       Claim / NameRequest: the shell decides
//!   Phase::Status <--------- send_status ('s') ------
//!     alive? AliveStatus: the shell decides
//!       ------------------ true / false ('s') ------> Phase::AliveAnswer
//!   Phase::Challenge <----- send_challenge ('N') ----
//!       ------- complement ('c'), after 'n' only ---> Phase::Complement
//!       ------------- challenge_reply ('r') --------> Phase::ChallengeReply: the digest is checked
//!   Phase::ChallengeAck <-- challenge_ack ('a') -----   Accepted
//!     the digest is checked: Connected
//! ```
//!
//! **Before the digest is right the other side has no name here.** A name that is claimed is only asked about
//! ([`Claim`]): nothing is to be recorded, ended or dropped under it until [`Accepted`] or [`Connected`].
//!
//! The shell's loop on the accepting side, with the reading and the writing left out:
//!
//! ```
//! use kvnode::distribution::handshake::{Fault, HandshakeError, Local, Packets, Server, ServerStep, Standing};
//! use kvnode::distribution::{Cookie, DistributionFlags, NodeName};
//!
//! # fn read() -> Vec<u8> { Vec::new() }
//! # fn write(_: &[u8]) {}
//! # fn accept(challenge: u32) -> Result<(), HandshakeError> {
//! let mut server = Server::new(
//!     Local {
//!         name: NodeName::new("slave1@myhost").expect("has an @"),
//!         creation: 1,
//!         flags: DistributionFlags::OFFERED,
//!         cookie: Cookie::new("secret"),
//!     },
//!     challenge,
//! );
//! let mut packets = Packets::new();
//! let accepted = loop {
//!     let Some(packet) = packets.next_packet() else {
//!         let bytes = read();
//!         if bytes.is_empty() {
//!             return Err(server.fail(Fault::Closed));
//!         }
//!         packets.push(&bytes);
//!         continue;
//!     };
//!     let step = match packet {
//!         Ok(packet) => server.handle(packet)?, // and where it fails: write `error.farewell()`, then close
//!         Err(malformed) => return Err(server.fail(malformed.into())),
//!     };
//!     let send;
//!     (send, server) = match step {
//!         ServerStep::Continue { send, next } => (send, next),
//!         ServerStep::Claimed(claim) => claim.answer(Standing::Free)?,
//!         ServerStep::Nameless(request) => {
//!             let name = NodeName::new(&format!("guest1@{}", request.host())).expect("has an @");
//!             request.name(name, 1)
//!         }
//!         ServerStep::Accepted { send, accepted } => {
//!             write(&send);
//!             break accepted;
//!         }
//!     };
//!     write(&send);
//! };
//! let first_bytes_of_the_connection = packets.into_rest();
//! # drop((accepted, first_bytes_of_the_connection));
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod packets;
mod server;
mod wire;

pub use client::{AliveStatus, Client, ClientStep, Connected};
pub use error::{Fault, HandshakeError, Malformed, Phase, Unwelcome, Whom};
pub use packets::{Lengths, PACKET_BYTES_MAX, Packets};
pub use server::{Accepted, Claim, NameRequest, Server, ServerStep, Standing};

use super::{Cookie, DistributionFlags, NodeName};

/// What this node says of itself, and the secret that it shares.
#[derive(Clone, Debug)]
pub struct Local {
    /// The full name.
    pub name: NodeName,
    /// Which life of that name this is; from epmd.
    pub creation: u32,
    /// What is offered; [`DistributionFlags::OFFERED`] but in tests.
    pub flags: DistributionFlags,
    /// The secret. Never sent, never shown.
    pub cookie: Cookie,
}

/// The node on the other side, once it has proved the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNode {
    /// Its full name.
    pub name: NodeName,
    /// Which life of that name this is: pids of it with another creation are of a former life.
    pub creation: u32,
    /// What it offered, bit for bit: tells its version, and whether it is hidden (without PUBLISHED).
    pub offered: DistributionFlags,
    /// What both sides offered: what the connection goes by.
    pub in_force: DistributionFlags,
}

#[cfg(test)]
mod testing {
    //! What the tests of both sides are made of.

    use super::*;

    pub(super) fn cookie() -> Cookie {
        Cookie::new("not to be seen")
    }

    pub(super) fn name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    pub(super) fn local(own: &str) -> Local {
        Local { name: name(own), creation: 9, flags: DistributionFlags::OFFERED, cookie: cookie() }
    }

    pub(super) fn framed(body: &[u8]) -> Vec<u8> {
        [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
    }

    fn with_name(fixed: &[&[u8]], name: &str) -> Vec<u8> {
        [&fixed.concat()[..], &u16::try_from(name.len()).unwrap().to_be_bytes(), name.as_bytes()].concat()
    }

    pub(super) fn send_name(flags: DistributionFlags, creation: u32, name: &str) -> Vec<u8> {
        with_name(&[b"N", &flags.bits().to_be_bytes(), &creation.to_be_bytes()], name)
    }

    pub(super) fn send_challenge(
        flags: DistributionFlags,
        challenge: u32,
        creation: u32,
        name: &str,
    ) -> Vec<u8> {
        let numbers = [challenge.to_be_bytes(), creation.to_be_bytes()].concat();
        with_name(&[b"N", &flags.bits().to_be_bytes(), &numbers], name)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{cookie, local, name};
    use super::*;

    enum Machine {
        Client(Client),
        Server(Server),
    }

    /// One packet to one machine; what it then has to send and what it has become, or the end.
    fn step(machine: Machine, packet: &[u8]) -> Result<(Vec<u8>, Option<Machine>), HandshakeError> {
        Ok(match machine {
            Machine::Client(client) => match client.handle(packet)? {
                ClientStep::Continue { send, next } => (send, Some(Machine::Client(next))),
                ClientStep::Alive(alive) => {
                    let (send, next) = alive.answer(true)?;
                    (send, Some(Machine::Client(next)))
                }
                ClientStep::Connected(_) => (Vec::new(), None),
            },
            Machine::Server(server) => match server.handle(packet)? {
                ServerStep::Continue { send, next } => (send, Some(Machine::Server(next))),
                ServerStep::Claimed(claim) => {
                    let (send, next) = claim.answer(Standing::Connected)?;
                    (send, Some(Machine::Server(next)))
                }
                ServerStep::Nameless(request) => {
                    let (send, next) = request.name(name("g@host"), 5);
                    (send, Some(Machine::Server(next)))
                }
                ServerStep::Accepted { send, .. } => (send, None),
            },
        })
    }

    /// A whole handshake of the two sides, as the packets that each one received.
    fn conversation(nameless: bool) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let (hello, mut client) = start_client(nameless);
        let mut server = Some(start_server());
        let (mut to_client, mut to_server) = (Packets::new(), Packets::new());
        let (mut client_got, mut server_got) = (Vec::new(), Vec::new());
        to_server.push(&hello);
        while client.is_some() || server.is_some() {
            let mut moved = false;
            if let Some(packet) = to_server.next_packet().map(|packet| packet.unwrap().to_vec()) {
                let (send, next) = step(server.take().unwrap(), &packet).unwrap();
                server_got.push(packet);
                to_client.push(&send);
                server = next;
                moved = true;
            }
            if let Some(packet) = to_client.next_packet().map(|packet| packet.unwrap().to_vec()) {
                let (send, next) = step(client.take().unwrap(), &packet).unwrap();
                client_got.push(packet);
                to_server.push(&send);
                client = next;
                moved = true;
            }
            assert!(moved, "both sides wait");
        }
        (client_got, server_got)
    }

    fn start_client(nameless: bool) -> (Vec<u8>, Option<Machine>) {
        let dialled = name("s@host");
        let (hello, client) = if nameless {
            Client::nameless("host", DistributionFlags::OFFERED, cookie(), dialled, 11).unwrap()
        } else {
            Client::new(local("c@host"), dialled, 11)
        };
        (hello, Some(Machine::Client(client)))
    }

    fn start_server() -> Machine {
        Machine::Server(Server::new(local("s@host"), 22))
    }

    /// Brings a fresh machine to where it waits for packet `at`, then gives it `bytes` instead.
    fn with_packet(start: impl Fn() -> Machine, packets: &[Vec<u8>], at: usize, bytes: &[u8]) -> bool {
        let mut machine = start();
        for packet in &packets[..at] {
            machine = step(machine, packet).unwrap().1.unwrap();
        }
        step(machine, bytes).is_ok()
    }

    /// Every packet of a conversation, with the machine that is to get it.
    fn each_packet(mut check: impl FnMut(&dyn Fn(&[u8]) -> bool, &[u8])) {
        for nameless in [false, true] {
            let (client_got, server_got) = conversation(nameless);
            for at in 0..client_got.len() {
                let start = || start_client(nameless).1.unwrap();
                check(&|bytes| with_packet(start, &client_got, at, bytes), &client_got[at]);
            }
            for at in 0..server_got.len() {
                check(&|bytes| with_packet(start_server, &server_got, at, bytes), &server_got[at]);
            }
        }
    }

    #[test]
    fn our_two_sides_agree_with_and_without_a_name() {
        for nameless in [false, true] {
            conversation(nameless);
        }
    }

    #[test]
    fn a_packet_cut_anywhere_is_an_error() {
        each_packet(|accepts, packet| {
            for length in 0..packet.len() {
                assert!(!accepts(&packet[..length]), "{:?} of {packet:?}", &packet[..length]);
            }
            assert!(accepts(packet));
        });
    }

    #[test]
    fn no_changed_byte_makes_a_side_panic_and_no_other_tag_is_taken() {
        each_packet(|accepts, packet| {
            for at in 0..packet.len() {
                for change in 1..=u8::MAX {
                    let mut changed = packet.to_vec();
                    changed[at] ^= change;
                    // `N` for `n` and back are two messages of one meaning, and may both be whole.
                    let taken = accepts(&changed);
                    let other_form = matches!((packet[0], changed[0]), (b'N', b'n'));
                    assert!(!taken || at > 0 || other_form, "{changed:?}");
                }
            }
        });
    }

    #[test]
    fn no_random_packet_makes_a_side_panic() {
        use proptest::prelude::*;
        use proptest::test_runner::TestRunner;
        let cases = proptest::collection::vec(any::<u8>(), 0..64);
        each_packet(|accepts, packet| {
            let tag = packet[0];
            let mut runner = TestRunner::new(ProptestConfig::with_cases(200));
            runner
                .run(&cases, |tail| {
                    accepts(&tail);
                    let digest = packet.len() == 17 || packet.len() == 21;
                    let taken = accepts(&[&[tag][..], &tail].concat());
                    prop_assert!(!(taken && digest), "a random digest is right");
                    Ok(())
                })
                .unwrap();
        });
    }

    #[test]
    fn no_cookie_is_shown() {
        let (_, client) = Client::new(local("c@host"), name("s@host"), 11);
        let server = Server::new(local("s@host"), 22);
        for shown in [format!("{client:?}"), format!("{server:?}"), format!("{:?}", local("c@host"))] {
            assert!(!shown.contains("not to be seen") && shown.contains("Cookie"), "{shown}");
        }
    }
}
