//! Setting connections up: dialling, accepting, and the handshake's bytes over a socket.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smol::Timer;
use smol::future::FutureExt;
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::net::TcpStream;

use super::door::Pass;
use super::{Node, random_u32};
use crate::config::Limits;
use crate::dist::NodeName;
use crate::dist::handshake::{
    Accepted, Claim, Client, ClientStep, Connected, Fault, HandshakeError, NameRequest, Packets, Phase,
    Server, ServerStep, Standing,
};
use crate::epmd::{self, EpmdError};

/// Why a node could not be connected to.
#[derive(Debug)]
#[non_exhaustive]
pub enum DialError {
    /// Its name is no node's name.
    Name(String),
    /// It is this node.
    Ourselves,
    /// One of the two names is short and the other long: such nodes cannot talk.
    NameKinds {
        /// The node.
        node: NodeName,
        /// Ours.
        ours: NodeName,
    },
    /// It is none of those that may be connected with (`--allow`).
    NotAllowed {
        /// The node.
        node: NodeName,
    },
    /// The epmd of its host could not be asked.
    Epmd(EpmdError),
    /// The epmd of its host does not know it.
    NotRegistered {
        /// The node.
        node: NodeName,
    },
    /// Its port does not answer.
    Connect {
        /// The node.
        node: NodeName,
        /// Where it listens, says epmd.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// The handshake failed.
    Handshake(HandshakeError),
    /// This node ends.
    Stopping,
    /// The node has connected to us in the same moment, and that connection ended.
    Overtaken,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name} is not the name of a node: it is written name@host"),
            Self::Ourselves => f.write_str("a node cannot connect to itself"),
            Self::NameKinds { node, ours } => write!(
                f,
                "{node} and this node ({ours}) cannot talk: one has a short name and the other a long one; \
                 start both with --sname, or both with --name"
            ),
            Self::NotAllowed { node } => write!(f, "{node} is none of the nodes that --allow names"),
            Self::Epmd(error) => error.fmt(f),
            Self::NotRegistered { node } => write!(
                f,
                "{node} is not running: the epmd of {} does not know the name \"{}\"",
                node.host(),
                node.name()
            ),
            Self::Connect { node, address, error } => {
                write!(f, "{node} does not answer at {address}, where its epmd says that it listens: {error}")
            }
            Self::Handshake(error) => error.fmt(f),
            Self::Stopping => f.write_str("this node ends"),
            Self::Overtaken => f.write_str("the node connected to us meanwhile, and that connection ended"),
        }
    }
}

impl std::error::Error for DialError {}

/// A connection that is set up, from either side.
pub(super) struct Ready<S, P> {
    /// The socket.
    pub stream: S,
    /// Bytes that came after the handshake's end.
    pub first: Vec<u8>,
    /// Who is there.
    pub peer: P,
}

/// Finds a node by epmd, connects and shakes hands.
pub(super) async fn dial(node: &Node, name: &NodeName) -> Result<Ready<TcpStream, Connected>, DialError> {
    if *name == node.config.node_name {
        return Err(DialError::Ourselves);
    }
    if !name.can_talk_to(&node.config.node_name) {
        let ours = node.config.node_name.clone();
        return Err(DialError::NameKinds { node: name.clone(), ours });
    }
    if !node.config.allows(name) {
        return Err(DialError::NotAllowed { node: name.clone() });
    }
    let found = epmd::lookup(name.host(), node.config.epmd.port, name.name()).await;
    let Some(found) = found.map_err(DialError::Epmd)? else {
        return Err(DialError::NotRegistered { node: name.clone() });
    };
    let address = found.address;
    let limit = node.config.limits.handshake_duration_max;
    let refused = |error| DialError::Connect { node: name.clone(), address, error };
    let stream = within(limit, TcpStream::connect(address)).await.map_err(refused)?;
    stream.set_nodelay(true).map_err(refused)?;
    let (hello, client) = Client::new(node.local(), name.clone(), random_u32());
    let shaken = shake_as_client(node, name, stream, hello, client).await;
    shaken.map_err(DialError::Handshake)
}

async fn shake_as_client<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Node,
    name: &NodeName,
    stream: S,
    hello: Vec<u8>,
    mut client: Client,
) -> Result<Ready<S, Connected>, HandshakeError> {
    let mut wire = Wire::new(stream, &node.config.limits);
    wire.send(&hello).await.map_err(|fault| client.fail(fault))?;
    loop {
        let packet = wire.packet().await.map_err(|fault| client.fail(fault))?;
        let (send, next) = match client.handle(&packet)? {
            ClientStep::Continue { send, next } => (send, next),
            // The other side holds a connection to us. Where we hold none it is a dead one, to be replaced; where
            // we do, theirs has come up while we dialled, and it stays.
            ClientStep::Alive(alive) => {
                let replace = node.peers.get(name.as_str()).is_none();
                match alive.answer(replace) {
                    Ok(answer) => answer,
                    Err(error) => return Err(farewell(&mut wire, error).await),
                }
            }
            ClientStep::Connected(peer) => {
                let (stream, first) = wire.into_parts();
                return Ok(Ready { stream, first, peer });
            }
        };
        client = next;
        wire.send(&send).await.map_err(|fault| client.fail(fault))?;
    }
}

/// Shakes hands with somebody who has connected. The last packet is for the caller to send, once the
/// connection stands in the table of peers.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    node: &Arc<Node>,
    stream: S,
    pass: &Pass,
) -> Result<Ready<S, (Accepted, Vec<u8>)>, HandshakeError> {
    let mut wire = Wire::new(stream, &node.config.limits);
    let mut server = Server::new(node.local(), random_u32());
    loop {
        let packet = wire.packet().await.map_err(|fault| server.fail(fault))?;
        if server.waiting_for() == Phase::ChallengeReply && !pass.turn().await {
            return Err(server.fail(Fault::TooManyTries));
        }
        let step = match server.handle(&packet) {
            Ok(step) => step,
            Err(error) => {
                if error.fault == Fault::WrongCookie {
                    pass.wrong_digest();
                }
                return Err(farewell(&mut wire, error).await);
            }
        };
        let (send, next) = match step {
            ServerStep::Continue { send, next } => (send, next),
            ServerStep::Claimed(claim) => {
                let standing = standing(node, &claim);
                match claim.answer(standing) {
                    Ok(answer) => answer,
                    Err(error) => return Err(farewell(&mut wire, error).await),
                }
            }
            ServerStep::Nameless(request) => match dynamic_name(node, &request) {
                Some((name, creation)) => request.name(name, creation),
                None => return Err(farewell(&mut wire, request.refuse()).await),
            },
            ServerStep::Accepted { send, accepted } => {
                let (stream, first) = wire.into_parts();
                return Ok(Ready { stream, first, peer: (accepted, send) });
            }
        };
        server = next;
        wire.send(&send).await.map_err(|fault| server.fail(fault))?;
    }
}

/// Tells the other side why, where the protocol has a word for it.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    error: HandshakeError,
) -> HandshakeError {
    if let Some(last) = error.farewell() {
        // It may be gone by now; the error that is returned is the one that matters.
        let _gone = wire.send(&last).await;
    }
    error
}

fn standing(node: &Node, claim: &Claim) -> Standing {
    let name = claim.name();
    if node.stopping.load(Ordering::SeqCst)
        || *name == node.config.node_name
        || !name.can_talk_to(&node.config.node_name)
        || !node.config.allows(name)
    {
        Standing::Refused
    } else if node.peers.get(name.as_str()).is_some() {
        Standing::Connected
    } else if node.peers.len() >= node.config.limits.peers_max {
        Standing::Refused
    } else if node.peers.is_connecting(name.as_str()) {
        Standing::ConnectingOut
    } else {
        Standing::Free
    }
}

/// Whether a node of a name that is new here may connect.
fn may_connect(node: &Node, name: &NodeName) -> bool {
    node.config.allows(name) && node.peers.len() < node.config.limits.peers_max
}

/// A name for a node that asks for one, as kernel's net_kernel makes them.
fn dynamic_name(node: &Node, request: &NameRequest) -> Option<(NodeName, u32)> {
    let number = u64::from(random_u32()) << 32 | u64::from(random_u32());
    let name = NodeName::new(&format!("{}@{}", base36(number), request.host())).ok()?;
    if !may_connect(node, &name) {
        return None;
    }
    // The three lowest values are those of epmds before OTP 23.
    Some((name, random_u32() | 4))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).expect("below 36").to_ascii_uppercase());
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// The handshake's packets over a socket, within one time limit for each and one for all of them.
struct Wire<S> {
    stream: S,
    packets: Packets,
    step_max: Duration,
    deadline: Timer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn new(stream: S, limits: &Limits) -> Self {
        Self {
            stream,
            packets: Packets::new(),
            step_max: limits.handshake_step_duration_max,
            deadline: Timer::after(limits.handshake_duration_max),
        }
    }

    async fn packet(&mut self) -> Result<Vec<u8>, Fault> {
        let mut step = Timer::after(self.step_max);
        loop {
            if let Some(packet) = self.packets.next_packet() {
                return Ok(packet.map_err(Fault::from)?.to_vec());
            }
            let mut bytes = [0; 1024];
            let read = async { self.stream.read(&mut bytes).await.map_err(|_| Fault::Closed) };
            let late = async {
                (&mut self.deadline).or(&mut step).await;
                Err(Fault::TimedOut)
            };
            match read.or(late).await? {
                0 => return Err(Fault::Closed),
                len => self.packets.push(&bytes[..len]),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let write = async { self.stream.write_all(bytes).await.map_err(|_| Fault::Closed) };
        let late = async {
            (&mut self.deadline).or(Timer::after(self.step_max)).await;
            Err(Fault::TimedOut)
        };
        write.or(late).await
    }

    fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.packets.into_rest())
    }
}

/// Waits for something, but not longer than `limit`.
pub(super) async fn within<T>(limit: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    what.or(async {
        Timer::after(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_names_are_made_of_digits_and_capitals() {
        assert_eq!(base36(0), "0");
        assert_eq!(base36(35), "Z");
        assert_eq!(base36(36 * 36), "100");
    }
}
