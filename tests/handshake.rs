//! Handshakes with others: erl_dist and erl_rpc as second opinions, and real nodes of every OTP version present.
//!
//! The sockets are driven here as the node's shell does it: read, cut into packets, handle, write.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::time::Duration;

use erl_dist::epmd::{EpmdClient, NodeEntry};
use erl_dist::handshake::{ClientSideHandshake, HandshakeStatus, ServerSideHandshake};
use erl_dist::node::{Creation, LocalNode};
use kvnode::distribution::handshake::{
    Accepted, Claim, Client, ClientStep, Connected, Fault, HandshakeError, Local, NameRequest, Packets,
    Phase, Server, ServerStep, Standing, Unwelcome, Whom,
};
use kvnode::distribution::{Cookie, DistributionFlags, NodeName};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{Ipv4Addr, TcpListener, TcpStream};
use support::{BeamNode, BeamOptions, COOKIE, Epmd, Otp, at_host, on_every_otp, on_every_otp_from};

/// Longer than the 7 s that a BEAM gives a step: what a BEAM ends is seen to be ended by it.
const STEP: Duration = Duration::from_secs(20);

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn local(own: &str) -> Local {
    Local { name: name(own), creation: 77, flags: DistributionFlags::OFFERED, cookie: Cookie::new(COOKIE) }
}

/// A socket in its handshake, or behind it.
struct Link {
    socket: TcpStream,
    packets: Packets,
}

impl Link {
    fn new(socket: TcpStream) -> Self {
        Self { socket, packets: Packets::new() }
    }

    async fn packet(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            if let Some(packet) = self.packets.next_packet() {
                return Ok(packet?.to_vec());
            }
            let mut bytes = [0; 512];
            match in_time(self.socket.read(&mut bytes)).await {
                None => return Err(Fault::TimedOut),
                Some(Ok(0) | Err(_)) => return Err(Fault::Closed),
                Some(Ok(length)) => self.packets.push(&bytes[..length]),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    async fn end(mut self, error: HandshakeError) -> HandshakeError {
        if let Some(farewell) = error.farewell() {
            self.send(&farewell).await;
        }
        error
    }

    async fn connect(
        mut self,
        (hello, mut client): (Vec<u8>, Client),
        replace: bool,
    ) -> Result<(Connected, Self), HandshakeError> {
        self.send(&hello).await;
        loop {
            let packet = match self.packet().await {
                Ok(packet) => packet,
                Err(fault) => return Err(client.fail(fault)),
            };
            let answered = match client.handle(&packet) {
                Ok(ClientStep::Connected(connected)) => return Ok((connected, self)),
                Ok(ClientStep::Continue { send, next }) => Ok((send, next)),
                Ok(ClientStep::Alive(alive)) => alive.answer(replace),
                Err(error) => Err(error),
            };
            let send;
            (send, client) = match answered {
                Ok(answered) => answered,
                Err(error) => return Err(self.end(error).await),
            };
            self.send(&send).await;
        }
    }

    /// Reads a name that is claimed and does not answer yet.
    async fn claimed(mut self, server: Server) -> (Claim, Self) {
        let packet = self.packet().await.unwrap();
        match server.handle(&packet).unwrap() {
            ServerStep::Claimed(claim) => (claim, self),
            other => panic!("{other:?}"),
        }
    }

    /// Reads a request for a name and does not answer yet.
    async fn nameless(mut self, server: Server) -> (NameRequest, Self) {
        let packet = self.packet().await.unwrap();
        match server.handle(&packet).unwrap() {
            ServerStep::Nameless(request) => (request, self),
            other => panic!("{other:?}"),
        }
    }

    /// The rest of the accepting side, from the answer to the name on.
    async fn accept(
        mut self,
        answered: Result<(Vec<u8>, Server), HandshakeError>,
    ) -> Result<(Accepted, Self), HandshakeError> {
        let (mut send, mut server) = match answered {
            Ok(answered) => answered,
            Err(error) => return Err(self.end(error).await),
        };
        loop {
            self.send(&send).await;
            let packet = match self.packet().await {
                Ok(packet) => packet,
                Err(fault) => return Err(server.fail(fault)),
            };
            match server.handle(&packet) {
                Ok(ServerStep::Continue { send: more, next }) => (send, server) = (more, next),
                Ok(ServerStep::Accepted { send, accepted }) => {
                    self.send(&send).await;
                    return Ok((accepted, self));
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => return Err(self.end(error).await),
            }
        }
    }

    /// The next frame of the connection that is not a tick, beginning with what came with the handshake.
    async fn frame(self) -> Vec<u8> {
        let mut bytes = self.packets.into_rest();
        let mut socket = self.socket;
        loop {
            while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > 0 && rest.len() >= length {
                    return rest[..length].to_vec();
                }
                if length > 0 {
                    break;
                }
                bytes = rest.to_vec();
            }
            let mut more = [0; 512];
            let length = in_time(socket.read(&mut more)).await.expect("a frame in time").unwrap();
            assert!(length > 0, "closed before a frame came");
            bytes.extend_from_slice(&more[..length]);
        }
    }

    /// Reads until the other side closes the connection.
    async fn closed(mut self) {
        let mut bytes = [0; 512];
        while in_time(self.socket.read(&mut bytes))
            .await
            .expect("closed in time")
            .is_ok_and(|length| length > 0)
        {}
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    let timer = async {
        smol::Timer::after(STEP).await;
        None
    };
    smol::future::or(async { Some(work.await) }, timer).await
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn accepted_link(listener: &TcpListener) -> Link {
    Link::new(in_time(listener.accept()).await.expect("a connection in time").unwrap().0)
}

async fn dial(port: u16) -> Link {
    Link::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap())
}

/// Two ends of one connection.
async fn pair() -> (Link, TcpStream) {
    let (listener, port) = listener().await;
    let (ours, theirs) = smol::future::zip(accepted_link(&listener), dial(port)).await;
    (ours, theirs.socket)
}

mod second_opinion {
    use super::*;

    fn theirs(own: &str) -> LocalNode {
        let mut node = LocalNode::new(own.parse().unwrap(), Creation::new(5));
        node.flags |= erl_dist::DistributionFlags::SPAWN;
        node
    }

    #[test]
    fn our_client_is_accepted_by_erl_dist() {
        for status in [HandshakeStatus::Ok, HandshakeStatus::OkSimultaneous] {
            smol::block_on(async {
                let (link, socket) = pair().await;
                let server = async {
                    let mut server = ServerSideHandshake::new(socket, theirs("b@host"), COOKIE);
                    let claimed = server.execute_recv_name().await.unwrap();
                    assert_eq!(claimed.unwrap().to_string(), "a@host");
                    server.execute_rest(status).await.unwrap().1
                };
                let client = link.connect(Client::new(local("a@host"), name("b@host"), 3), true);
                let (peer, connected) = smol::future::zip(server, client).await;
                assert_eq!(peer.flags.bits(), DistributionFlags::OFFERED.bits());
                assert_eq!(peer.creation.unwrap().get(), 77);
                let connected = connected.unwrap().0;
                assert_eq!(connected.peer.creation, 5);
                assert_eq!(connected.peer.offered.bits(), theirs("b@host").flags.bits());
                assert!(connected.peer.in_force.contains(DistributionFlags::SPAWN));
                assert!(!connected.peer.in_force.contains(DistributionFlags::ALIAS));
            });
        }
    }

    #[test]
    fn our_client_is_refused_by_erl_dist() {
        for (status, fault) in
            [(HandshakeStatus::Nok, Fault::Simultaneous), (HandshakeStatus::NotAllowed, Fault::NotAllowed)]
        {
            smol::block_on(async {
                let (link, socket) = pair().await;
                let server = async {
                    let mut server = ServerSideHandshake::new(socket, theirs("b@host"), COOKIE);
                    server.execute_recv_name().await.unwrap();
                    server.execute_rest(status).await.unwrap_err();
                };
                let client = link.connect(Client::new(local("a@host"), name("b@host"), 3), true);
                let error = smol::future::zip(server, client).await.1.err().unwrap();
                assert_eq!((error.fault, error.phase), (fault, Phase::Status));
            });
        }
    }

    #[test]
    fn our_client_sees_that_erl_dist_has_another_cookie() {
        smol::block_on(async {
            let (link, socket) = pair().await;
            let server = async {
                let mut server = ServerSideHandshake::new(socket, theirs("b@host"), "another");
                server.execute_recv_name().await.unwrap();
                server.execute_rest(HandshakeStatus::Ok).await.unwrap_err();
            };
            let client = link.connect(Client::new(local("a@host"), name("b@host"), 3), true);
            let error = smol::future::zip(server, client).await.1.err().unwrap();
            assert_eq!((error.fault, error.phase), (Fault::CookieRefused, Phase::ChallengeAck));
        });
    }

    #[test]
    fn our_nameless_client_takes_the_name_that_erl_dist_gives() {
        smol::block_on(async {
            let (link, socket) = pair().await;
            let server = async {
                let mut server = ServerSideHandshake::new(socket, theirs("b@host"), COOKIE);
                assert_eq!(server.execute_recv_name().await.unwrap(), None);
                let named = HandshakeStatus::Named { name: "g1".into(), creation: Creation::new(31) };
                server.execute_rest(named).await.unwrap();
            };
            let cookie = Cookie::new(COOKIE);
            let client =
                Client::nameless("host", DistributionFlags::OFFERED, cookie, name("b@host"), 3).unwrap();
            let connected = smol::future::zip(server, link.connect(client, true)).await.1.unwrap().0;
            assert_eq!(connected.given, Some((name("g1@host"), 31)));
        });
    }

    #[test]
    fn erl_dist_is_accepted_by_our_server() {
        for (standing, status) in [
            (Standing::Free, HandshakeStatus::Ok),
            (Standing::ConnectingOut, HandshakeStatus::OkSimultaneous),
        ] {
            smol::block_on(async {
                let (link, socket) = pair().await;
                let client = async {
                    let mut client = ClientSideHandshake::new(socket, theirs("b@host"), COOKIE);
                    assert_eq!(client.execute_send_name(6).await.unwrap(), status);
                    client.execute_rest(true).await.unwrap().1
                };
                let server = async {
                    let (claim, link) = link.claimed(Server::new(local("a@host"), 4)).await;
                    link.accept(claim.answer(standing)).await.unwrap().0
                };
                let (peer, accepted) = smol::future::zip(client, server).await;
                assert_eq!(peer.name.to_string(), "a@host");
                assert_eq!(peer.creation.unwrap().get(), 77);
                assert_eq!(peer.flags.bits(), DistributionFlags::OFFERED.bits());
                assert_eq!((accepted.peer.name, accepted.peer.creation), (name("b@host"), 5));
                assert_eq!(accepted.simultaneous, standing == Standing::ConnectingOut);
            });
        }
    }

    #[test]
    fn erl_dist_with_another_cookie_is_refused_by_our_server() {
        smol::block_on(async {
            let (link, socket) = pair().await;
            let client = async {
                let mut client = ClientSideHandshake::new(socket, theirs("b@host"), "another");
                client.execute_send_name(6).await.unwrap();
                client.execute_rest(true).await.unwrap_err();
            };
            let server = async {
                let (claim, link) = link.claimed(Server::new(local("a@host"), 4)).await;
                link.accept(claim.answer(Standing::Free)).await.err().unwrap()
            };
            let error = smol::future::zip(client, server).await.1;
            assert_eq!((error.fault, error.whom), (Fault::WrongCookie, Whom::Claimant(name("b@host"))));
        });
    }

    #[test]
    fn erl_rpc_gets_a_name_from_our_server() {
        smol::block_on(async {
            let (listener, port) = listener().await;
            let client = erl_rpc::RpcClient::connect_with_port("a@127.0.0.1", port, COOKIE);
            let server = async {
                let link = accepted_link(&listener).await;
                let (request, link) = link.nameless(Server::new(local("a@127.0.0.1"), 4)).await;
                let given = name(&format!("guest@{}", request.host()));
                link.accept(Ok(request.name(given, 99))).await.unwrap().0
            };
            let (client, accepted) = smol::future::zip(client, server).await;
            let client = client.unwrap();
            assert_eq!(client.local_node().name.to_string(), "guest@localhost");
            assert!(accepted.dynamic);
            assert_eq!(accepted.peer.name, name("guest@localhost"));
        });
    }
}

mod with_a_beam {
    use super::*;

    /// Where a node listens, by what epmd says.
    async fn port_of(epmd: &Epmd, node: &BeamNode) -> u16 {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, epmd.port())).await.unwrap();
        let short = name(node.name()).name().to_owned();
        EpmdClient::new(socket).get_node(&short).await.unwrap().expect("it is registered").port
    }

    /// Our own listener under a name in epmd, for as long as the second value lives.
    async fn registered(epmd: &Epmd, own: &str) -> (TcpListener, TcpStream) {
        let (listener, port) = listener().await;
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, epmd.port())).await.unwrap();
        let entry = NodeEntry::new_hidden(name(own).name(), port);
        let (socket, _) = EpmdClient::new(socket).register(entry).await.unwrap();
        (listener, socket)
    }

    /// A node, the epmd that knows it, and where it listens.
    fn beam(otp: &Otp, options: impl Into<BeamOptions>) -> (Epmd, BeamNode, u16) {
        let epmd = Epmd::start();
        let node = BeamNode::start(otp, &epmd, options);
        let port = smol::block_on(port_of(&epmd, &node));
        (epmd, node, port)
    }

    fn client(own: &str, node: &BeamNode) -> (Vec<u8>, Client) {
        Client::new(local(own), name(node.name()), 0xdead_beef)
    }

    /// OTP 28 and later offer all that we do, OTP 25 all but ALTACT_SIG; before, more flags did not exist.
    fn agreed(otp: &Otp, in_force: DistributionFlags) {
        match otp.release {
            28.. => assert_eq!(in_force, DistributionFlags::OFFERED),
            25.. => {
                assert_eq!(in_force, DistributionFlags::OFFERED.difference(DistributionFlags::ALTACT_SIG))
            }
            _ => assert!(DistributionFlags::OFFERED.contains(in_force)),
        }
    }

    fn knows(node: &BeamNode, ours: &str, connected: bool) {
        node.check_soon(&format!(":\"{ours}\" in Node.list(:hidden)"), &connected.to_string());
    }

    #[test]
    fn our_client_is_accepted_and_the_connection_carries_frames() {
        on_every_otp_from(25, |otp| {
            let (_epmd, node, port) = beam(otp, "b");
            let ours = at_host("kv");
            smol::block_on(async {
                let (connected, link) = dial(port).await.connect(client(&ours, &node), false).await.unwrap();
                assert_eq!(connected.peer.name.as_str(), node.name());
                assert!(connected.peer.offered.contains(DistributionFlags::PUBLISHED));
                agreed(otp, connected.peer.in_force);
                assert_eq!(connected.peer.creation.to_string(), node.run(":erts_internal.get_creation()"));
                knows(&node, &ours, true);
                node.run(&format!("send({{:any, :\"{ours}\"}}, :hello)"));
                let frame = link.frame().await;
                assert_eq!(frame[..3], [131, 68, 0], "a distribution header without atom cache");
                assert!(frame.ends_with(b"hello"), "{frame:?}");
            });
        });
    }

    #[test]
    fn our_client_with_another_cookie_is_refused_and_knows_why() {
        on_every_otp(|otp| {
            let (_epmd, node, port) = beam(otp, BeamOptions::new("b").cookie("another"));
            let error = smol::block_on(async {
                dial(port).await.connect(client(&at_host("kv"), &node), false).await.err().unwrap()
            });
            assert_eq!((&error.fault, error.phase), (&Fault::CookieRefused, Phase::ChallengeAck));
            assert!(error.to_string().starts_with(node.name()), "{error}");
        });
    }

    #[test]
    fn our_client_is_told_alive_and_replaces_the_first_connection_or_leaves_it() {
        // Seen on OTP 23: it takes the answer `true`, and closes the new connection for as long as the first one lives.
        on_every_otp_from(25, |otp| {
            let (_epmd, node, port) = beam(otp, "b");
            let ours = at_host("kv");
            smol::block_on(async {
                let (_, first) = dial(port).await.connect(client(&ours, &node), false).await.unwrap();
                knows(&node, &ours, true);

                let error = dial(port).await.connect(client(&ours, &node), false).await.err().unwrap();
                assert_eq!(error.fault, Fault::AlreadyConnected);
                let hello = format!("send({{:any, :\"{ours}\"}}, :hello)");
                node.run(&hello);
                assert!(first.frame().await.ends_with(b"hello"), "the first connection lives on");
            });
            smol::block_on(async {
                let (_, first) = dial(port).await.connect(client(&ours, &node), true).await.unwrap();
                let (_, second) = dial(port).await.connect(client(&ours, &node), true).await.unwrap();
                first.closed().await;
                knows(&node, &ours, true);
                node.run(&format!("send({{:any, :\"{ours}\"}}, :hello)"));
                assert!(second.frame().await.ends_with(b"hello"));
            });
        });
    }

    #[test]
    fn our_client_without_mandatory_flags_is_told_not_allowed() {
        on_every_otp(|otp| {
            let (_epmd, node, port) = beam(otp, "b");
            let lacking = DistributionFlags::UTF8_ATOMS.union(DistributionFlags::MANDATORY_25_DIGEST);
            let flags = DistributionFlags::OFFERED.difference(lacking);
            let ours = Local { flags, ..local(&at_host("kv")) };
            let client = Client::new(ours, name(node.name()), 1);
            let error =
                smol::block_on(async { dial(port).await.connect(client, false).await.err().unwrap() });
            assert_eq!(error.fault, Fault::NotAllowed);
        });
    }

    #[test]
    fn our_client_that_dials_another_node_than_it_meant_notices() {
        on_every_otp(|otp| {
            let (_epmd, node, port) = beam(otp, "b");
            let client = Client::new(local(&at_host("kv")), name(&at_host("c")), 1);
            let error =
                smol::block_on(async { dial(port).await.connect(client, false).await.err().unwrap() });
            assert_eq!(error.fault, Fault::OtherName(node.name().into()));
        });
    }

    #[test]
    fn our_nameless_client_is_given_a_name() {
        on_every_otp(|otp| {
            let (_epmd, node, port) = beam(otp, "b");
            let host = name(node.name()).host().to_owned();
            let (cookie, dialled) = (Cookie::new(COOKIE), name(node.name()));
            let client = Client::nameless(&host, DistributionFlags::OFFERED, cookie, dialled, 1).unwrap();
            smol::block_on(async {
                let (connected, _link) = dial(port).await.connect(client, false).await.unwrap();
                let (given, _) = connected.given.unwrap();
                assert_eq!(given.host(), host);
                knows(&node, given.as_str(), true);
            });
        });
    }

    #[test]
    fn a_beam_is_accepted_by_our_server_and_the_connection_carries_frames() {
        on_every_otp(|otp| {
            let epmd = Epmd::start();
            let node = BeamNode::start(otp, &epmd, "b");
            let ours = at_host("kv");
            smol::block_on(async {
                let (listener, _registration) = registered(&epmd, &ours).await;
                let connecting = node.spawn(&format!("Node.connect(:\"{ours}\")"));
                let (claim, link) =
                    accepted_link(&listener).await.claimed(Server::new(local(&ours), 0xcafe_f00d)).await;
                assert_eq!(claim.name().as_str(), node.name());
                let (accepted, link) = link.accept(claim.answer(Standing::Free)).await.unwrap();
                assert_eq!(connecting.value(), "true");
                agreed(otp, accepted.peer.in_force);
                assert_eq!(accepted.peer.creation.to_string(), node.run(":erts_internal.get_creation()"));
                assert!(!accepted.replaces && !accepted.simultaneous && !accepted.dynamic);
                knows(&node, &ours, true);
                node.run(&format!("send({{:any, :\"{ours}\"}}, :hello)"));
                assert!(link.frame().await.ends_with(b"hello"));
            });
        });
    }

    #[test]
    fn a_beam_with_another_cookie_is_refused_by_our_server() {
        on_every_otp(|otp| {
            let epmd = Epmd::start();
            let node = BeamNode::start(otp, &epmd, BeamOptions::new("b").cookie("another"));
            let ours = at_host("kv");
            smol::block_on(async {
                let (listener, _registration) = registered(&epmd, &ours).await;
                let connecting = node.spawn(&format!("Node.connect(:\"{ours}\")"));
                let (claim, link) =
                    accepted_link(&listener).await.claimed(Server::new(local(&ours), 1)).await;
                let error = link.accept(claim.answer(Standing::Free)).await.err().unwrap();
                assert_eq!(
                    (error.fault, error.whom),
                    (Fault::WrongCookie, Whom::Claimant(name(node.name())))
                );
                assert_eq!(connecting.value(), "false");
            });
        });
    }

    #[test]
    fn a_beam_that_may_not_connect_is_told_so() {
        on_every_otp(|otp| {
            let epmd = Epmd::start();
            let node = BeamNode::start(otp, &epmd, "b");
            let ours = at_host("kv");
            smol::block_on(async {
                let (listener, _registration) = registered(&epmd, &ours).await;
                let connecting = node.spawn(&format!("Node.connect(:\"{ours}\")"));
                let (claim, link) =
                    accepted_link(&listener).await.claimed(Server::new(local(&ours), 1)).await;
                let error =
                    link.accept(claim.answer(Standing::Refused(Unwelcome::NotListed))).await.err().unwrap();
                assert_eq!(error.fault, Fault::Refused(Unwelcome::NotListed));
                assert_eq!(connecting.value(), "false");
            });
        });
    }

    #[test]
    fn a_beam_that_dialled_another_name_than_ours_leaves_at_our_challenge() {
        on_every_otp(|otp| {
            let epmd = Epmd::start();
            let node = BeamNode::start(otp, &epmd, "b");
            smol::block_on(async {
                let (listener, _registration) = registered(&epmd, &at_host("kv")).await;
                let connecting = node.spawn(&format!("Node.connect(:\"{}\")", at_host("kv")));
                let server = Server::new(local(&at_host("other")), 1);
                let (claim, link) = accepted_link(&listener).await.claimed(server).await;
                let error = link.accept(claim.answer(Standing::Free)).await.err().unwrap();
                assert_eq!((&error.fault, error.phase), (&Fault::Closed, Phase::ChallengeReply));
                assert!(error.to_string().contains("it dialled this node by another name"), "{error}");
                assert_eq!(connecting.value(), "false");
            });
        });
    }

    #[test]
    fn a_beam_that_is_told_alive_goes_on() {
        on_every_otp(|otp| {
            let epmd = Epmd::start();
            let node = BeamNode::start(otp, &epmd, "b");
            let ours = at_host("kv");
            smol::block_on(async {
                let (listener, _registration) = registered(&epmd, &ours).await;
                // We have not noticed that its first connection is gone.
                let connecting = node.spawn(&format!("Node.connect(:\"{ours}\")"));
                let (claim, link) =
                    accepted_link(&listener).await.claimed(Server::new(local(&ours), 1)).await;
                let (accepted, link) = link.accept(claim.answer(Standing::Connected)).await.unwrap();
                assert_eq!(connecting.value(), "true");
                assert!(accepted.replaces);
                node.run(&format!("send({{:any, :\"{ours}\"}}, :hello)"));
                assert!(link.frame().await.ends_with(b"hello"));
            });
        });
    }

    /// Both sides dial at once: the node's attempt waits for our status while ours runs.
    #[test]
    fn of_two_that_dial_at_once_one_connection_is_left() {
        on_every_otp(|otp| {
            let (epmd, node, port) = beam(otp, "m");
            for (own, ours_goes_on) in [("a", false), ("z", true)] {
                let ours = at_host(own);
                smol::block_on(async {
                    let (listener, _registration) = registered(&epmd, &ours).await;
                    let connecting = node.spawn(&format!("Node.connect(:\"{ours}\")"));
                    let theirs = accepted_link(&listener).await;
                    let (claim, theirs) = theirs.claimed(Server::new(local(&ours), 1)).await;
                    let link = if ours_goes_on {
                        let refused =
                            theirs.accept(claim.answer(Standing::ConnectingOut)).await.err().unwrap();
                        assert_eq!(refused.fault, Fault::Simultaneous);
                        dial(port).await.connect(client(&ours, &node), false).await.unwrap().1
                    } else {
                        let refused =
                            dial(port).await.connect(client(&ours, &node), false).await.err().unwrap();
                        assert_eq!((refused.fault, refused.phase), (Fault::Simultaneous, Phase::Status));
                        let (accepted, link) =
                            theirs.accept(claim.answer(Standing::ConnectingOut)).await.unwrap();
                        assert!(accepted.simultaneous);
                        link
                    };
                    assert_eq!(connecting.value(), "true");
                    node.run(&format!("send({{:any, :\"{ours}\"}}, :hello)"));
                    assert!(link.frame().await.ends_with(b"hello"));
                });
            }
        });
    }

    #[test]
    fn a_nameless_beam_gets_its_name_from_our_server() {
        on_every_otp(|otp| {
            let epmd = Epmd::start();
            let node = BeamNode::start(otp, &epmd, "undefined");
            assert_eq!(node.name(), "nonode@nohost");
            let ours = at_host("kv");
            smol::block_on(async {
                let (listener, _registration) = registered(&epmd, &ours).await;
                let connecting = node.spawn(&format!("Node.connect(:\"{ours}\")"));
                let link = accepted_link(&listener).await;
                let (request, link) = link.nameless(Server::new(local(&ours), 1)).await;
                let given = name(&format!("guest7@{}", request.host()));
                let (accepted, link) = link.accept(Ok(request.name(given.clone(), 4242))).await.unwrap();
                assert_eq!(connecting.value(), "true");
                assert_eq!((&accepted.peer.name, accepted.peer.creation), (&given, 4242));
                assert!(accepted.dynamic);
                node.check(&format!("node() == :\"{given}\""), "true");
                node.check(":erts_internal.get_creation()", "4242");
                node.run(&format!("send({{:any, :\"{ours}\"}}, :hello)"));
                assert!(link.frame().await.ends_with(b"hello"));
            });
        });
    }

    #[test]
    fn a_c_node_is_accepted_by_our_server_with_and_without_a_name() {
        on_every_otp(|otp| {
            for nameless in [false, true] {
                smol::block_on(async {
                    let (listener, port) = listener().await;
                    let mut erl_call = otp.command("erl_call");
                    erl_call.args([
                        "-address",
                        &format!("127.0.0.1:{port}"),
                        "-c",
                        COOKIE,
                        "-a",
                        "erlang node",
                    ]);
                    erl_call.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
                    let naming = if nameless { &["-R"][..] } else { &["-h", "cnode"] };
                    let mut child = erl_call.args(naming).spawn().unwrap();
                    let link = accepted_link(&listener).await;
                    let server = Server::new(local(&at_host("kv")), 1);
                    let (accepted, link) = if nameless {
                        let (request, link) = link.nameless(server).await;
                        let given = name(&format!("guest@{}", request.host()));
                        link.accept(Ok(request.name(given, 4))).await.unwrap()
                    } else {
                        let (claim, link) = link.claimed(server).await;
                        link.accept(claim.answer(Standing::Free)).await.unwrap()
                    };
                    assert_eq!(accepted.dynamic, nameless);
                    let frame = link.frame().await;
                    assert_eq!(frame[..2], [112, 131], "its call");
                    child.kill().unwrap();
                    child.wait().unwrap();
                });
            }
        });
    }
}
