//! The accepting side.

use subtle::ConstantTimeEq;

use super::{Fault, HandshakeError, Local, Malformed, PeerNode, Phase, Unwelcome, Whom, wire};
use crate::distribution::{DistributionFlags, NodeName};

/// The accepting side of one handshake, waiting for the next packet.
#[derive(Debug)]
pub struct Server(State);

/// What follows a packet on the accepting side.
#[derive(Debug)]
pub enum ServerStep {
    /// Send (there may be nothing to send), then read the next packet.
    Continue {
        /// A packet with its length, or nothing.
        send: Vec<u8>,
        /// What handles the next packet.
        next: Server,
    },
    /// A name is claimed: say how things stand with it.
    Claimed(Claim),
    /// The other side wants a name.
    Nameless(NameRequest),
    /// The cookie is proved on their side. Record the connection, end the one that it replaces, then send.
    Accepted {
        /// The last packet of the handshake, with its length. Frames of the connection may follow it in one write.
        send: Vec<u8>,
        /// The peer, and what is in force with it.
        accepted: Accepted,
    },
}

/// The outcome on the accepting side.
///
/// What the shell knew of the name when it was claimed may have changed since: another connection may have come up
/// under it. The shell looks again before it records this connection; of two the newer is that which has just proved the cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The other node.
    pub peer: PeerNode,
    /// It was told `alive` and wants to go on: an older connection under its name is dead.
    pub replaces: bool,
    /// It was told `ok_simultaneous`: our own attempt to connect to it is to be given up.
    pub simultaneous: bool,
    /// The name was handed out by us.
    pub dynamic: bool,
}

/// How things stand with a name that is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No connection, and none under way.
    Free,
    /// We have dialled that node ourselves and are not through.
    ConnectingOut,
    /// There is a connection.
    Connected,
    /// That node may not connect, or not now, and why.
    Refused(Unwelcome),
}

impl Server {
    /// Starts when a connection has been accepted. `challenge` is random, and another each time.
    pub fn new(local: Local, challenge: u32) -> Self {
        Self(State::Name(ExpectName { side: Side { local, challenge } }))
    }

    /// Takes the next packet, without its length.
    ///
    /// # Errors
    /// The other side's fault: send [`HandshakeError::farewell`], then close the socket.
    pub fn handle(self, packet: &[u8]) -> Result<ServerStep, HandshakeError> {
        match self.0 {
            State::Name(state) => state.handle(packet),
            State::AliveAnswer(state) => state.handle(packet),
            State::Complement(state) => state.handle(packet),
            State::ChallengeReply(state) => state.handle(packet),
        }
    }

    /// The message that is waited for.
    pub fn waiting_for(&self) -> Phase {
        match self.0 {
            State::Name(_) => Phase::Name,
            State::AliveAnswer(_) => Phase::AliveAnswer,
            State::Complement(_) => Phase::Complement,
            State::ChallengeReply(_) => Phase::ChallengeReply,
        }
    }

    /// The error for what the shell sees happen to the socket: [`Fault::Closed`], [`Fault::TimedOut`],
    /// or what [`Packets`](super::Packets) said.
    pub fn fail(&self, fault: Fault) -> HandshakeError {
        let whom = match &self.0 {
            State::Name(_) => Whom::Stranger,
            State::AliveAnswer(ExpectAliveAnswer { caller })
            | State::Complement(ExpectComplement { caller })
            | State::ChallengeReply(ExpectChallengeReply { caller, .. }) => caller.whom(),
        };
        HandshakeError { whom, phase: self.waiting_for(), fault }
    }
}

#[derive(Debug)]
enum State {
    Name(ExpectName),
    AliveAnswer(ExpectAliveAnswer),
    Complement(ExpectComplement),
    ChallengeReply(ExpectChallengeReply),
}

/// Our part, the same throughout.
#[derive(Debug)]
struct Side {
    local: Local,
    challenge: u32,
}

#[derive(Debug)]
struct ExpectName {
    side: Side,
}

impl ExpectName {
    fn handle(self, packet: &[u8]) -> Result<ServerStep, HandshakeError> {
        let fail = |whom, fault| HandshakeError { whom, phase: Phase::Name, fault };
        let message =
            wire::read_send_name(packet).map_err(|malformed| fail(Whom::Stranger, malformed.into()))?;
        // An old send_name holds the low flags only, and NAME_ME is a high one.
        if message.flags.contains(DistributionFlags::NAME_ME) {
            return self.nameless(&message);
        }
        let name = NodeName::new(&message.name)
            .map_err(|error| fail(Whom::Stranger, Malformed::Name { name: message.name, error }.into()))?;
        let whom = Whom::Claimant(name.clone());
        if name == self.side.local.name {
            return Err(fail(whom, Fault::OwnName));
        }
        check_flags(message.flags, whom)?;
        Ok(ServerStep::Claimed(Claim {
            caller: Caller {
                side: self.side,
                name,
                creation: message.creation,
                offered: message.flags,
                replaces: false,
                simultaneous: false,
                dynamic: false,
            },
        }))
    }

    fn nameless(self, message: &wire::SendName) -> Result<ServerStep, HandshakeError> {
        let host = message.name.clone();
        // dist_util, is_name_ok: a host alone. Any name before it does for the check.
        if host.contains('@') || NodeName::new(&format!("x@{host}")).is_err() {
            let fault = Malformed::Host { host }.into();
            return Err(HandshakeError { whom: Whom::Stranger, phase: Phase::Name, fault });
        }
        check_flags(message.flags, Whom::Nameless(host.clone()))?;
        Ok(ServerStep::Nameless(NameRequest { side: self.side, host, offered: message.flags }))
    }
}

fn check_flags(flags: DistributionFlags, whom: Whom) -> Result<(), HandshakeError> {
    let lacks = flags.missing();
    if lacks.is_empty() {
        return Ok(());
    }
    Err(HandshakeError { whom, phase: Phase::Name, fault: Fault::TooOld { lacks } })
}

/// A name that is claimed and not proved.
///
/// The shell only looks at what it knows of the name. It records nothing: anyone can claim any name.
#[derive(Debug)]
pub struct Claim {
    caller: Caller,
}

impl Claim {
    /// The name.
    pub fn name(&self) -> &NodeName {
        &self.caller.name
    }

    /// What the node offers.
    pub fn offered(&self) -> DistributionFlags {
        self.caller.offered
    }

    /// Goes on as the standing of the name demands.
    ///
    /// # Errors
    /// [`Fault::Refused`] for [`Standing::Refused`]. [`Fault::Simultaneous`] when both sides have dialled and
    /// ours is the connection that goes on: our name is the greater one.
    pub fn answer(self, standing: Standing) -> Result<(Vec<u8>, Server), HandshakeError> {
        let mut caller = self.caller;
        let refuse =
            |caller: &Caller, fault| HandshakeError { whom: caller.whom(), phase: Phase::Name, fault };
        match standing {
            Standing::Free => Ok(caller.challenged(wire::status("ok"))),
            // net_kernel, accept_pending: `MyNode > Node` says nok. Names are compared as atoms are, by characters,
            // which is what comparing their UTF-8 does.
            Standing::ConnectingOut if caller.side.local.name > caller.name => {
                Err(refuse(&caller, Fault::Simultaneous))
            }
            Standing::ConnectingOut => {
                caller.simultaneous = true;
                Ok(caller.challenged(wire::status("ok_simultaneous")))
            }
            Standing::Connected => {
                let next = Server(State::AliveAnswer(ExpectAliveAnswer { caller }));
                Ok((wire::status("alive"), next))
            }
            Standing::Refused(why) => Err(refuse(&caller, Fault::Refused(why))),
        }
    }
}

/// A node that wants a name of us (NAME_ME).
#[derive(Debug)]
pub struct NameRequest {
    side: Side,
    host: String,
    offered: DistributionFlags,
}

impl NameRequest {
    /// The host of the node, as it says: the name that is handed out must have it, else a BEAM ends the handshake. It
    /// may be so long that no name fits before it: then [`refuse`](Self::refuse).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the node offers.
    pub fn offered(&self) -> DistributionFlags {
        self.offered
    }

    /// Hands out a name that no other node has, and a creation.
    pub fn name(self, name: NodeName, creation: u32) -> (Vec<u8>, Server) {
        let status = wire::status_named(name.as_str(), creation);
        let caller = Caller {
            side: self.side,
            name,
            creation: Some(creation),
            offered: self.offered,
            replaces: false,
            simultaneous: false,
            dynamic: true,
        };
        caller.challenged(status)
    }

    /// Hands out no name, for this reason.
    pub fn refuse(self, why: Unwelcome) -> HandshakeError {
        HandshakeError { whom: Whom::Nameless(self.host), phase: Phase::Name, fault: Fault::Refused(why) }
    }
}

/// The other side, as it claims to be.
#[derive(Debug)]
struct Caller {
    side: Side,
    name: NodeName,
    creation: Option<u32>,
    offered: DistributionFlags,
    replaces: bool,
    simultaneous: bool,
    dynamic: bool,
}

impl Caller {
    fn whom(&self) -> Whom {
        Whom::Claimant(self.name.clone())
    }

    /// What we offer to this node.
    fn ours(&self) -> DistributionFlags {
        let flags = self.side.local.flags;
        if self.dynamic {
            // dist_util, publish_flag and do_setnode: a node that asked for its name takes it only from one that sets
            // NAME_ME too, and neither is published to the other.
            flags.union(DistributionFlags::NAME_ME).difference(DistributionFlags::PUBLISHED)
        } else {
            flags
        }
    }

    /// Sends the challenge behind what is to be sent before it.
    fn challenged(self, mut send: Vec<u8>) -> (Vec<u8>, Server) {
        let Side { local, challenge } = &self.side;
        let packet = wire::send_challenge(self.ours(), *challenge, local.creation, local.name.as_str());
        send.extend_from_slice(&packet);
        let state = match self.creation {
            Some(creation) => State::ChallengeReply(ExpectChallengeReply { caller: self, creation }),
            None => State::Complement(ExpectComplement { caller: self }),
        };
        (send, Server(state))
    }

    fn fail(&self, phase: Phase, fault: impl Into<Fault>) -> HandshakeError {
        HandshakeError { whom: self.whom(), phase, fault: fault.into() }
    }
}

#[derive(Debug)]
struct ExpectAliveAnswer {
    caller: Caller,
}

impl ExpectAliveAnswer {
    fn handle(self, packet: &[u8]) -> Result<ServerStep, HandshakeError> {
        let mut caller = self.caller;
        let fail = |caller: &Caller, fault: Fault| caller.fail(Phase::AliveAnswer, fault);
        match wire::read_status(packet).map_err(|malformed| fail(&caller, malformed.into()))? {
            wire::Status::Other(b"true") => {
                caller.replaces = true;
                let (send, next) = caller.challenged(Vec::new());
                Ok(ServerStep::Continue { send, next })
            }
            wire::Status::Other(b"false") => Err(fail(&caller, Fault::AlreadyConnected)),
            other => Err(fail(&caller, Fault::UnknownStatus(other.to_string()))),
        }
    }
}

#[derive(Debug)]
struct ExpectComplement {
    caller: Caller,
}

impl ExpectComplement {
    fn handle(self, packet: &[u8]) -> Result<ServerStep, HandshakeError> {
        let mut caller = self.caller;
        let (high, creation) =
            wire::read_complement(packet).map_err(|malformed| caller.fail(Phase::Complement, malformed))?;
        // The name has been said: it is too late to ask for one.
        caller.offered = caller.offered.union(high.difference(DistributionFlags::NAME_ME));
        let next = Server(State::ChallengeReply(ExpectChallengeReply { caller, creation }));
        Ok(ServerStep::Continue { send: Vec::new(), next })
    }
}

#[derive(Debug)]
struct ExpectChallengeReply {
    caller: Caller,
    creation: u32,
}

impl ExpectChallengeReply {
    fn handle(self, packet: &[u8]) -> Result<ServerStep, HandshakeError> {
        let Self { caller, creation } = self;
        let (challenge, digest) = wire::read_challenge_reply(packet)
            .map_err(|malformed| caller.fail(Phase::ChallengeReply, malformed))?;
        let Side { local, challenge: ours } = &caller.side;
        // In constant time: how long it takes says nothing about how much of a guess is right.
        if !bool::from(local.cookie.digest(*ours).ct_eq(&digest)) {
            return Err(caller.fail(Phase::ChallengeReply, Fault::WrongCookie));
        }
        let send = wire::challenge_ack(local.cookie.digest(challenge));
        let in_force = caller.ours().intersection(caller.offered.expanded());
        let accepted = Accepted {
            peer: PeerNode {
                name: caller.name,
                creation,
                offered: caller.offered,
                in_force: in_force.difference(DistributionFlags::NAME_ME),
            },
            replaces: caller.replaces,
            simultaneous: caller.simultaneous,
            dynamic: caller.dynamic,
        };
        Ok(ServerStep::Accepted { send, accepted })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{cookie, framed, local, name, send_name};
    use super::*;

    const CHALLENGE: u32 = 0x0102_0304;
    const PEER_FLAGS: DistributionFlags = DistributionFlags::from_bits(0xd_07df_7fbd);

    fn server() -> Server {
        Server::new(local("m@host"), CHALLENGE)
    }

    fn claim(peer: &str) -> Claim {
        match server().handle(&send_name(PEER_FLAGS, 7, peer)).unwrap() {
            ServerStep::Claimed(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    fn challenge_packet(flags: DistributionFlags) -> Vec<u8> {
        let mut body = vec![b'N'];
        body.extend_from_slice(&flags.bits().to_be_bytes());
        body.extend_from_slice(&[1, 2, 3, 4]);
        body.extend_from_slice(&[0, 0, 0, 9]);
        body.extend_from_slice(b"\0\x06m@host");
        framed(&body)
    }

    fn reply(digest: [u8; 16]) -> Vec<u8> {
        [&b"r\0\0\0\x05"[..], &digest].concat()
    }

    fn finish(server: Server) -> Accepted {
        match server.handle(&reply(cookie().digest(CHALLENGE))).unwrap() {
            ServerStep::Accepted { send, accepted } => {
                assert_eq!(send, framed(&[&b"a"[..], &cookie().digest(5)].concat()));
                accepted
            }
            other => panic!("{other:?}"),
        }
    }

    fn error(step: Result<ServerStep, HandshakeError>) -> HandshakeError {
        step.unwrap_err()
    }

    #[test]
    fn a_free_name_is_challenged_and_accepted_when_its_digest_is_right() {
        let claim = claim("a@host");
        assert_eq!(claim.name(), &name("a@host"));
        assert_eq!(claim.offered(), PEER_FLAGS);
        let (send, server) = claim.answer(Standing::Free).unwrap();
        assert_eq!(send, [framed(b"sok"), challenge_packet(DistributionFlags::OFFERED)].concat());
        assert_eq!(server.waiting_for(), Phase::ChallengeReply);
        let accepted = finish(server);
        assert_eq!(
            accepted,
            Accepted {
                peer: PeerNode {
                    name: name("a@host"),
                    creation: 7,
                    offered: PEER_FLAGS,
                    in_force: PEER_FLAGS.intersection(DistributionFlags::OFFERED),
                },
                replaces: false,
                simultaneous: false,
                dynamic: false,
            }
        );
    }

    #[test]
    fn a_wrong_digest_is_the_other_sides_cookie() {
        let (_, server) = claim("a@host").answer(Standing::Free).unwrap();
        let mut digest = cookie().digest(CHALLENGE);
        digest[15] ^= 1;
        let error = error(server.handle(&reply(digest)));
        assert_eq!(error.fault, Fault::WrongCookie);
        assert_eq!(error.whom, Whom::Claimant(name("a@host")));
        assert_eq!(error.farewell(), None);
        assert!(
            error.to_string().starts_with("a node that calls itself a@host was refused: its cookie"),
            "{error}"
        );
    }

    #[test]
    fn of_two_that_dial_at_once_the_greater_name_keeps_its_own() {
        // Ours is m@host.
        let (send, server) = claim("z@host").answer(Standing::ConnectingOut).unwrap();
        assert!(send.starts_with(&framed(b"sok_simultaneous")));
        let accepted = finish(server);
        assert!(accepted.simultaneous && !accepted.replaces);

        let error = claim("a@host").answer(Standing::ConnectingOut).unwrap_err();
        assert_eq!(error.fault, Fault::Simultaneous);
        assert_eq!(error.farewell(), Some(framed(b"snok")));
    }

    #[test]
    fn a_connected_name_is_told_alive_and_challenged_only_when_it_says_true() {
        let alive = || {
            let (send, server) = claim("a@host").answer(Standing::Connected).unwrap();
            assert_eq!(send, framed(b"salive"));
            assert_eq!(server.waiting_for(), Phase::AliveAnswer);
            server
        };
        let ServerStep::Continue { send, next } = alive().handle(b"strue").unwrap() else { panic!() };
        assert_eq!(send, challenge_packet(DistributionFlags::OFFERED));
        assert!(finish(next).replaces);

        assert_eq!(error(alive().handle(b"sfalse")).fault, Fault::AlreadyConnected);
        assert_eq!(error(alive().handle(b"sok")).fault, Fault::UnknownStatus("ok".into()));
        assert_eq!(error(alive().handle(b"")).fault, Malformed::Empty.into());
    }

    #[test]
    fn a_refused_name_is_told_not_allowed() {
        let error = claim("a@host").answer(Standing::Refused(Unwelcome::NotListed)).unwrap_err();
        let fault = Fault::Refused(Unwelcome::NotListed);
        assert_eq!((&error.fault, error.farewell()), (&fault, Some(framed(b"snot_allowed"))));
    }

    #[test]
    fn our_own_name_is_refused() {
        let error = error(server().handle(&send_name(PEER_FLAGS, 7, "m@host")));
        assert_eq!((&error.fault, error.farewell()), (&Fault::OwnName, Some(framed(b"snot_allowed"))));
    }

    #[test]
    fn a_peer_without_mandatory_flags_is_told_not_allowed_and_the_error_lists_them() {
        let flags = PEER_FLAGS
            .difference(DistributionFlags::BIG_CREATION)
            .difference(DistributionFlags::MANDATORY_25_DIGEST);
        let error = error(server().handle(&send_name(flags, 7, "a@host")));
        assert_eq!(error.fault, Fault::TooOld { lacks: DistributionFlags::BIG_CREATION });
        assert_eq!(error.farewell(), Some(framed(b"snot_allowed")));
        assert!(error.to_string().contains("it lacks BIG_CREATION; "), "{error}");
    }

    #[test]
    fn the_digest_flag_alone_is_enough() {
        let step = server().handle(&send_name(DistributionFlags::MANDATORY_25_DIGEST, 7, "a@host")).unwrap();
        let ServerStep::Claimed(claim) = step else { panic!() };
        let (_, server) = claim.answer(Standing::Free).unwrap();
        let peer = finish(server).peer;
        assert_eq!(peer.offered, DistributionFlags::MANDATORY_25_DIGEST);
        assert_eq!(peer.in_force, DistributionFlags::MANDATORY_25_DIGEST.expanded());
    }

    #[test]
    fn an_old_name_is_completed_by_the_complement() {
        // As OTP 23 and 24 send it to a node whose version they do not know.
        let old = b"n\0\x05\x01\xdf\x7f\xbda@host";
        let ServerStep::Claimed(claim) = server().handle(old).unwrap() else { panic!() };
        assert_eq!(claim.name(), &name("a@host"));
        let (send, server) = claim.answer(Standing::Free).unwrap();
        assert_eq!(send, [framed(b"sok"), challenge_packet(DistributionFlags::OFFERED)].concat());
        assert_eq!(server.waiting_for(), Phase::Complement);
        let ServerStep::Continue { send, next } = server.handle(b"c\0\0\0\x0d\0\0\0\x08").unwrap() else {
            panic!()
        };
        assert_eq!(send, b"");
        let peer = finish(next).peer;
        assert_eq!(peer.creation, 8);
        assert_eq!(peer.offered.bits(), 0xd_01df_7fbd);
    }

    #[test]
    fn a_node_older_than_otp_23_is_too_old() {
        let flags = b"n\0\x05\0\x0f\x7f\xbda@host";
        assert_eq!(
            error(server().handle(flags)).fault,
            Fault::TooOld { lacks: DistributionFlags::HANDSHAKE_23 }
        );
    }

    #[test]
    fn a_nameless_node_gets_its_name_and_the_flag_that_makes_it_take_it() {
        let flags = PEER_FLAGS.union(DistributionFlags::NAME_ME);
        let ServerStep::Nameless(request) = server().handle(&send_name(flags, 0, "host")).unwrap() else {
            panic!()
        };
        assert_eq!((request.host(), request.offered()), ("host", flags));
        let (send, server) = request.name(name("g1@host"), 0xab);
        let ours = DistributionFlags::OFFERED.union(DistributionFlags::NAME_ME);
        let named = framed(b"snamed:\0\x07g1@host\0\0\0\xab");
        assert_eq!(send, [named, challenge_packet(ours)].concat());
        let accepted = finish(server);
        assert!(accepted.dynamic);
        assert_eq!(accepted.peer.name, name("g1@host"));
        assert_eq!(accepted.peer.creation, 0xab);
        assert!(!accepted.peer.in_force.contains(DistributionFlags::NAME_ME));
    }

    #[test]
    fn a_nameless_node_may_be_refused_and_must_say_a_host() {
        let flags = PEER_FLAGS.union(DistributionFlags::NAME_ME);
        let ServerStep::Nameless(request) = server().handle(&send_name(flags, 0, "host")).unwrap() else {
            panic!()
        };
        assert_eq!(request.refuse(Unwelcome::Stopping).farewell(), Some(framed(b"snot_allowed")));
        for host in ["", "x@host", "ho\nst"] {
            let fault = error(server().handle(&send_name(flags, 0, host))).fault;
            assert_eq!(fault, Malformed::Host { host: host.into() }.into());
        }
    }

    #[test]
    fn names_that_no_node_has_are_refused_and_shown_escaped() {
        for bad in ["", "a", "@host", "a@", "a@b@c", "a@host\x1b[31m"] {
            let error = error(server().handle(&send_name(PEER_FLAGS, 7, bad)));
            assert!(matches!(error.fault, Fault::Malformed(Malformed::Name { .. })), "{bad:?}: {error:?}");
            assert!(!error.to_string().contains('\x1b'));
        }
    }

    #[test]
    fn bytes_behind_the_name_are_ignored_and_names_are_latin_1() {
        let mut packet = send_name(PEER_FLAGS, 7, "a@h");
        let end = packet.len() - 1;
        packet[end] = 0xe9;
        packet.extend_from_slice(b"more");
        let ServerStep::Claimed(claim) = server().handle(&packet).unwrap() else { panic!() };
        assert_eq!(claim.name().as_str(), "a@é");
    }

    #[test]
    fn what_happens_to_the_socket_is_said_with_the_name_as_far_as_it_is_known() {
        let closed = server().fail(Fault::Closed);
        assert_eq!((&closed.whom, closed.phase), (&Whom::Stranger, Phase::Name));
        let (_, server) = claim("a@host").answer(Standing::Free).unwrap();
        let late = server.fail(Fault::TimedOut);
        assert_eq!(late.whom, Whom::Claimant(name("a@host")));
        assert!(late.to_string().contains("its send_challenge_reply was due"), "{late}");
    }
}
