//! Handshakes with others: erl_dist and erl_rpc as second opinions, and real nodes of every OTP version present.
//!
//! The sockets are driven here as the node's shell does it: read, cut into packets, handle, write.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "handshake/second_opinion.rs"]
mod second_opinion;
mod support;
#[path = "handshake/with_a_beam.rs"]
mod with_a_beam;

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
