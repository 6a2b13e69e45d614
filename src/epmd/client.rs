//! Asking an epmd: registering, looking up, listing.
//!
//! The requests and answers are erl_dist's. What it lacks is here: a time-out around every step, a bound on what is
//! read, one connection try for each address of a host, and errors by whose fault it is.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use erl_dist::epmd::{EpmdClient, NodeEntry, NodeType};
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use smol::net::TcpStream;

use super::resolve::resolve;
use crate::config::EpmdConfig;
use crate::within::{io_within, within};

/// How long resolving, connecting and a conversation may take, each.
pub const EPMD_STEP: Duration = Duration::from_secs(5);
/// What is read of an answer, in bytes: the names of tens of thousands of nodes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The version of the distribution protocol that nodes speak here (OTP 23 and later).
const VERSION: u16 = 6;
/// Creations from here on were never given by an old epmd, which counts from 1 to 3.
const CREATION_WIDE_FIRST: u32 = 4;

/// A node that is registered, for as long as this value lives.
#[derive(Debug)]
pub struct Registration {
    stream: TcpStream,
    creation: u32,
}

impl Registration {
    /// The incarnation that a node which starts now is known by. A node that registers again keeps its first one.
    ///
    /// It is what epmd answered; from an old epmd, which counts from 1 to 3 only, it is a random one, so that the
    /// processes of a node which was restarted three times are not taken for those of its first life.
    pub fn creation(&self) -> u32 {
        self.creation
    }

    /// Waits until epmd has gone, and says how. Until then the node can be looked up.
    ///
    /// Nothing is ever sent on this connection by an epmd; should one do so, it has closed its side of the bargain
    /// too, and the node has to register again.
    pub async fn lost(&mut self) -> io::Error {
        match self.stream.read(&mut [0; 1]).await {
            Ok(0) => io::ErrorKind::ConnectionAborted.into(),
            Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "unexpected bytes from epmd"),
            Err(reason) => reason,
        }
    }
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The address that its epmd answered at, with the port of the node.
    pub address: SocketAddr,
    /// The highest version of the distribution protocol that it speaks.
    pub highest_version: u16,
    /// The lowest.
    pub lowest_version: u16,
    /// Whether it is registered as a hidden node (type 72), as kvnode and C nodes are. A BEAM registers as a visible one
    /// (77) also when it is hidden.
    pub hidden: bool,
}

/// Registers a hidden node, by the part of its name before the `@`, with the epmd of this machine.
///
/// # Errors
/// [`EpmdError::NameTaken`] when a live node has that name; else nothing answers, or not as an epmd does.
pub async fn register(epmd: &EpmdConfig, name: &str, dist_port: u16) -> Result<Registration, EpmdError> {
    let (stream, address) = connect_any(&local_addresses(epmd)).await?;
    let mut entry = NodeEntry::new_hidden(name, dist_port);
    (entry.highest_version, entry.lowest_version) = (VERSION, VERSION);
    let outcome = converse(address, EpmdClient::new(Bounded::new(stream)).register(entry)).await;
    let (stream, creation) = match outcome {
        Err(EpmdError::Answered { .. }) => {
            // The answer has a code only; the usual reason is looked up so that the message can name the rival.
            let rival = lookup_at(address, EPMD_STEP, name).await.ok().flatten();
            return Err(EpmdError::NameTaken {
                name: name.into(),
                epmd: address,
                port: rival.map(|rival| rival.address.port()),
            });
        }
        outcome => outcome?,
    };
    let creation = match creation.get() {
        wide @ CREATION_WIDE_FIRST.. => wide,
        _ => random_creation().map_err(|reason| EpmdError::NoAnswer { at: address.to_string(), reason })?,
    };
    Ok(Registration { stream: stream.stream, creation })
}

/// Asks the epmd of a host for a node, by the part of its name before the `@`. `None`: it knows none.
///
/// # Errors
/// The host is unknown, nothing answers there, or not as an epmd does.
pub async fn lookup(host: &str, epmd_port: u16, name: &str) -> Result<Option<NodeAddress>, EpmdError> {
    lookup_among(&resolve(host, None).await?.at(epmd_port), name).await
}

/// As [`lookup`], of the first of these epmds, all of one host, that answers.
///
/// # Errors
/// None answers, or not as an epmd does: what the first of them is about.
pub async fn lookup_among(epmds: &[SocketAddr], name: &str) -> Result<Option<NodeAddress>, EpmdError> {
    let step = EPMD_STEP / u32::try_from(epmds.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = None;
    for &epmd in epmds {
        match lookup_at(epmd, step, name).await {
            Err(error) => failure = failure.or(Some(error)),
            found => return found,
        }
    }
    Err(failure.unwrap_or_else(|| EpmdError::no_address("")))
}

/// Asks an epmd for all nodes that are registered with it: names without hosts, and ports.
///
/// # Errors
/// As for [`lookup`].
pub async fn names(host: &str, epmd_port: u16) -> Result<Vec<(String, u16)>, EpmdError> {
    let (stream, address) = connect_any(&resolve(host, None).await?.at(epmd_port)).await?;
    converse(address, EpmdClient::new(Bounded::new(stream)).get_names()).await
}

/// As [`names`], of the epmd of this machine; with the address that it answered at.
///
/// # Errors
/// As for [`lookup`].
pub async fn local_names(epmd: &EpmdConfig) -> Result<(SocketAddr, Vec<(String, u16)>), EpmdError> {
    let (stream, address) = connect_any(&local_addresses(epmd)).await?;
    let names = converse(address, EpmdClient::new(Bounded::new(stream)).get_names()).await?;
    Ok((address, names))
}

/// Asks the epmd of this machine to end. Its answer is `OK`, or `NO` while nodes are registered.
///
/// # Errors
/// As for [`lookup`].
pub async fn kill(epmd: &EpmdConfig) -> Result<String, EpmdError> {
    let (stream, address) = connect_any(&local_addresses(epmd)).await?;
    converse(address, EpmdClient::new(Bounded::new(stream)).kill()).await
}

/// Where an epmd of this machine may listen: the configured address, then the loopback ones, which an epmd always
/// listens on.
fn local_addresses(epmd: &EpmdConfig) -> Vec<SocketAddr> {
    let mut addresses: Vec<IpAddr> = vec![epmd.address];
    for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        if !addresses.contains(&loopback) {
            addresses.push(loopback);
        }
    }
    addresses.into_iter().map(|address| SocketAddr::new(address, epmd.port)).collect()
}

async fn lookup_at(epmd: SocketAddr, step: Duration, name: &str) -> Result<Option<NodeAddress>, EpmdError> {
    let stream = connect(epmd, step).await?;
    let entry = converse(epmd, EpmdClient::new(Bounded::new(stream)).get_node(name)).await?;
    Ok(entry.map(|entry| NodeAddress {
        address: SocketAddr::new(epmd.ip(), entry.port),
        highest_version: entry.highest_version,
        lowest_version: entry.lowest_version,
        hidden: matches!(entry.node_type, NodeType::Hidden),
    }))
}

/// Connects to the first address that takes it. All tries together take no longer than one step.
async fn connect_any(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), EpmdError> {
    let step = EPMD_STEP / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut first = None;
    for &address in addresses {
        match connect(address, step).await {
            Ok(stream) => return Ok((stream, address)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| EpmdError::no_address("")))
}

async fn connect(address: SocketAddr, step: Duration) -> Result<TcpStream, EpmdError> {
    let silent = |reason| EpmdError::NoAnswer { at: address.to_string(), reason };
    let stream = io_within(step, TcpStream::connect(address)).await.map_err(silent)?;
    // erl_dist writes a request in small pieces: without this each waits for the acknowledgement of the one before.
    stream.set_nodelay(true).map_err(silent)?;
    Ok(stream)
}

async fn converse<T>(
    epmd: SocketAddr,
    talk: impl Future<Output = Result<T, erl_dist::epmd::EpmdError>>,
) -> Result<T, EpmdError> {
    use erl_dist::epmd::EpmdError as Fault;
    let at = epmd.to_string();
    match within(EPMD_STEP, talk).await {
        None => Err(EpmdError::NoAnswer { at, reason: io::ErrorKind::TimedOut.into() }),
        Some(Ok(answer)) => Ok(answer),
        Some(Err(Fault::Io(reason))) => Err(match reason.kind() {
            io::ErrorKind::UnexpectedEof => EpmdError::Refused { at },
            io::ErrorKind::InvalidData => EpmdError::Malformed { at, what: reason.to_string() },
            _ => EpmdError::NoAnswer { at, reason },
        }),
        Some(Err(Fault::RegisterNodeError { code } | Fault::GetNodeEntryError { code })) => {
            Err(EpmdError::Answered { at, code })
        }
        Some(Err(fault)) => Err(EpmdError::Malformed { at, what: fault.to_string() }),
    }
}

fn random_creation() -> io::Result<u32> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u32::from_ne_bytes(bytes).max(CREATION_WIDE_FIRST))
}

/// A stream that gives a bounded number of bytes: an answer is read to its end, wherever the peer puts that.
struct Bounded {
    stream: TcpStream,
    bytes_left: usize,
}

impl Bounded {
    fn new(stream: TcpStream) -> Self {
        Self { stream, bytes_left: ANSWER_BYTES_MAX }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.bytes_left == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the answer does not end")));
        }
        let len = buf.len().min(self.bytes_left);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buf[..len]);
        if let Poll::Ready(Ok(count)) = read {
            self.bytes_left -= count;
        }
        read
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Why an epmd did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EpmdError {
    /// The host's name has no address.
    #[error("unknown host \"{host}\": {reason}; check the name, DNS or /etc/hosts")]
    UnknownHost {
        /// The name.
        host: String,
        /// What the resolver says.
        #[source]
        reason: io::Error,
    },
    /// Nothing listens there, or nothing comes back in time.
    #[error("no epmd answers at {at}: {reason}; start one with `epmd -daemon` or `kvnode epmd --daemon`")]
    NoAnswer {
        /// Address and port.
        at: String,
        /// What the system says.
        #[source]
        reason: io::Error,
    },
    /// The connection was closed without an answer: what an epmd does with a request that it does not allow.
    #[error(
        "the epmd at {at} closed the connection without an answer; it does that to requests that it does not allow, such as \
         registering from another machine"
    )]
    Refused {
        /// Address and port.
        at: String,
    },
    /// A live node is registered under that name.
    #[error(
        "the name \"{name}\" is taken: the epmd at {epmd} has a live node of that name{}; choose another name, or end \
         that node",
        .port.map(|port| format!(", on port {port}")).unwrap_or_default()
    )]
    NameTaken {
        /// The name, without host.
        name: String,
        /// The epmd that says so.
        epmd: SocketAddr,
        /// The port of the node that has it.
        port: Option<u16>,
    },
    /// An error code that has no meaning for the request.
    #[error("the epmd at {at} answered with error {code}")]
    Answered {
        /// Address and port.
        at: String,
        /// The code.
        code: u8,
    },
    /// Not an answer of an epmd.
    #[error(
        "what answers at {at} is no epmd ({what}); end the program that has this port, or set ERL_EPMD_PORT for all nodes"
    )]
    Malformed {
        /// Address and port.
        at: String,
        /// What is wrong with it.
        what: String,
    },
    /// None was running, and none could be started.
    #[error(
        "no epmd answers at {at}, and none could be started{}; start one by hand with `kvnode epmd` and see what it says",
        .tried.iter().map(|one| format!("; {one}")).collect::<String>()
    )]
    Start {
        /// Address and port.
        at: String,
        /// What was tried, and how each ended.
        tried: Vec<String>,
    },
}

impl EpmdError {
    fn no_address(host: &str) -> Self {
        let reason = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        Self::UnknownHost { host: host.into(), reason }
    }

    /// Whether nothing listens at all: then one may be started.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NoAnswer { reason, .. } if reason.kind() == io::ErrorKind::ConnectionRefused)
    }
}
