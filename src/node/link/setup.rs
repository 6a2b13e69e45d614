//! Setting connections up: dialling, accepting, and the handshake's bytes over a socket.

use std::future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use smol::Timer;
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;

use crate::config::Limits;
use crate::distribution::handshake::{
    Accepted, Claim, Client, ClientStep, Connected, Fault, HandshakeError, NameRequest, Packets, Phase,
    Server, ServerStep, Standing, Unwelcome,
};
use crate::distribution::node_at::with_port;
use crate::distribution::node_name::NameKind;
use crate::distribution::{NodeAtError, NodeName};
use crate::epmd::resolve::resolve;
use crate::epmd::{self, EpmdError};
use crate::node::link::Link;
use crate::node::link::door::Pass;
use crate::node::link::socket::Socket;
use crate::node::link::tls::{self, TlsFault};
use crate::node::{Node, now, random_u32};
use crate::within::io_within;

/// Why a node could not be connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Its name is no node's name.
    #[error("{node}: {error}")]
    Name {
        /// What was given.
        node: String,
        /// Why.
        error: NodeAtError,
    },
    /// It is this node.
    #[error("a node cannot connect to itself")]
    Ourselves,
    /// One of the two names is short and the other long: such nodes cannot talk.
    #[error(
        "{node} and this node ({ours}) cannot talk: one has a short name and the other a long one; start both with \
         --sname, or both with --name"
    )]
    NameKinds {
        /// The node.
        node: NodeName,
        /// Ours.
        ours: NodeName,
    },
    /// It is none of those that may be connected with (`--allow`).
    #[error("{node} is none of the nodes that --allow names")]
    NotAllowed {
        /// The node.
        node: NodeName,
    },
    /// Its host has no address, or the epmd there could not be asked.
    #[error("{0}")]
    Epmd(EpmdError),
    /// There is no epmd, and its port is not known.
    #[error(
        "the port of {node} is not known, as no epmd is asked: name it with its port, {}, or give the port of all nodes \
         (--dist-port)",
        with_port(.node, "PORT")
    )]
    NoPort {
        /// The node.
        node: NodeName,
    },
    /// The epmd of its host does not know it.
    #[error(
        "{node} is not running: the epmd of {} does not know the name \"{}\"", .node.host(), .node.name()
    )]
    NotRegistered {
        /// The node.
        node: NodeName,
    },
    /// Its port does not answer.
    #[error("{node} does not answer at {address}, {}", .port_from.explain(.node, *.address, .error))]
    Connect {
        /// The node.
        node: NodeName,
        /// Where it should listen.
        address: SocketAddr,
        /// What names the port.
        port_from: PortFrom,
        /// What the system says.
        error: io::Error,
    },
    /// TLS failed, before the handshake or in it.
    #[error("no TLS with {node}: {fault}")]
    Tls {
        /// The node.
        node: NodeName,
        /// Why.
        fault: TlsFault,
    },
    /// The node answers in TLS, which this one does not speak.
    #[error(
        "{node} speaks TLS, and this node does not: start this one with --tls, or that one without -proto_dist inet_tls"
    )]
    SpeaksTls {
        /// The node.
        node: NodeName,
    },
    /// The handshake failed.
    #[error("{0}")]
    Handshake(HandshakeError),
    /// This node ends.
    #[error("this node ends")]
    Stopping,
    /// The node has connected to us in the same moment, and that connection ended.
    #[error("the node connected to us meanwhile, and that connection ended")]
    Overtaken,
}

impl DialError {
    /// Whether the node is surely not there, as far as its machine can say: its epmd does not know it, or nobody listens at its port.
    /// An epmd that was just started again knows no node yet.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::NotRegistered { .. } => true,
            Self::Connect { error, .. } => error.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        }
    }
}

/// What names the port that a node listens at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortFrom {
    /// The epmd of its host.
    Epmd,
    /// It was named with its port.
    Given,
    /// The setting that all nodes of a cluster without epmd have one port.
    Everybody,
}

impl PortFrom {
    /// Why a node listens at an address, as far as is known, and what to do where it does not answer there.
    fn explain(self, node: &NodeName, address: SocketAddr, error: &io::Error) -> String {
        let (port, named) = (address.port(), with_port(node, "PORT"));
        match self {
            Self::Epmd => format!("where its epmd says that it listens: {error}"),
            Self::Given => format!(
                "the port that was given for it: {error}; see that it runs and listens there, or leave the port out where \
                 an epmd knows it"
            ),
            Self::Everybody => format!(
                "the port of all nodes here, which are without epmd: {error}; see that it runs and was started with that \
                 port (-erl_epmd_port {port}, kvnode --dist-port {port}), or name it with its own, {named}"
            ),
        }
    }
}

/// A connection that is set up, from either side.
pub(in crate::node) struct Ready<S, P> {
    /// The socket.
    pub stream: S,
    /// Bytes that came after the handshake's end.
    pub first: Vec<u8>,
    /// The peer, as the handshake has shown it.
    pub peer: P,
}

/// Where a node may be: at the first of these addresses that takes a connection.
async fn find(node: &Node, name: &NodeName) -> Result<(Vec<SocketAddr>, PortFrom), DialError> {
    let resolved = async || {
        let own_host = Some(node.config.node_name.host()).filter(|_| node.listening.port() != 0);
        resolve(name.host(), own_host).await.map_err(DialError::Epmd)
    };
    let given = node.ports.lock().get(name).copied();
    match (given, &node.config.epmd) {
        (Some(port), _) => Ok((resolved().await?.at(port), PortFrom::Given)),
        (None, Some(epmd)) => {
            let found = epmd::client::lookup_among(&resolved().await?.at(epmd.port), name.name()).await;
            let found = found.map_err(DialError::Epmd)?;
            let found = found.ok_or_else(|| DialError::NotRegistered { node: name.clone() })?;
            Ok((vec![found.address], PortFrom::Epmd))
        }
        (None, None) => match node.config.dist_port {
            0 => Err(DialError::NoPort { node: name.clone() }),
            port => Ok((resolved().await?.at(port), PortFrom::Everybody)),
        },
    }
}

/// Finds a node, connects and shakes hands.
pub(in crate::node) async fn dial(node: &Node, name: &NodeName) -> Result<Ready<Link, Connected>, DialError> {
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
    let (addresses, port_from) = find(node, name).await?;
    let limits = &node.config.limits;
    let deadline = now() + limits.handshake_duration_max;
    let stream = connect_any(&addresses, step_max(limits, deadline)).await;
    let stream = stream.map_err(|(address, error)| DialError::Connect {
        node: name.clone(),
        address,
        port_from,
        error,
    })?;
    let link = match &node.tls {
        None => Link::Plain(Socket::from(stream)),
        Some(tls) => {
            let failed = |fault| DialError::Tls { node: name.clone(), fault };
            let limit = step_max(limits, deadline);
            Link::Tls(Box::new(tls.connect(stream, name.host(), limit).await.map_err(failed)?))
        }
    };
    let mut wire = Wire::new(link, limits, deadline);
    let (hello, client) = Client::new(node.local(), name.clone(), random_u32());
    match shake_as_client(node, name, &mut wire, hello, client).await {
        Ok(peer) => {
            let (stream, first) = wire.into_parts();
            Ok(Ready { stream, first, peer })
        }
        Err(error) if node.tls.is_none() && tls::is_alert(&error) => {
            Err(DialError::SpeaksTls { node: name.clone() })
        }
        // With TLS 1.3 the other side looks at our certificate after the handshake of TLS has ended here: what it says
        // then comes in place of its first answer.
        Err(error) => {
            let fault = wire.said.as_ref().and_then(TlsFault::of_stream);
            let afterwards = error.phase == Phase::Status && error.fault == Fault::Closed;
            match fault.or((node.tls.is_some() && afterwards).then_some(TlsFault::ClosedAfterwards)) {
                Some(fault) => Err(DialError::Tls { node: name.clone(), fault }),
                None => Err(DialError::Handshake(error)),
            }
        }
    }
}

/// Connects to the first address that takes it, within one time limit for all of them. The error is that of the first.
async fn connect_any(
    addresses: &[SocketAddr],
    limit: Duration,
) -> Result<TcpStream, (SocketAddr, io::Error)> {
    let step = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = None;
    for &address in addresses {
        let connected = io_within(step, TcpStream::connect(address)).await;
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = failure.or(Some((address, error))),
        }
    }
    let nowhere = || (SocketAddr::from(([0, 0, 0, 0], 0)), io::ErrorKind::NotFound.into());
    Err(failure.unwrap_or_else(nowhere))
}

/// How long the next step of a set-up may take that is to be done at `deadline`.
pub(in crate::node) fn step_max(limits: &Limits, deadline: Instant) -> Duration {
    limits.handshake_step_duration_max.min(deadline.saturating_duration_since(now()))
}

/// The stream to a peer that has connected, with TLS on it where this node speaks that. All of TLS is one step, as in
/// `inet_tls_dist:accept_loop`, which gives it `net_kernel:connecttime()`.
pub(in crate::node) async fn secure(
    node: &Node,
    stream: TcpStream,
    deadline: Instant,
) -> Result<Link, TlsFault> {
    Ok(match &node.tls {
        None => Link::Plain(Socket::from(stream)),
        Some(tls) => {
            let limit = step_max(&node.config.limits, deadline);
            Link::Tls(Box::new(tls.accept(stream, limit).await?))
        }
    })
}

async fn shake_as_client(
    node: &Node,
    name: &NodeName,
    wire: &mut Wire,
    hello: Vec<u8>,
    mut client: Client,
) -> Result<Connected, HandshakeError> {
    wire.send(hello).await.map_err(|fault| client.fail(fault))?;
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
                    Err(error) => return Err(farewell(wire, error).await),
                }
            }
            ClientStep::Connected(peer) => return Ok(peer),
        };
        client = next;
        wire.send(send).await.map_err(|fault| client.fail(fault))?;
    }
}

/// Shakes hands with a peer that has connected, until `deadline` at most. The last packet is for the caller to send, once
/// the connection stands in the table of peers.
pub(in crate::node) async fn accept(
    node: &Arc<Node>,
    link: Link,
    pass: &Pass,
    deadline: Instant,
) -> Result<Ready<Link, (Accepted, Vec<u8>)>, HandshakeError> {
    let mut wire = Wire::new(link, &node.config.limits, deadline);
    let mut server = Server::new(node.local(), random_u32());
    loop {
        let packet = wire.packet().await.map_err(|fault| server.fail(fault))?;
        let attempt = match server.waiting_for() {
            Phase::ChallengeReply => {
                let may_look = async { pass.attempt().await.ok_or(Fault::TooManyTries) };
                let over = async { Err(wire.over().await) };
                Some(may_look.or(over).await.map_err(|fault| server.fail(fault))?)
            }
            _ => None,
        };
        let step = match server.handle(&packet) {
            Ok(step) => step,
            Err(error) => {
                if error.fault == Fault::WrongCookie
                    && let Some(attempt) = attempt
                {
                    let over = async { _ = wire.over().await };
                    attempt.wrong().or(over).await;
                }
                return Err(farewell(&mut wire, error).await);
            }
        };
        drop(attempt);
        let (send, next) = match step {
            ServerStep::Continue { send, next } => (send, next),
            ServerStep::Claimed(claim) => {
                let standing = match node.peers.get(claim.name().as_str()) {
                    // A client that comes again at once: the end of its last connection may not have been read yet.
                    Some(old) => {
                        old.ended().or(crate::node::after(node.config.limits.reconnect_pause)).await;
                        standing(node, &claim)
                    }
                    None => standing(node, &claim),
                };
                match claim.answer(standing) {
                    Ok(answer) => answer,
                    Err(error) => return Err(farewell(&mut wire, error).await),
                }
            }
            ServerStep::Nameless(request) => match dynamic_name(node, &request) {
                Ok((name, creation)) => request.name(name, creation),
                Err(why) => return Err(farewell(&mut wire, request.refuse(why)).await),
            },
            ServerStep::Accepted { send, accepted } => {
                let (stream, first) = wire.into_parts();
                return Ok(Ready { stream, first, peer: (accepted, send) });
            }
        };
        server = next;
        wire.send(send).await.map_err(|fault| server.fail(fault))?;
    }
}

/// Tells the other side why, where the protocol has a word for it.
async fn farewell(wire: &mut Wire, error: HandshakeError) -> HandshakeError {
    if let Some(last) = error.farewell() {
        // It may be gone by now; the error that is returned is the one that matters.
        let _gone = wire.send(last).await;
    }
    error
}

fn standing(node: &Node, claim: &Claim) -> Standing {
    let name = claim.name();
    let ours = &node.config.node_name;
    // That it has our own name was seen before: Fault::OwnName.
    if node.stopping.load(Ordering::SeqCst) {
        Standing::Refused(Unwelcome::Stopping)
    } else if !name.can_talk_to(ours) {
        Standing::Refused(Unwelcome::NameKinds { theirs_is_long: NameKind::Short.admits(ours.host()) })
    } else if !node.config.allows(name) {
        Standing::Refused(Unwelcome::NotListed)
    } else if node.peers.get(name.as_str()).is_some() {
        Standing::Connected
    } else if let Some(why) = crowded(node) {
        Standing::Refused(why)
    } else if node.peers.is_connecting(name.as_str()) {
        Standing::ConnectingOut
    } else {
        Standing::Free
    }
}

/// Whether there is no room for one more.
fn crowded(node: &Node) -> Option<Unwelcome> {
    let peers_max = node.config.limits.peers_max;
    (node.peers.len() >= peers_max).then_some(Unwelcome::Crowded { peers_max })
}

/// A name for a node that asks for one, as kernel's net_kernel makes them.
fn dynamic_name(node: &Node, request: &NameRequest) -> Result<(NodeName, u32), Unwelcome> {
    let number = u64::from(random_u32()) << 32 | u64::from(random_u32());
    let name = NodeName::new(&format!("{}@{}", base36(number), request.host()))
        .map_err(|_| Unwelcome::HostTooLong)?;
    if !node.config.allows(&name) {
        return Err(Unwelcome::NotListed);
    }
    if let Some(why) = crowded(node) {
        return Err(why);
    }
    // The three lowest values are those of epmds before OTP 23.
    Ok((name, random_u32() | 4))
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
struct Wire {
    link: Link,
    packets: Packets,
    step_max: Duration,
    deadline: Timer,
    /// What the socket failed with, where it did.
    said: Option<io::Error>,
}

impl Wire {
    fn new(link: Link, limits: &Limits, deadline: Instant) -> Self {
        Self {
            packets: Packets::with_lengths(link.lengths()),
            link,
            step_max: limits.handshake_step_duration_max,
            deadline: Timer::at(deadline),
            said: None,
        }
    }

    async fn packet(&mut self) -> Result<Vec<u8>, Fault> {
        let mut step = Timer::after(self.step_max);
        loop {
            if let Some(packet) = self.packets.next_packet() {
                return Ok(packet.map_err(Fault::from)?.to_vec());
            }
            let mut bytes = [0; 1024];
            let read = async { Ok(self.link.read(&mut bytes).await) };
            let late = async {
                (&mut self.deadline).or(&mut step).await;
                Err(Fault::TimedOut)
            };
            match read.or(late).await? {
                Ok(0) => return Err(Fault::Closed),
                Ok(len) => self.packets.push(&bytes[..len]),
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Waits until the other side, which has nothing to say now, has closed the connection, or until the time for all of
    /// the packets is over.
    async fn over(&mut self) -> Fault {
        let mut bytes = [0; 64];
        let closed = async {
            if let Ok(len @ 1..) = self.link.read(&mut bytes).await {
                self.packets.push(&bytes[..len]);
                // More than this is not read before it is its turn.
                future::pending::<()>().await;
            }
            Fault::Closed
        };
        let late = async {
            (&mut self.deadline).await;
            Fault::TimedOut
        };
        closed.or(late).await
    }

    /// Sends a packet as the handshake's two sides write it.
    async fn send(&mut self, packet: Vec<u8>) -> Result<(), Fault> {
        let packet = self.link.lengths().of(packet);
        let write = async {
            let written = self.link.write_all(&packet).await;
            Ok(if written.is_ok() { self.link.flush().await } else { written })
        };
        let late = async {
            (&mut self.deadline).or(Timer::after(self.step_max)).await;
            Err(Fault::TimedOut)
        };
        write.or(late).await?.map_err(|error| self.failed(error))
    }

    fn failed(&mut self, error: io::Error) -> Fault {
        self.said = Some(error);
        Fault::Closed
    }

    fn into_parts(self) -> (Link, Vec<u8>) {
        (self.link, self.packets.into_rest())
    }
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
