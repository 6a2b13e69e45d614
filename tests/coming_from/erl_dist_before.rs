use std::error::Error;
use std::time::Duration;

use erl_dist::epmd::{EpmdClient, NodeEntry};
use erl_dist::handshake::{HandshakeStatus, ServerSideHandshake};
use erl_dist::message::{Message, channel};
use erl_dist::node::{LocalNode, NodeName};
use erl_dist::term::{Binary, Term};
use smol::Timer;
use smol::future::FutureExt;
use smol::net::{TcpListener, TcpStream};

/// Answers `send({:greeter, node}, {self(), "Ana"})` with `"Hello, Ana!"`, for as long as it runs.
pub async fn greet(name: NodeName, cookie: String, epmd_port: u16) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let entry = NodeEntry::new_hidden(name.name(), listener.local_addr()?.port());
    let epmd = EpmdClient::new(TcpStream::connect(("localhost", epmd_port)).await?);
    // The name is ours for as long as this connection is kept.
    let (_registered, creation) = epmd.register(entry).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (local, cookie) = (LocalNode::new(name.clone(), creation), cookie.clone());
        smol::spawn(async move { _ = serve(stream, local, &cookie).await }).detach();
    }
}

async fn serve(stream: TcpStream, local: LocalNode, cookie: &str) -> Result<(), Box<dyn Error>> {
    let mut handshake = ServerSideHandshake::new(stream, local.clone(), cookie);
    handshake.execute_recv_name().await?.ok_or("it wants a name of us")?;
    let (stream, peer) = handshake.execute_rest(HandshakeStatus::Ok).await?;
    let (mut tx, rx) = channel(stream, local.flags & peer.flags);
    let mut receiving = Box::pin(rx.recv_owned());
    loop {
        // A quarter of net_ticktime: whoever is silent for longer is taken for dead.
        let tick = async {
            Timer::after(Duration::from_secs(15)).await;
            None
        };
        let received = async { Some((&mut receiving).await) }.or(tick).await;
        let Some(received) = received else {
            tx.send(Message::Tick).await?;
            continue;
        };
        let (message, rx) = received?;
        receiving = Box::pin(rx.recv_owned());
        let Message::RegSend(message) = message else { continue };
        if message.to_name.name != "greeter" {
            continue;
        }
        if let Term::Tuple(tuple) = message.message
            && let [Term::Pid(from), Term::Binary(name)] = &tuple.elements[..]
        {
            let text = format!("Hello, {}!", String::from_utf8_lossy(&name.bytes));
            tx.send(Message::send(from.clone(), Binary::from(text.into_bytes()).into())).await?;
        }
    }
}
