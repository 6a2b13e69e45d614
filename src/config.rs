//! The settings of a node: every limit, interval and default that a user may want otherwise, units in the names.
//!
//! A plain value: the command line or a library user fills it in, nothing below reads the environment. The program's stores
//! have theirs in [`program::Config`](crate::program::Config).
//!
//! # Limits that are not here
//!
//! Others are constants beside what they bound, with their unit and why they are as they are. They are not for users, and are
//! of these kinds:
//!
//! - **Of the protocol**: what the external term format, the distribution protocol, epmd or OTP say, such as 255 characters of an
//!   atom (`etf/split.rs`), or 5 s, which `GenServer.call/2` waits (`node/peers/whereis.rs`). Another figure would be wrong.
//! - **Of an algorithm**: how far it looks, how often it tries, how much it takes at a time, such as 64 effects between two that
//!   are carried out (`node/link/connection.rs`). They were measured, or do not matter; what they bound is bounded for its user
//!   by a limit from here.
//! - **Against misuse**: how much is kept of what nobody needs much of, such as 1,024 locks of one node's processes
//!   (`process/global_name_server.rs`) or 64 slaves of a store (`kv/slaves.rs`). Far above what is used and far below what
//!   would hurt: at them something is refused, in words.
//! - **For the eye**: how much of something is shown or logged, and how often.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::distribution::{Cookie, NodeAt, NodeName, NodePattern};

/// Methods of builders, each of which sets one field.
macro_rules! with_each {
    ($type:ty: $($method:ident = $field:ident: $kind:ty),+ $(,)?) => {
        impl $type {
            $(
                #[doc = concat!("The same, with another [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $method(mut self, $field: $kind) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}
pub(crate) use with_each;

pub mod tls;

pub use tls::{TlsConfig, TlsSide, TlsVerify, TlsVersion};

/// Everything that a node is started with: for [`Node::start_with`](crate::Node::start_with) and the program. A
/// [`NodeBuilder`](crate::NodeBuilder) takes names and cookies as they are typed, and fills this in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The full name, `name@host`.
    pub node_name: NodeName,
    /// The secret of the cluster.
    pub cookie: Cookie,
    /// The address to listen on. `None`, the default: all interfaces, IPv6 and IPv4.
    pub bind: Option<IpAddr>,
    /// The port to listen on. 0, the default: a free one, which epmd tells. Without epmd it is the port of all nodes.
    pub dist_port: u16,
    /// Where epmd is. `None`: the cluster is without epmd, as one of BEAMs with `-erl_epmd_port`. The node registers nowhere,
    /// and finds another at the port that is known of it, else at [`dist_port`](Self::dist_port). The default is
    /// [`EpmdConfig::default`].
    pub epmd: Option<EpmdConfig>,
    /// Nodes to be kept connected. Those with a port are found there, and no epmd is asked for them. The
    /// default is none.
    pub connect: Vec<NodeAt>,
    /// The nodes that may connect, and be connected to; with none said, all that know the cookie. Those of `connect`
    /// need not be said. The default is none.
    pub allow: Vec<NodePattern>,
    /// Seconds after which a silent peer is down. The default is 60, as Erlang's is.
    pub net_ticktime_secs: u32,
    /// Whether large messages go in fragments, so that small ones pass them by
    /// ([`FRAGMENTS`](crate::distribution::DistributionFlags::FRAGMENTS)). The default is `true`.
    pub fragments: bool,
    /// TLS to every other node, as with `-proto_dist inet_tls`. `None`, the default: TCP.
    pub tls: Option<TlsConfig>,
    /// The bounds on what peers may use. Each has a default.
    pub limits: Limits,
}

impl Config {
    /// Erlang's `net_ticktime` where nothing else is said, in seconds.
    pub const NET_TICKTIME_SECS: u32 = 60;

    /// A node of this name in the cluster of this cookie; all else has its default.
    pub fn new(node_name: NodeName, cookie: Cookie) -> Self {
        Self {
            node_name,
            cookie,
            bind: None,
            dist_port: 0,
            epmd: Some(EpmdConfig::default()),
            connect: Vec::new(),
            allow: Vec::new(),
            net_ticktime_secs: Self::NET_TICKTIME_SECS,
            fragments: true,
            tls: None,
            limits: Limits::default(),
        }
    }

    /// The same, that listens on this address alone.
    #[must_use]
    pub fn with_bind(self, bind: IpAddr) -> Self {
        Self { bind: Some(bind), ..self }
    }

    /// The same, with epmd there.
    #[must_use]
    pub fn with_epmd(self, epmd: EpmdConfig) -> Self {
        Self { epmd: Some(epmd), ..self }
    }

    /// The same in a cluster without epmd.
    #[must_use]
    pub fn without_epmd(self) -> Self {
        Self { epmd: None, ..self }
    }

    /// The same, with TLS to every other node.
    #[must_use]
    pub fn with_tls(self, tls: TlsConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Whether a node may be connected with, as far as its name decides.
    pub fn allows(&self, node: &NodeName) -> bool {
        self.allow.is_empty()
            || self.allow.iter().any(|pattern| pattern.matches(node))
            || self.connect.iter().any(|kept| kept.name == *node)
    }
}

with_each! { Config:
    with_dist_port = dist_port: u16,
    with_connect = connect: Vec<NodeAt>,
    with_allow = allow: Vec<NodePattern>,
    with_net_ticktime_secs = net_ticktime_secs: u32,
    with_fragments = fragments: bool,
    with_limits = limits: Limits,
}

/// Where epmd is, and who starts it.
///
/// ```
/// use kvnode::config::EpmdConfig;
///
/// let epmd = EpmdConfig::default().with_port(4370).with_start(false);
/// assert_eq!(epmd.port, 4370);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EpmdConfig {
    /// Port of every epmd that is asked, `ERL_EPMD_PORT`. The default is 4369, as Erlang's is.
    pub port: u16,
    /// Address of the local one: the first of `ERL_EPMD_ADDRESS`. The default is the loopback.
    pub address: IpAddr,
    /// Whether an epmd is started where none answers. The default is `true`.
    pub start: bool,
    /// A program that leaves an epmd behind when it is run with `epmd --daemon`, for machines without Erlang's: the
    /// `kvnode` program, which sets itself here. `None`, the default: Erlang's only.
    pub own_program: Option<PathBuf>,
}

impl EpmdConfig {
    /// The port that every Erlang node asks when nothing else is said.
    pub const PORT: u16 = 4369;
}

impl Default for EpmdConfig {
    fn default() -> Self {
        Self { port: Self::PORT, address: IpAddr::V4(Ipv4Addr::LOCALHOST), start: true, own_program: None }
    }
}

with_each! { EpmdConfig:
    with_port = port: u16,
    with_address = address: IpAddr,
    with_start = start: bool,
    with_own_program = own_program: Option<PathBuf>,
}

/// How a server is named, as in `GenServer.server/0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerName {
    /// `{:global, name}` with an atom as name.
    Global(String),
    /// A name registered on this node.
    Local(String),
}

impl ServerName {
    /// `{:global, name}`.
    pub fn global(name: &str) -> Self {
        Self::Global(name.to_owned())
    }

    /// A name registered on this node, as `GenServer.call({:name, node}, …)` finds it.
    pub fn local(name: &str) -> Self {
        Self::Local(name.to_owned())
    }
}

/// What is bounded, and by how much. What happens at a bound is said at each, with its unit and its default.
///
/// ```no_run
/// use kvnode::Node;
/// use kvnode::config::Limits;
///
/// let limits = Limits::default().with_mailbox_messages_max(1_000).with_peers_max(16);
/// let node = Node::builder("rust").limits(limits).start()?;
/// # Ok::<(), kvnode::StartError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Largest message, in bytes, that is taken: a larger one is thrown away as it comes, and the call that it was ends with
    /// `{:system_limit, text}` (a cast is dropped, as the log says). The default is 160 MiB, which lets a value of 64 MiB
    /// through, beside its key.
    pub frame_bytes_max: usize,
    /// Bytes of memory that large values have left and that is kept for the next ones while there are some. The
    /// default is 32 MiB.
    pub spare_bytes_max: usize,
    /// Bytes of messages of which a peer has sent some fragments and not all: past it the newest of them is thrown away as
    /// it comes, as one over `frame_bytes_max` is. One message as large as that is let through whatever this says. Memory is
    /// taken as the bytes arrive. The default is 1 GiB, which lets the processes of one node send sixteen values of 64 MiB at once.
    pub unfinished_bytes_max: usize,
    /// Messages of which a peer has sent some fragments and not all: past it the connection ends. What is thrown
    /// away counts too. A BEAM has at most one for each of its processes that send something large. The default is 65,536.
    pub unfinished_messages_max: usize,
    /// Bytes of answers that wait for a peer before its calls wait for room: the one answer that exceeds it is the last. A
    /// value that a store has anyway is not counted. A value that is overwritten while it waits stays in memory until it
    /// has left: a peer that reads slowly may so keep everything that it has asked for. The calls that wait are bounded by
    /// `held_bytes_max`: past it a call ends with
    /// `{:system_limit, :busy_dist_port}`, and a peer for which twice as much waits of small answers alone loses its
    /// connection. Reading goes on all the while. As much again, and one message more, may wait of what others send to it,
    /// answers that come later among them: a sender of more waits for room, or is told that there is none. (Were the two
    /// counted together, a peer that reads a large value would lose what comes meanwhile.) The default is 8 MiB.
    pub outbound_bytes_max: usize,
    /// A peer that takes nothing for so long of what waits for it is disconnected. The default is 30 s.
    pub output_stall_max: Duration,
    /// A set-up in which the other side's next packet takes longer is ended, and so is one in which TCP or all of TLS does.
    /// The
    /// default is 7 s, Erlang's own bound (kernel, `net_setuptime`).
    pub handshake_step_duration_max: Duration,
    /// For how long a peer that claims the name of a connected node waits for the end of that connection, before the peer is
    /// told that it is connected already. The default is 100 ms.
    pub reconnect_pause: Duration,
    /// A set-up that takes longer, from the connection to the last packet of the handshake, with TLS between the two, is
    /// ended. The default is 10 s.
    pub handshake_duration_max: Duration,
    /// Monitors and links that one peer may have here: past this number the connection ends. The default is 262,144.
    /// The tables of so many monitors and links are 30 MB.
    pub watches_max: usize,
    /// Messages that wait for one server with a mailbox ([`Server`](crate::Server)), and bytes of them: past either, a
    /// call ends at once with `{:system_limit, "…"}`, and a cast or other message is dropped and counted in the log.
    /// (A connection is not slowed down for it: what comes by it may be what the server waits for.) The default is 100,000.
    pub mailbox_messages_max: usize,
    /// Bytes of these messages, see [`mailbox_messages_max`](Self::mailbox_messages_max). The default is 64 MiB.
    pub mailbox_bytes_max: usize,
    /// How long a server with a mailbox may take to end when the node ends: past it the rest is done without it.
    /// The default is 5 s.
    pub shutdown_duration_max: Duration,
    /// How long each [`Resource`](crate::node::Resource), a store's disk for instance, may take to settle when the node ends: past
    /// it the rest is done without it. A disk that is busy with a large batch takes seconds. The default is 60 s.
    pub settle_duration_max: Duration,
    /// Bytes of one peer's waiting messages: those to suspended processes (`:sys.suspend/1`), and calls whose answers have
    /// no room yet, with what their places in the tables take. Past it calls end with a reason, and casts and other messages
    /// are dropped. The default is 64 MiB, which lets a dozen calls with values of 5 MiB each wait at a node that relays them.
    pub held_bytes_max: usize,
    /// Largest state, in bytes, that `:sys.get_state/1` shows whole: a larger one is shown as a summary. The default is
    /// 4 MiB.
    pub state_bytes_max: usize,
    /// Restarts of one supervised process ([`Node::supervise`](crate::Node::supervise)) in
    /// [`restart_period`](Self::restart_period): past it the next restart waits until there is room again. The default is 3, as
    /// Elixir's is.
    pub restarts_max: usize,
    /// The time in which [`restarts_max`](Self::restarts_max) are counted. The default is 5 s, as Elixir's is.
    pub restart_period: Duration,
    /// Busy connections that get a thread of their own; any more share the executor's. The default is 64.
    pub connection_threads_max: usize,
    /// Connections that have not proved the cookie: past it the oldest of the address that has the most is closed. The
    /// default is 1,024.
    pub handshakes_max: usize,
    /// The same of one address (of one network of 64 bits, for IPv6): past it the oldest of that address is closed. A
    /// peer that has the cookie is through long before; an idle connection makes room. The default is 256.
    pub handshakes_per_address_max: usize,
    /// Wrong digests of one address that are answered in a second: the others wait for their turn to be refused. Those of
    /// 5 seconds are looked at at once; past them a digest is not looked at before so many of them were answered, and past
    /// those of another 5 seconds not at all. Right ones do not count. 0 counts as 1. The default is 10.
    pub digests_per_sec_max: u32,
    /// What comes of a handshake again and again is logged once for each address in so much time. The default is 60 s.
    pub handshake_log_interval: Duration,
    /// Nodes that are connected at once: past it no other may connect. The default is 4,096.
    pub peers_max: usize,
    /// Nodes that are being connected to at once because something is to be sent to them: past it what is sent to others
    /// is dropped. The default is 64.
    pub dials_max: usize,
    /// First pause between tries to reach a peer, epmd or a name; doubled each time, with jitter, up to
    /// [`backoff_max`](Self::backoff_max). The default is 200 ms.
    pub backoff_first: Duration,
    /// Longest pause between such tries, see [`backoff_first`](Self::backoff_first). The default is 10 s.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 160 << 20,
            spare_bytes_max: 32 << 20,
            unfinished_bytes_max: 1 << 30,
            unfinished_messages_max: 64 << 10,
            outbound_bytes_max: 8 << 20,
            output_stall_max: Duration::from_secs(30),
            handshake_step_duration_max: Duration::from_secs(7),
            reconnect_pause: Duration::from_millis(100),
            handshake_duration_max: Duration::from_secs(10),
            watches_max: 1 << 18,
            mailbox_messages_max: 100_000,
            mailbox_bytes_max: 64 << 20,
            shutdown_duration_max: Duration::from_secs(5),
            settle_duration_max: Duration::from_secs(60),
            held_bytes_max: 64 << 20,
            state_bytes_max: 4 << 20,
            restarts_max: 3,
            restart_period: Duration::from_secs(5),
            connection_threads_max: 64,
            handshakes_max: 1024,
            handshakes_per_address_max: 256,
            digests_per_sec_max: 10,
            handshake_log_interval: Duration::from_secs(60),
            peers_max: 4096,
            dials_max: 64,
            backoff_first: Duration::from_millis(200),
            backoff_max: Duration::from_secs(10),
        }
    }
}

with_each! { Limits:
    with_frame_bytes_max = frame_bytes_max: usize,
    with_spare_bytes_max = spare_bytes_max: usize,
    with_unfinished_bytes_max = unfinished_bytes_max: usize,
    with_unfinished_messages_max = unfinished_messages_max: usize,
    with_outbound_bytes_max = outbound_bytes_max: usize,
    with_output_stall_max = output_stall_max: Duration,
    with_handshake_step_duration_max = handshake_step_duration_max: Duration,
    with_reconnect_pause = reconnect_pause: Duration,
    with_handshake_duration_max = handshake_duration_max: Duration,
    with_watches_max = watches_max: usize,
    with_mailbox_messages_max = mailbox_messages_max: usize,
    with_mailbox_bytes_max = mailbox_bytes_max: usize,
    with_shutdown_duration_max = shutdown_duration_max: Duration,
    with_settle_duration_max = settle_duration_max: Duration,
    with_held_bytes_max = held_bytes_max: usize,
    with_state_bytes_max = state_bytes_max: usize,
    with_restarts_max = restarts_max: usize,
    with_restart_period = restart_period: Duration,
    with_connection_threads_max = connection_threads_max: usize,
    with_handshakes_max = handshakes_max: usize,
    with_handshakes_per_address_max = handshakes_per_address_max: usize,
    with_digests_per_sec_max = digests_per_sec_max: u32,
    with_handshake_log_interval = handshake_log_interval: Duration,
    with_peers_max = peers_max: usize,
    with_dials_max = dials_max: usize,
    with_backoff_first = backoff_first: Duration,
    with_backoff_max = backoff_max: Duration,
}
