//! The side that dials.

use subtle::ConstantTimeEq;

use super::{Fault, HandshakeError, Local, Malformed, PeerNode, Phase, Whom, wire};
use crate::distribution::{Cookie, DistributionFlags, NodeName};

/// The dialling side of one handshake, waiting for the next packet.
#[derive(Debug)]
pub struct Client(State);

/// What follows a packet on the dialling side.
#[derive(Debug)]
pub enum ClientStep {
    /// Send (there may be nothing to send), then read the next packet.
    Continue {
        /// A packet with its length, or nothing.
        send: Vec<u8>,
        /// What handles the next packet.
        next: Client,
    },
    /// The other side holds a connection under our name: say whether to replace it.
    Alive(AliveStatus),
    /// The cookie is proved on both sides. There is nothing to send.
    Connected(Connected),
}

/// The outcome on the dialling side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The other node.
    pub peer: PeerNode,
    /// The name that we were given, and its creation, when we asked for one.
    pub given: Option<(NodeName, u32)>,
}

impl Client {
    /// Starts when the socket is connected: what is to be sent, and what handles the first packet.
    ///
    /// `dialled` is the node that is expected there; `challenge` is random, and another each time.
    pub fn new(local: Local, dialled: NodeName, challenge: u32) -> (Vec<u8>, Self) {
        let Local { name, creation, flags, cookie } = local;
        let send = wire::send_name(flags, creation, name.as_str());
        let side = Side { dialled, flags, cookie, challenge };
        (send, Self(State::Status(ExpectStatus { side, own: Own::Named })))
    }

    /// Starts as a node that has no name and asks the other one for it (NAME_ME). The name will be of this host.
    ///
    /// # Errors
    /// Ours: a host that no node can have.
    pub fn nameless(
        host: &str,
        flags: DistributionFlags,
        cookie: Cookie,
        dialled: NodeName,
        challenge: u32,
    ) -> Result<(Vec<u8>, Self), Malformed> {
        if host.contains('@') || NodeName::new(&format!("x@{host}")).is_err() {
            return Err(Malformed::Host { host: host.into() });
        }
        let flags = flags.union(DistributionFlags::NAME_ME).difference(DistributionFlags::PUBLISHED);
        // dist_util, send_name: the creation of a node without a name is 0.
        let send = wire::send_name(flags, 0, host);
        let side = Side { dialled, flags, cookie, challenge };
        Ok((send, Self(State::Status(ExpectStatus { side, own: Own::Nameless { host: host.into() } }))))
    }

    /// Takes the next packet, without its length.
    ///
    /// # Errors
    /// The other side's fault mostly, by variant: send [`HandshakeError::farewell`], then close the socket.
    pub fn handle(self, packet: &[u8]) -> Result<ClientStep, HandshakeError> {
        match self.0 {
            State::Status(state) => state.handle(packet),
            State::Challenge(state) => state.handle(packet),
            State::ChallengeAck(state) => state.handle(packet),
        }
    }

    /// The message that is waited for. Closed in [`Phase::ChallengeAck`], it was most likely our cookie.
    pub fn waiting_for(&self) -> Phase {
        match self.0 {
            State::Status(_) => Phase::Status,
            State::Challenge(_) => Phase::Challenge,
            State::ChallengeAck(_) => Phase::ChallengeAck,
        }
    }

    /// The error for what the shell sees happen to the socket: [`Fault::Closed`] (which becomes
    /// [`Fault::CookieRefused`] where that is what it means), [`Fault::TimedOut`], or what
    /// [`Packets`](super::Packets) said.
    pub fn fail(&self, fault: Fault) -> HandshakeError {
        let side = match &self.0 {
            State::Status(ExpectStatus { side, .. })
            | State::Challenge(ExpectChallenge { side, .. })
            | State::ChallengeAck(ExpectChallengeAck { side, .. }) => side,
        };
        // dist_util, recv_challenge_reply: a BEAM that finds our digest wrong says so in its own log and closes.
        let fault = match (self.waiting_for(), fault) {
            (Phase::ChallengeAck, Fault::Closed) => Fault::CookieRefused,
            (_, fault) => fault,
        };
        side.fail(self.waiting_for(), fault)
    }
}

#[derive(Debug)]
enum State {
    Status(ExpectStatus),
    Challenge(ExpectChallenge),
    ChallengeAck(ExpectChallengeAck),
}

/// Our part, the same throughout.
#[derive(Debug)]
struct Side {
    dialled: NodeName,
    flags: DistributionFlags,
    cookie: Cookie,
    challenge: u32,
}

impl Side {
    fn fail(&self, phase: Phase, fault: impl Into<Fault>) -> HandshakeError {
        HandshakeError { whom: Whom::Dialled(self.dialled.clone()), phase, fault: fault.into() }
    }
}

/// Whether we came with a name.
#[derive(Debug)]
enum Own {
    Named,
    Nameless { host: String },
}

#[derive(Debug)]
struct ExpectStatus {
    side: Side,
    own: Own,
}

impl ExpectStatus {
    fn handle(self, packet: &[u8]) -> Result<ClientStep, HandshakeError> {
        let Self { side, own } = self;
        let fail = |fault: Fault| side.fail(Phase::Status, fault);
        let status = wire::read_status(packet).map_err(|malformed| fail(malformed.into()))?;
        let given = match (status, own) {
            (wire::Status::Other(b"not_allowed"), _) => return Err(fail(Fault::NotAllowed)),
            (wire::Status::Other(b"ok" | b"ok_simultaneous"), Own::Named) => None,
            (wire::Status::Other(b"nok"), Own::Named) => return Err(fail(Fault::Simultaneous)),
            (wire::Status::Other(b"alive"), Own::Named) => {
                return Ok(ClientStep::Alive(AliveStatus { side }));
            }
            (wire::Status::Named { name, creation }, Own::Nameless { host }) => {
                Some((given_name(name, &host).map_err(|malformed| fail(malformed.into()))?, creation))
            }
            (other, _) => return Err(fail(Fault::UnknownStatus(other.to_string()))),
        };
        let next = Client(State::Challenge(ExpectChallenge { side, given }));
        Ok(ClientStep::Continue { send: Vec::new(), next })
    }
}

/// dist_util, recv_status: the given name has our host.
fn given_name(name: &str, host: &str) -> Result<NodeName, Malformed> {
    let given = NodeName::new(name).map_err(|error| Malformed::Name { name: name.into(), error })?;
    if given.host() == host { Ok(given) } else { Err(Malformed::OtherHost { name: name.into() }) }
}

/// The other side says that it has a connection under our name.
///
/// Either that connection is dead and it has not noticed, and we go on; or we have one too, and dialled by mistake.
#[derive(Debug)]
pub struct AliveStatus {
    side: Side,
}

impl AliveStatus {
    /// Says whether the old connection is to be replaced: what is to be sent, and what handles the next packet.
    ///
    /// # Errors
    /// [`Fault::AlreadyConnected`] when it is not; its farewell tells them so.
    pub fn answer(self, replace: bool) -> Result<(Vec<u8>, Client), HandshakeError> {
        if !replace {
            return Err(self.side.fail(Phase::Status, Fault::AlreadyConnected));
        }
        let next = Client(State::Challenge(ExpectChallenge { side: self.side, given: None }));
        Ok((wire::status("true"), next))
    }
}

#[derive(Debug)]
struct ExpectChallenge {
    side: Side,
    given: Option<(NodeName, u32)>,
}

impl ExpectChallenge {
    fn handle(self, packet: &[u8]) -> Result<ClientStep, HandshakeError> {
        let Self { side, given } = self;
        let fail = |fault: Fault| side.fail(Phase::Challenge, fault);
        let message = wire::read_send_challenge(packet).map_err(|malformed| fail(malformed.into()))?;
        if message.name != side.dialled.as_str() {
            return Err(fail(Fault::OtherName(message.name)));
        }
        let lacks = message.flags.missing();
        let creation = match message.creation {
            Some(creation) if lacks.is_empty() => creation,
            Some(_) => return Err(fail(Fault::TooOld { lacks })),
            // The old form comes from nodes older than OTP 23 only.
            None => return Err(fail(Fault::TooOld { lacks: lacks.union(DistributionFlags::HANDSHAKE_23) })),
        };
        let send = wire::challenge_reply(side.challenge, side.cookie.digest(message.challenge));
        let in_force = side.flags.intersection(message.flags.expanded());
        let peer = PeerNode {
            name: side.dialled.clone(),
            creation,
            offered: message.flags,
            in_force: in_force.difference(DistributionFlags::NAME_ME),
        };
        let next = Client(State::ChallengeAck(ExpectChallengeAck { side, peer, given }));
        Ok(ClientStep::Continue { send, next })
    }
}

#[derive(Debug)]
struct ExpectChallengeAck {
    side: Side,
    peer: PeerNode,
    given: Option<(NodeName, u32)>,
}

impl ExpectChallengeAck {
    fn handle(self, packet: &[u8]) -> Result<ClientStep, HandshakeError> {
        let Self { side, peer, given } = self;
        let digest = wire::read_challenge_ack(packet)
            .map_err(|malformed| side.fail(Phase::ChallengeAck, malformed))?;
        // In constant time, as on the other side.
        if !bool::from(side.cookie.digest(side.challenge).ct_eq(&digest)) {
            return Err(side.fail(Phase::ChallengeAck, Fault::WrongCookie));
        }
        Ok(ClientStep::Connected(Connected { peer, given }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cookie, framed, local, name, send_challenge, send_name};
    use super::*;

    const PEER_FLAGS: DistributionFlags = DistributionFlags::from_bits(0xd_07df_7fbd);
    const CHALLENGE: u32 = 0x0a0b_0c0d;

    fn client() -> Client {
        let (send, client) = Client::new(local("m@host"), name("b@host"), CHALLENGE);
        assert_eq!(send, framed(&send_name(DistributionFlags::OFFERED, 9, "m@host")));
        client
    }

    fn next(client: Client, packet: &[u8]) -> (Vec<u8>, Client) {
        match client.handle(packet).unwrap() {
            ClientStep::Continue { send, next } => (send, next),
            other => panic!("{other:?}"),
        }
    }

    fn fault(client: Client, packet: &[u8]) -> Fault {
        let error = client.handle(packet).unwrap_err();
        assert_eq!(error.whom, Whom::Dialled(name("b@host")));
        assert_eq!(error.farewell(), None);
        error.fault
    }

    fn challenged(client: Client) -> Client {
        let (send, client) = next(client, &send_challenge(PEER_FLAGS, 17, 3, "b@host"));
        assert_eq!(send, framed(&[&b"r\x0a\x0b\x0c\x0d"[..], &cookie().digest(17)].concat()));
        assert_eq!(client.waiting_for(), Phase::ChallengeAck);
        client
    }

    fn ack() -> Vec<u8> {
        [&b"a"[..], &cookie().digest(CHALLENGE)].concat()
    }

    fn finish(client: Client) -> Connected {
        match challenged(client).handle(&ack()).unwrap() {
            ClientStep::Connected(connected) => connected,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_ok_leads_to_a_connection() {
        for ok in [&b"sok"[..], b"sok_simultaneous"] {
            let (send, client) = next(client(), ok);
            assert_eq!((send, client.waiting_for()), (Vec::new(), Phase::Challenge));
            let in_force = PEER_FLAGS.intersection(DistributionFlags::OFFERED);
            let peer = PeerNode { name: name("b@host"), creation: 3, offered: PEER_FLAGS, in_force };
            assert_eq!(finish(client), Connected { peer, given: None });
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        assert_eq!(fault(client(), b"snok"), Fault::Simultaneous);
        assert_eq!(fault(client(), b"snot_allowed"), Fault::NotAllowed);
        assert_eq!(fault(client(), b"swhatever"), Fault::UnknownStatus("whatever".into()));
        assert_eq!(fault(client(), b"s"), Fault::UnknownStatus(String::new()));
        assert_eq!(
            fault(client(), b"snamed:\0\x03a@b\0\0\0\x01"),
            Fault::UnknownStatus("named:a@b".into()),
            "we have a name"
        );
    }

    #[test]
    fn alive_is_answered_as_we_decide() {
        let alive = || match client().handle(b"salive").unwrap() {
            ClientStep::Alive(alive) => alive,
            other => panic!("{other:?}"),
        };
        let (send, client) = alive().answer(true).unwrap();
        assert_eq!(send, framed(b"strue"));
        assert_eq!(finish(client).peer.name, name("b@host"));

        let error = alive().answer(false).unwrap_err();
        assert_eq!((&error.fault, error.farewell()), (&Fault::AlreadyConnected, Some(framed(b"sfalse"))));
    }

    #[test]
    fn another_name_than_the_dialled_one_ends_it_before_our_digest_is_out() {
        let (_, client) = next(client(), b"sok");
        let other = send_challenge(PEER_FLAGS, 17, 3, "c@host");
        assert_eq!(fault(client, &other), Fault::OtherName("c@host".into()));
    }

    #[test]
    fn a_peer_without_mandatory_flags_is_not_connected_to() {
        let (_, client_) = next(client(), b"sok");
        let flags = PEER_FLAGS
            .difference(DistributionFlags::UTF8_ATOMS)
            .difference(DistributionFlags::MANDATORY_25_DIGEST);
        let lacks = DistributionFlags::UTF8_ATOMS;
        assert_eq!(fault(client_, &send_challenge(flags, 17, 3, "b@host")), Fault::TooOld { lacks });

        let (_, client_) = next(client(), b"sok");
        let old = b"n\0\x05\0\x0f\x7f\xbd\0\0\0\x11b@host";
        assert_eq!(fault(client_, old), Fault::TooOld { lacks: DistributionFlags::HANDSHAKE_23 });
    }

    #[test]
    fn a_wrong_digest_in_the_ack_is_their_cookie() {
        let (_, client) = next(client(), b"sok");
        let mut ack = ack();
        ack[1] ^= 0x80;
        assert_eq!(fault(challenged(client), &ack), Fault::WrongCookie);
    }

    #[test]
    fn a_connection_closed_on_our_digest_is_our_cookie() {
        let (_, client) = next(client(), b"sok");
        assert_eq!(client.fail(Fault::Closed).fault, Fault::Closed);
        let client = challenged(client);
        let error = client.fail(Fault::Closed);
        assert_eq!(error.fault, Fault::CookieRefused);
        assert!(
            error.to_string().starts_with("b@host closed the connection when it had our digest"),
            "{error}"
        );
        assert_eq!(client.fail(Fault::TimedOut).fault, Fault::TimedOut);
    }

    #[test]
    fn a_nameless_client_takes_a_name_of_its_host_only() {
        let nameless = || {
            let (send, client) =
                Client::nameless("host", DistributionFlags::OFFERED, cookie(), name("b@host"), CHALLENGE)
                    .unwrap();
            let flags = DistributionFlags::OFFERED.union(DistributionFlags::NAME_ME);
            assert_eq!(send, framed(&send_name(flags, 0, "host")));
            client
        };
        let (_, client) = next(nameless(), b"snamed:\0\x06q@host\0\0\0\x07and more");
        let connected = finish(client);
        assert_eq!(connected.given, Some((name("q@host"), 7)));

        assert_eq!(fault(nameless(), b"sok"), Fault::UnknownStatus("ok".into()));
        assert_eq!(
            fault(nameless(), b"snamed:\0\x07q@other\0\0\0\x07"),
            Malformed::OtherHost { name: "q@other".into() }.into()
        );
        assert_eq!(fault(nameless(), b"snamed:\0\x02\xff@\0\0\0\x07"), Malformed::NotUtf8.into());
        assert_eq!(fault(nameless(), b"snamed:\0\x06q@host\0\0\x07"), Malformed::Short.into());
        let bad = Client::nameless("a@b", DistributionFlags::OFFERED, cookie(), name("b@host"), CHALLENGE);
        assert_eq!(bad.unwrap_err(), Malformed::Host { host: "a@b".into() });
    }
}
