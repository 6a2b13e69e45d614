//! Our own epmd, for machines without Erlang: the sockets around [`super::protocol`].
//!
//! One thread. Everything that a stranger can take up is bounded: connections, by address and in all ([`CONNECTIONS_MAX`]
//! and the others), the size of a request, and the time that a request may take.

use std::cell::RefCell;
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
pub use super::served::{CONNECTIONS_MAX, REMOTE_CONNECTIONS_MAX, REMOTE_CONNECTIONS_PER_ADDRESS_MAX};
use super::served::{Place, Served, Source};
use crate::within::within;

/// Connections that the system keeps for us until they are accepted.
const BACKLOG: i32 = 1024;
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
            match listen(at) {
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

fn listen(at: SocketAddr) -> io::Result<Async<TcpListener>> {
    let listener = TcpListener::bind(at)?;
    // The socket listens already, with room for so few that connections behind a crowd wait.
    rustix::net::listen(&listener, BACKLOG)?;
    Async::new(listener)
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
    served: RefCell<Served>,
    own_machine_only: bool,
    end: Sender<()>,
}

async fn accept(listener: Async<TcpListener>, executor: Rc<LocalExecutor<'static>>, shared: Rc<Shared>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let own = stream.get_ref().local_addr().ok();
                let source = Source::new(peer.ip(), own.map(|own| own.ip()));
                if shared.own_machine_only && source.is_remote() {
                    tracing::debug!(%peer, "another machine: closed");
                    continue;
                }
                let entered = shared.served.borrow_mut().enter(source);
                let Some(Place { number: connection, lost, crowded }) = entered else {
                    tracing::warn!(%peer, "too many nodes are registered to serve another connection: closed");
                    continue;
                };
                if let Some(source) = crowded {
                    tracing::warn!(?source, "too many connections that ask nothing: the oldest make room");
                }
                let shared = Rc::clone(&shared);
                executor
                    .spawn(async move {
                        let asker = Asker { connection, local: !source.is_remote() };
                        serve(stream.into(), peer, asker, lost, &shared).await;
                        shared.served.borrow_mut().leave(connection);
                    })
                    .detach();
                // Whose request has come with it is answered before the next one may take its room.
                smol::future::yield_now().await;
            }
            Err(reason) => {
                tracing::warn!(%reason, "cannot accept");
                smol::Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, peer: SocketAddr, asker: Asker, lost: Receiver<()>, shared: &Shared) {
    let Some(request) = in_time(read_request(&mut stream)).or(closed_by_us(&lost)).await else {
        tracing::debug!(%peer, "no complete request: closed");
        return;
    };
    let Outcome { answer, next } = shared.registry.borrow_mut().answer(asker, &request);
    tracing::debug!(%peer, tag = request[0], bytes = answer.len(), ?next, "request");
    if next == Next::Keep {
        shared.served.borrow_mut().registered(asker.connection);
    }
    let sent = in_time(stream.write_all(&answer)).or(closed_by_us(&lost)).await;
    match next {
        Next::Keep => {
            // A node that did not take its answer does not know that it is registered.
            if sent.is_some() {
                closed(&mut stream, &lost).await;
            }
            shared.registry.borrow_mut().closed(asker.connection);
        }
        Next::CloseAlso(node) => shared.served.borrow_mut().close(node),
        Next::End => {
            // The bytes of the answer must be on their way before the program ends.
            let _ = stream.close().await;
            let _ = shared.end.try_send(());
        }
        Next::Close => {}
    }
}

/// Waits until a connection is to make room, or its node is to be stopped.
async fn closed_by_us<T>(lost: &Receiver<()>) -> Option<T> {
    // Nothing is ever sent: only the closing of the channel ends the wait.
    while lost.recv().await.is_ok() {}
    None
}

/// Waits until a node's connection is closed by it or by a STOP_REQ. Anything that it sends closes it too.
async fn closed(stream: &mut TcpStream, lost: &Receiver<()>) {
    let read = async {
        let _ = stream.read(&mut [0; 1]).await;
        None
    };
    let _over: Option<()> = read.or(closed_by_us(lost)).await;
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
    within(REQUEST_STEP, act).await?.ok()
}

/// Why a daemon cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at}: {reason}{}", advice(.reason))]
pub struct DaemonError {
    /// Where.
    pub at: SocketAddr,
    /// What the system says.
    #[source]
    pub reason: io::Error,
}

fn advice(reason: &io::Error) -> &'static str {
    match reason.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has the port: end it, or use --port (and ERL_EPMD_PORT for all nodes)"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: check --address or ERL_EPMD_ADDRESS"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 are for root: use --port",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
