//! What waits: sockets, tries, checks. [`members`](super::members), [`following`](super::following) and
//! [`term`](super::term) decide.

mod body;
mod checks;
mod connection;
mod lease;
mod pages;
mod probe;
mod thread;
mod tls;
mod token;
mod tries;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use prost::bytes::Bytes;
use smol::channel::{Receiver, Sender};

pub use lease::Lease;
pub use pages::Pages;
pub use probe::{MemberPage, own_certificate_end};
pub use watch::{Watch, WatchEvent};

use super::config::Endpoint;
use super::frame::framed;
use super::members::{Members, Pauses};
use super::message::{Answer, Call, Effect, RangeRequest};
use super::{Config, ConfigError, Error, WatchOptions};
use connection::Connection;
use thread::Thread;
use token::Token;

/// A client of one etcd. Clones are the same client; with the last of them, and of its watches and leases, its thread and its
/// connections end.
#[derive(Clone)]
pub struct Etcd(Arc<Inner>);

/// How a request is asked, where it is not as usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// How long it may take in all. `None`: [`Config::deadline`].
    pub deadline: Option<Duration>,
    /// What it does. `None`: what such a request does at the most ([`Call::effect`]). A transaction whose conditions can hold once
    /// alone is [`Effect::Guarded`].
    pub effect: Option<Effect>,
}

struct Inner {
    config: Config,
    endpoints: Vec<Endpoint>,
    /// A connection to each endpoint, or none. While a connection is made, the requests that want it wait for the lock.
    connections: Vec<smol::lock::Mutex<Option<Connection>>>,
    members: Mutex<Members>,
    /// Closed, and made anew, when a member is good again.
    good_again: Mutex<Latch>,
    /// Tells the checks that something is due earlier.
    poke: Sender<()>,
    token: smol::lock::Mutex<Token>,
    /// The cluster of the first answer; 0: there was none yet.
    cluster: AtomicU64,
    thread: Thread,
}

/// Closed when what is waited for has come.
struct Latch {
    _hold: Sender<()>,
    wait: Receiver<()>,
}

impl Latch {
    fn new() -> Self {
        let (hold, wait) = smol::channel::bounded(1);
        Self { _hold: hold, wait }
    }
}

impl Etcd {
    /// Makes a client, which begins to connect. It waits for no member: the first request does.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration, its files for TLS included; or that no thread can be started.
    pub fn connect(config: Config) -> Result<Self, ConfigError> {
        let config = config.within_bounds();
        let endpoints = config.endpoints()?;
        if endpoints.iter().any(|endpoint| endpoint.is_tls) {
            tls::connector(&config.tls, tls::HTTP2)?;
        }
        let pauses = Pauses {
            check_interval: config.check_interval,
            away_pause: config.away_pause,
            away_pause_max: config.away_pause_max,
        };
        let (poke, poked) = smol::channel::bounded(1);
        let inner = Arc::new(Inner {
            connections: endpoints.iter().map(|_| smol::lock::Mutex::new(None)).collect(),
            members: Mutex::new(Members::new(endpoints.len(), pauses, now())),
            good_again: Mutex::new(Latch::new()),
            poke,
            token: smol::lock::Mutex::new(Token::Wanted),
            cluster: AtomicU64::new(0),
            thread: Thread::start().map_err(ConfigError::Thread)?,
            config,
            endpoints,
        });
        inner.thread.spawner().spawn(checks::run(Arc::downgrade(&inner), poked));
        Ok(Self(inner))
    }

    /// Asks, as such a request is asked.
    ///
    /// # Errors
    ///
    /// See [`Error`]; within [`Config::deadline`].
    #[doc(hidden)]
    pub async fn call<C: Call>(&self, request: &C) -> Result<C::Answer, Error> {
        self.call_with(request, Ask::default()).await
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// See [`Error`]; within the deadline.
    #[doc(hidden)]
    pub async fn call_with<C: Call>(&self, request: &C, ask: Ask) -> Result<C::Answer, Error> {
        let deadline = now() + ask.deadline.unwrap_or(self.0.config.deadline).min(Config::DURATION_MAX);
        let bytes_max = self.0.config.request_bytes_max;
        let bytes = request.encoded_len();
        if bytes > bytes_max {
            return Err(Error::TooLarge { bytes, bytes_max: Some(bytes_max) });
        }
        let frame = framed(request).ok_or(Error::TooLarge { bytes, bytes_max: Some(bytes_max) })?;
        let effect = ask.effect.unwrap_or_else(|| request.effect());
        // The future of a caller is moved by what starts it as a task, and a thread's stack is small.
        let answer = Box::pin(self.0.ask(C::PATH, frame, effect, deadline)).await?;
        self.0.read(answer)
    }

    /// The entries of a range page by page in the order of keys, all of one revision: that of the request, or the newest at the
    /// first page. Limit and order of the request say nothing.
    #[doc(hidden)]
    pub fn pages(&self, range: RangeRequest) -> Pages {
        Pages::new(self.clone(), range)
    }

    /// Watches. The watch asks for its stream when its first event is waited for.
    #[doc(hidden)]
    pub fn watch(&self, options: WatchOptions) -> Watch {
        Watch::new(self.clone(), options)
    }

    /// Makes a lease of so many seconds, and keeps it until the lease is dropped.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    #[doc(hidden)]
    pub async fn lease(&self, ttl: Duration) -> Result<Lease, Error> {
        Lease::grant(self, ttl).await
    }

    /// Bytes of a request at most ([`Config::request_bytes_max`]).
    #[doc(hidden)]
    pub fn request_bytes_max(&self) -> usize {
        self.0.config.request_bytes_max
    }

    /// The endpoints that it was made with.
    pub fn endpoints(&self) -> &[String] {
        &self.0.config.endpoints
    }

    /// Which members are asked at present, in the order of the endpoints.
    #[doc(hidden)]
    pub fn good_members(&self) -> Vec<bool> {
        use super::members::Standing;
        let members = self.0.members.lock();
        members.standings().map(|standing| matches!(standing, Standing::Good { .. })).collect()
    }
}

impl Inner {
    /// Reads an answer, in bounds.
    fn read<A: Answer>(&self, answer: Bytes) -> Result<A, Error> {
        let bytes_max = self.config.message_bytes_max;
        let answer: A = decode(answer, A::SHAPE, bytes_max)?;
        if let Some(header) = answer.header() {
            self.note_cluster(header.cluster_id)?;
        }
        Ok(answer)
    }
}

/// Reads a message in bounds.
fn decode<M: Message + Default>(
    bytes: Bytes,
    shape: &'static super::message::Shape,
    bytes_max: usize,
) -> Result<M, Error> {
    use super::message::Misshapen;
    shape.check(&bytes).map_err(|misshapen| match misshapen {
        Misshapen::TooManyEntries => Error::AnswerTooLarge { bytes_max },
        Misshapen::NotProtobuf => Error::Malformed { reason: "its message cannot be read" },
    })?;
    M::decode(bytes).map_err(|_| Error::Malformed { reason: "its message cannot be read" })
}

#[expect(clippy::disallowed_methods, reason = "the clock of all that is in this folder")]
fn now() -> Instant {
    Instant::now()
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("endpoints", &self.0.config.endpoints).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_and_connections_end_with_the_last_of_the_client() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there are ports");
        let etcd =
            Etcd::connect(Config::new([format!("http://{}", listener.local_addr().unwrap())])).unwrap();
        let watch = etcd.watch(WatchOptions::key("k"));
        // It is connected to, and says nothing.
        let connected = smol::block_on(etcd.0.connection(0));
        assert!(connected.is_ok());
        let (mut stream, _) = listener.accept().unwrap();
        let runs = etcd.0.thread.spawner();
        drop((etcd, connected));
        assert!(runs.is_running());
        drop(watch);
        // The client's socket is closed: all is read, and then the end.
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
        while runs.is_running() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn futures_are_small_where_they_are_made() {
        let etcd = Etcd::connect(Config::new(["http://127.0.0.1:1"])).unwrap();
        let range = RangeRequest::default();
        let mut watch = etcd.watch(WatchOptions::key("k"));
        let mut pages = etcd.pages(RangeRequest::default());
        let bytes = [
            size_of_val(&etcd.call(&range)),
            size_of_val(&etcd.lease(Duration::from_secs(1))),
            size_of_val(&watch.next()),
            size_of_val(&pages.next()),
        ];
        assert!(bytes.iter().all(|bytes| *bytes <= 16 << 10), "{bytes:?}");
    }

    #[test]
    fn times_without_end_and_without_length_are_bounded() {
        let mut config = Config::new(["http://127.0.0.1:1"]);
        config.deadline = Duration::MAX;
        config.check_interval = Duration::MAX;
        config.away_pause = Duration::ZERO;
        let etcd = Etcd::connect(config).unwrap();
        let ask = Ask { deadline: Some(Duration::ZERO), effect: None };
        let refused = smol::block_on(etcd.call_with(&RangeRequest::default(), ask));
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    }
}
