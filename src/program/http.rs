//! The page, the metrics and the health of a node, over HTTP/1.1: read-only, off unless it is asked for.
//!
//! Any client that can reach the address can read it: the names of nodes, stores and slaves and what the log warned of,
//! and no key, no value, no cookie. It listens at the loopback unless told otherwise, and then answers only requests that name
//! the loopback as their host, so that no page from elsewhere can read it through a name of its own (DNS rebinding).
//!
//! As at the other door, visitors can take a bounded part: 64 connections, of which the oldest makes room
//! for the newest; 5 s for the head of a request, which has 8 KiB and 64 lines at most; 60 s for all of a connection. No
//! body is read.

mod history;
mod metrics;
mod page;
mod routes;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use parking_lot::Mutex;
use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use smol::net::{TcpListener, TcpStream};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::Program;
use crate::within::within;
use history::History;

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take in all: a page that asks every second connects again.
const CONNECTION_DURATION_MAX: Duration = Duration::from_secs(60);
/// How long the head of a request may take, and how long a connection may wait for the next request.
const HEAD_DURATION_MAX: Duration = Duration::from_secs(5);
/// Bytes of a request's head. (The least that hyper lets be said.)
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Lines of a request's head.
const HEADERS_MAX: usize = 64;
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all requests share.
struct Site {
    program: Arc<Program>,
    history: History,
    /// It listens at the loopback: only requests for that are answered.
    loopback: bool,
}

/// Serves a page about the node, `/metrics` for Prometheus, `/status.json`, `/health` and `/ready` by HTTP at an address,
/// until the node ends. Port 0: a free one. The address that it listens at is given back.
///
/// Nothing can be changed there, and there is no password: any client that reaches the address can read the names of
/// nodes, stores and slaves, and what the log warned of. No key, no value and no cookie is there.
///
/// # Errors
/// The address cannot be listened at.
pub async fn serve(program: &Arc<Program>, address: SocketAddr) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let listening = listener.local_addr()?;
    let loopback = listening.ip().is_loopback();
    let site = Site { program: Arc::clone(program), history: History::default(), loopback };
    program.node().spawn(accept_all(Arc::new(site), listener));
    Ok(listening)
}

async fn accept_all(site: Arc<Site>, listener: TcpListener) {
    let node = site.program.node();
    node.spawn(history::sample(Arc::clone(&site)));
    let open: Arc<Mutex<Open>> = Arc::default();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                tracing::debug!(%from, "HTTP connection");
                let place = Place::take(&open);
                node.spawn(connection(Arc::clone(&site), stream, place));
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that are open, oldest first. What is sent here is never used: dropped, it ends its connection.
#[derive(Default)]
struct Open {
    next: u64,
    connections: VecDeque<(u64, Sender<()>)>,
}

/// The place of a connection among those that are open. It is taken where the connection is accepted, since tasks begin in any order.
struct Place {
    open: Arc<Mutex<Open>>,
    number: u64,
    closed: Receiver<()>,
}

impl Place {
    fn take(open: &Arc<Mutex<Open>>) -> Self {
        let (close, closed) = smol::channel::bounded::<()>(1);
        let mut known = open.lock();
        if known.connections.len() >= CONNECTIONS_MAX {
            known.connections.pop_front();
        }
        known.next += 1;
        let number = known.next;
        known.connections.push_back((number, close));
        drop(known);
        Self { open: Arc::clone(open), number, closed }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.lock().connections.retain(|(other, _)| *other != self.number);
    }
}

async fn connection(site: Arc<Site>, stream: TcpStream, place: Place) {
    let service = service_fn(|request| {
        let answer = routes::answer(&site, &request);
        async { Ok::<_, Infallible>(answer) }
    });
    let served = async {
        let served = http1::Builder::new()
            .timer(SmolTimer::new())
            .header_read_timeout(HEAD_DURATION_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(FuturesIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "HTTP connection ended");
        }
    };
    let made_room = async {
        // Only its end is ever received.
        while place.closed.recv().await.is_ok() {}
    };
    let _late = within(CONNECTION_DURATION_MAX, served.or(made_room)).await;
}
