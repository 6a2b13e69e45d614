//! The listening socket, and the connections that come in by it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use smol::future::FutureExt;
use smol::io::AsyncWriteExt;
use smol::net::{TcpListener, TcpStream};
use smol::{Async, Timer};

use crate::distribution::handshake::{Fault, HandshakeError};
use crate::node::link::connection::Connection;
use crate::node::link::door::{Door, Pass};
use crate::node::link::setup;
use crate::node::link::tls;
use crate::node::link::tls::TlsFault;
use crate::node::peers::PeerHandle;
use crate::node::{Node, now};
use crate::within::io_within;

/// Connections that the system keeps for us until they are accepted.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed for want of something (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds: the given address, or all interfaces, IPv6 with IPv4 where the machine has both.
pub(in crate::node) async fn bind(address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    if let Some(address) = address {
        return TcpListener::bind(SocketAddr::new(address, port)).await;
    }
    match bind_both(port) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).await
        }
        bound => bound,
    }
}

/// One socket for IPv6 and IPv4, whatever the system's default says (`net.ipv6.bindv6only`).
fn bind_both(port: u16) -> io::Result<TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))?;
    net::listen(&socket, BACKLOG)?;
    Async::new(std::net::TcpListener::from(socket)).map(Into::into)
}

/// Accepts for as long as the node lives.
pub(in crate::node) async fn accept_all(node: Arc<Node>, listener: TcpListener) {
    let door = Door::new(&node.config.limits);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let pass = door.enter(from.ip());
                node.spawn_link(welcome(Arc::clone(&node), stream, from, pass));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Why a peer that has connected is not let in.
enum Refused {
    Tls(TlsFault),
    Handshake(HandshakeError),
}

async fn welcome(node: Arc<Node>, stream: TcpStream, from: SocketAddr, pass: Pass) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%from, %error, "connection closed");
        return;
    }
    let limits = &node.config.limits;
    // One for all of it: TLS, the handshake, and its last packet.
    let deadline = now() + limits.handshake_duration_max;
    let shaken = async {
        let link = match setup::secure(&node, stream, deadline).await {
            Ok(link) => link,
            Err(fault) => return Some(Err(Refused::Tls(fault))),
        };
        Some(setup::accept(&node, link, &pass, deadline).await.map_err(Refused::Handshake))
    };
    let crowded_out = async {
        pass.lost().await;
        None
    };
    let Some(shaken) = shaken.or(crowded_out).await else {
        tracing::debug!(%from, "connection closed: it made room for another");
        return;
    };
    let ready = match shaken {
        Ok(ready) => ready,
        // Somebody looked whether the port is open.
        Err(Refused::Tls(fault)) if fault.is_silence() => {
            tracing::debug!(%from, error = %fault, "handshake ended");
            return;
        }
        Err(Refused::Tls(fault)) => {
            match pass.may_log_tls(&fault) {
                Some(0) => tracing::warn!(%from, error = %fault, "TLS refused"),
                Some(more) => {
                    tracing::warn!(%from, error = %fault, more, "TLS refused, and more before like it")
                }
                None => tracing::debug!(%from, error = %fault, "TLS refused"),
            }
            return;
        }
        Err(Refused::Handshake(error))
            if error.phase == crate::distribution::handshake::Phase::Name && error.fault == Fault::Closed =>
        {
            tracing::debug!(%from, %error, "handshake ended");
            return;
        }
        // Two nodes that dial each other in the same moment: one connection is left, as it should be.
        Err(Refused::Handshake(error)) if error.fault == Fault::AlreadyConnected => {
            tracing::debug!(%from, %error, "handshake ended");
            return;
        }
        Err(Refused::Handshake(error)) if tls::is_hello(&error) => {
            // With how many there were before like it, where there were some.
            match pass.may_log_hello().map(|more| (more > 0).then_some(more)) {
                Some(more) => tracing::warn!(
                    %from,
                    more,
                    "handshake refused: it speaks TLS, and this node does not: start this one with --tls, or that one without \
                     -proto_dist inet_tls"
                ),
                None => tracing::debug!(%from, "handshake refused: it speaks TLS"),
            }
            return;
        }
        Err(Refused::Handshake(error)) => {
            match pass.may_log(&error.fault) {
                Some(0) => tracing::warn!(%from, %error, "handshake refused"),
                Some(more) => {
                    tracing::warn!(%from, %error, more, "handshake refused, and more before like it")
                }
                None => tracing::debug!(%from, %error, "handshake refused"),
            }
            return;
        }
    };
    drop(pass);
    let (accepted, last) = ready.peer;
    let handle = Arc::new(PeerHandle::new(&accepted.peer));
    // The cookie is proved: the newer connection is the live one.
    node.install_replacing(&handle).await;
    let mut stream = ready.stream;
    let last = stream.lengths().of(last);
    let sent = async {
        stream.write_all(&last).await?;
        stream.flush().await
    };
    if io_within(setup::step_max(limits, deadline), sent).await.is_err() {
        node.ended(&handle, &crate::node::PeerDown::Closed);
        return;
    }
    let connection = Connection::new(Arc::clone(&node), stream, Arc::clone(&handle), &ready.first);
    let connection = Box::new(connection);
    // In a task of its own: this one keeps the room that the handshake took.
    let this = Arc::clone(&node);
    node.spawn_link(async move { this.run_connection(handle, connection).await });
}
