//! Real nodes of every OTP version present, and C nodes, on the other side.

use super::*;
use crate::support::beam::Pending;

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

/// A node that dials us.
struct Dialling<'a> {
    /// What its `Node.connect/1` gives.
    connecting: Pending<'a>,
    link: Link,
    _registered: (TcpListener, TcpStream),
}

/// Has a node dial this name of ours.
async fn dialled_by<'a>(node: &'a BeamNode, epmd: &Epmd, ours: &str) -> Dialling<'a> {
    let registered = registered(epmd, ours).await;
    let connecting = node.spawn(&format!("Node.connect(:\"{ours}\")"));
    let link = accepted_link(&registered.0).await;
    Dialling { connecting, link, _registered: registered }
}

/// The node sends a message to this name of ours, and it comes by the link.
async fn carries(node: &BeamNode, ours: &str, link: Link) {
    node.run(&format!("send({{:any, :\"{ours}\"}}, :hello)"));
    assert!(link.frame().await.ends_with(b"hello"));
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
            carries(&node, &ours, second).await;
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
        let error = smol::block_on(async { dial(port).await.connect(client, false).await.err().unwrap() });
        assert_eq!(error.fault, Fault::NotAllowed);
    });
}

#[test]
fn our_client_that_dials_another_node_than_it_meant_notices() {
    on_every_otp(|otp| {
        let (_epmd, node, port) = beam(otp, "b");
        let client = Client::new(local(&at_host("kv")), name(&at_host("c")), 1);
        let error = smol::block_on(async { dial(port).await.connect(client, false).await.err().unwrap() });
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
            let dialling = dialled_by(&node, &epmd, &ours).await;
            let (claim, link) = dialling.link.claimed(Server::new(local(&ours), 0xcafe_f00d)).await;
            assert_eq!(claim.name().as_str(), node.name());
            let (accepted, link) = link.accept(claim.answer(Standing::Free)).await.unwrap();
            assert_eq!(dialling.connecting.value(), "true");
            agreed(otp, accepted.peer.in_force);
            assert_eq!(accepted.peer.creation.to_string(), node.run(":erts_internal.get_creation()"));
            assert!(!accepted.replaces && !accepted.simultaneous && !accepted.dynamic);
            knows(&node, &ours, true);
            carries(&node, &ours, link).await;
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
            let dialling = dialled_by(&node, &epmd, &ours).await;
            let (claim, link) = dialling.link.claimed(Server::new(local(&ours), 1)).await;
            let error = link.accept(claim.answer(Standing::Free)).await.err().unwrap();
            assert_eq!((error.fault, error.whom), (Fault::WrongCookie, Whom::Claimant(name(node.name()))));
            assert_eq!(dialling.connecting.value(), "false");
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
            let dialling = dialled_by(&node, &epmd, &ours).await;
            let (claim, link) = dialling.link.claimed(Server::new(local(&ours), 1)).await;
            let error =
                link.accept(claim.answer(Standing::Refused(Unwelcome::NotListed))).await.err().unwrap();
            assert_eq!(error.fault, Fault::Refused(Unwelcome::NotListed));
            assert_eq!(dialling.connecting.value(), "false");
        });
    });
}

#[test]
fn a_beam_that_dialled_another_name_than_ours_leaves_at_our_challenge() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let node = BeamNode::start(otp, &epmd, "b");
        smol::block_on(async {
            let dialling = dialled_by(&node, &epmd, &at_host("kv")).await;
            let server = Server::new(local(&at_host("other")), 1);
            let (claim, link) = dialling.link.claimed(server).await;
            let error = link.accept(claim.answer(Standing::Free)).await.err().unwrap();
            assert_eq!((&error.fault, error.phase), (&Fault::Closed, Phase::ChallengeReply));
            assert!(error.to_string().contains("it dialled this node by another name"), "{error}");
            assert_eq!(dialling.connecting.value(), "false");
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
            // We have not noticed that its first connection is gone.
            let dialling = dialled_by(&node, &epmd, &ours).await;
            let (claim, link) = dialling.link.claimed(Server::new(local(&ours), 1)).await;
            let (accepted, link) = link.accept(claim.answer(Standing::Connected)).await.unwrap();
            assert_eq!(dialling.connecting.value(), "true");
            assert!(accepted.replaces);
            carries(&node, &ours, link).await;
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
                let dialling = dialled_by(&node, &epmd, &ours).await;
                let (claim, theirs) = dialling.link.claimed(Server::new(local(&ours), 1)).await;
                let link = if ours_goes_on {
                    let refused = theirs.accept(claim.answer(Standing::ConnectingOut)).await.err().unwrap();
                    assert_eq!(refused.fault, Fault::Simultaneous);
                    dial(port).await.connect(client(&ours, &node), false).await.unwrap().1
                } else {
                    let refused = dial(port).await.connect(client(&ours, &node), false).await.err().unwrap();
                    assert_eq!((refused.fault, refused.phase), (Fault::Simultaneous, Phase::Status));
                    let (accepted, link) =
                        theirs.accept(claim.answer(Standing::ConnectingOut)).await.unwrap();
                    assert!(accepted.simultaneous);
                    link
                };
                assert_eq!(dialling.connecting.value(), "true");
                carries(&node, &ours, link).await;
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
            let dialling = dialled_by(&node, &epmd, &ours).await;
            let (request, link) = dialling.link.nameless(Server::new(local(&ours), 1)).await;
            let given = name(&format!("guest7@{}", request.host()));
            let (accepted, link) = link.accept(Ok(request.name(given.clone(), 4242))).await.unwrap();
            assert_eq!(dialling.connecting.value(), "true");
            assert_eq!((&accepted.peer.name, accepted.peer.creation), (&given, 4242));
            assert!(accepted.dynamic);
            node.check(&format!("node() == :\"{given}\""), "true");
            node.check(":erts_internal.get_creation()", "4242");
            carries(&node, &ours, link).await;
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
                erl_call.args(["-address", &format!("127.0.0.1:{port}"), "-c", COOKIE, "-a", "erlang node"]);
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
