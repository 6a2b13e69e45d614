//! erl_dist and erl_rpc on the other side of the socket.

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
        let client = Client::nameless("host", DistributionFlags::OFFERED, cookie, name("b@host"), 3).unwrap();
        let connected = smol::future::zip(server, link.connect(client, true)).await.1.unwrap().0;
        assert_eq!(connected.given, Some((name("g1@host"), 31)));
    });
}

#[test]
fn erl_dist_is_accepted_by_our_server() {
    for (standing, status) in
        [(Standing::Free, HandshakeStatus::Ok), (Standing::ConnectingOut, HandshakeStatus::OkSimultaneous)]
    {
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
