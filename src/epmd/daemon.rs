//! Our own epmd, for machines without Erlang: the sockets around [`super::protocol`].
//!
//! One thread. Everything that a stranger can take up is bounded: connections, the size of a request, the time that one
//! may take.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;
use smol::{Async, LocalExecutor};

use super::protocol::{Asker, Next, Outcome, REQUEST_BYTES_MAX, Registry};

/// Connections that are served at one time, nodes among them. Past it, new ones are closed at once. Below the 1024 files
/// that many systems let a program have.
pub const CONNECTIONS_MAX: usize = 1000;
/// Of these, connections from other machines: they must not keep nodes of this machine from registering.
pub const REMOTE_CONNECTIONS_MAX: usize = 256;
/// How long a whole request may take to come, and its answer to be taken.
pub const REQUEST_STEP: Duration = Duration::from_secs(10);
/// How long nothing is accepted after accepting has failed: it does so for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a daemon is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// The port to listen on.
    pub port: u16,
    /// The addresses to listen on; the loopback ones are added. An unspecified one, `0.0.0.0` or `::`, is all. Empty: all,
    /// and unlike Erlang's epmd it serves its own machine only then. (The loopback alone would not do for that: a node
    /// asks at the address of its host's name.)
    pub addresses: Vec<IpAddr>,
    /// Whether it may be killed while nodes are registered, and nodes be stopped.
    pub relaxed_command_check: bool,
}

/// A daemon that listens.
#[derive(Debug)]
pub struct Daemon {
    listeners: Vec<Async<TcpListener>>,
    registry: Registry,
    own_machine_only: bool,
}

impl Daemon {
    /// Starts to listen.
    ///
    /// # Errors
    /// An address or the port cannot be had.
    pub fn bind(config: &DaemonConfig) -> Result<Self, DaemonError> {
        let mut listeners = Vec::new();
        for (address, required) in wanted(&config.addresses) {
            let at = SocketAddr::new(address, config.port);
            match TcpListener::bind(at).and_then(Async::new) {
                Ok(listener) => listeners.push(listener),
                Err(_) if !required => {}
                // [::] takes IPv4 too where the system is set so, which is the usual case.
                Err(reason)
                    if address == Ipv4Addr::UNSPECIFIED
                        && reason.kind() == io::ErrorKind::AddrInUse
                        && !listeners.is_empty() => {}
                Err(reason) => return Err(DaemonError { at, reason }),
            }
        }
        let mut seed = [0; 4];
        getrandom::fill(&mut seed).map_err(|reason| DaemonError {
            at: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), config.port),
            reason: io::Error::other(reason),
        })?;
        let registry = Registry::new(config.port, config.relaxed_command_check, u32::from_ne_bytes(seed));
        Ok(Self { listeners, registry, own_machine_only: config.addresses.is_empty() })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.get_ref().local_addr().ok()).collect()
    }

    /// Serves until it is killed by a KILL_REQ.
    pub fn run(self) {
        let executor = Rc::new(LocalExecutor::new());
        let (end, ended) = smol::channel::bounded(1);
        let shared = Rc::new(Shared {
            registry: RefCell::new(self.registry),
            nodes: RefCell::default(),
            served: RefCell::default(),
            own_machine_only: self.own_machine_only,
            end,
        });
        for listener in self.listeners {
            let (executor_of_tasks, shared) = (Rc::clone(&executor), Rc::clone(&shared));
            executor.spawn(accept(listener, executor_of_tasks, shared)).detach();
        }
        // Fails when there is nobody left to send: then there is nothing to wait for either.
        let _ = smol::block_on(executor.run(ended.recv()));
    }
}

/// The addresses to bind, and whether failing to is an error.
fn wanted(addresses: &[IpAddr]) -> Vec<(IpAddr, bool)> {
    let (all4, all6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    if addresses.is_empty() || addresses.iter().any(|&address| address == all4 || address == all6) {
        // A machine may be without IPv6.
        return vec![(all6, false), (all4, true)];
    }
    let mut wanted: Vec<(IpAddr, bool)> = Vec::new();
    let loopbacks = [(Ipv4Addr::LOCALHOST.into(), true), (Ipv6Addr::LOCALHOST.into(), false)];
    for one in addresses.iter().map(|&address| (address, true)).chain(loopbacks) {
        if !wanted.iter().any(|(address, _)| *address == one.0) {
            wanted.push(one);
        }
    }
    wanted
}

struct Shared {
    registry: RefCell<Registry>,
    /// The connections of nodes; dropping the sender closes one.
    nodes: RefCell<HashMap<u32, Sender<()>>>,
    served: RefCell<Served>,
    own_machine_only: bool,
    end: Sender<()>,
}

/// What is being served, counted against the limits.
#[derive(Default)]
struct Served {
    connections: HashMap<u32, bool>,
    remote: usize,
}

impl Served {
    /// Takes the lowest number that is free, as a system numbers its files. `None`: too many.
    fn enter(&mut self, local: bool) -> Option<u32> {
        let remote_full = !local && self.remote >= REMOTE_CONNECTIONS_MAX;
        if remote_full || self.connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        let number = (0..).find(|number| !self.connections.contains_key(number))?;
        self.connections.insert(number, local);
        self.remote += usize::from(!local);
        Some(number)
    }

    fn leave(&mut self, number: u32) {
        if let Some(false) = self.connections.remove(&number) {
            self.remote -= 1;
        }
    }
}

async fn accept(listener: Async<TcpListener>, executor: Rc<LocalExecutor<'static>>, shared: Rc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let local = stream.get_ref().local_addr().is_ok_and(|own| is_local(peer.ip(), own.ip()));
                if shared.own_machine_only && !local {
                    tracing::debug!(%peer, "another machine: closed");
                    continue;
                }
                let entered = shared.served.borrow_mut().enter(local);
                let Some(connection) = entered else {
                    tracing::warn!(%peer, "too many connections: closed");
                    continue;
                };
                let shared = Rc::clone(&shared);
                executor
                    .spawn(async move {
                        let asker = Asker { connection, local };
                        serve(stream.into(), peer, asker, &shared).await;
                        shared.served.borrow_mut().leave(connection);
                    })
                    .detach();
            }
            Err(reason) => {
                tracing::warn!(%reason, "cannot accept");
                smol::Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether a peer is on this machine: it comes from the loopback, or from the very address that it connected to.
fn is_local(peer: IpAddr, own: IpAddr) -> bool {
    let (peer, own) = (peer.to_canonical(), own.to_canonical());
    peer.is_loopback() || peer == own
}

async fn serve(mut stream: TcpStream, peer: SocketAddr, asker: Asker, shared: &Shared) {
    let Some(request) = in_time(read_request(&mut stream)).await else {
        tracing::debug!(%peer, "no complete request: closed");
        return;
    };
    let Outcome { answer, next } = shared.registry.borrow_mut().answer(asker, &request);
    tracing::debug!(%peer, tag = request[0], bytes = answer.len(), ?next, "request");
    let stop = (next == Next::Keep).then(|| shared.keep(asker.connection));
    let sent = in_time(stream.write_all(&answer)).await;
    if let Some(stop) = stop {
        // A node that did not take its answer does not know that it is registered.
        if sent.is_some() {
            closed(&mut stream, stop).await;
        }
        shared.registry.borrow_mut().closed(asker.connection);
        shared.nodes.borrow_mut().remove(&asker.connection);
    }
    match next {
        Next::CloseAlso(node) => drop(shared.nodes.borrow_mut().remove(&node)),
        Next::End => {
            // The bytes of the answer must be on their way before the program ends.
            let _ = stream.close().await;
            let _ = shared.end.try_send(());
        }
        Next::Close | Next::Keep => {}
    }
}

impl Shared {
    fn keep(&self, connection: u32) -> Receiver<()> {
        let (sender, stop) = smol::channel::bounded(1);
        self.nodes.borrow_mut().insert(connection, sender);
        stop
    }
}

/// Waits until a node's connection is closed by it or by a STOP_REQ. Anything that it sends closes it too.
async fn closed(stream: &mut TcpStream, stop: Receiver<()>) {
    let read = async {
        let _ = stream.read(&mut [0; 1]).await;
    };
    read.or(async {
        let _ = stop.recv().await;
    })
    .await;
}

/// A length of two bytes, and that many bytes: at least a tag, and no more than any request has.
async fn read_request(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let len = usize::from(u16::from_be_bytes(len));
    if !(1..=REQUEST_BYTES_MAX).contains(&len) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut request = vec![0; len];
    stream.read_exact(&mut request).await?;
    Ok(request)
}

async fn in_time<T>(act: impl Future<Output = io::Result<T>>) -> Option<T> {
    async { act.await.ok() }
        .or(async {
            smol::Timer::after(REQUEST_STEP).await;
            None
        })
        .await
}

/// Why a daemon cannot listen.
#[derive(Debug)]
pub struct DaemonError {
    /// Where.
    pub at: SocketAddr,
    /// What the system says.
    pub reason: io::Error,
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.at, self.reason)?;
        f.write_str(match self.reason.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program has the port: end it, or use --port (and ERL_EPMD_PORT for all nodes)"
            }
            io::ErrorKind::AddrNotAvailable => {
                "; this machine has no such address: check --address or ERL_EPMD_ADDRESS"
            }
            io::ErrorKind::PermissionDenied => "; ports below 1024 are for root: use --port",
            _ => "",
        })
    }
}

impl std::error::Error for DaemonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_local_by_its_address() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(is_local(ip("127.0.0.1"), ip("127.0.0.1")));
        assert!(is_local(ip("127.8.8.8"), ip("10.0.0.1")));
        assert!(is_local(ip("::1"), ip("::1")));
        assert!(is_local(ip("::ffff:127.0.0.1"), ip("::ffff:127.0.0.1")));
        assert!(is_local(ip("10.0.0.1"), ip("10.0.0.1")));
        assert!(is_local(ip("::ffff:10.0.0.1"), ip("10.0.0.1")));
        assert!(!is_local(ip("10.0.0.2"), ip("10.0.0.1")));
        assert!(!is_local(ip("fe80::2"), ip("fe80::1")));
    }

    #[test]
    fn connections_are_bounded_and_strangers_more_so() {
        let mut served = Served::default();
        let remote: Vec<u32> = std::iter::from_fn(|| served.enter(false)).collect();
        assert_eq!(remote.len(), REMOTE_CONNECTIONS_MAX);
        let local = std::iter::from_fn(|| served.enter(true)).count();
        assert_eq!(local, CONNECTIONS_MAX - REMOTE_CONNECTIONS_MAX);
        served.leave(remote[7]);
        served.leave(remote[7]);
        assert_eq!(served.enter(false), Some(remote[7]), "numbers are used again");
        assert_eq!(served.enter(false), None);
    }

    #[test]
    fn an_address_is_joined_by_the_loopback() {
        let ten: IpAddr = "10.0.0.1".parse().unwrap();
        let four: IpAddr = Ipv4Addr::LOCALHOST.into();
        let six: IpAddr = Ipv6Addr::LOCALHOST.into();
        assert_eq!(wanted(&[ten]), [(ten, true), (four, true), (six, false)]);
        assert_eq!(wanted(&[four]), [(four, true), (six, false)]);
        let (all4, all6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
        assert_eq!(wanted(&[]), [(all6, false), (all4, true)]);
        assert_eq!(wanted(&[ten, all4]), [(all6, false), (all4, true)]);
        assert_eq!(wanted(&[all6]), [(all6, false), (all4, true)]);
    }
}
